"""What sessions hold is bounded, by number and by bytes, and what is forgotten is never applied again."""

from __future__ import annotations

from typing import Any

import pytest

from raftkube.errors import InvalidRequest, Overloaded, SessionUnknown
from raftkube.limits import SESSION_RESULTS_BYTES_MAX, SESSION_WINDOW, SESSIONS_MAX
from raftkube.store.core import StateMachine
from raftkube.store.core.snapshot import _frame, _pack, snapshot_chunks
from raftkube.wire import store as w


def opened() -> StateMachine:
    machine = StateMachine()
    machine.apply(w.SessionOpen(1))
    return machine


def held(machine: StateMachine) -> Any:
    return machine._sessions._sessions[1]


def test_the_window_is_bounded_and_moves_with_what_is_acknowledged() -> None:
    machine = opened()
    for sequence in range(1, SESSION_WINDOW + 1):
        assert isinstance(machine.apply(w.Once(1, sequence, 1, w.Put(b"k", b""))), w.PutResult)
    beyond = machine.apply(w.Once(1, SESSION_WINDOW + 1, 1, w.Put(b"k", b"")))
    assert isinstance(beyond, InvalidRequest)
    assert len(held(machine).results) == SESSION_WINDOW
    machine.apply(w.Once(1, SESSION_WINDOW + 1, SESSION_WINDOW, w.Put(b"k", b"")))
    assert sorted(held(machine).results) == [SESSION_WINDOW, SESSION_WINDOW + 1]
    machine.apply(w.Once(1, 2**62, 2**62, w.Put(b"k", b"")))
    assert list(held(machine).results) == [2**62]
    assert held(machine).results_bytes == sum(map(len, held(machine).results.values()))


def test_results_that_take_too_much_are_forgotten_but_not_that_they_were() -> None:
    machine = opened()
    value = b"x" * (SESSION_RESULTS_BYTES_MAX // 4)
    machine.apply(w.Put(b"k", value))
    for sequence in range(1, 9):
        machine.apply(w.Once(1, sequence, 1, w.Put(b"k", value, prev_kv=True)))
    assert held(machine).results_bytes <= SESSION_RESULTS_BYTES_MAX
    version = machine.read(w.Range(b"k")).kvs[0].version  # type: ignore[union-attr]
    machine = StateMachine.restore(machine.snapshot())
    assert held(machine).results_bytes <= SESSION_RESULTS_BYTES_MAX
    answers = [machine.apply(w.Once(1, sequence, 1, w.Put(b"k", b"again"))) for sequence in range(1, 9)]
    assert [isinstance(answer, SessionUnknown) for answer in answers] == [True] * 5 + [False] * 3
    assert machine.read(w.Range(b"k")).kvs[0].version == version  # type: ignore[union-attr]


def test_one_result_that_is_too_large_costs_the_others_nothing() -> None:
    machine = opened()
    machine.apply(w.Put(b"k", b"x" * (SESSION_RESULTS_BYTES_MAX + 1)))
    first = machine.apply(w.Once(1, 1, 1, w.Put(b"other", b"")))
    machine.apply(w.Once(1, 2, 1, w.Put(b"k", b"", prev_kv=True)))
    assert isinstance(machine.apply(w.Once(1, 2, 1, w.Put(b"k", b""))), SessionUnknown)
    assert machine.apply(w.Once(1, 1, 1, w.Put(b"other", b""))) == first


def test_there_are_so_many_sessions_and_the_oldest_go_first() -> None:
    machine = StateMachine()
    for session in range(1, SESSIONS_MAX + 1):
        machine.apply(w.SessionOpen(session))
    refused = machine.apply(w.SessionOpen(SESSIONS_MAX + 1))
    assert isinstance(refused, Overloaded)
    machine.apply(w.Once(1, 1, 1, w.Put(b"k", b"")))
    assert [view.session for view in machine.oldest_sessions(beyond=SESSIONS_MAX - 2)] == [2, 3]
    assert machine.oldest_sessions(beyond=SESSIONS_MAX) == []
    restored = StateMachine.restore(machine.snapshot())
    assert restored.oldest_sessions(beyond=0) == machine.oldest_sessions(beyond=0)


@pytest.mark.parametrize("field", ["session", "sequence", "acknowledged_below"])
def test_the_wire_refuses_numbers_beyond_63_bits(field: str) -> None:
    wire = w.op_to_wire(w.Once(1, 1, 1, w.Put(b"k", b""))._replace(**{field: 2**63}))
    with pytest.raises(InvalidRequest) as refused:
        w.op_from_wire(wire)
    assert refused.value.fields == {"field": field}


def test_fields_that_came_later_are_left_out_where_they_say_nothing() -> None:
    assert w.op_to_wire(w.Put(b"k", b"v")) == [1, b"k", b"v", 0, False]
    assert w.op_to_wire(w.Range(b"k")) == [3, b"k", b"", 0, 0, False, False]
    for op in (w.Put(b"k", b"", ignore_lease=True), w.Range(b"k", sort_order="descend")):
        assert w.op_from_wire(list(w.op_to_wire(op))) == op


def test_a_snapshot_of_the_format_before_is_read() -> None:
    """Format 1 had neither sessions nor alarms; its other sections were the same."""
    import zlib
    from hashlib import blake2b

    import msgpack

    machine = StateMachine()
    for number in range(5):
        machine.apply(w.Put(b"k%d" % (number % 2), b"%d" % number))
    machine.apply(w.Compact(3))
    digest, old = blake2b(digest_size=8), list[bytes]()
    for chunk in snapshot_chunks(machine._pin(), machine._keyspace, machine._history):
        kind, crc, payload = msgpack.unpackb(chunk)
        assert zlib.crc32(payload, kind) == crc
        if kind == 1:
            payload = _pack([1, *msgpack.unpackb(payload)[1:]])
        if kind == 6:
            payload = _pack([int.from_bytes(digest.digest(), "big")])
        digest.update(payload)
        old.append(_frame(kind, payload))
    restored = StateMachine.restore(old)
    assert restored.state_hash() == machine.state_hash()
    assert restored.db_size_in_use == machine.db_size_in_use
