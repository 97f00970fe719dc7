"""HTTP/1.1 over TLS for the API benches' generators: non-blocking, no more than they need."""

from __future__ import annotations

import re
import select
import socket
import ssl
from collections.abc import Callable
from typing import Final

from bench.errors import Violation
from bench.loop import Endpoint

_READ: Final = 262_144
_RECORD: Final = 16_384
FORMS: Final = {
    "json": "application/json",
    "table": "application/json;as=Table;v=v1;g=meta.k8s.io",
    "metadata": "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io",
}


def get(path: str, *, accept: str = FORMS["json"]) -> bytes:
    """A request for `path`."""
    return f"GET {path} HTTP/1.1\r\nHost: bench\r\nAccept: {accept}\r\n\r\n".encode()


def request(method: str, path: str, body: bytes = b"", *, kind: str = "application/json") -> bytes:
    """A request with a body."""
    head = f"{method} {path} HTTP/1.1\r\nHost: bench\r\nContent-Type: {kind}\r\n"
    return head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body


def patch(path: str, body: bytes) -> bytes:
    """A merge patch of the object at `path`."""
    return request("PATCH", path, body, kind="application/merge-patch+json")


def parse_head(head: bytes) -> tuple[int, int]:
    """Status and Content-Length (-1: chunked) of an answer's head."""
    found = re.search(rb"\r\ncontent-length: *(\d+)", head, re.IGNORECASE)
    return int(head.split(b" ", 2)[1]), int(found.group(1)) if found else -1


class TlsClient:
    """A TLS connection that is driven by an `Epoll`: sends `hello` once it stands, hands on what arrives.

    `on_data(connection, data)`; data b"" says that the connection has ended.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        context: ssl.SSLContext,
        hello: bytes,
        on_data: Callable[[TlsClient, bytes], None],
    ) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=endpoint.host)
        self._hello = hello
        self._on_data = on_data
        self._unsent = b""
        self.connected = False
        self.open = False  # the handshake is done
        self._sock = socket.socket()
        self._sock.setblocking(False)
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._sock.connect_ex((endpoint.host, endpoint.port))
        self.fd = self._sock.fileno()

    @property
    def wants_write(self) -> bool:
        """Whether it waits for room, or to be connected."""
        return bool(self._unsent) or not self.connected

    def send(self, data: bytes) -> None:
        """Send behind what was sent before."""
        self._tls.write(data)
        self._flush()

    def step(self) -> None:
        """Something happened on the socket."""
        if not self.connected and not self._connect():
            return
        if self._unsent:
            self._flush()
        try:
            data = self._sock.recv(_READ)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._on_data(self, b"")
            return
        self._incoming.write(data)
        if not self.open:
            self._shake()
        if self.open and (plain := self._decrypt()):
            self._on_data(self, plain)

    def close(self) -> None:
        self._sock.close()

    def _connect(self) -> bool:
        error = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            self._on_data(self, b"")
            return False
        self.connected = True
        self._shake()
        return True

    def _shake(self) -> None:
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:
            raise Violation(f"a TLS handshake failed: {error}") from error
        else:
            self.open = True
            self._tls.write(self._hello)
        self._flush()

    def _decrypt(self) -> bytes:
        parts = []
        try:
            while True:
                part = self._tls.read(_RECORD)
                if not part:
                    break
                parts.append(part)
                if not self._incoming.pending + self._tls.pending():
                    break
        except ssl.SSLWantReadError:
            pass
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _flush(self) -> None:
        data = self._unsent + self._outgoing.read()
        try:
            sent = self._sock.send(data) if data else 0
        except BlockingIOError:
            sent = 0
        except OSError:
            sent = len(data)  # the next receive tells that it has ended
        self._unsent = data[sent:]


class Epoll:
    """Drives many connections."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._connections: dict[int, TlsClient] = {}
        self._writing: set[int] = set()

    def add(self, connection: TlsClient) -> None:
        self._connections[connection.fd] = connection
        self._writing.add(connection.fd)
        self._epoll.register(connection.fd, select.EPOLLIN | select.EPOLLOUT)

    def remove(self, connection: TlsClient) -> None:
        """Forget and close it."""
        del self._connections[connection.fd]
        self._writing.discard(connection.fd)
        self._epoll.unregister(connection.fd)
        connection.close()

    def listen_to(self, fd: int) -> None:
        """End a turn when `fd` has something to read."""
        self._epoll.register(fd, select.EPOLLIN)

    def turn(self, timeout_s: float) -> None:
        """Wait for something to happen, and handle all of it."""
        for fd, _ in self._epoll.poll(timeout_s, 4096):
            connection = self._connections.get(fd)
            if connection is None:
                continue
            connection.step()
            if connection.wants_write is not (fd in self._writing) and fd in self._connections:
                self._want(fd, write=connection.wants_write)

    def _want(self, fd: int, *, write: bool) -> None:
        (self._writing.add if write else self._writing.discard)(fd)
        self._epoll.modify(fd, select.EPOLLIN | (select.EPOLLOUT if write else 0))


