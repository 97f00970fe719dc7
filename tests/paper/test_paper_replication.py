"""Raft paper §5.3, §5.4 and §5.5: the log, commitment, crashes. One test a rule of figure 2 and figure 3."""

from __future__ import annotations

from typing import Any

import pytest
from raft_rig import SETTINGS, Cluster, Server, entry

from raftkube.errors import InvariantViolation
from raftkube.store.raft import messages as msg


def grown(*terms: int) -> Server:
    """A follower whose log holds entries of these terms from index 2 on."""
    server = Server()
    entries = [entry(index, term) for index, term in enumerate(terms, 2)]
    server.receive("n2", msg.APPEND, terms[-1], 1, 1, 0, entries)
    return server


def terms(server: Server) -> list[int]:
    return [term for _, term in server.log[1:]]


def test_no_entry_at_prev_is_refused() -> None:
    """AppendEntries receiver 2: reply false if log doesn't contain an entry at prevLogIndex whose term
    matches prevLogTerm (§5.3)."""
    server = grown(1, 1)
    for prev in ((5, 1), (3, 2)):
        ((_, answer),) = server.receive("n2", msg.APPEND, 2, 9, *prev, [entry(prev[0] + 1, 2)])
        assert answer[0] == msg.APPENDED
        assert answer[3:] == [True, False]  # go back; no success
        assert terms(server) == [1, 1]
        assert server.commit == 1


def test_a_conflicting_entry_goes_with_all_that_follow_it() -> None:
    """AppendEntries receiver 3: if an existing entry conflicts with a new one (same index but different
    terms), delete the existing entry and all that follow it (§5.3)."""
    server = grown(1, 1, 1, 1)
    server.receive("n3", msg.APPEND, 2, 1, 2, 1, [entry(3, 2)])
    assert terms(server) == [1, 2]


def test_nothing_goes_without_a_conflict() -> None:
    """AppendEntries receiver 3 again: an old or repeated message deletes nothing (§5.5: RPCs are
    idempotent)."""
    server = grown(1, 1, 1, 1)
    for entries in ([], [entry(2, 1)], [entry(2, 1), entry(3, 1)]):
        ((_, answer),) = server.receive("n2", msg.APPEND, 1, 1, 1, 0, entries)
        assert answer == [msg.APPENDED, 1, 2 + len(entries), False, True]
        assert terms(server) == [1, 1, 1, 1]


def test_new_entries_are_appended() -> None:
    """AppendEntries receiver 4: append any new entries not already in the log."""
    server = grown(1, 1)
    server.receive("n2", msg.APPEND, 1, 1, 2, 1, [entry(3, 1), entry(4, 1), entry(5, 1)])
    assert terms(server) == [1, 1, 1, 1]


@pytest.mark.parametrize(
    ("leader_commit", "committed"), [(2, 2), (3, 3), (99, 3)], ids=["below", "at", "above-the-last-new-entry"]
)
def test_commit_goes_no_further_than_the_last_new_entry(leader_commit: int, committed: int) -> None:
    """AppendEntries receiver 5: if leaderCommit > commitIndex, set commitIndex = min(leaderCommit, index of
    last new entry). Entries behind it may still conflict with the leader's."""
    server = grown(1, 1, 1, 1)
    server.receive("n3", msg.APPEND, 2, leader_commit, 1, 0, [entry(2, 1), entry(3, 1)])
    assert server.commit == committed
    assert len(server.machine.operations) == committed - 1


def test_the_commit_index_never_falls() -> None:
    """AppendEntries receiver 5: "if leaderCommit > commitIndex"."""
    server = grown(1, 1, 1)
    server.receive("n2", msg.APPEND, 1, 4, 4, 1, [])
    server.receive("n3", msg.APPEND, 2, 1, 4, 1, [])
    assert server.commit == 4


def test_what_is_committed_is_never_deleted() -> None:
    """Figure 3, state machine safety: a message that would do it comes of a bug, and stops the member."""
    server = grown(1, 1)
    server.receive("n2", msg.APPEND, 1, 3, 3, 1, [])
    with pytest.raises(InvariantViolation):
        server.receive("n3", msg.APPEND, 2, 3, 1, 0, [entry(2, 2)])


