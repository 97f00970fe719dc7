"""REST on the Kubernetes API: objects as JSON values, failover between servers, definite and indefinite
errors told apart.

A read goes on to the next server until one answers. A write does so only while nothing was sent: once the
answer is missing it may have happened, and repeating it could report our own success as a conflict, so the
caller gets `IndefiniteApiError` and re-reads. 429 and 503 say "not done": both are tried again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple
from urllib.parse import urlencode

import orjson
import structlog
import trio

from raftkube.api.status import ApiError
from raftkube.client.endpoints import PODS, Endpoint, Object
from raftkube.client.errors import FencingTokenStale, IndefiniteApiError, Unreachable, error_of
from raftkube.client.servers import Servers
from raftkube.client.transport import Transport
from raftkube.client.watch import WatchStream
from raftkube.clock import Clock
from raftkube.net import Address, Network, TlsFiles
from raftkube.net.http_client import ClientResponse, ConnectError, HttpClient, HttpClientError
from raftkube.rng import Rng

log = structlog.get_logger(__name__)

PATCH_TYPES: Final = {
    "json": "application/json-patch+json",
    "merge": "application/merge-patch+json",
    "strategic": "application/strategic-merge-patch+json",
    "apply": "application/apply-patch+yaml",
}
FENCING_HEADER: Final = "Raftkube-Fencing-Token"

_READS: Final = frozenset(("GET", "HEAD"))
_REFUSALS_MAX: Final = 10  # client-go's maxRetries
_RETRY_AFTER_MAX_S: Final = 5.0
_BUSY: Final = (429, 503)


class ObjectList(NamedTuple):
    """What a list gave: the objects, and the resourceVersion to watch from."""

    items: list[Object]
    resource_version: str


@dataclass(eq=False, slots=True)
class FencingToken:
    """The create revision of the Lease under which its holder writes. `stale` is set by the first write
    that a server refuses because somebody else holds the Lease now."""

    value: str
    stale: trio.Event = field(default_factory=trio.Event)


class RestClient:
    """A client of one cluster; any number of tasks may use it at once.

    Every method raises ApiError: as the server answered, or `Unreachable` (definite) or
    `IndefiniteApiError`. Cancelled: a write may have happened.
    """

    def __init__(
        self,
        transports: Sequence[Transport],
        *,
        user_agent: str,
        clock: Clock,
        rng: Rng,
        headers: Mapping[str, str] | None = None,
        attempt_timeout_s: float = 10.0,
    ) -> None:
        """attempt_timeout_s: how long one server may take for one answer before it counts as gone."""
        self._servers = Servers(transports, first=rng.randrange(len(transports)))
        self._clock = clock
        self._rng = rng
        self._headers = {"Accept": "application/json", "User-Agent": user_agent, **(headers or {})}
        self._attempt_timeout_s = attempt_timeout_s
        self._token: FencingToken | None = None

    @classmethod
    def connect(
        cls,
        network: Network,
        servers: Sequence[Address],
        tls: TlsFiles | None,
        *,
        user_agent: str,
        clock: Clock,
        rng: Rng,
        bearer_token: str | None = None,
    ) -> RestClient:
        """A client of the real servers at these addresses; connections are made when first needed."""
        headers = {} if bearer_token is None else {"Authorization": f"Bearer {bearer_token}"}
        transports = [HttpClient(network, address, tls) for address in servers]
        return cls(transports, user_agent=user_agent, clock=clock, rng=rng, headers=headers)

    def fenced(self, token: FencingToken) -> RestClient:
        """The same client, whose writes carry `token` and set `token.stale` when it is refused."""
        other = self._copy()
        other._token = token
        return other

    def impatient(self, attempt_timeout_s: float) -> RestClient:
        """The same client, which gives up on a silent server after so many seconds."""
        other = self._copy()
        other._attempt_timeout_s = attempt_timeout_s
        return other

    def _copy(self) -> RestClient:
        other = RestClient.__new__(RestClient)
        other.__dict__.update(self.__dict__)
        return other

    # Objects --------------------------------------------------------------------------------

    async def get(self, endpoint: Endpoint, name: str, namespace: str = "") -> Object:
        """The object, fresh (linearizable)."""
        return await self.request("GET", endpoint.path(namespace, name))

    async def list(
        self,
        endpoint: Endpoint,
        namespace: str = "",
        *,
        label_selector: str = "",
        field_selector: str = "",
        resource_version: str = "",
        limit: int = 0,
    ) -> ObjectList:
        """All objects (of one namespace, or of all). limit: objects a page; the pages are put together."""
        query = {
            "labelSelector": label_selector,
            "fieldSelector": field_selector,
            "resourceVersion": resource_version,
            "limit": str(limit) if limit else "",
        }
        items: list[Object] = []
        while True:
            page = await self.request("GET", endpoint.path(namespace), query=query)
            items += page.get("items") or ()
            metadata = page.get("metadata") or {}
            if not (more := metadata.get("continue")):
                break
            query = query | {"continue": more, "resourceVersion": ""}
        for item in items:  # upstream's lists leave both out of their items
            item.setdefault("apiVersion", endpoint.api_version)
            item.setdefault("kind", endpoint.kind)
        return ObjectList(items, str(metadata.get("resourceVersion", "")))

    def watch(
        self,
        endpoint: Endpoint,
        namespace: str = "",
        *,
        resource_version: str = "",
        label_selector: str = "",
        field_selector: str = "",
        timeout_s: int = 0,
    ) -> WatchStream:
        """`async with client.watch(…) as events: async for event in events: …`, bookmarks included.

        Iterating ends when the server ends the watch; it raises `Unreachable` when the server went away
        or fell silent, and ApiError for an ERROR event (410 Expired: list again).
        """
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": resource_version,
            "labelSelector": label_selector,
            "fieldSelector": field_selector,
            "timeoutSeconds": str(timeout_s) if timeout_s else "",
        }
        target = _target(endpoint.path(namespace), query)
        return WatchStream(self._servers, target, self._header_list(), self._clock, self._attempt_timeout_s)

    async def create(self, endpoint: Endpoint, obj: Object) -> Object:
        """Create `obj` in its metadata.namespace; the object as stored."""
        return await self.request("POST", endpoint.path(_namespace(obj)), body=obj)

    async def update(self, endpoint: Endpoint, obj: Object, *, subresource: str = "") -> Object:
        """Replace; a resourceVersion in `obj` is a precondition (409 Conflict)."""
        path = endpoint.path(_namespace(obj), obj["metadata"]["name"], subresource)
        return await self.request("PUT", path, body=obj)

    async def update_status(self, endpoint: Endpoint, obj: Object) -> Object:
        """Replace the status."""
        return await self.update(endpoint, obj, subresource="status")

    async def patch(
        self,
        endpoint: Endpoint,
        name: str,
        patch: Any,
        namespace: str = "",
        *,
        type: str = "merge",
        subresource: str = "",
        query: Mapping[str, str] | None = None,
    ) -> Object:
        """Patch; `type` is one of PATCH_TYPES."""
        path = endpoint.path(namespace, name, subresource)
        return await self.request(
            "PATCH", path, body=patch, content_type=PATCH_TYPES[type], query=query or {}
        )

    async def delete(
        self,
        endpoint: Endpoint,
        name: str,
        namespace: str = "",
        *,
        uid: str = "",
        resource_version: str = "",
        propagation: str = "",
        grace_period_s: int | None = None,
    ) -> Object:
        """Delete, if uid and resourceVersion still are what is given (409 Conflict); the object (it waits
        for finalizers or a grace period) or a Status."""
        options: Object = {"kind": "DeleteOptions", "apiVersion": "v1"}
        preconditions = {"uid": uid, "resourceVersion": resource_version}
        if given := {name: value for name, value in preconditions.items() if value}:
            options["preconditions"] = given
        if propagation:
            options["propagationPolicy"] = propagation
        if grace_period_s is not None:
            options["gracePeriodSeconds"] = grace_period_s
        return await self.request("DELETE", endpoint.path(namespace, name), body=options)

    async def bind(self, pod: Object, node: str) -> Object:
        """Assign `pod` (its uid is a precondition) to `node`, through pods/binding; a Status."""
        metadata = pod["metadata"]
        binding = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {key: metadata[key] for key in ("namespace", "name", "uid")},
            "target": {"apiVersion": "v1", "kind": "Node", "name": node},
        }
        path = PODS.path(metadata["namespace"], metadata["name"], "binding")
        return await self.request("POST", path, body=binding)

    # Requests -------------------------------------------------------------------------------

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        content_type: str = "application/json",
    ) -> Object:
        """One request, its answer decoded. Empty values in `query` are left out."""
        reply = await self.exchange(
            method,
            _target(path, query or {}),
            body=b"" if body is None else orjson.dumps(body),
            headers=(("Content-Type", content_type),) if body is not None else (),
        )
        try:
            decoded = orjson.loads(reply.body)
        except orjson.JSONDecodeError as error:
            raise _unclear(method, f"{method} {path}: the answer is not JSON") from error
        if not isinstance(decoded, dict):
            raise _unclear(method, f"{method} {path}: the answer is not a JSON object")
        return decoded

    async def exchange(
        self, method: str, target: str, *, body: bytes = b"", headers: Sequence[tuple[str, str]] = ()
    ) -> ClientResponse:
        """One request with failover and retries; its answer as bytes (logs, metrics)."""
        write = method not in _READS
        all_headers = (*self._header_list(write=write), *headers)
        unreached = refused = 0
        while True:
            server = self._servers.current()
            try:
                reply = await self._attempt(server, method, target, all_headers, body)
            except ConnectError as error:
                unreached += 1
                if unreached >= len(self._servers):
                    raise Unreachable(f"{method} {target}: {error}") from error
                continue
            except (HttpClientError, trio.TooSlowError) as error:
                unreached += 1
                if write or unreached >= len(self._servers):
                    why = str(error) or f"no answer within {self._attempt_timeout_s:g} s"
                    raise _unclear(method, f"{method} {target}: {why}") from error
                continue
            if reply.status < 400:
                return reply
            error_reply = error_of(reply, write=write)
            refused += 1
            if reply.status not in _BUSY or refused >= _REFUSALS_MAX:
                raise self._noted(error_reply)
            await self._wait_out(server, error_reply, refused)

    async def _attempt(
        self, server: int, method: str, target: str, headers: Sequence[tuple[str, str]], body: bytes
    ) -> ClientResponse:
        """Raises HttpClientError or TooSlowError; then the next server is the current one."""
        try:
            with trio.fail_after(self._attempt_timeout_s):
                reply = await self._servers.transport(server).request(
                    method, target, headers=headers, body=body
                )
        except (HttpClientError, trio.TooSlowError) as error:
            self._servers.failed(server)
            log.debug("server_failed", server=server, method=method, target=target, error=str(error))
            raise
        self._servers.heard(server, self._clock.monotonic())
        return reply

    async def _wait_out(self, server: int, error: ApiError, refused: int) -> None:
        """Before a refused request is tried again: elsewhere at once if there is an elsewhere, else when
        the server said."""
        if error.code == 503:
            self._servers.failed(server)
            if refused < len(self._servers):
                return
        asked = 1.0 if error.retry_after_s is None else float(error.retry_after_s)
        await trio.sleep(min(asked, _RETRY_AFTER_MAX_S) * self._rng.uniform(0.5, 1.0))

    def _noted(self, error: ApiError) -> ApiError:
        if isinstance(error, FencingTokenStale) and self._token is not None:
            self._token.stale.set()
        return error

    def _header_list(self, *, write: bool = False) -> tuple[tuple[str, str], ...]:
        headers = tuple(self._headers.items())
        if write and self._token is not None:
            headers += ((FENCING_HEADER, self._token.value),)
        return headers


def _unclear(method: str, message: str) -> ApiError:
    """An answer that is missing or makes no sense: nothing happened if it was a read."""
    if method in _READS:
        return Unreachable(message)
    return IndefiniteApiError(504, "Timeout", message)


def _target(path: str, query: Mapping[str, str]) -> str:
    given = {name: value for name, value in query.items() if value}
    return f"{path}?{urlencode(given)}" if given else path


def _namespace(obj: Object) -> str:
    return str(obj["metadata"].get("namespace") or "")
