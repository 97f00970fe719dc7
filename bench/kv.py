"""Puts and linearizable gets over one connection, for the generator: one session a protocol, alike in what
they do. Errors are told, not raised: whether one is a violation is for the load to say."""

from __future__ import annotations

from typing import Final, NamedTuple, Protocol

import msgpack

from bench.etcd import Http2, fields, header_revision, preface, request_headers
from bench.etcd import field as protobuf
from bench.ours import Frames
from raftkube.wire import rpc
from raftkube.wire.store import Put, Range, op_to_wire

_DEADLINE_MS: Final = 30_000


class Answer(NamedTuple):
    """To request `number` (from 0 on). A put's `revision` is its own; a get's is that of the version found,
    0 if the key does not exist. `error` is empty unless the server refused."""

    number: int
    revision: int
    value: bytes | None = None
    error: str = ""


class KvSession(Protocol):
    """One connection, many requests in flight."""

    def hello(self) -> bytes:
        """What is sent first."""
        ...

    def put(self, key: bytes, value: bytes) -> bytes:
        """The bytes of one more request."""
        ...

    def get(self, key: bytes) -> bytes:
        """The bytes of one more request, a linearizable read of one key."""
        ...

    def feed(self, data: bytes) -> tuple[bytes, list[Answer]]:
        """(what must be sent now, the answers)."""
        ...


class OursKv:
    """raftkube's store protocol."""

    def __init__(self) -> None:
        self._frames = Frames()
        self._sent = 0

    def hello(self) -> bytes:
        return rpc.client_hello("bench")

    def put(self, key: bytes, value: bytes) -> bytes:
        return self._request(op_to_wire(Put(key, value)))

    def get(self, key: bytes) -> bytes:
        return self._request(op_to_wire(Range(key)))

    def _request(self, wire: list[object]) -> bytes:
        number = self._sent
        self._sent += 1
        return rpc.request(number, rpc.OP, [wire], _DEADLINE_MS)

    def feed(self, data: bytes) -> tuple[bytes, list[Answer]]:
        answers = []
        for body in self._frames.cut(data):
            kind, number, result = msgpack.unpackb(body, strict_map_key=False)
            if kind != rpc.ANSWER:
                answers.append(Answer(number, 0, error=str(result)))
            elif result[0] == 1:  # PutResult: [1, revision, previous]
                answers.append(Answer(number, result[1]))
            else:  # RangeResult: [3, revision, key-values, count, more]
                kvs = result[2]
                found = kvs[0] if kvs else (b"", None, 0, 0)
                answers.append(Answer(number, found[3], found[1]))
        return b"", answers


class EtcdKv:
    """etcd v3's gRPC, a stream a request."""

    def __init__(self) -> None:
        self._http2 = Http2()
        self._put = request_headers("/etcdserverpb.KV/Put")
        self._range = request_headers("/etcdserverpb.KV/Range")
        self._stream = 1
        self._gets: set[int] = set()

    def hello(self) -> bytes:
        return preface()

    def put(self, key: bytes, value: bytes) -> bytes:
        return self._request(self._put, protobuf(1, key) + protobuf(2, value))

    def get(self, key: bytes) -> bytes:
        self._gets.add(self._stream)
        return self._request(self._range, protobuf(1, key))

    def _request(self, headers: bytes, body: bytes) -> bytes:
        stream = self._stream
        self._stream += 2
        return self._http2.message(stream, headers, body, end=True)

    def feed(self, data: bytes) -> tuple[bytes, list[Answer]]:
        out, messages = self._http2.feed(data)
        return out, [self._answer(stream, message) for stream, message in messages]

    def _answer(self, stream: int, message: bytes) -> Answer:
        number = (stream - 1) // 2
        if stream not in self._gets:
            return Answer(number, header_revision(message))
        self._gets.discard(stream)
        told = dict(fields(message))  # RangeResponse: header 1, kvs 2, more 3, count 4
        kv = told.get(2)
        if not isinstance(kv, bytes):
            return Answer(number, 0)
        found = dict(fields(kv))
        revision, value = found[3], found.get(5, b"")
        assert isinstance(revision, int)
        assert isinstance(value, bytes)
        return Answer(number, revision, value)


def make_kv(protocol: str) -> KvSession:
    """A session of `ours` or `etcd`."""
    return OursKv() if protocol == "ours" else EtcdKv()
