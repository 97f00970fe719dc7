"""What is_plain_put lets pass needs no other check."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from raftkube.errors import StoreError
from raftkube.limits import KEY_BYTES_MAX, REQUEST_BYTES_MAX
from raftkube.store.core import StateMachine, is_plain_put, validate
from raftkube.wire.store import Put, op_from_wire

_KEYS = st.sampled_from([b"", b"k", bytes(KEY_BYTES_MAX), bytes(KEY_BYTES_MAX + 1), "k", None, 1])
_VALUES = st.sampled_from(
    [b"", b"v", bytes(REQUEST_BYTES_MAX - 1), bytes(REQUEST_BYTES_MAX), "v", None, [b"v"]]
)
_LEASES = st.sampled_from([0, 1, -1, 2**63 - 1, 2**63, -(2**63) - 1, True, 0.0, None, b"1"])
_FLAGS = st.sampled_from([False, True, 0, 1, None])
_NUMBERS = st.sampled_from([1, 1, 1, 1.0, True, 2, "1", None])


@given(_NUMBERS, _KEYS, _VALUES, _LEASES, _FLAGS, st.sampled_from([5, 5, 5, 4, 6, 3]))
def test_it_agrees_with_the_thorough_checks(
    number: Any, key: Any, value: Any, lease: Any, prev_kv: Any, length: int
) -> None:
    wire = [number, key, value, lease, prev_kv, False][:length]
    try:
        op = op_from_wire(wire)
        validate(op)
    except StoreError:
        accepted = False
    else:
        accepted = isinstance(op, Put) and length == 5
    assert is_plain_put(wire) == accepted


def test_what_is_no_list_is_no_put() -> None:
    for wire in (None, 1, b"put", {}, (1, b"k", b"v", 0, False), []):
        assert not is_plain_put(wire)


def test_a_put_the_short_way_is_refused_as_any_other() -> None:
    short, long = StateMachine(), StateMachine()
    refused = short.put(b"k", b"v", 7, False)
    assert isinstance(refused, StoreError)
    assert refused.to_wire() == long.apply(Put(b"k", b"v", 7)).to_wire()  # type: ignore[union-attr]
    assert short.take_events() == []
    assert short.state_hash() == long.state_hash()
