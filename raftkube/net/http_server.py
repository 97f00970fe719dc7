"""HTTP/1.1 over connections: one request at a time, streams that notice when the client goes.

Each connection is a task: read a request, run the handler, send its answer, again. While a streamed answer
runs, a second task reads, so that the client's leaving ends the stream at once. Chunks are handed to the
connection whole, so a cancelled stream can still be ended cleanly.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from http import HTTPStatus
from itertools import accumulate
from typing import Final

import orjson
import structlog
import trio

from raftkube.api.status import ApiError, internal_error
from raftkube.clock import Clock, SystemClock
from raftkube.net import Address, Connection, Listener, PeerIdentity
from raftkube.net.http import AnyResponse, Handler, Request, Response, StreamResponse, UpgradeResponse
from raftkube.net.http_parser import HttpLimits, Parsed, RequestParser, http_error, to_request

__all__ = ["HttpLimits", "error_response", "serve_http"]

log = structlog.get_logger(__name__)

_READ_BYTES: Final = 65_536
_SEND_BYTES: Final = 262_144
_LINGER_S: Final = 0.5
_NO_BODY: Final = frozenset((204, 304))
_PHRASES: Final = {int(status): status.phrase for status in HTTPStatus}
# Who may speak at all: None, or the answer to a stranger.
Admit = Callable[[PeerIdentity | None], Response | None]
_CONNECTION_ENDED = (trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError)


def error_response(error: ApiError) -> Response:
    """`error` as a metav1.Status, with Retry-After where it says when."""
    headers = [] if error.retry_after_s is None else [("Retry-After", str(error.retry_after_s))]
    return Response(error.code, orjson.dumps(error.status()), headers=headers)


async def serve_http(
    listener: Listener,
    handler: Handler,
    *,
    limits: HttpLimits = HttpLimits(),  # noqa: B008  frozen
    stop: trio.Event | None = None,
    clock: Clock = SystemClock(),  # noqa: B008  stateless
    admit: Admit | None = None,
    task_status: trio.TaskStatus[Address] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Answer requests with `handler` until cancelled, or until `stop` is set and all in flight is done.

    A handler's ApiError becomes its Status; any other exception is logged and becomes a 500 Status. After
    `stop`: no new connections, idle ones are closed, streams are cancelled and ended cleanly, requests in
    flight are answered within `limits.drain_timeout_s`. Whom `admit` refuses gets its answer before a byte
    of a request is looked at.
    """
    server = _Server(handler, limits, clock, admit)
    accepting = trio.CancelScope()
    try:
        async with trio.open_nursery() as nursery:
            with accepting:
                if stop is not None:
                    nursery.start_soon(_drain_at, stop, server, accepting, nursery.cancel_scope)
                task_status.started(listener.address)
                while True:
                    nursery.start_soon(server.connection, await listener.accept())
    finally:
        with trio.move_on_after(2, shield=True):
            await listener.aclose()


async def _drain_at(
    stop: trio.Event, server: _Server, accepting: trio.CancelScope, everything: trio.CancelScope
) -> None:
    await stop.wait()
    accepting.cancel()
    everything.deadline = trio.current_time() + server.limits.drain_timeout_s
    server.drain()


class _Close(Exception):
    """This connection is over."""


@dataclass(slots=True)
class _Server:
    handler: Handler
    limits: HttpLimits
    clock: Clock
    admit: Admit | None = None
    draining: bool = False
    _interruptible: set[trio.CancelScope] = field(default_factory=set)  # idle reads and streams
    _date: tuple[int, bytes] = (0, b"")

    def drain(self) -> None:
        self.draining = True
        for scope in self._interruptible:
            scope.cancel()

    @contextmanager
    def until_drain(self) -> Iterator[trio.CancelScope]:
        """A scope that a drain cancels."""
        with trio.CancelScope() as scope:
            if self.draining:
                scope.cancel()
            self._interruptible.add(scope)
            try:
                yield scope
            finally:
                self._interruptible.discard(scope)

    def date(self) -> bytes:
        now = int(self.clock.wall())
        if self._date[0] != now:
            self._date = (now, formatdate(now, usegmt=True).encode("ascii"))
        return self._date[1]

    async def connection(self, connection: Connection) -> None:
        try:
            await connection.handshake()
            conversation = _Conversation(self, connection)
            refusal = None if self.admit is None else self.admit(connection.peer)
            await (conversation.run() if refusal is None else conversation.refuse(refusal))
            with trio.move_on_after(1):
                await connection.aclose()
        except _CONNECTION_ENDED as error:
            log.debug("connection_ended", error=str(error) or type(error).__name__)
        except Exception:  # the boundary: one bad connection never kills a server
            log.exception("connection_failed")
        finally:
            connection.abort()


