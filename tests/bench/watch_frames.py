"""What a server sends to watchers, as bytes, by protocol."""

from __future__ import annotations

import struct

import msgpack

from bench.etcd import field, varint
from bench.latency import Latencies
from bench.tape import STAMP, Cursor, Tape
from bench.watch_sessions import EtcdWatch, OursWatch, Place, WatchSession, parse_etcd, parse_ours
from raftkube.wire import rpc

Write = tuple[int, bytes, bytes]
SIDES = {"ours": (OursWatch, parse_ours), "etcd": (EtcdWatch, parse_etcd)}
START = 2


class Watched:
    """A session of `watches` watchers, confirmed; `noted` is what it moved on."""

    def __init__(self, protocol: str, watches: int = 3, *, contiguous: bool = True) -> None:
        make, parse = SIDES[protocol]
        self.protocol = protocol
        self.tape = Tape(START, parse, contiguous=contiguous)
        self.cursors = [Cursor(self.tape, number) for number in range(watches)]
        self.noted: list[tuple[int, int]] = []
        places = [Place(cursor, b"/bench/", START) for cursor in self.cursors]
        self.session: WatchSession = make(
            places, lambda cursor, count: self.noted.append((cursor.number, count))
        )
        self.session.hello()
        self.feed(greeting(protocol, watches))
        assert self.session.created == watches

    def feed(self, data: bytes) -> bytes:
        return self.session.feed(memoryview(data))


def write(first: int, count: int, due_s: float = 0.0) -> list[Write]:
    stamp = STAMP.pack(int(due_s * 1e9), 0)
    return [(first + n, b"/bench/%d" % (first + n), stamp + b"value %d" % (first + n)) for n in range(count)]


def greeting(protocol: str, watches: int) -> bytes:
    if protocol == "ours":
        answers = [rpc.answer(watch, [1]) for watch in range(1, watches + 1)]
        return rpc.member_hello("m", "c") + b"".join(answers)
    created = [field(1, field(3, 1)) + _watch_id(watch) + field(3, 1) for watch in range(watches)]
    return _http2(4, 0, b"") + b"".join(_message(body) for body in created)


def events(protocol: str, writes: list[Write], watches: list[int]) -> bytes:
    """These events for these watchers (by number from 0 on)."""
    if protocol == "ours":
        ids = msgpack.packb([watch + 1 for watch in watches])
        chunk = b"".join(msgpack.packb([0, [key, value, at, at, 1, 0], None]) for at, key, value in writes)
        return rpc.events_frame(rpc.EVENTS, ids, writes[-1][0], len(writes), chunk)
    chunk = b"".join(field(11, field(2, _kv(*one))) for one in writes)
    header = field(1, field(3, writes[-1][0]))
    return b"".join(_message(header + _watch_id(watch) + chunk) for watch in watches)


def _kv(revision: int, key: bytes, value: bytes) -> bytes:
    return (
        field(1, key) + varint(2 << 3) + varint(revision) + field(3, revision) + field(4, 1) + field(5, value)
    )


def _watch_id(watch: int) -> bytes:
    return field(2, watch) if watch else b""


def _http2(kind: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, 0)) + struct.pack(">I", stream) + payload


def _message(body: bytes) -> bytes:
    payload = b"\x00" + struct.pack(">I", len(body)) + body
    return b"".join(_http2(0, 1, payload[at : at + 16_384]) for at in range(0, len(payload), 16_384))


def latencies(*took_s: float) -> Latencies:
    made = Latencies()
    for one in took_s:
        made.add(one, [0.0])
    return made
