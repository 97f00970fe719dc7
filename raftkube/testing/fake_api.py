"""A small API server as an object, for tests of clients and control loops: no bytes, no schema, no
validation, but the real thing's rules of resourceVersion, watch, preconditions, Leases and fencing, and
faults on request. Several "servers" are doors to one state; each can be down or silent.

Not the product's API server: that one runs in-process over the memory storage, where behaviour counts.
"""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import orjson
import trio

from raftkube.api import status
from raftkube.api.status import ApiError
from raftkube.client.endpoints import Endpoint, Object
from raftkube.client.leader_election import FENCING_TOKEN_ANNOTATION, STORE_LEASE_ANNOTATION
from raftkube.client.rest import FENCING_HEADER, RestClient
from raftkube.clock import Clock, SystemClock
from raftkube.net.http_client import ClientResponse, ConnectError, ResponseLost
from raftkube.rng import Rng, seeded_rng, uid

Key = tuple[str, str, str, str]  # group, plural, namespace, name
CONTROL_LEASES: Mapping[str, str] = {
    "system:kube-scheduler": "kube-scheduler",
    "system:kube-controller-manager": "kube-controller-manager",
}


@dataclass(slots=True)
class Call:
    """One request as the fake saw it."""

    method: str
    group: str
    plural: str
    namespace: str
    name: str
    subresource: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any
    user: str
    server: int

    @property
    def key(self) -> Key:
        return (self.group, self.plural, self.namespace, self.name)


@dataclass(slots=True)
class _Change:
    revision: int
    type: str
    key: Key
    object: Object
    before: Object | None


@dataclass(slots=True)
class Server:
    """One door. down: connections are refused and streams break; silent: nothing is answered."""

    down: bool = False
    silent: bool = False