class Exchange:
    """A connection that stays, with one request at a time; `on_answer(status, body)` gets what comes back.

    Raises Violation (from the epoll's turn): the server closes it, or sends more than an answer.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        context: ssl.SSLContext,
        epoll: Epoll,
        on_answer: Callable[[int, bytes], None],
    ) -> None:
        self._connection = TlsClient(endpoint, context, b"", self._on_data)
        self._on_answer = on_answer
        self._buffer = bytearray()
        self._head = self._end = 0  # of the answer that is coming; 0: not known yet
        self._status = 0
        epoll.add(self._connection)

    @property
    def ready(self) -> bool:
        return self._connection.open

    def ask(self, data: bytes) -> None:
        self._connection.send(data)

    def _on_data(self, _: TlsClient, data: bytes) -> None:
        if not data:
            raise Violation("the server closed a connection")
        self._buffer += data
        if not self._end:
            self._begin()
        if not self._end or len(self._buffer) < self._end:
            return
        if len(self._buffer) > self._end:
            raise Violation("the server sent more than an answer")
        body = bytes(memoryview(self._buffer)[self._head :])
        self._buffer = bytearray()
        self._end = 0
        self._on_answer(self._status, body)

    def _begin(self) -> None:
        """Look for the end of the head."""
        at = self._buffer.find(b"\r\n\r\n")
        if at < 0:
            return
        self._status, length = parse_head(bytes(self._buffer[: at + 2]))
        if length < 0:
            raise Violation("an answer has no Content-Length")
        self._head = at + 4
        self._end = self._head + length


class ChunkedBody:
    """The body of one streamed answer: feed it what arrives, get what the chunks hold.

    Raises Violation: the answer is not 200 and chunked, or has ended.
    """

    def __init__(self, sizes: list[int] | None = None) -> None:
        """`sizes` takes the size of every chunk."""
        self._sizes = sizes
        self._rest = b""
        self._left = 0  # of the chunk at hand
        self._between = b""  # what stands before the next chunk's size
        self.begun = False

    def feed(self, data: bytes) -> bytes:
        if self._rest:
            data, self._rest = self._rest + data, b""
        at = 0 if self.begun else self._begin(data)
        parts, end = [], len(data)
        while at < end:
            if self._left:
                part = data[at : at + self._left]
                parts.append(part)
                at += len(part)
                self._left -= len(part)
                continue
            size_at = at + len(self._between)
            size_end = data.find(b"\r\n", size_at)
            if size_end < 0:
                self._rest = data[at:]
                break
            self._left = int(data[size_at:size_end], 16)
            self._between = b"\r\n"
            at = size_end + 2
            if not self._left:
                raise Violation("a watch was ended by the server")
            if self._sizes is not None:
                self._sizes.append(self._left)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _begin(self, data: bytes) -> int:
        """Where the body begins; the end of `data` if it has not come yet."""
        end = data.find(b"\r\n\r\n")
        if end < 0:
            self._rest = data
            return len(data)
        status, length = parse_head(data[: end + 2])
        if status != 200 or length >= 0:
            raise Violation(f"a watch was answered {status}: {data[end + 4 :][:200].decode()}")
        self.begun = True
        return end + 4
