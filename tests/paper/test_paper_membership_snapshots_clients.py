"""Raft paper §6 (as single-server changes, thesis chapter 4), §7 and §8, and the thesis' §3.10 and §6.4."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Any

import msgpack
import pytest
from raft_rig import SETTINGS, Cluster, Server, entry

from chaos.sim.disk import SimDisk
from raftkube.errors import MembershipRefused
from raftkube.store.core import StateMachine
from raftkube.store.raft import messages as msg
from raftkube.store.raft.membership import (
    CONFIGURATION,
    AddLearner,
    Configuration,
    MemberAddresses,
    Promote,
    Remove,
)
from raftkube.store.raft.private import NO_OP
from raftkube.store.raft.snapshot_files import SnapshotId, SnapshotWriter
from raftkube.store.raft.waiting import Waiter
from raftkube.wire.store import Once, Put, Range, RangeResult, SessionOpen

NEW = MemberAddresses("127.0.0.1:1", "127.0.0.1:2")


def leader_of_three() -> Server:
    server = Server(size=3)
    server.lead()
    return server


def confirmed(server: Server) -> Server:
    """n2 acknowledges everything."""
    server.receive("n2", msg.APPENDED, server.term, server.log[-1][0] + 1, False, True)
    return server


def configuration_entry(index: int, term: int, *voters: str) -> list[Any]:
    return [CONFIGURATION + Configuration.of_names(voters).encode(), index, term]


# §6: cluster membership changes.


def test_the_newest_configuration_of_the_log_holds_committed_or_not() -> None:
    """§6: once a given server adds the new configuration entry to its log, it uses that configuration for all
    future decisions, regardless of whether the entry is committed."""
    server = Server(size=3)
    server.receive("n2", msg.APPEND, 1, 1, 1, 0, [configuration_entry(2, 1, "n1", "n2")])
    assert server.commit == 1
    assert server.voters == ["n2"]


def test_a_configuration_that_is_deleted_from_the_log_ends() -> None:
    """Thesis §4.1: a server falls back to the previous configuration when the entry is removed."""
    server = Server(size=3)
    server.receive("n2", msg.APPEND, 1, 1, 1, 0, [configuration_entry(2, 1, "n1", "n2")])
    server.receive("n3", msg.APPEND, 2, 1, 1, 0, [entry(2, 2)])
    assert server.voters == ["n2", "n3"]


def test_one_change_at_a_time() -> None:
    """Thesis §4.1: a change begins only after the previous one has committed."""
    server = confirmed(leader_of_three())
    server.replica.changes.request(AddLearner("n4", NEW, False), server.clock.now)
    server.replica.pump()
    with pytest.raises(MembershipRefused, match="not committed yet"):
        server.replica.changes.request(Remove("n3"), server.clock.now)
    confirmed(server)
    server.receive("n3", msg.APPENDED, server.term, server.log[-1][0] + 1, False, True)
    server.replica.changes.request(Remove("n3"), server.clock.now)


def test_no_change_before_this_terms_first_commit() -> None:
    """Thesis §4.1 with its erratum: a leader changes nothing before it has committed an entry of its term."""
    server = leader_of_three()
    with pytest.raises(MembershipRefused, match="own term"):
        server.replica.changes.request(AddLearner("n4", NEW, False), server.clock.now)


def test_a_new_server_neither_votes_nor_counts_until_it_caught_up() -> None:
    """§6: new servers join as non-voting members: the leader replicates log entries to them, but they are not
    considered for majorities."""
    server = confirmed(leader_of_three())
    server.replica.changes.request(AddLearner("n4", NEW, False), server.clock.now)
    server.replica.pump()
    server.replica.guard.connection_up("n4")
    at = server.log[-1][0]
    server.receive("n4", msg.APPENDED, server.term, at + 1, False, True)
    assert server.commit < at  # the leader and a learner are no majority of three
    with pytest.raises(MembershipRefused):
        server.replica.changes.request(Promote("n4"), server.clock.now)
    confirmed(server)
    assert server.commit == at
    assert server.voters == ["n2", "n3"]
    server.replica.changes.request(Promote("n4"), server.clock.now)
    server.replica.pump()
    assert server.voters == ["n2", "n3", "n4"]
    learner = Server("n3", 3)
    learner.receive("n1", msg.APPEND, 1, 1, 1, 0, [configuration_entry(2, 1, "n1", "n2")])
    assert learner.wait(10 * SETTINGS.election_timeout_max_s) == []  # no member, no campaign


def test_a_learners_vote_is_no_vote() -> None:
    """§6: non-voting members are not counted for voting either."""
    server = Server(size=3)
    joined = Configuration.of_names(["n1", "n2", "n3"])
    joined = replace(joined, learners={"n4": NEW, "n5": NEW})
    entries = [[CONFIGURATION + joined.encode(), 2, 1]]
    server.receive("n2", msg.APPEND, 1, 1, 1, 0, entries)
    server.campaign()
    assert server.role == "candidate"
    for name in ("n4", "n5"):
        server.receive(name, msg.VOTE, server.term)
    assert server.role == "candidate"
    server.receive("n3", msg.VOTE, server.term)
    assert server.role == "leader"


def test_a_leader_is_not_removed_before_it_handed_over() -> None:
    """§6, third issue (the leader may not be part of the new configuration), by thesis §4.2.2's other way:
    leadership is transferred first."""
    server = confirmed(leader_of_three())
    with pytest.raises(MembershipRefused):
        server.replica.changes.request(Remove("n1"), server.clock.now)
    assert server.replica.changes.must_hand_over(Remove("n1"), server.clock.now)


def test_leadership_transfer() -> None:
    """Thesis §3.10: the leader stops accepting requests, brings the target up to date, and sends TimeoutNow;
    the target starts an election at once, which followers do not refuse although they hear a leader."""
    cluster = Cluster(3)
    old = cluster.elect("n1")
    cluster.away = {"n3"}
    old.propose(b"n3 lacks it")
    cluster.settle()
    cluster.away = set()
    waiter = old.replica.transfer.begin("n3", cluster.clock.now, 5.0)
    late = old.propose(b"late")
    for _ in range(3):
        cluster.beat("n1" if cluster["n3"].role == "follower" else "n3")
    assert waiter.resolved
    assert [cluster[name].role for name in cluster.names] == ["follower", "follower", "leader"]
    assert late.resolved
    assert cluster["n3"].machine.operations == [b"n3 lacks it"]


# §7: log compaction.


def image(index: int, term: int, operations: list[bytes]) -> bytes:
    disk = SimDisk(Random(1))
    writer = SnapshotWriter(disk, SnapshotId(index, term))
    writer.write(msgpack.packb(operations))
    return disk.read_all(writer.finish())


def install(server: Server, *message: Any) -> None:
    server.receive("n2", msg.SNAPSHOT, *message)
    while server.replica.snapshots.installs.build_slice():
        pass
    server.replica.pump()


def test_a_snapshot_of_an_older_term_is_refused() -> None:
    """InstallSnapshot receiver 1: reply immediately if term < currentTerm."""
    server = Server()
    server.receive("n3", msg.APPEND, 5, 1, 1, 0, [])
    data = image(4, 1, [b"a", b"b", b"c"])
    assert server.receive("n2", msg.SNAPSHOT, 4, 4, 1, 0, data, True) == [("n2", [msg.TERM_AHEAD, 5])]
    assert server.replica.core.applied_index == 1


def test_a_log_that_holds_the_snapshots_last_entry_keeps_what_follows() -> None:
    """InstallSnapshot receiver 6: if existing log entry has same index and term as snapshot's last included
    entry, retain log entries following it."""
    server = Server()
    server.receive("n2", msg.APPEND, 1, 1, 1, 0, [entry(index, 1) for index in range(2, 9)])
    install(server, 1, 4, 1, 0, image(4, 1, [b"a", b"b", b"c"]), True)
    assert server.machine.operations == [b"a", b"b", b"c"]
    assert server.log[-1] == (8, 1)


def test_any_other_log_gives_way_to_the_snapshot() -> None:
    """InstallSnapshot receivers 7 and 8: discard the entire log; reset state machine using snapshot
    contents."""
    server = Server()
    server.receive("n3", msg.APPEND, 1, 1, 1, 0, [entry(index, 1) for index in range(2, 9)])
    server.receive("n2", msg.APPEND, 2, 1, 99, 2, [])
    install(server, 2, 20, 2, 0, image(20, 2, [b"all"]), True)
    assert server.log == [(20, 2)]
    assert server.machine.operations == [b"all"]
    assert server.commit == 20
    server.restart()
    assert server.machine.operations == [b"all"]


def test_a_leader_that_discarded_the_next_entry_needs_a_snapshot_for_it() -> None:
    """§7: the leader sends a snapshot when it has already discarded the next log entry that it needs to
    send."""
    server = Server()
    wanted: list[str] = []
    server.replica.guard.on_snapshot_needed = wanted.append
    server.receive("n2", msg.APPEND, 1, 40, 1, 0, [entry(index, 1) for index in range(2, 41)])
    server.clock.now += SETTINGS.election_timeout_min_s + 0.01
    term = server.lead()
    server.replica.journal.compact(30)
    server.receive("n4", msg.APPENDED, term, 35, True, False)
    server.wait(SETTINGS.heartbeat_s + 0.01)
    assert wanted == []
    server.receive("n4", msg.APPENDED, term, 5, True, False)
    server.wait(SETTINGS.heartbeat_s + 0.01)
    assert set(wanted) == {"n4"}


# §8: client interaction.


def read(server: Server) -> Waiter:
    waiter = Waiter()
    server.replica.reads.add(waiter, server.clock.now)
    server.replica.pump()
    return waiter


def answered(waiter: Waiter) -> bool:
    return waiter.resolved


def test_a_leader_begins_its_term_with_an_entry_without_a_command() -> None:
    """§8: each leader commits a blank no-op entry into the log at the start of its term, so as to know which
    entries are committed."""
    server = Server()
    server.receive("n2", msg.APPEND, 1, 1, 1, 0, [entry(2, 1), entry(3, 1)])
    server.clock.now += SETTINGS.election_timeout_min_s + 0.01
    term = server.lead()
    assert server.entries[-1] == (4, term, NO_OP)
    for name in ("n2", "n3"):
        server.receive(name, msg.APPENDED, term, 5, False, True)
    assert server.commit == 4
    assert len(server.machine.operations) == 2  # the no-op is nothing to the state machine


def test_no_read_before_the_leader_knows_what_is_committed() -> None:
    """§8: a read waits for the no-op; only then does the leader know the commit index."""
    server = leader_of_three()
    waiter = read(server)
    assert msg.READ_ROUND not in [message[0] for _, message in server.sent]
    server.sent.clear()
    server.replica.deliver("n2", [[msg.APPENDED, server.term, server.log[-1][0] + 1, False, True]])
    server.replica.pump()
    rounds = [message for name, message in server.sent if name == "n2" and message[0] == msg.READ_ROUND]
    assert rounds
    assert answered(waiter) is False
    server.receive("n2", msg.READ_ROUND_OK, *rounds[-1][1:])
    assert answered(waiter) is True


def test_a_read_asks_a_majority_whether_this_is_still_the_leader() -> None:
    """§8: a leader exchanges heartbeat messages with a majority of the cluster before it answers a read; an
    answer to an older round, or of one member twice, is not enough."""
    server = Server()
    term = server.lead()
    for name in ("n2", "n3"):
        server.receive(name, msg.APPENDED, term, server.log[-1][0] + 1, False, True)
    first = read(server)
    number = next(message[2] for _, message in server.sent if message[0] == msg.READ_ROUND)
    second = read(server)
    for name in ("n2", "n2"):
        server.receive(name, msg.READ_ROUND_OK, term, number)
    server.receive("n3", msg.READ_ROUND_OK, term - 1, number)
    server.receive("n3", msg.READ_ROUND_OK, term, number - 1)
    assert answered(first) is False
    server.receive("n3", msg.READ_ROUND_OK, term, number)
    assert answered(first) is True
    assert answered(second) is False  # it came after the round began


def test_a_deposed_leader_serves_no_read() -> None:
    """§8: it must not return stale data; the new leader may have committed other entries."""
    cluster = Cluster(3)
    old = cluster.elect("n1")
    cluster.away = {"n1"}
    new = cluster.elect("n2")
    new.propose(b"newer")
    cluster.settle()
    assert new.machine.operations == [b"newer"]
    waiter = read(old)
    assert old.role == "leader"  # so it believes
    cluster.settle()
    assert not waiter.resolved
    cluster.away = set()
    old.sent.clear()
    for _ in range(3):
        cluster.beat("n2")
    old.clock.now += 1
    old.replica.pump()
    cluster.settle()
    assert old.machine.operations == [b"newer"]  # only then may it be read here


def test_a_command_that_is_sent_twice_is_executed_once() -> None:
    """§8: clients assign serial numbers to commands; the state machine tracks the latest number with its
    response, and answers a repeated command without executing it again."""
    machine = StateMachine()
    machine.apply(SessionOpen(7))
    once = Once(7, 1, 0, Put(b"k", b"v"))
    first = machine.apply(once)
    machine.apply(Once(7, 2, 0, Put(b"k", b"w")))
    assert machine.apply(once) == first
    found = machine.read(Range(b"k"))
    assert isinstance(found, RangeResult)
    (kv,) = found.kvs
    assert (kv.value, kv.version) == (b"w", 2)