def test_committed_entries_are_applied_in_order_and_once() -> None:
    """All servers 1: if commitIndex > lastApplied: increment lastApplied, apply log[lastApplied] (§5.3)."""
    server = Server()
    entries = [entry(index, 1, b"%d" % index) for index in range(2, 8)]
    server.receive("n2", msg.APPEND, 1, 1, 1, 0, entries)
    assert server.machine.operations == []
    server.receive("n2", msg.APPEND, 1, 4, 7, 1, [])
    assert server.machine.operations == [b"2", b"3", b"4"]
    server.receive("n2", msg.APPEND, 1, 4, 1, 0, entries)
    server.receive("n2", msg.APPEND, 1, 7, 7, 1, [])
    assert server.machine.operations == [b"2", b"3", b"4", b"5", b"6", b"7"]


def test_a_client_is_answered_after_its_entry_is_applied() -> None:
    """Leaders 2: if command received from client: append entry to local log, respond after entry applied to
    state machine (§5.3)."""
    cluster = Cluster(3)
    leader = cluster.elect("n1")
    cluster.away = {"n2", "n3"}
    waiter = leader.propose(b"command")
    assert leader.entries[-1][1] == leader.term
    cluster.settle()
    assert not waiter.resolved
    assert leader.machine.operations == []
    cluster.away = {"n3"}  # one other member makes a majority
    cluster.beat("n1")
    cluster.beat("n1")
    assert leader.machine.operations == [b"command"]
    assert waiter.resolved


def test_a_follower_that_lags_gets_all_it_lacks() -> None:
    """Leaders 3: if last log index >= nextIndex for a follower: send AppendEntries RPC with log entries
    starting at nextIndex; also long after the clients were answered (§5.3)."""
    cluster = Cluster(3)
    leader = cluster.elect("n1")
    cluster.away = {"n3"}
    for number in range(20):
        leader.propose(b"%d" % number)
        cluster.settle()
    assert len(leader.machine.operations) == 20
    cluster.away = set()
    for _ in range(3):
        cluster.beat("n1")
    assert cluster["n3"].entries == leader.entries
    assert cluster["n3"].machine.operations == leader.machine.operations


def test_a_success_moves_next_and_match_index() -> None:
    """Leaders 3, first half: if successful: update nextIndex and matchIndex for follower (§5.3)."""
    server = Server()
    term = server.lead()
    server.propose()
    last = server.log[-1][0]
    server.replica.deliver("n4", [[msg.APPENDED, term, 2, True, False]])  # it lacks all; nextIndex goes back
    server.receive("n4", msg.APPENDED, term, last + 1, False, True)
    assert server.replica.core.match_index("n4") == last
    sent = dict(server.wait(SETTINGS.heartbeat_s + 0.01))
    assert sent["n4"][3] == last  # prev of the next append
    assert sent["n4"][5] == []


@pytest.mark.parametrize("case", ["missing", "extra", "both"])
def test_logs_that_differ_become_equal(case: str) -> None:
    """Leaders 3, second half: if AppendEntries fails because of log inconsistency: decrement nextIndex and
    retry (§5.3, figure 7: a follower may lack entries, have more, or both)."""
    cluster = Cluster(3)
    stale = cluster["n3"]
    if case != "missing":
        cluster.elect("n3")
        cluster.away = {"n1", "n2"}
        for _ in range(5):
            stale.propose(b"never committed")
            cluster.settle()
    cluster.away = {"n3"}
    leader = cluster.elect("n1")
    if case != "extra":
        for number in range(10):
            leader.propose(b"%d" % number)
            cluster.settle()
    assert stale.entries != leader.entries
    cluster.away = set()
    for _ in range(12):
        cluster.beat("n1")
    assert stale.entries == leader.entries
    assert stale.machine.operations == leader.machine.operations


def test_a_leader_deletes_nothing_of_its_own() -> None:
    """Figure 3, leader append-only: a leader never overwrites or deletes entries in its log (§5.3)."""
    server = grown(1, 1, 1)
    server.clock.now += SETTINGS.election_timeout_min_s + 0.01
    term = server.lead()
    before = server.entries
    for message in (
        [msg.APPENDED, term, 1, True, False],
        [msg.APPENDED, term, 2, False, True],
        [msg.APPEND, term - 1, 1, 1, 0, [entry(2, term - 1)]],
        [msg.REQUEST_VOTE, term, 99, term, True],
    ):
        server.receive("n4", *message)
    assert server.role == "leader"
    assert server.entries == before


