"""A replay stub: answers a generator as fast as bytes go, so that the generator's own limit is known.

`python -m bench.stub`, a job as JSON on standard input; prints its port, runs until its input is closed.
It speaks just enough: puts are acknowledged with rising revisions, gets find the last of them. It verifies
nothing. What watchers can take is shown by `bench.watch_bare`.
"""

from __future__ import annotations

import select
import socket
import ssl
import struct
import sys
import threading
from typing import Any, Final

import msgpack
import orjson

from bench.etcd import field, fields, varint
from raftkube.wire import rpc
from raftkube.wire.store import KeyValue, Put, RangeResult, op_to_wire, result_to_wire

_U32: Final = struct.Struct(">I")
_PUT: Final = op_to_wire(Put(b"", b""))[0]


class OursStub:
    """One connection of raftkube's protocol."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._buffer = bytearray()
        self._greeted = False

    def feed(self, data: bytes) -> bytes:
        buffer = self._buffer
        buffer += data
        offset, end, out = 0, len(buffer), []
        while end - offset >= 4:
            (length,) = _U32.unpack_from(buffer, offset)
            if end - offset - 4 < length:
                break
            body = bytes(buffer[offset + 4 : offset + 4 + length])
            offset += 4 + length
            out.append(self._answer(msgpack.unpackb(body, strict_map_key=False)))
        del buffer[:offset]
        return b"".join(out)

    def _answer(self, message: list[Any]) -> bytes:
        if not self._greeted:
            self._greeted = True
            return rpc.member_hello("stub", "stub")
        number, _, arguments, _ = message
        op, key = arguments[0][0], arguments[0][1]
        if op == _PUT:
            self._hub.put(key, arguments[0][2])
            return rpc.put_answer(number, self._hub.revision)
        value, revision = self._hub.values[key]
        found = (KeyValue(key, value, revision, revision, 1, 0),)
        return rpc.answer(number, result_to_wire(RangeResult(self._hub.revision, found, 1)))


class EtcdStub:
    """One connection of etcd's protocol."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._buffer = bytearray()
        self._preface = False
        self._is_range: set[int] = set()
        self._messages: dict[int, bytearray] = {}

    def feed(self, data: bytes) -> bytes:
        buffer = self._buffer
        buffer += data
        out = []
        if not self._preface:
            if len(buffer) < 24:
                return b""
            del buffer[:24]
            self._preface = True
            settings = struct.pack(">HI", 4, 2**31 - 1)
            out.append(_frame(4, 0, 0, settings) + _frame(8, 0, 0, _U32.pack(2**31 - 1 - 65_535)))
        while len(buffer) >= 9:
            length = int.from_bytes(buffer[:3], "big")
            if len(buffer) - 9 < length:
                break
            kind, (stream,), payload = buffer[3], _U32.unpack_from(buffer, 5), bytes(buffer[9 : 9 + length])
            del buffer[: 9 + length]
            out.append(self._on_frame(kind, stream, payload))
        return b"".join(out)

    def _on_frame(self, kind: int, stream: int, payload: bytes) -> bytes:
        if kind == 1 and b"Range" in payload:
            self._is_range.add(stream)
        if kind != 0:
            return b""
        pending = self._messages.setdefault(stream, bytearray())
        pending += payload
        out = []
        while len(pending) >= 5 and len(pending) - 5 >= _U32.unpack_from(pending, 1)[0]:
            (length,) = _U32.unpack_from(pending, 1)
            message = bytes(pending[5 : 5 + length])
            del pending[: 5 + length]
            out.append(self._on_message(stream, message))
        return b"".join(out)

    def _on_message(self, stream: int, message: bytes) -> bytes:
        self._messages.pop(stream, None)
        told = dict(fields(message))
        key, value = told[1], told.get(2, b"")
        assert isinstance(key, bytes)
        assert isinstance(value, bytes)
        if stream in self._is_range:
            self._is_range.discard(stream)
            found, revision = self._hub.values[key]
            return self._answer(stream, field(2, _kv(revision, key, found)) + field(4, 1))
        self._hub.put(key, value)
        return self._answer(stream, b"")

    def _answer(self, stream: int, body: bytes) -> bytes:
        answer = field(1, field(3, self._hub.revision)) + body
        return (
            _frame(1, 4, stream, b"\x88")
            + _data(stream, answer)
            + _frame(1, 5, stream, b"\x00\x0bgrpc-status\x010")
        )


