"""Rules of the Raft layer that no other test would miss: docs/RULES.md has them all."""

from __future__ import annotations

import inspect
import time

import pytest
import trio
from raft_rig import SETTINGS, Server, entry

from chaos.sim.clock import run_simulation
from chaos.sim.raft_group import RaftGroup
from raftkube.clock import SystemClock, collector_seconds
from raftkube.errors import InvariantViolation
from raftkube.limits import LOG_ENTRY_BYTES_MAX
from raftkube.store.raft import messages as msg
from raftkube.store.raft.membership import Remove
from raftkube.store.raft.private import Member
from raftkube.store.raft.settings import RaftSettings
from raftkube.store.raft.snapshot_files import snapshot_names


def test_an_append_in_parts_never_leaves() -> None:
    """pysyncobj takes the last part but one for the last; entries are capped so that it never makes any."""
    server = Server()
    server.lead()
    part = {"type": "append_entries", "term": 1, "commit_index": 1, "prevLogIdx": 1, "prevLogTerm": 0}
    with pytest.raises(InvariantViolation, match="no member may receive"):
        server.replica.guard.send(Member("n2"), {**part, "entries": [], "transmission": "process"})
    assert server.replica.core.conf.appendEntriesBatchSizeBytes > LOG_ENTRY_BYTES_MAX


def test_a_damaged_snapshot_is_no_empty_start() -> None:
    """pysyncobj swallows every error of loading and would begin with nothing."""

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            group = RaftGroup(1, nursery, settings=RaftSettings(snapshot_log_entries=20, retain_entries=5))
            await group.start_all()
            for number in range(60):
                await group.propose(b"%d" % number)
            await group.wait_converged()
            await group.crash("store-3")
            disk = group.hosts["store-3"].disk
            name = snapshot_names(disk)[-1]
            disk.damage(name, lambda data: data.__setitem__(-20, data[-20] ^ 1))
            with pytest.raises(InvariantViolation, match=f"{name} is damaged at byte"):
                await group.start("store-3")
            nursery.cancel_scope.cancel()

    run_simulation(1, main)


def test_a_leader_is_sticky_to_itself() -> None:
    server = Server()
    term = server.lead()
    for name in server.voters:
        server.receive(name, msg.APPENDED, term, server.replica.journal.last_index + 1, False, True)
    assert server.receive("n2", msg.PRE_VOTE, 1, term + 5, 99, term) == []
    server.receive("n2", msg.REQUEST_VOTE, term + 5, 99, term, False)
    assert (server.role, server.term) == ("leader", term)


def test_the_commit_index_is_journalled_with_each_batch() -> None:
    server = Server()
    server.receive("n2", msg.APPEND, 1, 1, 1, 0, [entry(2, 1), entry(3, 1)])
    server.receive("n2", msg.APPEND, 1, 3, 3, 1, [entry(4, 1)])
    server.restart()
    assert server.replica.journal.getRaftCommitIndex() == 3
    with pytest.raises(InvariantViolation, match="never truncated"):
        server.replica.journal.deleteEntriesFrom(1)


def test_so_many_entries_are_on_their_way_and_no_more() -> None:
    server = Server()
    server.lead()
    before = server.replica.journal.last_index
    for number in range(4_000):
        server.replica.proposals.add([b"%d" % number], server.clock.now)
    server.replica.pump()
    for _ in range(20):
        server.replica.proposals.add([b"more"] * 500, server.clock.now)
        server.replica.pump()
    assert server.replica.journal.last_index == before + SETTINGS.entries_in_flight_max


def test_a_write_waits_for_messages_and_for_no_timer() -> None:
    slow = RaftSettings(heartbeat_s=5.0, election_timeout_min_s=20.0, election_timeout_max_s=30.0)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            group = RaftGroup(1, nursery, settings=slow)
            await group.start_all()
            leader = group.node(await group.wait_leader(timeout_s=120.0))
            await trio.sleep(1.0)
            began = trio.current_time()
            for number in range(20):
                await leader.propose(b"%d" % number)
            assert trio.current_time() - began < 20 * 0.05
            nursery.cancel_scope.cancel()

    run_simulation(1, main)


def test_a_removed_members_connections_end() -> None:
    async def main() -> None:
        async with trio.open_nursery() as nursery:
            group = RaftGroup(1, nursery)
            await group.start_all()
            leader = await group.wait_leader()
            await group.wait_converged()
            gone = next(name for name in group.names if name != leader)
            stays = group.node(leader)._peers
            assert gone in stays._links
            incoming = stays._incoming[gone]
            await group.node(leader).change_members(Remove(gone))
            await trio.sleep(0.1)
            assert gone not in stays._incoming
            assert gone not in stays._links
            with pytest.raises((trio.BrokenResourceError, trio.ClosedResourceError)):
                await incoming.send_all(b"x")
            nursery.cancel_scope.cancel()

    run_simulation(1, main)


def test_deadlines_are_of_the_clock_that_never_jumps() -> None:
    """CLOCK_MONOTONIC: on Linux it stands still while the machine is suspended. trio reads perf_counter."""
    for clock in ("monotonic", "perf_counter"):
        told = time.get_clock_info(clock)
        assert (told.implementation, told.adjustable) == ("clock_gettime(CLOCK_MONOTONIC)", False)
    before, ours, after = time.monotonic(), collector_seconds(), time.monotonic()
    assert before <= ours <= after
    assert "perf_counter()" in inspect.getsource(trio._core._run.SystemClock)
    assert "trio.current_time()" in inspect.getsource(SystemClock.monotonic)
