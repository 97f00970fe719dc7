"""A load generator's socket loop: many connections, one epoll, no framework between."""

from __future__ import annotations

import select
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

_READ: Final = 262_144
_POLL_MS_TOO_COARSE_S: Final = 0.005  # epoll counts whole milliseconds: shorter waits go through select


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where and as whom to connect; without `ca` in the clear. `alpn` for HTTP/2."""

    host: str
    port: int
    ca: str = ""
    cert: str = ""
    key: str = ""
    alpn: str = ""


def connect(endpoint: Endpoint) -> socket.socket:
    """A blocking TCP connection, no TLS yet."""
    sock = socket.create_connection((endpoint.host, endpoint.port), timeout=20)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def client_context(endpoint: Endpoint) -> ssl.SSLContext:
    """For `endpoint`'s certificates; make one and share it, for it reads files."""
    context = ssl.create_default_context(cafile=endpoint.ca)
    context.load_cert_chain(endpoint.cert, endpoint.key)
    if endpoint.alpn:
        context.set_alpn_protocols([endpoint.alpn])
    return context


class Source(Protocol):
    """What a loop can wait for."""

    fd: int
    blocked: set[int]

    @property
    def waiting(self) -> bool:
        """Whether bytes wait for room."""
        ...

    def flush(self) -> None:
        """There is room again."""
        ...

    def readable(self) -> None:
        """Something has arrived."""
        ...

    def close(self) -> None: ...


class Connection:
    """A non-blocking socket, plain or TLS, that hands what arrives to `on_data`."""

    def __init__(self, endpoint: Endpoint, on_data: Callable[[bytes], bytes]) -> None:
        self._sock = connect(endpoint)
        if endpoint.ca:
            self._sock = client_context(endpoint).wrap_socket(self._sock, server_hostname=endpoint.host)
        self._sock.setblocking(False)
        self._out = bytearray()
        self._on_data = on_data
        self.fd = self._sock.fileno()
        self.blocked: set[int] = set()

    def send(self, data: bytes) -> None:
        """Send, or keep what the socket does not take."""
        if self._out:
            self._out += data
            return
        try:
            sent = self._sock.send(data)
        except (BlockingIOError, ssl.SSLWantWriteError):
            sent = 0
        if sent < len(data):
            self._out += data[sent:]
            self.blocked.add(self.fd)

    @property
    def waiting(self) -> bool:
        """Whether bytes wait for the socket."""
        return bool(self._out)

    def flush(self) -> None:
        out, self._out = bytes(self._out), bytearray()
        self.send(out)

    def readable(self) -> None:
        """Read all there is. Raises ConnectionError: the server hung up."""
        while True:
            try:
                data = self._sock.recv(_READ)
            except (BlockingIOError, ssl.SSLWantReadError):
                return
            if not data:
                raise ConnectionError("the server closed the connection")
            answer = self._on_data(data)
            if answer:
                self.send(answer)

    def close(self) -> None:
        self._sock.close()


class Loop:
    """Runs connections until a condition holds."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._connections: dict[int, Source] = {}
        self._writing: set[int] = set()
        self._blocked: set[int] = set()  # of those whose socket was full in this turn

    def add(self, connection: Source) -> None:
        self._connections[connection.fd] = connection
        if connection.waiting:
            self._blocked.add(connection.fd)
        connection.blocked = self._blocked
        self._epoll.register(connection.fd, select.EPOLLIN)

    def remove(self, connection: Source) -> None:
        """Wait for it no more; it is not closed."""
        self._epoll.unregister(connection.fd)
        del self._connections[connection.fd]
        self._writing.discard(connection.fd)
        self._blocked.discard(connection.fd)

    def pause(self, connection: Source) -> None:
        """Read `connection` no more, until `resume`."""
        self._epoll.modify(connection.fd, 0)

    def resume(self, connection: Source) -> None:
        self._epoll.modify(connection.fd, select.EPOLLIN)

    def turn(self, timeout_s: float) -> None:
        """Wait for something to happen, and handle all of it."""
        if 0 < timeout_s < _POLL_MS_TOO_COARSE_S:
            select.select([self._epoll], [], [], timeout_s)
            timeout_s = 0.0
        for fd, event in self._epoll.poll(timeout_s, 4096):
            connection = self._connections[fd]  # one that is removed removes itself only
            if event & select.EPOLLOUT:
                connection.flush()
            if event & ~select.EPOLLOUT:
                connection.readable()
        self._watch_writers()

    def _watch_writers(self) -> None:
        for fd in self._blocked - self._writing:
            self._epoll.modify(fd, select.EPOLLIN | select.EPOLLOUT)
            self._writing.add(fd)
        self._blocked.clear()
        for fd in [fd for fd in self._writing if not self._connections[fd].waiting]:
            self._epoll.modify(fd, select.EPOLLIN)
            self._writing.discard(fd)

    def close(self) -> None:
        for connection in self._connections.values():
            connection.close()
        self._epoll.close()