def _kv(revision: int, key: bytes, value: bytes) -> bytes:
    return (
        field(1, key) + varint(2 << 3) + varint(revision) + field(3, revision) + field(4, 1) + field(5, value)
    )


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + _U32.pack(stream) + payload


def _data(stream: int, message: bytes) -> bytes:
    payload = b"\x00" + _U32.pack(len(message)) + message
    return b"".join(
        _frame(0, 0, stream, payload[start : start + 16_384]) for start in range(0, len(payload), 16_384)
    )


class Hub:
    """What all connections share."""

    def __init__(self) -> None:
        self.revision = 1
        self.values: dict[bytes, tuple[bytes, int]] = {}

    def put(self, key: bytes, value: bytes) -> None:
        self.revision += 1
        self.values[key] = (value, self.revision)


class Server:
    """All connections in one epoll loop."""

    def __init__(self, protocol: str, tls: dict[str, str] | None) -> None:
        self._make = OursStub if protocol == "ours" else EtcdStub
        self._context = None
        if tls:
            self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._context.load_cert_chain(tls["cert"], tls["key"])
            self._context.load_verify_locations(tls["ca"])
            self._context.verify_mode = ssl.CERT_REQUIRED
            self._context.set_alpn_protocols(["h2"] if protocol == "etcd" else [])
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.port: int = self._listener.getsockname()[1]
        self._epoll = select.epoll()
        self._epoll.register(self._listener.fileno(), select.EPOLLIN)
        self._hub = Hub()
        self._stubs: dict[int, tuple[Any, Any]] = {}
        self._out: dict[int, bytearray] = {}

    def run(self, stop: threading.Event) -> None:
        while not stop.is_set():
            for fd, event in self._epoll.poll(0.2, 4096):
                if fd == self._listener.fileno():
                    self._accept()
                elif fd in self._stubs:
                    self._serve(fd, event)

    def _accept(self) -> None:
        sock, _ = self._listener.accept()
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._context:
            sock = self._context.wrap_socket(sock, server_side=True)
        sock.setblocking(False)
        self._stubs[sock.fileno()] = (sock, self._make(self._hub))
        self._out[sock.fileno()] = bytearray()
        self._epoll.register(sock.fileno(), select.EPOLLIN)

    def _serve(self, fd: int, event: int) -> None:
        sock, stub = self._stubs[fd]
        try:
            while event & ~select.EPOLLOUT:
                data = sock.recv(262_144)
                if not data:
                    raise ConnectionError
                self._send(fd, stub.feed(data))
        except (BlockingIOError, ssl.SSLWantReadError):
            pass
        except OSError:
            self._epoll.unregister(fd)
            del self._stubs[fd]
            sock.close()
            return
        if event & select.EPOLLOUT:
            self._send(fd, b"")

    def _send(self, fd: int, data: bytes) -> None:
        pending = self._out[fd]
        pending += data
        if not pending:
            return
        try:
            sent = self._stubs[fd][0].send(bytes(pending))
            del pending[:sent]
        except (BlockingIOError, ssl.SSLWantWriteError, OSError):
            pass
        self._epoll.modify(fd, select.EPOLLIN | (select.EPOLLOUT if pending else 0))


def main() -> int:
    told = orjson.loads(sys.stdin.buffer.readline())
    server = Server(told["protocol"], told.get("tls"))
    print(server.port, flush=True)
    stop = threading.Event()
    thread = threading.Thread(target=server.run, args=(stop,))
    thread.start()
    sys.stdin.buffer.read()
    stop.set()
    thread.join()
    return 0


if __name__ == "__main__":
    sys.exit(main())
