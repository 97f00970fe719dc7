"""etcd v3's gRPC for the generator, by hand: HTTP/2 frames with constant headers, protobuf by offsets.

A general gRPC client in Python would be the bottleneck; this one does what the bench needs and checks
what it counts. Sources: RFC 9113 (frames, flow control), the gRPC-over-HTTP/2 protocol, etcd's rpc.proto.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable
from typing import Final

from hpack import Encoder

from bench.errors import Violation

_DATA, _HEADERS, _RST, _SETTINGS, _PING, _GOAWAY, _WINDOW = 0, 1, 3, 4, 6, 7, 8
_END_STREAM, _END_HEADERS, _ACK = 1, 4, 1
_MAX_CONCURRENT_STREAMS: Final = 3
_WINDOW_MAX: Final = 2**31 - 1
_TOP_UP: Final = 2**28
_U32: Final = struct.Struct(">I")


def varint(number: int) -> bytes:
    """A protobuf varint."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def field(number: int, value: bytes | int) -> bytes:
    """A protobuf field: length-delimited bytes, or a varint."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def read_varint(data: bytes | memoryview, offset: int) -> tuple[int, int]:
    """(value, offset behind it)."""
    value = shift = 0
    while True:
        byte = data[offset]
        offset += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, offset
        shift += 7


def fields(data: bytes) -> list[tuple[int, bytes | int]]:
    """The fields of a message whose fields are varints or length-delimited."""
    found: list[tuple[int, bytes | int]] = []
    offset = 0
    while offset < len(data):
        tag, offset = read_varint(data, offset)
        value, offset = read_varint(data, offset)
        if tag & 7 == 2:
            found.append((tag >> 3, data[offset : offset + value]))
            offset += value
        else:
            found.append((tag >> 3, value))
    return found


def header_revision(message: bytes) -> int:
    """The revision of a response's ResponseHeader (field 1, in it field 3)."""
    header = next(value for number, value in fields(message) if number == 1)
    assert isinstance(header, bytes)
    return next((value for number, value in fields(header) if number == 3 and isinstance(value, int)), 0)


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + _U32.pack(stream) + payload


def request_headers(path: str) -> bytes:
    """The same block for every request: nothing is put into the dynamic table."""
    block: bytes = Encoder().encode(
        [
            (":method", "POST", True), (":scheme", "http", True), (":path", path, True),
            (":authority", "etcd", True), ("content-type", "application/grpc", True),
            ("te", "trailers", True),
        ],
        huffman=False,
    )  # fmt: skip
    return block


def preface() -> bytes:
    """What a client says first: its settings, and windows as large as they get."""
    settings = struct.pack(">HIHI", 4, _WINDOW_MAX, 5, 2**24 - 1)
    grow = _frame(_WINDOW, 0, 0, _U32.pack(_WINDOW_MAX - 65_535))
    return b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _frame(_SETTINGS, 0, 0, settings) + grow


