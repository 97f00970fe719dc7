"""Operations and results survive the wire; wrong ones are named."""

from __future__ import annotations

import pytest

from raftkube.errors import InvalidRequest
from raftkube.wire import frames, rpc
from raftkube.wire import store as w

KV = w.KeyValue(b"k", b"v", 2, 3, 2, 0)
OPS = [
    w.Put(b"k", b"v", 7, True),
    w.DeleteRange(b"a", b"b", True),
    w.Range(b"a", b"\x00", 5, 10, True, False),
    w.Txn((w.Compare(b"k", "mod", "=", 3),), (w.Put(b"k", b"w"),), (w.Range(b"k"),)),
    w.Compact(9),
    w.LeaseGrant(0, 10),
    w.LeaseRevoke(1),
    w.LeaseKeepAlive(1),
    w.LeaseExpire(1, 4),
    w.LeaseTimeToLive(1, True),
    w.LeaseList(),
]
RESULTS = [
    w.PutResult(3, KV),
    w.PutResult(3),
    w.DeleteRangeResult(4, 1, (KV,)),
    w.RangeResult(4, (KV, KV), 2, False),
    w.TxnResult(4, True, (w.PutResult(4), w.RangeResult(4, (KV,), 1))),
    w.CompactResult(4),
    w.LeaseResult(4, 1, 10, 2, 8.5, (b"k",)),
    w.LeaseListResult(4, (1, 2)),
]


@pytest.mark.parametrize("op", OPS, ids=lambda op: type(op).__name__)
def test_operations_round_trip(op: w.Op) -> None:
    assert w.op_from_wire(frames.unpack(frames.pack(w.op_to_wire(op)))) == op


@pytest.mark.parametrize("op", OPS, ids=lambda op: type(op).__name__)
def test_a_wire_form_is_what_it_unpacks_to(op: w.Op) -> None:
    """A leader applies what it proposed, its followers what they unpacked: the same, to the type."""
    wire = w.op_to_wire(op)
    assert repr(frames.unpack(frames.pack_small(wire))) == repr(wire)
    assert frames.pack_small(wire) == frames.pack(wire)


def test_the_short_answer_says_what_the_long_one_says() -> None:
    for request_id in (0, 1, 127, 128, 2**32 - 1, 2**32, 2**63):
        for revision in (1, 2**31, 2**40, 2**63 - 1):
            short = rpc.put_answer(request_id, revision)
            long = rpc.answer(request_id, w.result_to_wire(w.PutResult(revision)))
            reader = frames.FrameReader()
            assert [frames.unpack(body) for body in reader.feed(short + long)] == [
                [rpc.ANSWER, request_id, [1, revision, None]]
            ] * 2


@pytest.mark.parametrize("result", RESULTS, ids=lambda result: type(result).__name__)
def test_results_round_trip(result: w.Result) -> None:
    assert w.result_from_wire(frames.unpack(frames.pack(w.result_to_wire(result)))) == result


@pytest.mark.parametrize(
    ("wire", "field"),
    [
        ("put", "op"),
        ([99], "op"),
        ([1, b"k"], "op"),
        ([1, "k", b"v"], "key"),
        ([1, b"k", b"v", 2**63], "lease"),
        ([3, b"k", b"", True], "revision"),
        ([4, [], [], 3], "txn"),
        ([4, [], [[4, [], [], []]], []], "txn"),
        ([4, [[b"k", "size", "=", 1]], [], []], "compares"),
        ([4, [[b"k", [], "=", 1]], [], []], "compares"),
        ([4, [[b"k", "mod", [], 1]], [], []], "compares"),
        ([4, [[b"k", "mod", "~", 1]], [], []], "compares"),
        ([4, [[b"k", "value", "=", 1]], [], []], "compares"),
    ],
)
def test_wrong_operations_are_named(wire: object, field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        w.op_from_wire(wire)
    assert caught.value.fields["field"] == field


def test_a_deep_nest_of_transactions_is_refused_at_its_first_level() -> None:
    wire: list[object] = [4, [], [], []]
    for _ in range(10_000):
        wire = [4, [], [wire], []]
    with pytest.raises(InvalidRequest, match="Txn cannot stand in a transaction"):
        w.op_from_wire(wire)


@pytest.mark.parametrize(
    ("prefix", "end"),
    [(b"a", b"b"), (b"/x/", b"/x0"), (b"a\xff", b"b"), (b"\xff\xff", b"\x00"), (b"", b"\x00")],
)
def test_prefix_end(prefix: bytes, end: bytes) -> None:
    assert w.prefix_end(prefix) == end


def test_frames_are_cut_at_every_boundary() -> None:
    stream = b"".join(frames.frame(n) for n in ([1, b"x" * 300], {"a": None}, "z"))
    for cut in range(len(stream)):
        reader = frames.FrameReader()
        bodies = [*reader.feed(stream[:cut]), *reader.feed(stream[cut:])]
        assert [frames.unpack(body) for body in bodies] == [[1, b"x" * 300], {"a": None}, "z"]


@pytest.mark.parametrize("length", [b"\x00\x00\x00\x00", b"\xff\xff\xff\xff", b"\x00\x00\x00\x65"])
def test_frame_lengths_out_of_bounds_are_refused(length: bytes) -> None:
    with pytest.raises(frames.FrameError):
        list(frames.FrameReader(frame_bytes_max=100).feed(length + b"x"))


@pytest.mark.parametrize(
    "body",
    [
        b"\xc1", b"\x92\x01", b"\x01\x01", b"\xdd\xff\xff\xff\xff", b"\x91" * 2000,
        b"\x81\x90\x01", b"\x81\x80\x01",  # an array and a map as keys of a map
    ],
)  # fmt: skip
def test_bodies_that_are_not_msgpack_are_refused(body: bytes) -> None:
    with pytest.raises(frames.FrameError):
        frames.unpack(body)
