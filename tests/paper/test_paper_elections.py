"""Raft paper §5.1, §5.2 and §5.4.1: terms, votes, elections, by the lines of figure 2."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from raft_rig import SETTINGS, Cluster, Server, entry

from chaos.sim.disk import SimDisk
from raftkube.store.raft import messages as msg

OTHERS = ["n2", "n3", "n4", "n5"]
MIN_S, MAX_S = SETTINGS.election_timeout_min_s, SETTINGS.election_timeout_max_s


def kinds(sent: list[tuple[str, list[Any]]]) -> set[int]:
    return {message[0] for _, message in sent}


@pytest.mark.parametrize("role", ["follower", "candidate", "leader"])
@pytest.mark.parametrize("how", ["append", "request-vote", "vote-answer", "append-answer"])
def test_a_higher_term_makes_anyone_its_follower(role: str, how: str) -> None:
    """All servers 2: if RPC request or response contains term T > currentTerm: set currentTerm = T, convert
    to follower (§5.1)."""
    server = Server()
    server.receive("n2", msg.APPEND, 1, 1, 1, 0, [])
    server.clock.now += MIN_S + 0.01
    if role == "candidate":
        server.campaign()
    elif role == "leader":
        server.lead()
    assert server.role == role
    higher = server.term + 3
    server.receive(
        "n4",
        *{
            "append": (msg.APPEND, higher, 1, 1, 0, []),
            "request-vote": (msg.REQUEST_VOTE, higher, 1, 0, True),
            "vote-answer": (msg.TERM_AHEAD, higher),
            "append-answer": (msg.APPENDED, higher, 1, False, False),
        }[how],
    )
    assert (server.term, server.role) == (higher, "follower")


@pytest.mark.parametrize("role", ["follower", "candidate"])
def test_an_append_of_an_older_term_is_refused(role: str) -> None:
    """AppendEntries receiver 1: reply false if term < currentTerm (§5.1)."""
    server = Server()
    server.receive("n2", msg.APPEND, 5, 1, 1, 0, [entry(2, 5)])
    if role == "candidate":
        server.campaign()
    term = server.term
    refused = server.receive("n3", msg.APPEND, 4, 3, 2, 5, [entry(3, 5)])
    assert refused == [("n3", [msg.TERM_AHEAD, term])]
    assert server.log == [(1, 0), (2, 5)]
    assert (server.commit, server.role) == (1, role)


def test_a_vote_of_an_older_term_is_refused() -> None:
    """RequestVote receiver 1: reply false if term < currentTerm (§5.1)."""
    server = Server()
    server.receive("n2", msg.APPEND, 5, 1, 1, 0, [])
    server.clock.now += MIN_S + 0.01
    assert server.receive("n3", msg.REQUEST_VOTE, 4, 9, 4, False) == [("n3", [msg.TERM_AHEAD, 5])]


def test_one_vote_a_term_first_come_first_served() -> None:
    """RequestVote receiver 2, first half: votedFor is null or candidateId (§5.2)."""
    server = Server()
    assert server.receive("n3", msg.REQUEST_VOTE, 1, 1, 0, False) == [("n3", [msg.VOTE, 1])]
    assert server.receive("n4", msg.REQUEST_VOTE, 1, 9, 0, False) == []
    assert server.receive("n4", msg.REQUEST_VOTE, 2, 9, 0, False) == [("n4", [msg.VOTE, 2])]


@pytest.mark.parametrize(
    ("last_index", "last_term", "granted"),
    [(3, 2, True), (4, 2, True), (2, 3, True), (2, 2, False), (9, 1, False), (3, 1, False)],
    ids=["equal", "longer", "newer-though-shorter", "shorter", "older-though-longer", "older"],
)
def test_a_vote_only_for_a_log_at_least_as_up_to_date(last_index: int, last_term: int, granted: bool) -> None:
    """RequestVote receiver 2, second half: candidate's log is at least as up-to-date as receiver's log
    (§5.4.1: the later last term, then the longer log)."""
    server = Server()
    server.receive("n2", msg.APPEND, 2, 1, 1, 0, [entry(2, 1), entry(3, 2)])
    server.clock.now += MIN_S + 0.01
    answered = server.receive("n3", msg.REQUEST_VOTE, 7, last_index, last_term, False)
    assert answered == ([("n3", [msg.VOTE, 7])] if granted else [])
    assert server.term == 7


def test_term_vote_and_log_are_stable_before_anybody_hears_of_them() -> None:
    """State, persistent on all servers: currentTerm, votedFor, log[], updated on stable storage before
    responding to RPCs."""
    server = Server()
    early: list[Any] = []
    server.disk.before = lambda step: early.extend(server.sent) if step == "sync" else None
    assert server.receive("n3", msg.REQUEST_VOTE, 4, 1, 0, False) == [("n3", [msg.VOTE, 4])]
    assert server.receive("n3", msg.APPEND, 4, 1, 1, 0, [entry(2, 4)])[0][1][0] == msg.APPENDED
    assert early == []
    server.disk.before = lambda step: None
    server.restart()
    assert (server.term, server.log) == (4, [(1, 0), (2, 4)])
    assert server.receive("n5", msg.REQUEST_VOTE, 4, 9, 4, False) == []  # it voted for n3


def test_a_follower_without_leader_or_candidate_campaigns() -> None:
    """Followers 2: if election timeout elapses without receiving AppendEntries RPC from current leader or
    granting vote to candidate: convert to candidate."""
    server = Server()
    server.receive("n2", msg.APPEND, 1, 1, 1, 0, [])
    assert kinds(server.wait(MAX_S + 0.01)) == {msg.PRE_VOTE}
    assert kinds(server.campaign()) == {msg.REQUEST_VOTE}
    assert server.role == "candidate"


def test_an_append_of_the_leader_or_a_vote_puts_the_election_off() -> None:
    """Followers 2: the timeout begins anew with each."""
    server = Server()
    for _ in range(20):
        assert server.receive("n2", msg.APPEND, 1, 1, 1, 0, [])[0][1][0] == msg.APPENDED
        assert server.wait(MIN_S - 0.01) == []
    server.clock.now += MAX_S
    assert ("n3", [msg.VOTE, 2]) in server.receive("n3", msg.REQUEST_VOTE, 2, 1, 0, False)
    assert server.wait(MIN_S - 0.01) == []


def test_an_append_of_a_deposed_leader_puts_no_election_off() -> None:
    """Followers 2: "from current leader"."""
    server = Server()
    server.receive("n3", msg.APPEND, 2, 1, 1, 0, [])
    due_s = server.replica.core.election_deadline - server.clock.now
    assert server.wait(due_s - 0.01) == []
    server.receive("n2", msg.APPEND, 1, 1, 1, 0, [])
    assert kinds(server.wait(0.02)) == {msg.PRE_VOTE}


def test_election_timeouts_are_random() -> None:
    """§5.2: election timeouts are chosen randomly from a fixed interval, so that split votes are rare."""
    waits = set()
    for seed in range(20):
        server = Server(disk=SimDisk(Random(1)), seed=seed)
        server.receive("n2", msg.APPEND, 1, 1, 1, 0, [])
        waits.add(round(server.replica.core.election_deadline - server.clock.now, 6))
    assert len(waits) == 20
    assert min(waits) >= MIN_S
    assert max(waits) <= MAX_S


def test_what_a_candidate_does() -> None:
    """Candidates 1: increment currentTerm, vote for self, reset election timer, send RequestVote RPCs to all
    other servers."""
    server = Server()
    server.receive("n2", msg.APPEND, 3, 1, 1, 0, [entry(2, 3)])
    sent = server.campaign()
    assert sorted(sent) == [(name, [msg.REQUEST_VOTE, 4, 2, 3, False]) for name in OTHERS]
    assert (server.role, server.term) == ("candidate", 4)
    assert server.replica.core.election_deadline > server.clock.now + MIN_S - 0.01
    assert server.receive("n3", msg.REQUEST_VOTE, 4, 9, 3, False) == []  # its vote is its own
    server.restart()
    server.clock.now += MIN_S + 0.01
    assert server.receive("n3", msg.REQUEST_VOTE, 4, 9, 3, False) == []


def test_a_majority_of_different_votes_elects() -> None:
    """Candidates 2: if votes received from majority of servers: become leader."""
    server = Server()
    server.campaign()
    for _ in range(5):
        server.receive("n2", msg.VOTE, server.term)  # two of five, however often
    server.receive("n3", msg.VOTE, server.term - 1)  # of another election
    assert server.role == "candidate"
    server.receive("n3", msg.VOTE, server.term)
    assert server.role == "leader"


def test_a_candidate_yields_to_the_leader_of_its_term() -> None:
    """Candidates 3: if AppendEntries RPC received from new leader: convert to follower."""
    server = Server()
    server.campaign()
    term = server.term
    assert ("n4", [msg.APPENDED, term, 3, False, True]) in server.receive(
        "n4", msg.APPEND, term, 1, 1, 0, [entry(2, term)]
    )
    assert (server.role, server.term) == ("follower", term)


def test_a_candidate_that_does_not_win_tries_again() -> None:
    """Candidates 4: if election timeout elapses: start new election (§5.2: split votes)."""
    server = Server()
    server.campaign()
    term = server.term
    server.receive("n2", msg.VOTE, term)
    assert kinds(server.campaign()) == {msg.REQUEST_VOTE}
    assert (server.role, server.term) == ("candidate", term + 1)
    server.receive("n3", msg.VOTE, term)  # votes of the old election are worth nothing
    server.receive("n4", msg.VOTE, term)
    assert server.role == "candidate"


def test_split_votes_elect_nobody() -> None:
    """Figure 3, election safety: at most one leader can be elected in a given term (§5.2)."""
    cluster = Cluster(5)
    for name in ("n1", "n5"):
        cluster.campaign(name)
    cluster.settle()
    leaders = [name for name in cluster.names if cluster[name].role == "leader"]
    terms = [cluster[name].term for name in leaders]
    assert len(set(terms)) == len(terms)
    assert sum(cluster[name].term == max(terms, default=0) for name in leaders) <= 1


def test_a_new_leader_says_so_at_once_and_again_when_idle() -> None:
    """Leaders 1: upon election: send initial AppendEntries RPCs to each server; repeat during idle periods to
    prevent election timeouts (§5.2)."""
    server = Server()
    server.campaign()
    server.receive("n2", msg.VOTE, server.term)
    sent = server.receive("n3", msg.VOTE, server.term)
    assert {name for name, message in sent if message[0] == msg.APPEND} == set(OTHERS)
    for _ in range(3):
        beat = server.wait(SETTINGS.heartbeat_s + 0.01)
        assert {name for name, message in beat if message[0] == msg.APPEND} == set(OTHERS)
        for name in OTHERS:
            server.receive(name, msg.APPENDED, server.term, 2, False, True)
    assert 3 * SETTINGS.heartbeat_s < MIN_S  # §5.6: broadcast time << election timeout


def test_servers_that_hear_a_leader_are_not_disrupted() -> None:
    """§6: if a server receives a RequestVote RPC within the minimum election timeout of hearing from a
    current leader, it does not update its term or grant its vote."""
    server = Server()
    server.receive("n2", msg.APPEND, 1, 1, 1, 0, [])
    server.clock.now += MIN_S - 0.01
    assert server.receive("n3", msg.REQUEST_VOTE, 9, 9, 9, False) == []
    assert server.term == 1
    server.clock.now += 0.02
    assert ("n3", [msg.VOTE, 9]) in server.receive("n3", msg.REQUEST_VOTE, 9, 9, 9, False)