class Http2:
    """One HTTP/2 connection: frames, windows, gRPC messages."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._messages: dict[int, bytearray] = {}
        self._received = 0
        self._send_window = 65_535
        self._open = 0
        self._streams_max = 2**31
        self._blocked: deque[tuple[int, bytes]] = deque()  # (bytes that the window counts, all)
        self._out = bytearray()

    def message(self, stream: int, headers: bytes, body: bytes, *, end: bool) -> bytes:
        """Open `stream` with one gRPC message; what the window does not allow yet is kept back."""
        payload = b"\x00" + _U32.pack(len(body)) + body
        opening = _frame(_HEADERS, _END_HEADERS, stream, headers) if headers else b""
        data = opening + _frame(_DATA, _END_STREAM if end else 0, stream, payload)
        self._blocked.append((len(payload), data))
        self._unblock()
        out, self._out = bytes(self._out), bytearray()
        return out

    def feed(self, data: bytes) -> tuple[bytes, list[tuple[int, bytes]]]:
        """(what must be sent now, [(stream, message)])."""
        buffer = self._buffer
        buffer += data
        offset, end = 0, len(buffer)
        messages: list[tuple[int, bytes]] = []
        while end - offset >= 9:
            length = int.from_bytes(buffer[offset : offset + 3], "big")
            if end - offset - 9 < length:
                break
            kind, flags = buffer[offset + 3], buffer[offset + 4]
            (stream,) = _U32.unpack_from(buffer, offset + 5)
            payload = bytes(buffer[offset + 9 : offset + 9 + length])
            offset += 9 + length
            if kind == _DATA:
                self._on_data(stream, payload, messages)
            else:
                self._on_control(kind, flags, stream, payload)
        del buffer[:offset]
        out, self._out = bytes(self._out), bytearray()
        return out, messages

    def _on_data(self, stream: int, payload: bytes, messages: list[tuple[int, bytes]]) -> None:
        self._received += len(payload)
        if self._received >= _TOP_UP:
            grow = _U32.pack(self._received)
            self._out += _frame(_WINDOW, 0, 0, grow) + _frame(_WINDOW, 0, stream, grow)
            self._received = 0
        pending = self._messages.get(stream)
        if pending is None:
            pending = self._messages[stream] = bytearray()
        pending += payload
        while len(pending) >= 5:
            (length,) = _U32.unpack_from(pending, 1)
            if len(pending) - 5 < length:
                break
            messages.append((stream, bytes(pending[5 : 5 + length])))
            del pending[: 5 + length]

    def _on_control(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == _HEADERS:
            if flags & _END_STREAM:
                self._messages.pop(stream, None)
                self._open -= 1
                self._unblock()
        elif kind == _SETTINGS and not flags & _ACK:
            settings = dict(struct.iter_unpack(">HI", payload))
            self._streams_max = settings.get(_MAX_CONCURRENT_STREAMS, self._streams_max)
            self._out += _frame(_SETTINGS, _ACK, 0, b"")
        elif kind == _PING and not flags & _ACK:
            self._out += _frame(_PING, _ACK, 0, payload)
        elif kind == _WINDOW and stream == 0:
            self._send_window += _U32.unpack(payload)[0]
            self._unblock()
        elif kind in (_RST, _GOAWAY):
            raise Violation(f"etcd ended the {'stream' if kind == _RST else 'connection'}: {payload!r}")

    def _unblock(self) -> None:
        """Send what the connection's window and the number of open streams allow."""
        while self._blocked and self._send_window >= self._blocked[0][0] and self._open < self._streams_max:
            counted, data = self._blocked.popleft()
            self._send_window -= counted
            self._open += data[3] == _HEADERS
            self._out += data


class Http2Stream:
    """One long stream of one connection, whose messages are taken where they lie: for watches."""

    def __init__(self, path: str) -> None:
        self._headers = request_headers(path)
        self._buffer = bytearray()
        self._pending = bytearray()
        self._received = 0

    def opening(self) -> bytes:
        """The preface and the stream's headers."""
        return preface() + _frame(_HEADERS, _END_HEADERS, 1, self._headers)

    def message(self, body: bytes) -> bytes:
        """A gRPC message on the stream; few and short ones only, the window is not looked at."""
        return _frame(_DATA, 0, 1, b"\x00" + _U32.pack(len(body)) + body)

    def feed(self, data: memoryview, on_message: Callable[[memoryview], None]) -> bytes:
        """What must be sent now. Raises Violation: the stream or the connection was ended."""
        if self._buffer:
            self._buffer += data
            data = memoryview(bytes(self._buffer))
            self._buffer.clear()
        offset, end, out = 0, len(data), b""
        while end - offset >= 9:
            length = data[offset] << 16 | data[offset + 1] << 8 | data[offset + 2]
            if end - offset - 9 < length:
                break
            kind, flags, payload = data[offset + 3], data[offset + 4], data[offset + 9 : offset + 9 + length]
            offset += 9 + length
            if kind == _DATA:
                self._received += length
                self._on_data(payload, on_message)
            else:
                out += self._on_control(kind, flags, payload)
        self._buffer += data[offset:]
        if self._received >= _TOP_UP:
            grow = _U32.pack(self._received)
            out += _frame(_WINDOW, 0, 0, grow) + _frame(_WINDOW, 0, 1, grow)
            self._received = 0
        return out

    def _on_data(self, payload: memoryview, on_message: Callable[[memoryview], None]) -> None:
        if self._pending:
            self._pending += payload
            payload = memoryview(bytes(self._pending)) if self._complete() else payload[:0]
            if payload:
                self._pending.clear()
        offset, end = 0, len(payload)
        while end - offset >= 5:
            (length,) = _U32.unpack_from(payload, offset + 1)
            if end - offset - 5 < length:
                break
            offset += 5 + length
            on_message(payload[offset - length : offset])
        self._pending += payload[offset:]

    def _complete(self) -> bool:
        return len(self._pending) >= 5 and len(self._pending) - 5 >= _U32.unpack_from(self._pending, 1)[0]

    def _on_control(self, kind: int, flags: int, payload: memoryview) -> bytes:
        if kind == _SETTINGS and not flags & _ACK:
            return _frame(_SETTINGS, _ACK, 0, b"")
        if kind == _PING and not flags & _ACK:
            return _frame(_PING, _ACK, 0, bytes(payload))
        if kind in (_RST, _GOAWAY) or (kind == _HEADERS and flags & _END_STREAM):
            raise Violation(f"etcd ended the watch stream: {bytes(payload)!r}")
        return b""
