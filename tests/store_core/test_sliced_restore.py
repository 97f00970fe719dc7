"""A restore in slices: the same state as in one go, whatever the state; small steps; nothing half-built."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_store_snapshot import deleted_at_once, large, small

from raftkube.errors import InvariantViolation
from raftkube.store.core import StateMachine
from raftkube.store.core import restore as restore_module
from raftkube.types import Revision
from raftkube.wire import store as w


def in_slices(chunks: Iterator[bytes]) -> tuple[StateMachine, int]:
    building, slices = StateMachine.restoring(chunks), 0
    while True:
        try:
            next(building)
        except StopIteration as done:
            return done.value, slices
        slices += 1


@pytest.mark.parametrize("build", [StateMachine, small, large, deleted_at_once])
def test_slices_make_the_state_that_one_go_makes(build: Callable[[], StateMachine]) -> None:
    machine = build()
    sliced, _ = in_slices(machine.snapshot())
    whole = StateMachine.restore(machine.snapshot())
    assert sliced.state_hash() == whole.state_hash() == machine.state_hash()
    assert list(sliced.leases()) == list(machine.leases())
    assert sliced.read(w.Range(b"/", b"\x00")) == machine.read(w.Range(b"/", b"\x00"))


KEYS = st.sampled_from([b"/a", b"/b", b"/c/1", b"/c/2"])
LEASES = st.sampled_from([0, 0, 5, 6])
OPERATIONS = st.lists(
    st.one_of(
        st.builds(w.Put, KEYS, st.sampled_from([b"", b"v", b"long" * 400]), LEASES),
        st.builds(w.DeleteRange, KEYS, st.sampled_from([b"", b"/d"])),
        st.builds(w.LeaseGrant, st.sampled_from([5, 6]), st.just(30)),
        st.builds(w.LeaseRevoke, st.sampled_from([5, 6])),
        st.builds(w.LeaseKeepAlive, st.sampled_from([5, 6])),
        st.builds(w.Compact, st.integers(1, 40)),
    ),
    max_size=60,
)


@settings(deadline=None, max_examples=150)
@given(before=OPERATIONS, during=OPERATIONS, after=OPERATIONS, section_bytes=st.sampled_from([100, 2_000]))
def test_any_state_is_restored_and_goes_on_the_same_way(
    before: list[w.Op], during: list[w.Op], after: list[w.Op], section_bytes: int
) -> None:
    """Small sections, so that keys are cut between them; the original moves on while the copy is built."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("raftkube.store.core.snapshot.SECTION_BYTES", section_bytes)
        patch.setattr(restore_module, "_SLICE_ITEMS", 3)
        original = StateMachine()
        for op in before:
            original.apply(op)
        at_hash, stream = original.state_hash(), original.snapshot()
        waiting = list(during)

        def chunks() -> Iterator[bytes]:
            for chunk in stream:
                yield chunk
                if waiting:
                    original.apply(waiting.pop(0))

        copy, _ = in_slices(chunks())
        assert copy.state_hash() == at_hash
        for op in during[: len(during) - len(waiting)]:
            copy.apply(op)
        assert copy.state_hash() == original.state_hash()
        for op in after:
            assert repr(copy.apply(op)) == repr(original.apply(op))
        assert copy.state_hash() == original.state_hash()
        since = Revision(max(0, original.compact_revision - 1))
        assert copy.events_between(since, b"/", b"\x00", 999) == original.events_between(
            since, b"/", b"\x00", 999
        )


def test_slices_are_small() -> None:
    """By what they handle: no slice sees more than one section, or more keys than a slice may."""
    machine = deleted_at_once()
    taken: list[int] = []

    def chunks() -> Iterator[bytes]:
        for chunk in machine.snapshot():
            taken.append(len(chunk))
            yield chunk

    building = StateMachine.restoring(chunks())
    while True:
        seen = len(taken)
        try:
            next(building)
        except StopIteration:
            break
        assert len(taken) - seen <= 2
    _, slices = in_slices(large().snapshot())
    assert slices > 8


def test_a_key_that_goes_on_in_the_next_section_and_outlived_its_lease() -> None:
    machine = StateMachine()
    machine.apply(w.LeaseGrant(5, 30))
    machine.apply(w.LeaseGrant(6, 30))
    for number in range(12):
        machine.apply(w.Put(b"/one", b"x" * 60_000, 5 + number % 2))
    machine.apply(w.Put(b"/one", b"free"))
    machine.apply(w.LeaseRevoke(5))
    copy, _ = in_slices(machine.snapshot())
    assert list(copy.leases()) == list(machine.leases())
    assert copy.apply(w.LeaseRevoke(6)) == machine.apply(w.LeaseRevoke(6))
    assert copy.state_hash() == machine.state_hash()


def test_damage_is_told_in_the_slice_that_meets_it() -> None:
    chunks = list(large().snapshot())
    chunks[-2] = chunks[-2][:-1] + bytes([chunks[-2][-1] ^ 1])
    building = StateMachine.restoring(iter(chunks))
    with pytest.raises(InvariantViolation):
        for _ in range(10_000):
            next(building)


def test_a_state_is_freed_by_and_by() -> None:
    machine = large()
    steps = 0
    while not machine.discard(100):
        steps += 1
    assert steps >= 20
    assert not list(machine.read(w.Range(b"\x00", b"\x00")).kvs)  # type: ignore[union-attr]
    assert len(machine._history) == 0


def test_a_snapshot_in_the_making_keeps_its_state_whole() -> None:
    machine = large()
    expected = machine.state_hash()
    stream = machine.snapshot()
    begun = [next(stream)]
    assert not machine.discard(1_000_000)
    assert StateMachine.restore([*begun, *stream]).state_hash() == expected
    assert machine.discard(1_000_000)


def test_history_goes_as_fast_as_it_is_trimmed() -> None:
    machine = StateMachine()
    for number in range(1_000):
        machine.apply(w.Put(b"k%d" % (number % 9), b"%d" % number))
    machine.apply(w.Compact(Revision(900)))
    held = []
    while not machine.trim(50):
        held.append(len(machine._history))
    assert held == sorted(held, reverse=True)
    assert held[0] < 1_000
    assert len(machine._history) == machine.revision - 899
    at_edge = machine.events_between(Revision(899), b"k", b"\x00", 5_000)
    assert at_edge.revisions[0][0] == 900
    assert at_edge.through == machine.revision
