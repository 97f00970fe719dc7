"""A load generator's socket loop: many connections, one epoll, no framework between."""

from __future__ import annotations

import select
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

_READ: Final = 262_144


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where and as whom to connect; without `ca` in the clear. `alpn` for HTTP/2."""

    host: str
    port: int
    ca: str = ""
    cert: str = ""
    key: str = ""
    alpn: str = ""


class Connection:
    """A non-blocking socket, plain or TLS, that hands what arrives to `on_data`."""

    def __init__(self, endpoint: Endpoint, on_data: Callable[[bytes], bytes]) -> None:
        self._sock = socket.create_connection((endpoint.host, endpoint.port), timeout=20)
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if endpoint.ca:
            context = ssl.create_default_context(cafile=endpoint.ca)
            context.load_cert_chain(endpoint.cert, endpoint.key)
            if endpoint.alpn:
                context.set_alpn_protocols([endpoint.alpn])
            self._sock = context.wrap_socket(self._sock, server_hostname=endpoint.host)
        self._sock.setblocking(False)
        self._out = bytearray()
        self._on_data = on_data
        self.fd = self._sock.fileno()

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
        self._connections: dict[int, Connection] = {}
        self._writing: set[int] = set()

    def add(self, connection: Connection) -> None:
        self._connections[connection.fd] = connection
        self._epoll.register(connection.fd, select.EPOLLIN)

    def turn(self, timeout_s: float) -> None:
        """Wait for something to happen, and handle all of it."""
        for fd, event in self._epoll.poll(timeout_s, 4096):
            connection = self._connections[fd]
            if event & select.EPOLLOUT:
                connection.flush()
            if event & ~select.EPOLLOUT:
                connection.readable()
        self._watch_writers()

    def _watch_writers(self) -> None:
        writing = {fd for fd, connection in self._connections.items() if connection.waiting}
        for fd in writing - self._writing:
            self._epoll.modify(fd, select.EPOLLIN | select.EPOLLOUT)
        for fd in self._writing - writing:
            self._epoll.modify(fd, select.EPOLLIN)
        self._writing = writing

    def close(self) -> None:
        for connection in self._connections.values():
            connection.close()
        self._epoll.close()
