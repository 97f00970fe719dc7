"""raftkube's store protocol for the generator: pre-packed requests, answers cut by length alone."""

from __future__ import annotations

import struct
from typing import Final

import msgpack

from bench.session import Expected, raise_violation
from raftkube.wire import rpc

PREFIX: Final = b"/bench/"
_PREFIX_END: Final = b"/bench0"
_LENGTH: Final = struct.Struct(">I")


class Frames:
    """Cuts the stream; the member's hello comes first and is dropped."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._greeted = False

    def cut(self, data: bytes) -> list[bytes]:
        buffer = self._buffer
        buffer += data
        offset, end, bodies = 0, len(buffer), []
        while end - offset >= 4:
            (length,) = _LENGTH.unpack_from(buffer, offset)
            if end - offset - 4 < length:
                break
            bodies.append(bytes(buffer[offset + 4 : offset + 4 + length]))
            offset += 4 + length
        del buffer[:offset]
        if bodies and not self._greeted:
            self._greeted = True
            rpc.parse_member_hello(msgpack.unpackb(bodies.pop(0)))
        return bodies


class OursWatch:
    """Watches of the whole prefix over one connection."""

    def __init__(self, watches: int, expected: Expected) -> None:
        self._frames = Frames()
        self._expected = expected
        self._at = dict.fromkeys(range(1, watches + 1), 0)
        self.created = 0
        self.delivered = 0

    @property
    def reached(self) -> int:
        return min(self._at.values())

    def hello(self) -> bytes:
        creations = [
            rpc.request(watch, rpc.WATCH_CREATE, [watch, PREFIX, _PREFIX_END, 0], 30_000)
            for watch in self._at
        ]
        return rpc.client_hello("bench") + b"".join(creations)

    def feed(self, data: bytes) -> bytes:
        for body in self._frames.cut(data):
            kind = body[1]
            if kind in (rpc.EVENTS, rpc.FRAGMENT):
                self._on_events(body)
            elif kind == rpc.ANSWER:
                self.created += 1
            else:
                raise_violation(f"a watch was answered {msgpack.unpackb(body, strict_map_key=False)}")
        return b""

    def _on_events(self, body: bytes) -> None:
        """[kind, ids, revision, events]: the events' bytes are the same on every connection."""
        unpacker = msgpack.Unpacker(strict_map_key=False)
        unpacker.feed(body[:4096] if len(body) > 4096 else body)
        unpacker.read_array_header()
        unpacker.skip()
        ids = unpacker.unpack()
        unpacker.skip()
        chunk = body[unpacker.tell() :]
        span = self._expected.chunks.get(chunk)
        if span is None:
            events = [(kv[3], kv[0], kv[1]) for _, kv, _ in msgpack.unpackb(chunk, strict_map_key=False)]
            if not events:
                return  # a progress mark
            span = self._expected.remember(chunk, events)
        first, last = span
        for watch in ids:
            at = self._at[watch]
            if first != at + 1 and at:
                raise_violation(f"a watch at revision {at} was sent {first}..{last}")
            self._at[watch] = last
        self.delivered += (last - first + 1) * len(ids)