class _Conversation:
    """The requests of one connection."""

    def __init__(self, server: _Server, connection: Connection) -> None:
        self._server = server
        self._limits = server.limits
        self._connection = connection
        self._parser = RequestParser(server.limits)

    async def run(self) -> None:
        try:
            while True:
                parsed = await self._next()
                await self._answer(parsed)
        except _Close:
            return

    async def refuse(self, refusal: Response) -> None:
        """Answer without reading, and end."""
        await self._send_response(refusal, close=True)
        await self._linger()

    async def _next(self) -> Parsed:
        """The next complete request; what cannot be one is answered, and ends the connection."""
        parser = self._parser
        try:
            while not parser.requests:
                if parser.error is not None:
                    raise parser.error
                if parser.head is not None:
                    await self._read_body()
                elif parser.started:
                    await self._read_head()
                else:
                    await self._read_first()
        except ApiError as error:
            await self._send_response(error_response(error), close=True)
            if error.code in (413, 431):
                await self._linger()
            raise _Close from error
        return parser.requests.popleft()

    async def _linger(self) -> None:
        """Read on a little: closing on unread bytes would reset the connection and lose the answer."""
        with trio.move_on_after(_LINGER_S):
            for _ in range(256):
                if not await self._connection.receive_some(_READ_BYTES):
                    return

    async def _read_first(self) -> None:
        with self._server.until_drain() as scope:
            scope.deadline = trio.current_time() + self._limits.idle_timeout_s
            data = await self._connection.receive_some(_READ_BYTES)
        if scope.cancelled_caught or not data:
            raise _Close
        self._parser.feed(data)

    async def _read_head(self) -> None:
        with trio.move_on_after(self._limits.header_timeout_s) as scope:
            while self._parser.awaits_head:
                await self._feed()
        if scope.cancelled_caught:
            raise http_error(408, f"the head did not arrive within {self._limits.header_timeout_s:g} s")

    async def _read_body(self) -> None:
        head = self._parser.head
        if head is not None and head.expects_continue:
            await self._connection.send_all(b"HTTP/1.1 100 Continue\r\n\r\n")
        with trio.move_on_after(self._limits.body_timeout_s) as scope:
            while self._parser.awaits_body:
                await self._feed()
        if scope.cancelled_caught:
            raise http_error(408, f"the body did not arrive within {self._limits.body_timeout_s:g} s")

    async def _feed(self) -> None:
        data = await self._connection.receive_some(_READ_BYTES)
        if not data:
            raise _Close
        self._parser.feed(data)

    async def _answer(self, parsed: Parsed) -> None:
        head = parsed.head
        close = self._server.draining or not head.keep_alive or head.upgrade
        response = await self._handle(parsed)
        if isinstance(response, Response):
            close = close or self._server.draining
            await self._send_response(response, close=close, without_body=head.method == "HEAD")
        elif isinstance(response, StreamResponse):
            close = await self._send_stream(response, parsed, close=close)
        else:
            await self._upgrade(response, parsed)
            close = True
        if close:
            raise _Close

    async def _handle(self, parsed: Parsed) -> AnyResponse:
        request: Request | None = None
        try:
            request = to_request(parsed, self._connection.peer)
            request.client_gone = self._client_gone
            return await self._server.handler(request)
        except ApiError as error:
            return error_response(error)
        except Exception:  # the boundary: a bug in a handler is one 500, not the end of the server
            path = request.path if request else parsed.head.target
            log.exception("request_failed", method=parsed.head.method, path=path)
            return error_response(internal_error("the server failed on this request; its log says why"))

    def _client_gone(self) -> bool:
        return self._connection.peer_closed

    def _head(
        self, status: int, content_type: str, headers: list[tuple[str, str]], framing: bytes, *, close: bool
    ) -> bytes:
        lines = [b"HTTP/1.1 %d %b\r\n" % (status, _PHRASES.get(status, "Unknown").encode())]
        if content_type:
            lines.append(b"Content-Type: %b\r\n" % content_type.encode("latin-1"))
        lines.append(b"Date: %b\r\n" % self._server.date())
        lines.append(framing)
        if close:
            lines.append(b"Connection: close\r\n")
        for name, value in headers:
            clean = value.replace("\r", " ").replace("\n", " ")
            lines.append(f"{name}: {clean}\r\n".encode("latin-1", "replace"))
        lines.append(b"\r\n")
        return b"".join(lines)

    async def _send_response(self, response: Response, *, close: bool, without_body: bool = False) -> None:
        bodiless = response.status in _NO_BODY
        framing = b"" if bodiless else b"Content-Length: %d\r\n" % response.size_bytes
        content_type = "" if bodiless else response.content_type
        head = self._head(response.status, content_type, response.headers, framing, close=close)
        with trio.fail_after(self._limits.write_timeout_s):
            if without_body or bodiless:
                await self._connection.send_all(head)
                return
            for data in _sends(head + response.body, response.pieces):
                await self._connection.send_all(data)

    async def _send_stream(self, response: StreamResponse, parsed: Parsed, *, close: bool) -> bool:
        """Send head, stream and last chunk; whether the connection must end."""
        chunked = not parsed.head.http_1_0
        close = close or not chunked
        framing = b"Transfer-Encoding: chunked\r\n" if chunked else b""
        head = self._head(response.status, response.content_type, response.headers, framing, close=close)
        await self._connection.send_all(head)
        if parsed.head.method == "HEAD":
            return True
        gone = await self._run_stream(response, _ChunkSender(self._connection, chunked=chunked))
        if gone:
            return True
        if chunked:
            with trio.fail_after(self._limits.write_timeout_s):
                await self._connection.send_all(b"0\r\n\r\n")
        return close or self._server.draining

    async def _run_stream(self, response: StreamResponse, sender: _ChunkSender) -> bool:
        """Whether the client went away, or the stream broke and must not look complete."""
        gone = failed = False

        async def watch_client() -> None:
            nonlocal gone
            gone = await self._client_leaves()
            if gone:
                nursery.cancel_scope.cancel()

        with self._server.until_drain():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(watch_client)
                try:
                    await response.run(sender)
                except trio.BrokenResourceError:
                    gone = True
                except Exception:  # the boundary: the client must see a cut stream, not a clean end
                    log.exception("stream_failed")
                    failed = True
                nursery.cancel_scope.cancel()
        return gone or failed

    async def _client_leaves(self) -> bool:
        """True when the client has gone; False when it sent so much ahead that reading must pause."""
        ahead = 0
        while ahead < self._limits.header_bytes_max:
            try:
                data = await self._connection.receive_some(_READ_BYTES)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return True
            if not data:
                return True
            ahead += len(data)
            self._parser.feed(data)
        return False

    async def _upgrade(self, response: UpgradeResponse, parsed: Parsed) -> None:
        lines = ["HTTP/1.1 101 Switching Protocols"]
        lines += [f"{name}: {value}" for name, value in response.headers]
        await self._connection.send_all(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))
        with self._server.until_drain():
            await response.run(self._connection, parsed.early)


def _sends(first: bytes, pieces: Sequence[bytes]) -> Iterator[bytes]:
    """`first` and the pieces, joined to sends that caches and socket buffers hold."""
    pieces = [first, *pieces]
    ends = list(accumulate(map(len, pieces)))
    start = sent = 0
    while start < len(pieces):
        cut = bisect_left(ends, sent + _SEND_BYTES, lo=start) + 1
        yield b"".join(pieces[start:cut])
        start, sent = cut, ends[min(cut, len(ends)) - 1]


class _ChunkSender:
    """Chunks go to the connection whole or not at all, so that a cancelled send leaves the framing intact."""

    def __init__(self, connection: Connection, *, chunked: bool) -> None:
        self._connection = connection
        self._chunked = chunked

    def send_nowait(self, data: bytes) -> bool:
        if not data:
            return True  # an empty chunk would end the body
        if self._chunked:
            data = b"%x\r\n%b\r\n" % (len(data), data)
        return self._connection.send_nowait(data)

    async def send(self, data: bytes) -> None:
        while not self.send_nowait(data):
            await self._connection.drain()
        await self._connection.drain()

    @property
    def unsent(self) -> bool:
        return self._connection.unsent

    async def drain(self) -> None:
        await self._connection.drain()
