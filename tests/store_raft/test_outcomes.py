"""Whoever waits for a change of members or of the leader learns an outcome, and one that is true."""

from __future__ import annotations

import errno

import pytest
from test_guard import Guarded

from raftkube.errors import DiskFailed, Indefinite, LeadershipLost, RaftkubeError, Stopped
from raftkube.store.raft import messages as msg
from raftkube.store.raft.membership import Configuration, UpdateAddress
from raftkube.store.raft.waiting import Waiter


def outcome_of(waiter: Waiter) -> object:
    """What the waiter was told; None: nothing."""
    if waiter.resolved:
        assert waiter._outcome is not None
        return getattr(waiter._outcome, "error", None) or getattr(waiter._outcome, "value", None)
    return None


def leader_with_everything_committed() -> Guarded:
    guarded = Guarded()
    term = guarded.lead()
    acknowledge(guarded, term)
    return guarded


def acknowledge(guarded: Guarded, term: int) -> None:
    last = guarded.replica.journal.last_index
    for name in ("n2", "n3"):
        guarded.receive(name, msg.APPENDED, term, last + 1, False, True)


def test_a_change_applied_in_the_step_whose_sync_fails_has_an_outcome() -> None:
    guarded = leader_with_everything_committed()
    replica = guarded.replica
    waiter = replica.changes.request(UpdateAddress("n2", "elsewhere:1"), guarded.clock.now)
    replica.pump()
    last = replica.journal.last_index
    guarded.receive("n2", msg.APPENDED, replica.core.term, last + 1, False, True)
    replica.proposals.add(["next"], guarded.clock.now)  # something for the sync to fail with
    guarded.disk.fail_next["sync"] = errno.EIO
    with pytest.raises(DiskFailed):
        guarded.receive("n3", msg.APPENDED, replica.core.term, last + 1, False, True)
    assert replica.core.applied_index == last
    replica.changes.stop()
    assert isinstance(outcome_of(waiter), LeadershipLost)


@pytest.mark.parametrize("asked", [False, True])
def test_a_transfer_that_its_leader_does_not_outlive_is_in_doubt_once_somebody_was_asked(
    asked: bool,
) -> None:
    guarded = leader_with_everything_committed()
    replica = guarded.replica
    waiter = replica.transfer.begin("n2" if asked else "n4", guarded.clock.now, 2.0)
    guarded.sent.clear()
    replica.pump()
    assert any(message[0] == msg.TIMEOUT_NOW for _, message in guarded.sent) is asked
    replica.transfer.stop(Stopped("this member has stopped"))
    told = outcome_of(waiter)
    assert isinstance(told, RaftkubeError)
    assert isinstance(told, Indefinite) is asked


def test_a_candidate_whose_voters_change_begins_anew() -> None:
    """A snapshot that was being built is put in place during an election, with other members in it."""
    guarded = Guarded()
    replica = guarded.replica
    guarded.clock.now += 10
    replica.pump()
    for name in ("n2", "n3"):
        guarded.receive(name, msg.PRE_VOTE_OK, replica.guard.prevote._round)
    term = replica.core.term
    guarded.receive("n2", msg.VOTE, term)
    others = [f"m{n}" for n in range(2, 6)]
    replica.journal.configurations.restored(1, Configuration.of_names(["n1", *others]))
    guarded.receive("m2", msg.VOTE, term)
    assert not replica.leading  # two of five
    replica.core.election_deadline = guarded.clock.now - 1
    replica.pump()
    for name in ("m2", "m3"):
        guarded.receive(name, msg.PRE_VOTE_OK, replica.guard.prevote._round)
    assert replica.core.term == term + 1
    for name in ("m2", "m3"):
        guarded.receive(name, msg.VOTE, term + 1)
    assert replica.leading