def test_a_majority_commits() -> None:
    """Leaders 4: if there exists an N such that N > commitIndex, a majority of matchIndex[i] >= N, and
    log[N].term == currentTerm: set commitIndex = N."""
    server = Server()
    term = server.lead()
    last = server.log[-1][0]
    server.receive("n2", msg.APPENDED, term, last + 1, False, True)
    server.receive("n2", msg.APPENDED, term, last + 1, False, True)  # the same member again
    assert server.commit == 1
    server.receive("n5", msg.APPENDED, term, last, False, True)  # not that far
    assert server.commit == 1
    server.receive("n4", msg.APPENDED, term, last + 1, False, True)
    assert server.commit == last


def test_an_acknowledgement_of_an_earlier_term_counts_nothing() -> None:
    """Leaders 4: matchIndex is reinitialized after election; an answer to an append of an older term says
    nothing of this term's log, though it names the same index."""
    server = grown(1, 1, 1)
    server.clock.now += SETTINGS.election_timeout_min_s + 0.01
    term = server.lead()
    last = server.log[-1][0]
    for name in ("n2", "n3"):
        server.receive(name, msg.APPENDED, term - 1, last + 1, False, True)
    assert server.commit == 1
    assert server.replica.core.match_index("n2") == 0


def test_entries_of_earlier_terms_are_not_committed_by_counting() -> None:
    """§5.4.2, figure 8: only entries of the leader's current term are committed by counting replicas."""
    server = grown(1, 2)
    server.clock.now += SETTINGS.election_timeout_min_s + 0.01
    term = server.lead()
    no_op = server.log[-1][0]
    for name in ("n2", "n3", "n4", "n5"):  # all hold the entry of term 2, nobody this term's
        server.receive(name, msg.APPENDED, term, no_op, False, True)
    assert server.commit == 1
    for name in ("n2", "n3"):
        server.receive(name, msg.APPENDED, term, no_op + 1, False, True)
    assert server.commit == no_op  # and with it, by log matching, all before


def test_figure_8() -> None:
    """§5.4.2, figure 8, played: the entry of term 2 that a majority holds is overwritten in (d), so that
    nobody may have applied it in (c)."""
    cluster = Cluster(5)
    s1 = cluster.elect("n1")
    cluster.away = {"n3", "n4", "n5"}  # (a) an entry on S1 and S2 alone
    s1.propose(b"two")
    cluster.settle()
    cluster.crash("n1")
    cluster.away = {"n1", "n2"}  # (b) S5 leads by the votes of S3 and S4; what it accepts reaches nobody
    cluster.campaign("n5")
    cluster.settle(lost=lambda message: message[0] == msg.APPEND)
    assert cluster["n5"].role == "leader"
    cluster["n5"].propose(b"three")
    cluster.settle(lost=lambda message: message[0] == msg.APPEND)
    cluster.crash("n5")
    cluster.away = {"n4", "n5"}  # (c) S1 leads again; S3 gets the entry of the first term, nobody the no-op
    cluster.restart("n1")
    cluster.campaign("n1")

    def newest_entries_are_lost(message: list[Any]) -> bool:
        if message[0] == msg.APPEND:
            message[5] = [e for e in message[5] if e[2] < message[1]]
        return False

    cluster.settle(lost=newest_entries_are_lost)
    for _ in range(3):
        cluster.clock.now += SETTINGS.heartbeat_s + 0.001
        cluster["n1"].replica.pump()
        cluster.collect("n1")
        cluster.settle(lost=newest_entries_are_lost)
    assert cluster["n1"].role == "leader"
    held = [
        name for name in cluster.names if any(b"two" in command for _, _, command in cluster[name].entries)
    ]
    assert held == ["n1", "n2", "n3"]  # a majority
    assert [server.machine.operations for server in cluster.servers.values()] == [[]] * 5
    cluster.crash("n1")
    cluster.away = {"n1"}  # (d) S5 wins by the votes of S2 to S4, whose last entries are older
    cluster.restart("n5")
    cluster.elect("n5")
    for _ in range(10):
        cluster.beat("n5")
    for name in ("n2", "n3", "n4", "n5"):
        assert cluster[name].machine.operations == [b"three"]


def test_a_restarted_follower_goes_on_where_it_was() -> None:
    """§5.5: crashed servers get the same RPCs again; what they acknowledged they still hold."""
    cluster = Cluster(3)
    leader = cluster.elect("n1")
    for number in range(5):
        leader.propose(b"%d" % number)
        cluster.settle()
    cluster.beat("n1")
    held = cluster["n2"].entries
    cluster.crash("n2")
    leader.propose(b"5")
    cluster.settle()
    cluster.restart("n2")
    assert cluster["n2"].entries == held
    for _ in range(5):
        cluster.beat("n1")
    assert cluster["n2"].machine.operations == [b"%d" % number for number in range(6)]
