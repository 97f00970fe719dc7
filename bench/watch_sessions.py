"""Watches over one connection, without any socket: bytes in, bytes out, every event put to its tape.

One class a protocol, `OursWatch` and `EtcdWatch`; the reader treats them alike.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, Final, NamedTuple, Protocol

import msgpack

from bench.errors import Violation
from bench.etcd import Http2Stream, field, fields, read_varint
from bench.tape import Cursor, Encoded
from raftkube.wire import rpc

_LENGTH: Final = struct.Struct(">I")
# Bytes of a msgpack unsigned integer by its first one; below 0x80 it is one.
_UINT_BYTES: Final = {0xCC: 2, 0xCD: 3, 0xCE: 5, 0xCF: 9}

# (cursor, events it was moved on by)
Note = Callable[[Cursor, int], None]


class Place(NamedTuple):
    """A watch to open: all keys with `prefix`, events from `start_revision` on."""

    cursor: Cursor
    prefix: bytes
    start_revision: int


class WatchSession(Protocol):
    """One connection that carries watches."""

    created: int
    ended: dict[int, int]  # watcher's number -> the last revision that it was sent completely

    def hello(self) -> bytes:
        """What is sent first, the watches' creation included."""
        ...

    def feed(self, data: memoryview) -> bytes:
        """Take what arrived, verify it, return what must be sent now. Raises Violation."""
        ...


def prefix_end(prefix: bytes) -> bytes:
    """The first key behind all that start with `prefix`."""
    return prefix[:-1] + bytes((prefix[-1] + 1,))


class OursWatch:
    """raftkube's store protocol."""

    def __init__(self, places: list[Place], note: Note) -> None:
        self._places = dict(enumerate(places, 1))
        self._note = note
        self._buffer = bytearray()
        self._greeted = False
        self.created = 0
        self.ended: dict[int, int] = {}

    def hello(self) -> bytes:
        creations = [
            rpc.request(
                watch, rpc.WATCH_CREATE,
                [watch, place.prefix, prefix_end(place.prefix), place.start_revision], 30_000,
            )
            for watch, place in self._places.items()
        ]  # fmt: skip
        return rpc.client_hello("bench") + b"".join(creations)

    def feed(self, data: memoryview) -> bytes:
        if self._buffer:
            self._buffer += data
            data = memoryview(bytes(self._buffer))
            self._buffer.clear()
        offset, end = 0, len(data)
        while end - offset >= 4:
            (length,) = _LENGTH.unpack_from(data, offset)
            if end - offset - 4 < length:
                break
            offset += 4 + length
            self._on_frame(data[offset - length : offset])
        self._buffer += data[offset:]
        return b""

    def _on_frame(self, body: memoryview) -> None:
        if self._greeted and body[1] in (rpc.EVENTS, rpc.FRAGMENT):
            self._on_events(body)
            return
        message = msgpack.unpackb(body, strict_map_key=False)
        if not self._greeted:
            rpc.parse_member_hello(message)
            self._greeted = True
        elif message[0] == rpc.ANSWER:
            self.created += 1
        elif message[0] == rpc.ENDED:
            self._on_ended(*message[1:])
        else:
            raise Violation(f"a watch was answered {message}")

    def _on_events(self, body: memoryview) -> None:
        """[kind, ids, revision, events]; the events' count is an array 32."""
        if body[2] == 0x91 and body[3] == 1:  # its only watch
            ids, offset = (1,), 4
        else:
            unpacker = msgpack.Unpacker(strict_map_key=False)
            unpacker.feed(body)
            unpacker.read_array_header()
            unpacker.skip()
            ids, offset = tuple(unpacker.unpack()), unpacker.tell()
        offset += _UINT_BYTES.get(body[offset], 1)
        (count,) = _LENGTH.unpack_from(body, offset + 1)
        chunk = body[offset + 5 :]
        for watch in ids if count else ():  # none: a progress mark
            cursor = self._places[watch].cursor
            taken = cursor.tape.take(cursor, chunk)
            if taken != count:
                raise Violation(f"a frame says {count} events and holds {taken}")
            self._note(cursor, taken)

    def _on_ended(self, ids: list[int], error: list[Any]) -> None:
        for watch in ids:
            revision = error[2].get("revision")
            if not isinstance(revision, int):
                raise Violation(f"a watch was ended: {error}")
            self.ended[self._places[watch].cursor.number] = revision


def parse_ours(chunk: bytes) -> list[Encoded]:
    """Events as raftkube encodes them: [type, key-value, previous], one behind another."""
    unpacker = msgpack.Unpacker(strict_map_key=False)
    unpacker.feed(chunk)
    events, start = [], 0
    while start < len(chunk):
        _, kv, _ = unpacker.unpack()
        end = unpacker.tell()
        events.append(Encoded(kv[3], kv[0], kv[1], end - start))
        start = end
    return events


class EtcdWatch:
    """etcd v3's gRPC: one Watch stream of one connection, watch ids in order of creation."""

    def __init__(self, places: list[Place], note: Note) -> None:
        self._http2 = Http2Stream("/etcdserverpb.Watch/Watch")
        self._places = places
        self._note = note
        self.created = 0
        self.ended: dict[int, int] = {}

    def hello(self) -> bytes:
        creations = [
            field(1, field(1, place.prefix) + field(2, prefix_end(place.prefix))
                  + field(3, place.start_revision))
            for place in self._places
        ]  # fmt: skip
        return self._http2.opening() + b"".join(self._http2.message(create) for create in creations)

    def feed(self, data: memoryview) -> bytes:
        return self._http2.feed(data, self._on_response)

    def _on_response(self, message: memoryview) -> None:
        """WatchResponse: header 1, watch_id 2, created 3, canceled 4, events 11 (tag 0x5a), in this order."""
        length, offset = read_varint(message, 1)
        offset += length
        watch = 0
        if offset < len(message) and message[offset] == 0x10:
            watch, offset = read_varint(message, offset + 1)
        if offset >= len(message) or message[offset] != 0x5A:
            self._on_other(bytes(message))
            return
        cursor = self._places[watch].cursor
        self._note(cursor, cursor.tape.take(cursor, message[offset:]))

    def _on_other(self, message: bytes) -> None:
        told = dict(fields(message))
        if told.get(3):
            if (given := told.get(2, 0)) != self.created:
                raise Violation(f"etcd gave watch {self.created} of a stream the id {given!r}")
            self.created += 1
        elif told.get(4):
            raise Violation("etcd cancelled a watch")


def parse_etcd(chunk: bytes) -> list[Encoded]:
    """Repeated field 11. Event: kv is field 2; KeyValue: key 1, mod_revision 3, value 5."""
    events, start = [], 0
    while start < len(chunk):
        length, offset = read_varint(chunk, start + 1)
        end = offset + length
        kv = dict(fields(chunk[offset:end]))[2]
        assert isinstance(kv, bytes)
        told = dict(fields(kv))
        revision, key, value = told[3], told[1], told.get(5, b"")
        assert isinstance(revision, int)
        assert isinstance(key, bytes)
        assert isinstance(value, bytes)
        events.append(Encoded(revision, key, value, end - start))
        start = end
    return events
