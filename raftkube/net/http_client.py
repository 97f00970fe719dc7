"""HTTP/1.1 to one server over pooled keep-alive connections.

What a caller must know of a failure is whether the server may have acted: `ConnectError` says that nothing
was sent, `ResponseLost` that the answer is missing (indefinite). A kept connection is tested before a
request that must not run twice goes over it; one that may is simply tried again on a new connection.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

import httptools
import trio

from raftkube.errors import ConfigError, RaftkubeError
from raftkube.net import Address, Connection, Network, TlsFiles

_READ_BYTES: Final = 65_536
_IDEMPOTENT: Final = frozenset(("GET", "HEAD", "OPTIONS"))
_BROKEN = (trio.BrokenResourceError, trio.ClosedResourceError)
Headers = Iterable[tuple[str, str]]


class HttpClientError(RaftkubeError):
    """No answer. `definite` tells whether the server certainly did nothing."""

    definite: bool = False


class ConnectError(HttpClientError):
    """The server was not reached; nothing was sent: safe to try again, here or elsewhere."""

    definite = True


class ResponseLost(HttpClientError):
    """Sent, but the answer did not come whole: it may have happened (indefinite)."""


class BadResponse(ResponseLost):
    """The answer broke HTTP or a limit of ours."""


@dataclass(frozen=True, slots=True)
class ClientLimits:
    """What an answer may cost, and how long a connection is kept unused (less than the server's 120 s)."""

    header_bytes_max: int = 262_144
    body_bytes_max: int = 512 * 1024 * 1024
    idle_timeout_s: float = 60.0
    idle_connections_max: int = 16
    connect_timeout_s: float = 10.0


@dataclass(slots=True)
class ClientResponse:
    """A whole answer; header names are lower-case, repeated ones joined by ", "."""

    status: int
    headers: dict[str, str]
    body: bytes


class ClientStream:
    """An answer whose body is still arriving: iterate for its chunks.

    Iterating raises ResponseLost when the stream is cut before its end.
    """

    def __init__(self, exchange: _Exchange) -> None:
        self._exchange = exchange
        self.status = exchange.status
        self.headers = exchange.headers

    def __aiter__(self) -> ClientStream:
        return self

    async def __anext__(self) -> bytes:
        data = await self._exchange.next_body()
        if not data:
            raise StopAsyncIteration
        return data

    async def read(self, bytes_max: int) -> bytes:
        """The rest of the body, cut at `bytes_max`."""
        parts: list[bytes] = []
        size = 0
        async for data in self:
            parts.append(data)
            size += len(data)
            if size >= bytes_max:
                break
        return b"".join(parts)[:bytes_max]


class HttpClient:
    """Connections to `address`; any number of tasks may use it at once."""

    def __init__(
        self,
        network: Network,
        address: Address,
        tls: TlsFiles | None,
        *,
        limits: ClientLimits = ClientLimits(),
    ) -> None:
        self._network = network
        self.address = address
        self._tls = tls
        self._limits = limits
        self._idle: list[tuple[Connection, float]] = []
        self._closed = False

    async def request(
        self, method: str, target: str, *, headers: Headers = (), body: bytes = b""
    ) -> ClientResponse:
        """Send one request and read the whole answer.

        Raises ConnectError (not sent) or ResponseLost (indefinite). Cancelled: indefinite as well.
        """
        async with self._exchange(method, target, headers, body) as exchange:
            parts: list[bytes] = []
            size = 0
            while data := await exchange.next_body():
                parts.append(data)
                size += len(data)
                if size > self._limits.body_bytes_max:
                    raise BadResponse(f"the answer has more than {self._limits.body_bytes_max} bytes")
            return ClientResponse(exchange.status, exchange.headers, b"".join(parts))

    @asynccontextmanager
    async def stream(
        self, method: str, target: str, *, headers: Headers = (), body: bytes = b""
    ) -> AsyncIterator[ClientStream]:
        """Send one request; the answer's head is there on entry, its body comes by iteration.

        Leaving before the end closes the connection. Raises as `request` does.
        """
        async with self._exchange(method, target, headers, body) as exchange:
            yield ClientStream(exchange)

    async def aclose(self) -> None:
        """Close what is kept; requests in flight go on and their connections are not kept."""
        self._closed = True
        idle, self._idle = self._idle, []
        for connection, _ in idle:
            await connection.aclose()

    @asynccontextmanager
    async def _exchange(
        self, method: str, target: str, headers: Headers, body: bytes
    ) -> AsyncIterator[_Exchange]:
        message = _encode(method, target, self.address, headers, body)
        exchange = await self._start(method, message)
        try:
            yield exchange
        finally:
            if exchange.reusable and not self._closed and len(self._idle) < self._limits.idle_connections_max:
                self._idle.append((exchange.connection, trio.current_time()))
            else:
                exchange.connection.abort()

    async def _start(self, method: str, message: bytes) -> _Exchange:
        while (connection := await self._kept(tested=method not in _IDEMPOTENT)) is not None:
            try:
                return await self._send(connection, method, message)
            except ResponseLost:
                if method not in _IDEMPOTENT:
                    raise
        return await self._send(await self._connect(), method, message)

    async def _send(self, connection: Connection, method: str, message: bytes) -> _Exchange:
        exchange = _Exchange(connection, method, self._limits)
        try:
            await exchange.send(message)
            await exchange.read_head()
        except BaseException:
            connection.abort()
            raise
        return exchange

    async def _kept(self, *, tested: bool) -> Connection | None:
        while self._idle:
            connection, since = self._idle.pop()
            fresh = trio.current_time() - since < self._limits.idle_timeout_s
            if fresh and not (tested and await _is_dead(connection)):
                return connection
            connection.abort()
        return None

    async def _connect(self) -> Connection:
        try:
            with trio.fail_after(self._limits.connect_timeout_s):
                return await self._network.connect(self.address, self._tls)
        except trio.TooSlowError as error:
            raise ConnectError(f"{self.address} did not answer") from error
        except (OSError, ConfigError) as error:
            raise ConnectError(f"{self.address} was not reached: {error}") from error


async def _is_dead(connection: Connection) -> bool:
    """Whether the server has closed (or spoken out of turn on) a connection that was kept."""
    dead = False

    async def read() -> None:
        nonlocal dead
        try:
            await connection.receive_some(1)
        except _BROKEN:
            pass
        dead = True

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await trio.lowlevel.checkpoint()
        await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    return dead


def _encode(method: str, target: str, address: Address, headers: Headers, body: bytes) -> bytes:
    lines = [f"{method} {target} HTTP/1.1\r\nHost: {address}\r\n"]
    lines += [f"{name}: {value}\r\n" for name, value in headers]
    if body or method not in ("GET", "HEAD", "DELETE", "OPTIONS"):
        lines.append(f"Content-Length: {len(body)}\r\n")
    lines.append("\r\n")
    return "".join(lines).encode("latin-1") + body


@dataclass(slots=True)
class _Exchange:
    """One request and its answer on one connection."""

    connection: Connection
    method: str
    limits: ClientLimits
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    reusable: bool = False
    _head_done: bool = False
    _done: bool = False
    _keep_alive: bool = False
    _by_close: bool = False
    _parts: list[bytes] = field(default_factory=list)
    _parser: httptools.HttpResponseParser = field(init=False)

    def __post_init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)

    async def send(self, message: bytes) -> None:
        try:
            await self.connection.send_all(message)
        except _BROKEN as error:
            raise ResponseLost(f"the connection broke while sending: {error}") from error

    async def read_head(self) -> None:
        received = 0
        while not self._head_done:
            received += await self._read()
            if not self._head_done and received > self.limits.header_bytes_max:
                raise BadResponse(f"the answer's head has more than {self.limits.header_bytes_max} bytes")

    async def next_body(self) -> bytes:
        """The next part of the body; b"" at its end."""
        while not self._parts and not self._done:
            await self._read()
        data = b"".join(self._parts)
        self._parts.clear()
        if not data:
            self.reusable = self._keep_alive and not self._by_close
        return data

    async def _read(self) -> int:
        try:
            data = await self.connection.receive_some(_READ_BYTES)
        except _BROKEN as error:
            raise ResponseLost(f"the connection broke before the answer was complete: {error}") from error
        if not data:
            if self._by_close:
                self._done = True
                return 0
            raise ResponseLost("the server closed the connection before the answer was complete")
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            raise BadResponse(f"the answer is not valid HTTP/1.1: {error}") from error
        return len(data)

    # httptools calls these ------------------------------------------------------------------

    def on_header(self, name: bytes, value: bytes) -> None:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        self.headers[key] = f"{self.headers[key]}, {text}" if key in self.headers else text

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < 200:
            self.headers.clear()
            return
        self.status = status
        self._keep_alive = self._parser.should_keep_alive()
        self._by_close = "content-length" not in self.headers and "transfer-encoding" not in self.headers
        if self.method == "HEAD" or status in (204, 304):
            self._by_close = False
            self._done = True
            self._keep_alive = False  # the parser would read a body where none comes
        self._head_done = True

    def on_body(self, body: bytes) -> None:
        if self.method != "HEAD":
            self._parts.append(body)

    def on_message_complete(self) -> None:
        if self._head_done:
            self._done = True
