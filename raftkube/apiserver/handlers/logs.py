"""pods/log: the kubelet of the pod's node has the text; it is passed on as it comes.

Source: pkg/registry/core/pod/strategy.go (LogLocation), pkg/registry/core/pod/rest/log.go.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Final
from urllib.parse import quote, urlencode

import orjson

from raftkube.api import fields
from raftkube.api.objects import items, section
from raftkube.api.registry import find
from raftkube.api.resource import Object
from raftkube.api.status import FieldError, bad_request, invalid, not_found, unavailable
from raftkube.apiserver.call import Call
from raftkube.apiserver.core.query import flag, integer
from raftkube.net.http import AnyResponse, BodySender, Response, StreamResponse
from raftkube.net.http_client import ClientStream, HttpClientError

_TEXT: Final = "text/plain"
_DEFAULT_CONTAINER: Final = "kubectl.kubernetes.io/default-container"
_FLAGS: Final = ("follow", "previous", "timestamps")
_NUMBERS_MIN: Final = {"tailLines": 0, "limitBytes": 1, "sinceSeconds": 1}
_ERROR_BYTES_MAX: Final = 4_096


async def log(call: Call) -> AnyResponse:
    """GET of a container's log."""
    stored = await call.parts.store.read(call.resource, call.info.namespace, call.info.name)
    query = _query(call)
    container = _container(stored.obj, call.params.get("container", ""))
    node_name = section(stored.obj, "spec").get("nodeName")
    if not node_name or call.request.method == "HEAD":
        return Response(200, b"", _TEXT)
    node = _node(call, str(node_name))
    path = "/".join(map(quote, (call.info.namespace, call.info.name, container)))
    target = f"/containerLogs/{path}" + (f"?{query}" if query else "")
    return await _pass_on(call, node, target)


async def _pass_on(call: Call, node: Object, target: str) -> AnyResponse:
    stack = AsyncExitStack()
    try:
        stream = await stack.enter_async_context(call.parts.kubelets.of(node).stream("GET", target))
        if stream.status != 200:
            text = _said(await stream.read(_ERROR_BYTES_MAX))
            await stack.aclose()
            if stream.status == 404:
                return Response(404, text.encode(), _TEXT)
            raise bad_request(text) if stream.status < 500 else unavailable(text)
    except HttpClientError as error:
        raise unavailable(
            f"the kubelet of node {node['metadata']['name']} was not reached: {error}"
        ) from error

    async def run(sender: BodySender) -> None:
        async with stack:
            await _copy(stream, sender)

    return StreamResponse(200, run, _TEXT)


def _said(body: bytes) -> str:
    """A kubelet's refusal: the message of its Status, else its plain text."""
    try:
        status = orjson.loads(body)
    except orjson.JSONDecodeError:
        return body.decode("utf-8", "replace").strip()
    message = status.get("message") if isinstance(status, dict) else None
    return message if isinstance(message, str) else body.decode("utf-8", "replace").strip()


async def _copy(stream: ClientStream, sender: BodySender) -> None:
    async for data in stream:
        await sender.send(data)


def _node(call: Call, name: str) -> Object:
    resource = find("", "v1", "nodes")
    assert resource is not None
    found = call.parts.cache.of(resource).get(resource.key("", name).encode())
    if found is None:
        raise not_found("", "nodes", name)
    return found.obj


def _container(pod: Object, asked: str) -> str:
    spec = section(pod, "spec")
    names = [item["name"] for item in items(spec, "containers")]
    every = [*names, *(item["name"] for item in items(spec, "initContainers"))]
    name = pod["metadata"]["name"]
    if asked:
        if asked not in every:
            raise bad_request(f"container {asked} is not valid for pod {name}")
        return asked
    default = (pod["metadata"].get("annotations") or {}).get(_DEFAULT_CONTAINER)
    if default in names:
        return str(default)
    if len(names) == 1:
        return str(names[0])
    listed = " ".join(every)
    raise bad_request(f"a container name must be specified for pod {name}, choose one of: [{listed}]")


def _query(call: Call) -> str:
    """The options that kubelets know, checked. Raises ApiError 400 or 422."""
    params: dict[str, str] = {name: "true" for name in _FLAGS if flag(call.params, name)}
    errors: list[FieldError] = []
    for name, lowest in _NUMBERS_MIN.items():
        number = integer(call.params, name)
        if number is None:
            continue
        if number < lowest:
            errors.append(fields.invalid(name, number, f"must be greater than or equal to {lowest}"))
        params[name] = str(number)
    since = call.params.get("sinceTime")
    if since and "sinceSeconds" in params:
        text = "at most one of `sinceTime` or `sinceSeconds` may be specified"
        errors.append(fields.forbidden("sinceSeconds", text))
    if since:
        params["sinceTime"] = since
    if errors:
        raise invalid("", "PodLogOptions", call.info.name, errors)
    return urlencode(params)
