"""The door of every simulated API server: requests are written down, and faults of a server happen here.

A patch of `Router.handle` from outside, for one run. Which server it is says the task's host.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final

import orjson

from chaos.recording import MemoryRecorder
from chaos.sim.trio_private import HOST
from raftkube.api.status import ApiError
from raftkube.apiserver.fencing import TOKEN_HEADER
from raftkube.apiserver.router import Router
from raftkube.net.http import AnyResponse, Request

REQUEST: ContextVar[int] = ContextVar("REQUEST", default=0)
_READS: Final = frozenset(("GET", "HEAD"))
Hook = Callable[[str, Request], None]


class ApiDoor:
    """Writes an operation of kind `api` for every request that is not a read. `before` and `after` are told
    of each (server, request), `after` once it is carried out and not yet answered; what they raise is the
    answer."""

    def __init__(self, recorder: MemoryRecorder) -> None:
        self._recorder = recorder
        self._count = 0
        self.before: list[Hook] = []
        self.after: list[Hook] = []

    async def through(
        self, request: Request, handle: Callable[[Request], Awaitable[AnyResponse]]
    ) -> AnyResponse:
        """What `handle` answers."""
        if request.method in _READS:
            return await handle(request)
        self._count += 1
        number, server = self._count, HOST.get()
        record = self._record(number, server, request)
        token = REQUEST.set(number)
        try:
            for hook in tuple(self.before):
                hook(server, request)
            response = await handle(request)
            record["outcome"], record["response"] = "ok", {"code": getattr(response, "status", 101)}
            for hook in tuple(self.after):
                hook(server, request)
            return response
        except ApiError as error:
            record["response"] = {"code": error.code, "reason": error.reason}
            if record["outcome"] == "unknown" and error.code < 500:
                record["outcome"] = "fail"
            raise
        finally:
            REQUEST.reset(token)
            record["return_ns"] = self._recorder.now_ns()
            self._recorder.write(record)

    def _record(self, number: int, server: str, request: Request) -> dict[str, Any]:
        user = request.peer.common_name if request.peer is not None else ""
        asked: dict[str, Any] = {"server": server, "user": user, "method": request.method}
        asked["path"] = request.path
        if token := request.headers.get(TOKEN_HEADER):
            asked["token"] = token
            asked["process"] = request.peer.names[0] if request.peer and request.peer.names else ""
        if request.method == "DELETE":
            asked["preconditions"] = _preconditions(request.body)
        return {
            "type": "op", "client": 0, "id": number, "kind": "api", "request": asked, "error": None,
            "call_ns": self._recorder.now_ns(), "outcome": "unknown",
        }  # fmt: skip


def _preconditions(body: bytes) -> dict[str, str]:
    try:
        found = orjson.loads(body or b"{}").get("preconditions") or {}
    except (orjson.JSONDecodeError, AttributeError):
        return {}
    return {name: str(value) for name, value in found.items()}


@contextmanager
def watched_doors(door: ApiDoor) -> Iterator[None]:
    """Every API server of this process answers through `door` while the context lasts."""
    original = Router.handle

    async def handle(self: Router, request: Request) -> AnyResponse:
        return await door.through(request, lambda asked: original(self, asked))

    Router.handle = handle  # type: ignore[method-assign]
    try:
        yield
    finally:
        Router.handle = original  # type: ignore[method-assign]
