"""The bare socket loop, plain or TLS: the third column of a watch bench.

It sends the same watchers the bytes that raftkube would send them, one send a watcher, with nothing behind:
no request is read, nothing is stored, nothing is replicated. What it reaches is what sockets, TLS and the
watchers' own processes allow on this machine.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from typing import Final

import msgpack

from bench.loop import Loop
from bench.watch_job import WriterJob
from bench.watch_sessions import prefix_end
from raftkube.limits import FRAME_BYTES_MAX
from raftkube.wire import rpc
from raftkube.wire.frames import FrameReader, unpack

_ACCEPT_TIMEOUT_S: Final = 120.0
_EVENT_PUT: Final = 0


class BareWatcher:
    """One accepted connection and what its socket did not take."""

    def __init__(self, sock: socket.socket, on_gone: Callable[[BareWatcher], None]) -> None:
        self._sock = sock
        self._on_gone = on_gone
        self.fd = sock.fileno()
        self.blocked: set[int] = set()
        self._out = bytearray()
        self._frames, self._greeted = FrameReader(FRAME_BYTES_MAX), False
        self.watches: dict[bytes, list[int]] = {}  # prefix's end -> watch ids

    def greet(self) -> None:
        """Wait for the hello and the first watch; later ones may come at any time."""
        while not self.watches:
            self._take(self._sock.recv(262_144))
        self._sock.setblocking(False)

    def _take(self, data: bytes) -> None:
        if not data:
            raise ConnectionError("a reader is gone")
        for body in self._frames.feed(data):
            if self._greeted:
                request = rpc.parse_request(unpack(body))
                self.watches.setdefault(request.arguments[2], []).append(request.arguments[0])
                self.send(rpc.answer(request.id, [1]))
            else:
                self._greeted = True
                self.send(rpc.member_hello("bare", "bare"))

    def send(self, data: bytes) -> None:
        if self._out:
            self._out += data
            return
        try:
            sent = self._sock.send(data)
        except (BlockingIOError, ssl.SSLWantWriteError):
            sent = 0
        while 0 < sent < len(data):  # TLS takes a record at a time
            try:
                sent += self._sock.send(memoryview(data)[sent:])
            except (BlockingIOError, ssl.SSLWantWriteError):
                break
        if sent < len(data):
            self._out += memoryview(data)[sent:]
            self.blocked.add(self.fd)

    @property
    def waiting(self) -> bool:
        return bool(self._out)

    def flush(self) -> None:
        out, self._out = bytes(self._out), bytearray()
        self.send(out)

    def readable(self) -> None:
        """Raises ConnectionError: the reader is gone too soon."""
        try:
            self._take(self._sock.recv(262_144))
        except (BlockingIOError, ssl.SSLWantReadError):
            pass
        except ConnectionError:
            self._on_gone(self)

    def close(self) -> None:
        self._sock.close()


class BareLoop:
    """Listens, takes `connections` readers, and sends. A write is done once it was handed to the sockets."""

    in_flight = 0
    finished = False  # every reader may go as soon as it has all

    def __init__(
        self, job: WriterJob, loop: Loop, payload: Callable[[float], tuple[int, bytes, bytes]]
    ) -> None:
        self._job, self._loop, self._payload = job, loop, payload
        self._context: ssl.SSLContext | None = None
        if job.endpoint.ca:
            self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._context.load_cert_chain(job.endpoint.cert, job.endpoint.key)
            self._context.load_verify_locations(job.endpoint.ca)
            self._context.verify_mode = ssl.CERT_REQUIRED
        self._listener = socket.create_server((job.endpoint.host, 0), backlog=1024)
        self.port: int = self._listener.getsockname()[1]
        self._revision = 1
        self._ends = [prefix_end(prefix.encode()) for prefix in job.prefixes]
        self._watchers: dict[bytes, list[tuple[BareWatcher, bytes]]] = {}
        self.on_written: Callable[[int, int, bytes, bytes], None] = lambda *_: None

    def accept(self) -> None:
        """Take all connections. Raises ConnectionError, TimeoutError."""
        self._listener.settimeout(_ACCEPT_TIMEOUT_S)
        accepted: list[BareWatcher] = []
        for _ in range(self._job.connections):
            sock, _ = self._listener.accept()
            sock.settimeout(_ACCEPT_TIMEOUT_S)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._context:
                sock = self._context.wrap_socket(sock, server_side=True)
            watcher = BareWatcher(sock, self._gone)
            watcher.greet()
            accepted.append(watcher)
            self._loop.add(watcher)
        self._listener.close()
        while sum(len(ids) for w in accepted for ids in w.watches.values()) < self._job.watches:
            self._loop.turn(0.5)
        for watcher in accepted:
            for end, ids in watcher.watches.items():
                self._watchers.setdefault(end, []).append((watcher, msgpack.packb(ids)))

    def _gone(self, watcher: BareWatcher) -> None:
        if not self.finished:
            raise ConnectionError("a reader is gone")
        self._loop.remove(watcher)

    def put(self, dues: list[float]) -> None:
        """Send the events of these writes, those of one prefix together."""
        events: dict[int, list[bytes]] = {}
        for due in dues:
            prefix, key, value = self._payload(due)
            self._revision += 1
            kv = [key, value, self._revision, self._revision, 1, 0]
            events.setdefault(prefix, []).append(msgpack.packb([_EVENT_PUT, kv, None]))
            self.on_written(self._revision, prefix, key, value)
        for prefix, encoded in events.items():
            self._send(self._ends[prefix], len(encoded), b"".join(encoded))

    def _send(self, end: bytes, count: int, chunk: bytes) -> None:
        frames: dict[bytes, bytes] = {}
        for watcher, ids in self._watchers.get(end, ()):
            frame = frames.get(ids)
            if frame is None:
                frame = frames[ids] = rpc.events_frame(rpc.EVENTS, ids, self._revision, count, chunk)
            watcher.send(frame)
