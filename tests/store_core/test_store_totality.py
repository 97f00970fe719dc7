"""Whatever a client sends: it is refused with a StoreError before it is proposed, or apply answers it.

An exception in apply would stop every member at the same entry, at each start anew.
"""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from raftkube.errors import SessionUnknown, StoreError
from raftkube.store.core import StateMachine, validate
from raftkube.store.server.machine import StoreMachine
from raftkube.types import LogIndex
from raftkube.wire.frames import pack, unpack
from raftkube.wire.store import SessionOpen, op_from_wire, op_to_wire, result_from_wire, result_to_wire

NUMBERS = st.sampled_from(
    [0, 1, 2, 3, 7, -1, -7, 2**31, 9_000_000_000, 2**63 - 1, 2**63, 2**64 - 1, -(2**63)]
)
BYTES = st.sampled_from([b"", b"\x00", b"a", b"a/1", b"a/2", b"b", b"\xff", b"\xff\xff", b"k" * 40_000])
STRANGE = st.sampled_from(
    [None, True, False, 1.5, float("nan"), float("inf"), "", "=", "value", [], {}, [1, b"a"], {"a": 1}]
)
FIELD = NUMBERS | BYTES | STRANGE
TARGETS = st.sampled_from(["version", "create", "mod", "value", "lease"])
COMPARES = st.one_of(
    st.tuples(BYTES, TARGETS, st.sampled_from(["=", "!=", "<", ">"]), NUMBERS | BYTES).map(list),
    st.tuples(BYTES, TARGETS, st.sampled_from(["=", "!=", "<", ">"]), NUMBERS | BYTES, BYTES).map(list),
    st.lists(FIELD, max_size=6),
)
FLAG = st.booleans()
WORDS = st.sampled_from(["", "ascend", "descend", "mod", "value", "NOSPACE", "store-1"])
SIMPLE = st.one_of(
    st.tuples(st.just(1), BYTES, BYTES, NUMBERS, FLAG).map(list),
    st.tuples(st.just(2), BYTES, BYTES, FLAG).map(list),
    st.tuples(st.just(3), BYTES, BYTES, NUMBERS, NUMBERS, FLAG, FLAG).map(list),
    st.tuples(st.sampled_from([5, 7, 8]), NUMBERS).map(list),
    st.tuples(st.sampled_from([6, 9]), NUMBERS, NUMBERS).map(list),
    st.tuples(st.just(10), NUMBERS, FLAG).map(list),
    st.tuples(st.just(1), BYTES, BYTES, NUMBERS, FLAG, FLAG, FLAG).map(list),
    st.tuples(
        st.just(3),
        BYTES,
        BYTES,
        NUMBERS,
        NUMBERS,
        FLAG,
        FLAG,
        WORDS,
        WORDS,
        NUMBERS,
        NUMBERS,
        NUMBERS,
        NUMBERS,
    ).map(list),
    st.tuples(st.just(12), NUMBERS).map(list),
    st.tuples(st.just(13), NUMBERS, NUMBERS).map(list),
    st.tuples(st.just(15), FLAG, WORDS, WORDS).map(list),
    st.just([16]),
    st.just([11]),
    st.lists(FIELD, max_size=8),
)
TXN = st.tuples(
    st.just(4),
    st.lists(COMPARES, max_size=3),
    st.lists(SIMPLE, max_size=4),
    st.lists(SIMPLE, max_size=4),
).map(list)
SMALL = st.sampled_from([1, 2, 3])
ONCE = st.one_of(
    st.tuples(st.just(14), SMALL, SMALL, SMALL, SIMPLE | TXN).map(list),
    st.tuples(st.just(14), FIELD, FIELD, FIELD, SIMPLE | TXN | STRANGE).map(list),
    st.tuples(st.just(14), SMALL, SMALL, SMALL, st.tuples(st.just(14), SMALL, SMALL, SMALL, SIMPLE)),
)
WIRE = st.one_of(SIMPLE, TXN, ONCE, ONCE, STRANGE, st.lists(st.one_of(SIMPLE, TXN, ONCE), max_size=3))


def accepted(wire: Any) -> Any:
    """What a member would propose of it, or the StoreError that it refuses it with."""
    try:
        op = op_from_wire(unpack(pack(wire)))
        validate(op)
    except StoreError as error:
        return error
    return op


@settings(max_examples=400, deadline=None, print_blob=True)
@given(st.lists(WIRE, min_size=1, max_size=12))
def test_every_operation_is_refused_or_applied(wires: list[Any]) -> None:
    machine, twin = StoreMachine(), StoreMachine()
    for core in (machine.core, twin.core):
        core.apply(SessionOpen(1))
    for index, wire in enumerate(wires, 2):
        op = accepted(wire)
        if isinstance(op, StoreError):
            assert op.definite
            pack(op.to_wire())
            continue
        entry = pack([pack(op_to_wire(op))])
        (result,) = machine.apply(LogIndex(index), entry)
        twin.apply(LogIndex(index), entry)
        if isinstance(result, StoreError):
            assert result.definite or isinstance(result, SessionUnknown)
            pack(result.to_wire())
        else:
            assert result_from_wire(unpack(pack(result_to_wire(result)))) == result
    assert machine.core.state_hash() == twin.core.state_hash()
    restored = StateMachine.restore(machine.snapshot())
    assert restored.state_hash() == machine.core.state_hash()


@settings(max_examples=200, deadline=None, print_blob=True)
@given(WIRE)
def test_an_entry_that_was_never_validated_is_answered_too(wire: Any) -> None:
    """Apply stands by itself: what another version of the program let through is an error value."""
    (result,) = StoreMachine().apply(LogIndex(2), pack([pack(wire)]))
    pack(result.to_wire() if isinstance(result, StoreError) else result_to_wire(result))
