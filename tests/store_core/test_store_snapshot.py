"""Snapshots: whole, however they are cut; refused, wherever they are damaged; and what they keep."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

import pytest

from raftkube.errors import InvariantViolation
from raftkube.store.core import StateMachine
from raftkube.store.core import snapshot as snapshot_module
from raftkube.store.server.machine import StoreMachine
from raftkube.types import Revision
from raftkube.wire import store as w

# Changes only with the snapshot's format: members of one version must agree on it.
GOLDEN_HASH = 4051922801025541422


def small() -> StateMachine:
    machine = StateMachine()
    for op in (
        w.LeaseGrant(7, 30),
        w.Put(b"/a", b"1", 7),
        w.Put(b"/b", b"1"),
        w.Txn((), (w.Put(b"/c", b"1", 7), w.DeleteRange(b"/b"), w.Put(b"/a", b"2"))),
        w.Compact(4),
        w.LeaseKeepAlive(7),
        w.Put(b"/a", b"3"),
        w.DeleteRange(b"/c"),
    ):
        machine.apply(op)
    return machine


def large() -> StateMachine:
    """Many sections of each kind, and one key whose versions fill several."""
    machine = StateMachine()
    for lease in range(1, 2_001):
        machine.apply(w.LeaseGrant(lease, lease))
    for number in range(3_000):
        machine.apply(w.Put(b"/few/%d" % (number % 100), b"x" * 10, 1 + number % 2_000))
    for number in range(40):
        machine.apply(w.Put(b"/one", b"%d" % number * 10_000))
    for number in range(2_000):
        machine.apply(w.Put(b"/many/%d" % number, b""))
    machine.apply(w.DeleteRange(b"/many/", b"/many0"))
    machine.apply(w.Compact(machine.revision))
    for number in range(2_000):
        machine.apply(w.Put(b"/after/%d" % (number % 7), b"%d" % number * 100))
    return machine


@pytest.fixture(scope="module")
def small_bytes() -> bytes:
    return b"".join(small().snapshot())


@pytest.mark.parametrize("build", [StateMachine, small, large])
def test_restores_all_that_can_be_seen(build: Callable[[], StateMachine]) -> None:
    machine = build()
    restored = StateMachine.restore(machine.snapshot())
    assert restored.state_hash() == machine.state_hash()
    assert list(restored.leases()) == list(machine.leases())
    assert restored.read(w.Range(b"/", b"\x00")) == machine.read(w.Range(b"/", b"\x00"))
    after = Revision(max(0, machine.compact_revision - 1))
    assert restored.events_between(after, b"/", b"\x00", 10_000) == machine.events_between(
        after, b"/", b"\x00", 10_000
    )
    assert b"".join(restored.snapshot()) == b"".join(machine.snapshot())


def test_sections_stay_small() -> None:
    chunks = list(large().snapshot())
    assert len(chunks) > 8
    assert max(map(len, chunks)) < 2 * snapshot_module.SECTION_BYTES


@pytest.mark.parametrize("size", [1, 7, 64])
def test_restores_however_it_is_cut(small_bytes: bytes, size: int) -> None:
    chunks = [small_bytes[begin : begin + size] for begin in range(0, len(small_bytes), size)]
    assert StateMachine.restore(chunks).state_hash() == small().state_hash()


def test_refuses_every_flipped_bit(small_bytes: bytes) -> None:
    for position in range(len(small_bytes)):
        for bit in range(8):
            damaged = bytearray(small_bytes)
            damaged[position] ^= 1 << bit
            with pytest.raises(InvariantViolation):
                StateMachine.restore([bytes(damaged)])


def test_refuses_every_shorter_snapshot(small_bytes: bytes) -> None:
    for length in range(len(small_bytes)):
        with pytest.raises(InvariantViolation):
            StateMachine.restore([small_bytes[:length]])


def test_refuses_sections_that_are_lost_swapped_or_added() -> None:
    chunks = list(small().snapshot())
    wrong = [chunks[:i] + chunks[i + 1 :] for i in range(len(chunks))]
    wrong += [[*chunks[:i], chunks[i + 1], chunks[i], *chunks[i + 2 :]] for i in range(len(chunks) - 1)]
    wrong += [[*chunks, chunks[-1]], [*chunks, chunks[0]], chunks[-1:]]
    for sections in wrong:
        with pytest.raises(InvariantViolation):
            StateMachine.restore(sections)


def test_refuses_another_format(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot_module, "FORMAT", 3)
    chunks = list(small().snapshot())
    monkeypatch.undo()
    with pytest.raises(InvariantViolation, match="format 2"):
        StateMachine.restore(chunks)


def test_a_snapshot_that_was_begun_shows_the_state_of_its_beginning() -> None:
    machine = large()
    state_hash = machine.state_hash()
    stream = machine.snapshot()
    begun = [next(stream)]
    machine.apply(w.DeleteRange(b"/", b"\x00"))
    machine.apply(w.LeaseRevoke(1))
    machine.apply(w.Compact(machine.revision))
    assert not machine.trim(1_000_000), "nothing is trimmed under a running snapshot"
    assert StateMachine.restore([*begun, *stream]).state_hash() == state_hash
    assert machine.trim(1_000_000)


def test_an_abandoned_snapshot_holds_nothing_back() -> None:
    machine = small()
    stream = machine.snapshot()
    machine.apply(w.Compact(machine.revision))
    assert not machine.trim(100)
    del stream
    assert machine.trim(100)


def test_operations_trim_by_and_by() -> None:
    machine = StateMachine()
    for number in range(100):
        machine.apply(w.Put(b"k", b"%d" % number))
    machine.apply(w.Compact(machine.revision))
    assert not machine.trim(0)
    for _ in range(13):
        machine.apply(w.Range(b"k"))
    assert machine.trim(0)
    assert len(machine._history) == 1


def test_the_hash_is_the_same_everywhere() -> None:
    assert small().state_hash() == GOLDEN_HASH


@pytest.mark.parametrize("seed", ["1", "2"])
def test_the_hash_does_not_depend_on_the_hash_seed_of_the_process(seed: str) -> None:
    program = "import test_store_snapshot as t; print(t.small().state_hash(), t.large().state_hash())"
    environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.split() == [str(small().state_hash()), str(large().state_hash())]


def deleted_at_once() -> StateMachine:
    """Large values and many keys, each deleted in one revision, at and above the compact revision."""
    machine = StateMachine()
    for number in range(40):
        machine.apply(w.Put(b"/large/%d" % number, b"x" * 100_000))
    for number in range(4_000):
        machine.apply(w.Put(b"/many/%d" % number + b"k" * 400, b""))
    machine.apply(w.DeleteRange(b"/large/", b"/large0"))
    machine.apply(w.Compact(machine.revision))
    for _ in range(3):
        machine.apply(w.Put(b"/long/" + b"k" * 30_000, b""))
    machine.apply(w.DeleteRange(b"/many/", b"/many0"))
    return machine


def test_a_revision_that_changed_much_leaves_in_small_chunks() -> None:
    """A chunk beyond what snapshot files take could be written and never read back."""
    machine = StoreMachine()
    machine.core = deleted_at_once()
    chunks = list(machine.snapshot())
    assert sum(map(len, chunks)) > 4_000_000
    assert max(map(len, chunks)) <= 1024 * 1024
    restored = StateMachine.restore(iter(chunks))
    assert restored.state_hash() == machine.core.state_hash()
    edge = machine.core.compact_revision
    seen = restored.events_between(Revision(edge - 1), b"/", b"\x00", 10_000)
    assert seen == machine.core.events_between(Revision(edge - 1), b"/", b"\x00", 10_000)
