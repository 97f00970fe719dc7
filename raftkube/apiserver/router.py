"""From a request to its handler: who asks, what for, may they, who answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import orjson
import trio

from raftkube.api import codecs, openapi_v2
from raftkube.api.openapi import OpenApi
from raftkube.api.resource import Resource
from raftkube.api.status import (
    ApiError,
    forbidden,
    method_not_supported,
    path_not_found,
    timeout,
    too_many_requests,
    unavailable,
)
from raftkube.apiserver.admission import refers_to
from raftkube.apiserver.auth import authenticate
from raftkube.apiserver.call import Call, Parts
from raftkube.apiserver.core.authorization import User, authorize
from raftkube.apiserver.core.discovery import Discovery, Document
from raftkube.apiserver.core.query import flag, parse_query
from raftkube.apiserver.core.request_info import RequestInfo, parse_request
from raftkube.apiserver.handlers import delete, logs, read, subresources, watch, write
from raftkube.apiserver.health import Health
from raftkube.apiserver.metrics import Metrics
from raftkube.net.http import AnyResponse, Request, Response

REQUEST_TIMEOUT_S: Final = 30.0
# Upstream's --max-requests-inflight and --max-mutating-requests-inflight; watches count only until they
# have begun.
REQUESTS_IN_FLIGHT_MAX: Final = 600
_PATHS: Final = (
    "/api", "/apis", "/healthz", "/livez", "/metrics", "/openapi/v2", "/openapi/v3", "/readyz", "/version",
)  # fmt: skip
Handler = Callable[[Call], Awaitable[AnyResponse]]


async def _update_status(call: Call) -> AnyResponse:
    return await write.update(call, "status")


async def _patch_status(call: Call) -> AnyResponse:
    return await write.patch(call, "status")


# (subresource, verb); "" is the resource itself.
_HANDLERS: Final[dict[tuple[str, str], Handler]] = {
    ("", "get"): read.get,
    ("", "list"): read.list_,
    ("", "watch"): watch.watch,
    ("", "create"): write.create,
    ("", "update"): write.update,
    ("", "patch"): write.patch,
    ("", "delete"): delete.delete,
    ("", "deletecollection"): delete.delete_collection,
    ("status", "get"): read.get,
    ("status", "update"): _update_status,
    ("status", "patch"): _patch_status,
    ("scale", "get"): subresources.get_scale,
    ("scale", "update"): subresources.update_scale,
    ("scale", "patch"): subresources.patch_scale,
    ("binding", "create"): subresources.bind,
    ("eviction", "create"): subresources.evict,
    ("finalize", "update"): subresources.finalize,
    ("log", "get"): logs.log,
    ("ephemeralcontainers", "get"): read.get,
}


class Router:
    """Answers every request of one API server."""

    def __init__(self, parts: Parts, health: Health, metrics: Metrics, discovery: Discovery) -> None:
        self._parts = parts
        self._health = health
        self._metrics = metrics
        self._discovery = discovery
        self._openapi = OpenApi(parts.catalog)
        self._in_flight = 0

    async def handle(self, request: Request) -> AnyResponse:
        """The answer. Raises ApiError, for the HTTP server to render."""
        params = parse_query(request.query)
        info = parse_request(request.method, request.raw_path, watch=flag(params, "watch"))
        started = self._parts.clock.monotonic()
        code = 500
        self._in_flight += 1
        self._metrics.in_flight(info, 1)
        try:
            user = authenticate(request)
            authorize(user, info)
            if info.is_resource and self._in_flight > REQUESTS_IN_FLIGHT_MAX:
                raise too_many_requests("too many requests are being answered, please try again later", 1)
            response = await self._answer(request, info, user, params)
            code = getattr(response, "status", 101)
            return response
        except ApiError as error:
            code = error.code
            raise
        finally:
            self._in_flight -= 1
            self._metrics.in_flight(info, -1)
            self._metrics.observe(self._known(info), code, self._parts.clock.monotonic() - started)

    async def _answer(
        self, request: Request, info: RequestInfo, user: User, params: dict[str, str]
    ) -> AnyResponse:
        if not info.is_resource:
            return await self._other_path(request, info)
        resource = self._parts.catalog.find(info.group, info.version, info.resource)
        if resource is None:
            raise path_not_found(_asked_for(info))
        if not self._parts.cache.ready.is_set():
            raise unavailable("this server is starting: it has not read the store yet")
        call = Call(self._parts, request, info, resource, user, params)
        handler = self._handler(call)
        await self._check_node_reads(call)
        with trio.move_on_after(REQUEST_TIMEOUT_S):
            return await handler(call)
        raise timeout(f"the request did not complete within {REQUEST_TIMEOUT_S:g} s: read again what it did")

    def _known(self, info: RequestInfo) -> RequestInfo:
        """For metrics: no label may hold what a client made up."""
        resource = self._parts.catalog.find(info.group, info.version, info.resource)
        if info.is_resource and resource is not None and _has_subresource(resource, info.subresource):
            return info
        return RequestInfo(info.verb if info.verb in ("get", "post") else "other", "")

    def _handler(self, call: Call) -> Handler:
        info, resource = call.info, call.resource
        _check_scope(info, resource)
        if not _has_subresource(resource, info.subresource):
            raise path_not_found(_asked_for(info))
        verbs = resource.verbs
        for sub in resource.subresources:
            if sub.name == info.subresource:
                verbs = sub.verbs
        handler = _HANDLERS.get((info.subresource, info.verb))
        named = bool(info.name)
        fits = {"create": named == bool(info.subresource), "update": named, "patch": named}
        if handler is None or info.verb not in verbs or not fits.get(info.verb, True):
            raise method_not_supported(
                resource.group, resource.plural, info.verb, subresource=info.subresource
            )
        return handler

    async def _check_node_reads(self, call: Call) -> None:
        """A kubelet reads only the Secrets and ConfigMaps that its pods name (upstream's node authorizer)."""
        info = call.info
        if not call.user.node or call.resource.plural not in ("secrets", "configmaps"):
            return
        if info.verb == "get" and info.name:
            if self._is_named_by_own_pod(call):
                return
            await read.wait_fresh(call)  # the pod may have been bound through another server just now
            if self._is_named_by_own_pod(call):
                return
        why = f"no relationship found between node '{call.user.node}' and this object"
        raise forbidden("", info.resource, info.name, why)

    def _is_named_by_own_pod(self, call: Call) -> bool:
        pods = self._parts.catalog.find("", "v1", "pods")
        assert pods is not None
        info, prefix = call.info, pods.key_prefix(call.info.namespace).encode()
        return any(
            call.user.owns_node(str(stored.obj["spec"].get("nodeName") or ""))
            and refers_to(stored.obj, info.resource, info.name)
            for stored in self._parts.cache.of(pods).select(prefix)
        )

    async def _other_path(self, request: Request, info: RequestInfo) -> AnyResponse:
        if info.verb not in ("get", "head"):
            raise path_not_found()
        health = await self._health.respond(info.path, request.query)
        if health is not None:
            return health
        if info.path == "/metrics":
            return self._metrics_response()
        if info.path == "/":
            return Response(200, orjson.dumps({"paths": _PATHS}))
        return self._document(request, info)

    def _document(self, request: Request, info: RequestInfo) -> Response:
        accept = request.headers.get("accept")
        if info.path == "/openapi/v2":
            body, content_type = openapi_v2.respond(accept)
            return Response(200, body, content_type)
        if info.path.startswith("/openapi/v3"):
            found = self._openapi.respond(info.path)
            document = Document(found.body, codecs.JSON, found.etag) if found else None
        else:
            document = self._discovery.respond(info.path, accept)
        if document is None:
            raise path_not_found()
        headers = [("ETag", document.etag), ("Vary", "Accept")]
        if request.headers.get("if-none-match") == document.etag:
            return Response(304, headers=headers)
        return Response(200, document.body, document.content_type, headers)

    def _metrics_response(self) -> Response:
        for resource in self._parts.catalog.resources:
            name = f"{resource.plural}.{resource.group}" if resource.group else resource.plural
            self._metrics.set_objects(name, len(self._parts.cache.of(resource)))
        return self._metrics.response()


def _asked_for(info: RequestInfo) -> str:
    """In words, for whoever wonders what is missing: `jobs in batch/v1`, `pods/exec in v1`."""
    name = f"{info.resource}/{info.subresource}" if info.subresource else info.resource
    return f"{name} in {info.group}/{info.version}" if info.group else f"{name} in {info.version}"


def _has_subresource(resource: Resource, name: str) -> bool:
    return not name or any(sub.name == name for sub in resource.subresources)


def _check_scope(info: RequestInfo, resource: Resource) -> None:
    """A namespaced object needs its namespace in the path, a cluster-scoped one has none."""
    is_namespaces = (resource.group, resource.plural) == ("", "namespaces")
    if resource.namespaced:
        if not info.namespace and (info.name or info.verb == "create"):
            raise path_not_found()
    elif info.namespace and not is_namespaces:
        raise path_not_found()
