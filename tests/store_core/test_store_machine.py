"""What the scripts cannot say: bugs stop the node, events are taken once, catching up is bounded."""

from __future__ import annotations

from typing import Any

import pytest

from raftkube.errors import Compacted, FutureRevision, InvariantViolation, LeaseNotFound
from raftkube.store.core import StateMachine
from raftkube.store.core.history import REVISIONS_SCANNED_MAX
from raftkube.types import Revision
from raftkube.wire import store as w


def test_events_are_taken_once() -> None:
    machine = StateMachine()
    machine.apply(w.Put(b"a", b"1"))
    machine.apply(w.Range(b"a"))
    machine.apply(w.Put(b"a", b"2"))
    first = w.KeyValue(b"a", b"1", 2, 2, 1, 0)
    second = w.KeyValue(b"a", b"2", 2, 3, 2, 0)
    assert machine.take_events() == [
        (2, (w.Event(w.PUT_EVENT, first, None),)),
        (3, (w.Event(w.PUT_EVENT, second, first),)),
    ]
    assert machine.take_events() == []


def test_an_error_that_comes_too_late_is_a_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StateMachine, "_check_branch", lambda self, branch: None)
    machine = StateMachine()
    with pytest.raises(InvariantViolation, match="halfway"):
        machine.apply(w.Txn((), (w.Put(b"a", b""), w.Put(b"b", b"", 9))))


def test_reads_raise_their_errors() -> None:
    machine = StateMachine()
    for value in (b"1", b"2", b"3"):
        machine.apply(w.Put(b"a", value))
    machine.apply(w.Compact(3))
    with pytest.raises(Compacted) as compacted:
        machine.read(w.Range(b"a", revision=2))
    assert compacted.value.fields == {"compact_revision": 3}
    with pytest.raises(FutureRevision) as future:
        machine.read(w.Range(b"a", revision=5))
    assert future.value.fields == {"revision": 4}
    with pytest.raises(LeaseNotFound):
        machine.read(w.LeaseTimeToLive(1))
    assert machine.take_events()[-1][0] == machine.revision == 4


def test_catching_up_looks_at_a_bounded_number_of_revisions() -> None:
    machine = StateMachine()
    machine.apply(w.Put(b"quiet", b""))
    for number in range(2 * REVISIONS_SCANNED_MAX):
        machine.apply(w.Put(b"busy", b"%d" % number))
    machine.apply(w.Put(b"quiet", b"again"))
    found: list[Any] = []
    calls, through = 0, Revision(0)
    while through < machine.revision:
        batch = machine.events_between(through, b"quiet", b"", 10)
        assert batch.through - max(through, 1) <= REVISIONS_SCANNED_MAX
        assert batch.through > through
        found += batch.revisions
        calls, through = calls + 1, batch.through
    assert calls == 3
    assert [revision for revision, _ in found] == [2, machine.revision]


def test_catching_up_never_splits_a_revision() -> None:
    machine = StateMachine()
    machine.apply(w.Txn((), tuple(w.Put(b"k%d" % number, b"") for number in range(10))))
    machine.apply(w.Put(b"k", b""))
    batch = machine.events_between(Revision(1), b"k", b"\x00", 1)
    assert [(revision, len(events)) for revision, events in batch.revisions] == [(2, 10)]
    assert batch.through == 2


def test_a_lease_granted_in_the_branch_not_taken_is_not_granted() -> None:
    machine = StateMachine()
    taken = machine.apply(w.Txn((), (), (w.LeaseGrant(1, 5),)))
    assert taken == w.TxnResult(1, True, ())
    assert list(machine.leases()) == []


def test_large_events_come_in_small_batches() -> None:
    """A watch that catches up holds one batch: its size is bounded by bytes, not only by events."""
    machine = StateMachine()
    for number in range(30):
        machine.apply(w.Put(b"k", b"%02d" % number + b"x" * 200_000))
    after, seen, largest = Revision(1), list[bytes](), 0
    while after < machine.revision:
        batch = machine.events_between(after, b"k", b"", 512)
        assert batch.through > after
        after = batch.through
        events = [event for _, events in batch.revisions for event in events]
        largest = max(largest, sum(len(event.kv.value) for event in events))
        seen += [event.kv.value[:2] for event in events]
    assert seen == [b"%02d" % number for number in range(30)]
    assert largest <= 2 * 1024 * 1024
