"""One watch on one server: a stream of events that notices when the server has fallen silent.

A paused server, or a network that drops everything, leaves a TCP connection standing. Bookmarks come too
rarely to tell, so an idle watch asks the same server for /livez, as client-go does with HTTP/2 pings.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Final, NamedTuple

import orjson
import trio

from raftkube.api.status import ApiError
from raftkube.client.endpoints import Object
from raftkube.client.errors import Unreachable, error_of, from_status
from raftkube.client.servers import Servers
from raftkube.client.transport import ReplyStream
from raftkube.clock import Clock
from raftkube.net.http_client import ClientResponse, HttpClientError

_IDLE_S: Final = 5.0  # silence after which the server is asked whether it lives
_ERROR_BYTES_MAX: Final = 65_536


class WatchEvent(NamedTuple):
    """`type` is ADDED, MODIFIED, DELETED or BOOKMARK; of a bookmark only metadata.resourceVersion counts."""

    type: str
    object: Object


class WatchStream:
    """An async context manager that is its own iterator of WatchEvent; one task uses it."""

    def __init__(
        self,
        servers: Servers,
        target: str,
        headers: Sequence[tuple[str, str]],
        clock: Clock,
        attempt_timeout_s: float,
    ) -> None:
        self._servers = servers
        self._target = target
        self._headers = headers
        self._clock = clock
        self._attempt_timeout_s = attempt_timeout_s
        self._stack = AsyncExitStack()
        self._lines = _Lines()
        self._server = -1
        self._chunks: AsyncIterator[bytes]

    async def __aenter__(self) -> WatchStream:
        """Raises Unreachable (every server was tried), or ApiError as a server answered."""
        for left in reversed(range(len(self._servers))):
            self._server = self._servers.current()
            try:
                await self._open()
                return self
            except (HttpClientError, trio.TooSlowError) as error:
                self._servers.failed(self._server)
                if not left:
                    raise Unreachable(f"GET {self._target}: {str(error) or 'no answer'}") from error
        raise AssertionError("a client has at least one server")

    async def _open(self) -> None:
        transport = self._servers.transport(self._server)
        with trio.fail_after(self._attempt_timeout_s):
            reply = await self._stack.enter_async_context(
                transport.stream("GET", self._target, headers=self._headers)
            )
        self._servers.heard(self._server, self._clock.monotonic())
        if reply.status != 200:
            error = await _read_error(reply)
            await self._stack.aclose()
            if error.code == 503:
                self._servers.failed(self._server)
            raise error
        self._chunks = reply.__aiter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.__aexit__(kind, error, trace)  # noqa: ASYNC102  # it only closes what was opened

    def __aiter__(self) -> WatchStream:
        return self

    async def __anext__(self) -> WatchEvent:
        while (line := self._lines.next()) is None:
            chunk = await self._next_chunk()
            self._servers.heard(self._server, self._clock.monotonic())
            self._lines.feed(chunk)
        event = _decode(line)
        if event.type == "ERROR":
            raise from_status(event.object)
        return event

    async def _next_chunk(self) -> bytes:
        try:
            while True:
                with trio.move_on_after(_IDLE_S):
                    return await self._chunks.__anext__()
                await self._check_alive()
        except (HttpClientError, trio.TooSlowError) as error:
            self._servers.failed(self._server)
            raise Unreachable(f"watch {self._target}: {str(error) or 'the server fell silent'}") from error

    async def _check_alive(self) -> None:
        """Ask the server for a sign of life, unless somebody had one lately."""
        if self._servers.silent_for(self._server, self._clock.monotonic()) < _IDLE_S:
            return
        with trio.fail_after(self._attempt_timeout_s):
            await self._servers.transport(self._server).request("GET", "/livez", headers=self._headers)
        self._servers.heard(self._server, self._clock.monotonic())


class _Lines:
    """Splits a byte stream at newlines."""

    def __init__(self) -> None:
        self._ready: list[bytes] = []
        self._rest = b""

    def feed(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        self._ready = [line for line in reversed(lines) if line.strip()]

    def next(self) -> bytes | None:
        return self._ready.pop() if self._ready else None


def _decode(line: bytes) -> WatchEvent:
    try:
        event = orjson.loads(line)
        return WatchEvent(event["type"], event["object"])
    except (orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise Unreachable(f"the watch sent {line[:80]!r}, which is not an event") from error


async def _read_error(reply: ReplyStream) -> ApiError:
    body = b""
    async for chunk in reply:
        body += chunk
        if len(body) > _ERROR_BYTES_MAX:
            break
    return error_of(ClientResponse(reply.status, reply.headers, body), write=False)