@dataclass(slots=True)
class FakeApi:
    """The state and its doors. `intercept(call)` may raise ApiError, ConnectError or ResponseLost, before
    anything happens; `after(call)` the same after it happened (an answer that is lost)."""

    clock: Clock = field(default_factory=SystemClock)
    servers: list[Server] = field(default_factory=lambda: [Server(), Server()])
    intercept: Callable[[Call], None] = lambda call: None
    after: Callable[[Call], None] = lambda call: None
    calls: list[Call] = field(default_factory=list)
    revision: int = 1
    compacted: int = 0
    fences: bool = True
    cuts: int = 0
    objects: dict[Key, Object] = field(default_factory=dict)
    created: dict[Key, int] = field(default_factory=dict)
    log: list[_Change] = field(default_factory=list)
    expires: dict[Key, float] = field(default_factory=dict)
    changed: trio.lowlevel.ParkingLot = field(default_factory=trio.lowlevel.ParkingLot)
    rng: Rng = field(default_factory=lambda: seeded_rng(7))

    # For tests ------------------------------------------------------------------------------

    def client(self, *, user: str = "kubernetes-admin", seed: int = 0) -> RestClient:
        """A client of all servers under this identity."""
        doors = [_Door(self, number, user) for number in range(len(self.servers))]
        return RestClient(doors, user_agent="test", clock=self.clock, rng=seeded_rng(seed))

    def put(self, endpoint: Endpoint, obj: Object) -> Object:
        """Create or replace, as somebody else would; the object as stored."""
        metadata = obj["metadata"]
        key = (endpoint.group, endpoint.plural, metadata.get("namespace", ""), metadata["name"])
        obj.setdefault("apiVersion", endpoint.api_version)
        obj.setdefault("kind", endpoint.kind)
        return self._store(key, copy.deepcopy(obj))

    def remove(self, endpoint: Endpoint, name: str, namespace: str = "") -> None:
        """Delete, as somebody else would."""
        self._remove((endpoint.group, endpoint.plural, namespace, name))

    def find(self, endpoint: Endpoint, name: str, namespace: str = "") -> Object | None:
        """The object as stored."""
        return self.objects.get((endpoint.group, endpoint.plural, namespace, name))

    def all(self, endpoint: Endpoint) -> list[Object]:
        """Every object of this resource."""
        return [o for k, o in self.objects.items() if k[:2] == (endpoint.group, endpoint.plural)]

    def bookmark(self) -> None:
        """Tell every watch how far the state is."""
        self.log.append(_Change(self.revision, "BOOKMARK", ("", "", "", ""), {}, None))
        self.changed.unpark_all()

    def compact(self) -> None:
        """Forget the past: watches and lists from before now get 410."""
        self.compacted = self.revision

    def break_watches(self) -> None:
        """Cut every open stream; new ones are welcome."""
        self.cuts += 1
        self.changed.unpark_all()

    async def expire_leases(self) -> None:
        """Delete Leases whose holders have stopped renewing; runs until cancelled."""
        while True:
            now = self.clock.monotonic()
            for key in [key for key, due in self.expires.items() if due <= now]:
                self._remove(key)
            with trio.move_on_after(max(0.0, min(self.expires.values(), default=now + 1) - now)):
                await self.changed.park()

    # Requests -------------------------------------------------------------------------------

    def handle(self, call: Call) -> Object:
        """Carry out one request that is not a watch."""
        self.calls.append(call)
        self.intercept(call)
        if call.method == "GET":
            answer = self._get(call) if call.name else self._list(call)
        else:
            self._check_fence(call)
            writes = {"POST": self._post, "PUT": self._put, "PATCH": self._patch, "DELETE": self._delete}
            answer = writes[call.method](call)
        self.after(call)
        return _with_token(answer, self.created.get(call.key)) if call.plural == "leases" else answer

    def _get(self, call: Call) -> Object:
        if call.key not in self.objects:
            raise status.not_found(call.group, call.plural, call.name)
        return self.objects[call.key]

    def _list(self, call: Call) -> Object:
        items = [obj for key, obj in self.objects.items() if _in_scope(call, key) and _selected(call, obj)]
        return {"kind": "List", "metadata": {"resourceVersion": str(self.revision)}, "items": items}

    def _post(self, call: Call) -> Object:
        if call.subresource == "binding":
            return self._bind(call)
        obj = call.body
        metadata = obj["metadata"]
        if not metadata.get("name"):
            metadata["name"] = metadata["generateName"] + f"{self.revision:05d}"
        call.name = metadata["name"]
        if call.key in self.objects:
            raise status.already_exists(call.group, call.plural, call.name)
        metadata["uid"] = uid(self.rng)
        return self._store(call.key, obj)

    def _put(self, call: Call) -> Object:
        old = self._get(call)
        asked = call.body["metadata"].get("resourceVersion")
        if asked and asked != old["metadata"]["resourceVersion"]:
            raise status.conflict(call.group, call.plural, call.name, status.OBJECT_MODIFIED)
        new = call.body
        if call.subresource == "status":
            new = old | {"status": call.body.get("status", {})}
        new["metadata"] = new["metadata"] | {"uid": old["metadata"]["uid"]}
        return self._store(call.key, new)

    def _patch(self, call: Call) -> Object:
        return self._store(call.key, _merge(self._get(call), call.body))

    def _delete(self, call: Call) -> Object:
        old = self._get(call)
        for name, value in ((call.body or {}).get("preconditions") or {}).items():
            if old["metadata"][name] != value:
                raise status.conflict(call.group, call.plural, call.name, f"the {name} in the precondition")
        self._remove(call.key)
        return {"kind": "Status", "apiVersion": "v1", "status": "Success"}

    def _bind(self, call: Call) -> Object:
        pod = self._get(call)
        if pod["metadata"]["uid"] != call.body["metadata"].get("uid", pod["metadata"]["uid"]):
            raise status.conflict("", "pods", call.name, "the uid in the precondition")
        if pod["spec"].get("nodeName"):
            raise status.conflict("", "pods", call.name, "pod is already assigned to a node")
        spec = pod["spec"] | {"nodeName": call.body["target"]["name"]}
        self._store(call.key, pod | {"spec": spec})
        return {"kind": "Status", "apiVersion": "v1", "status": "Success"}

    def _check_fence(self, call: Call) -> None:
        lease = CONTROL_LEASES.get(call.user)
        key = ("coordination.k8s.io", "leases", "kube-system", lease or "")
        own = (call.group, call.plural) == key[:2] and call.name in (lease, "")
        if not self.fences or lease is None or own:  # what elects is exempt
            return
        if str(self.created.get(key, "")) != call.headers.get(FENCING_HEADER):
            raise status.conflict(
                call.group, call.plural, call.name, f"the fencing token of kube-system/{lease} is stale",
                causes=[{"reason": "FencingTokenStale", "message": f"kube-system/{lease}"}],
            )  # fmt: skip

    def _store(self, key: Key, obj: Object) -> Object:
        before = self.objects.get(key)
        obj = copy.deepcopy(obj)
        self.revision += 1
        obj["metadata"].setdefault("uid", before["metadata"]["uid"] if before else uid(self.rng))
        obj["metadata"]["resourceVersion"] = str(self.revision)
        self.objects[key] = obj
        if before is None:
            self.created[key] = self.revision
        if (obj["metadata"].get("annotations") or {}).get(STORE_LEASE_ANNOTATION) == "true":
            self.expires[key] = self.clock.monotonic() + obj["spec"]["leaseDurationSeconds"]
        self._log("MODIFIED" if before else "ADDED", key, obj, before)
        return obj

    def _remove(self, key: Key) -> None:
        before = self.objects.pop(key)
        self.created.pop(key, None)
        self.expires.pop(key, None)
        self.revision += 1
        last = copy.deepcopy(before)
        last["metadata"]["resourceVersion"] = str(self.revision)
        self._log("DELETED", key, last, before)

    def _log(self, type: str, key: Key, obj: Object, before: Object | None) -> None:
        self.log.append(_Change(self.revision, type, key, obj, before))
        self.changed.unpark_all()


@dataclass(slots=True)
class _Door:
    """A Transport to one server under one identity."""

    api: FakeApi
    number: int
    user: str

    async def request(
        self, method: str, target: str, *, headers: Iterable[tuple[str, str]] = (), body: bytes = b""
    ) -> ClientResponse:
        await self._knock()
        if target == "/livez":
            return ClientResponse(200, {}, b"ok")
        try:
            answer = self.api.handle(self._call(method, target, headers, body))
        except ApiError as error:
            return _refusal(error)
        return ClientResponse(200, {}, orjson.dumps(answer))

    @asynccontextmanager
    async def stream(
        self, method: str, target: str, *, headers: Iterable[tuple[str, str]] = (), body: bytes = b""
    ) -> AsyncIterator[FakeStream]:
        await self._knock()
        call = self._call(method, target, headers, body)
        self.api.calls.append(call)
        try:
            self.api.intercept(call)
        except ApiError as error:
            yield FakeStream(self.api, self, call, _refusal(error))
        else:
            yield FakeStream(self.api, self, call, None)

    def server(self) -> Server:
        return self.api.servers[self.number]

    async def _knock(self) -> None:
        await trio.lowlevel.checkpoint()
        if self.server().down:
            raise ConnectError(f"server {self.number} refused the connection")
        while self.server().silent:
            await self.api.changed.park()

    def _call(
        self, method: str, target: str, headers: Iterable[tuple[str, str]], body: bytes
    ) -> Call:  # fmt: skip
        url = urlsplit(target)
        parts = [unquote(part) for part in url.path.strip("/").split("/")]
        group, rest = ("", parts[2:]) if parts[0] == "api" else (parts[1], parts[3:])
        namespace = ""
        if rest[0] == "namespaces" and len(rest) > 2:
            namespace, rest = rest[1], rest[2:]
        name, subresource = [*rest[1:], "", ""][:2]
        decoded = orjson.loads(body) if body else None
        query = dict(parse_qsl(url.query))
        return Call(
            method, group, rest[0], namespace, name, subresource, query, dict(headers), decoded,
            self.user, self.number,
        )  # fmt: skip


class FakeStream:
    """The body of a watch: events of the log after resourceVersion (which it must have)."""

    def __init__(self, api: FakeApi, door: _Door, call: Call, refusal: ClientResponse | None) -> None:
        self.status = refusal.status if refusal else 200
        self.headers: dict[str, str] = {}
        self._refusal = refusal
        self._api = api
        self._door = door
        self._call = call
        self._revision = int(call.query.get("resourceVersion") or 0)
        self._next = 0
        self._expired_told = False
        self._cuts = api.cuts

    def __aiter__(self) -> FakeStream:
        return self

    async def __anext__(self) -> bytes:
        await trio.lowlevel.checkpoint()
        if self._refusal is not None:
            return self._refuse()
        while True:
            if self._door.server().down or self._cuts != self._api.cuts:
                raise ResponseLost("the watch broke off")
            if self._revision < self._api.compacted and not self._next:
                return self._expired()
            if not self._door.server().silent and (line := self._advance()):
                return line
            await self._api.changed.park()

    def _refuse(self) -> bytes:
        assert self._refusal is not None
        body, self._refusal.body = self._refusal.body, b""
        if not body:
            raise StopAsyncIteration
        return body

    def _expired(self) -> bytes:
        if self._expired_told:
            raise StopAsyncIteration
        self._expired_told = True
        return _line("ERROR", status.expired("too old resource version").status())

    def _advance(self) -> bytes:
        lines = []
        while self._next < len(self._api.log):
            change = self._api.log[self._next]
            self._next += 1
            if change.revision > self._revision or change.type == "BOOKMARK":
                lines.append(self._encode(change))
                self._revision = max(self._revision, change.revision)
        return b"".join(lines)

    def _encode(self, change: _Change) -> bytes:
        if change.type == "BOOKMARK":
            return _line("BOOKMARK", {"metadata": {"resourceVersion": str(change.revision)}})
        if not _in_scope(self._call, change.key):
            return b""
        was = change.before is not None and _selected(self._call, change.before)
        now = change.type != "DELETED" and _selected(self._call, change.object)
        if not was and not now:
            return b""
        return _line("MODIFIED" if was and now else "ADDED" if now else "DELETED", change.object)


def _line(type: str, obj: Object) -> bytes:
    return orjson.dumps({"type": type, "object": obj}) + b"\n"


def _refusal(error: ApiError) -> ClientResponse:
    headers = {} if error.retry_after_s is None else {"retry-after": str(error.retry_after_s)}
    return ClientResponse(error.code, headers, orjson.dumps(error.status()))


def _in_scope(call: Call, key: Key) -> bool:
    same = key[:2] == (call.group, call.plural)
    return same and (not call.namespace or key[2] == call.namespace)


def _selected(call: Call, obj: Object) -> bool:
    labels = obj["metadata"].get("labels") or {}
    return all(labels.get(k) == v for k, v in _terms(call.query.get("labelSelector", ""))) and all(
        _dig(obj, path) == value for path, value in _terms(call.query.get("fieldSelector", ""))
    )


def _terms(selector: str) -> list[tuple[str, str]]:
    pairs = [term.partition("=") for term in selector.split(",") if term]
    return [(name, value) for name, _, value in pairs]


def _dig(obj: Any, path: str) -> str:
    for part in path.split("."):
        obj = obj.get(part) if isinstance(obj, dict) else None
    return "" if obj is None else str(obj)


def _merge(old: Any, patch: Any) -> Any:
    """JSON merge patch (RFC 7396)."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(old) if isinstance(old, dict) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = _merge(merged.get(name), value)
    return merged


def _with_token(obj: Object, created: int | None) -> Object:
    annotations = (obj.get("metadata") or {}).get("annotations") or {}
    if created is None or annotations.get(STORE_LEASE_ANNOTATION) != "true":
        return obj
    told = annotations | {FENCING_TOKEN_ANNOTATION: str(created)}
    return obj | {"metadata": obj["metadata"] | {"annotations": told}}
