"""A disk without room, seen by one Raft member: a snapshot can wait, the journal cannot."""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable

import pytest
import trio

from chaos.sim.clock import VirtualClock, run_simulation
from chaos.sim.disk import SECTOR
from chaos.sim.raft_group import RaftGroup
from raftkube.errors import DiskFailed, DiskFull, InvariantViolation
from raftkube.store.raft.settings import RaftSettings

SETTINGS = RaftSettings(snapshot_log_entries=20, retain_entries=5, snapshot_chunk_bytes=300)


def simulate(scenario: Callable[[RaftGroup], Awaitable[None]]) -> None:
    async def main() -> None:
        async with trio.open_nursery() as nursery:
            group = RaftGroup(1, nursery, settings=SETTINGS)
            await group.start_all()
            await scenario(group)
            assert group.violations == []
            nursery.cancel_scope.cancel()

    run_simulation(1, main)


def snapshot_files(group: RaftGroup, name: str) -> list[str]:
    return [file for file in group.hosts[name].disk.names() if file.startswith("snapshot-")]


def fail_snapshots(group: RaftGroup, name: str, step: str, number: int) -> list[str]:
    """Steps of that kind fail while an unfinished snapshot exists; the steps that did."""
    disk, failed = group.hosts[name].disk, list[str]()

    def before(taken: str) -> None:
        if taken == step and any(file.endswith(".tmp") for file in snapshot_files(group, name)):
            failed.append(taken)
            raise OSError(number, "injected")

    disk.before = before
    return failed


@pytest.mark.parametrize("step", ["write", "rename"])
def test_a_snapshot_without_room_is_dropped_and_made_later(step: str) -> None:
    async def scenario(group: RaftGroup) -> None:
        leader = await group.wait_leader()
        failed = fail_snapshots(group, leader, step, errno.ENOSPC)
        for number in range(60):
            await group.node(leader).propose(b"%d" % number)
        assert failed
        assert snapshot_files(group, leader) == []  # its room is given back
        assert group.node(leader).status().log_first == 1  # and the log is whole
        group.hosts[leader].disk.before = lambda step: None
        await trio.sleep(6)
        await group.node(leader).propose(b"last")
        await trio.sleep(1)
        assert group.node(leader).status().snapshot_index >= 60
        assert group.hosts[leader].error is None

    simulate(scenario)


def test_a_snapshot_that_cannot_be_received_for_want_of_room_comes_again() -> None:
    async def scenario(group: RaftGroup) -> None:
        leader = await group.wait_leader()
        late = next(name for name in group.names if name != leader)
        await group.crash(late)
        for number in range(100):
            await group.node(leader).propose(b"%d" % number)
        failed = fail_snapshots(group, late, "write", errno.ENOSPC)
        await group.start(late)
        await trio.sleep(5)
        assert len(failed) >= 3
        assert group.hosts[late].error is None
        group.hosts[late].disk.before = lambda step: None
        await group.wait_converged()
        assert group.machine(late).operations == [b"%d" % number for number in range(100)]

    simulate(scenario)


@pytest.mark.parametrize("number", [errno.EIO, errno.EROFS])
def test_a_snapshot_on_a_broken_disk_ends_the_member(number: int) -> None:
    async def scenario(group: RaftGroup) -> None:
        leader = await group.wait_leader()
        follower = next(name for name in group.names if name != leader)
        fail_snapshots(group, follower, "write", number)
        for count in range(30):
            await group.node(leader).propose(b"%d" % count)
        await group.hosts[follower].ended.wait()
        error = group.hosts[follower].error
        assert isinstance(error, DiskFailed)
        assert not isinstance(error, DiskFull)

    simulate(scenario)


def test_a_full_leader_hands_over_at_once_and_says_what_is_unknown() -> None:
    """Its connections break, so that the others elect long before an election timeout."""

    async def scenario(group: RaftGroup) -> None:
        leader = await group.wait_leader()
        await group.wait_converged()
        group.hosts[leader].disk.full = True
        began = trio.current_time()
        await group.propose(b"x")
        assert trio.current_time() - began < 0.5
        assert isinstance(group.hosts[leader].error, DiskFull)
        status = group.node(leader).status()
        assert (status.role, status.leader) == ("follower", None)
        assert status.failed is not None
        group.hosts[leader].disk.full = False
        await group.start(leader)
        await group.wait_converged()

    simulate(scenario)


@pytest.mark.parametrize("slow_s", [0.3, 0.8, 3.0])
def test_a_slow_disk_costs_time_and_nothing_else(slow_s: float) -> None:
    """A sync blocks its member for longer than an election timeout: leaders change, nothing is lost."""

    async def scenario(group: RaftGroup) -> None:
        clock = trio.lowlevel.current_clock()
        assert isinstance(clock, VirtualClock)
        syncs = 0

        def before(step: str) -> None:
            nonlocal syncs
            syncs += step == "sync"
            if step == "sync" and syncs % 4 == 0:
                clock.jump(slow_s)

        for name in group.names[:2]:
            group.hosts[name].disk.before = before
        acknowledged = set()
        for number in range(40):
            with trio.move_on_after(5):  # no leader lasts when all sleep beyond the election timeout
                await group.propose(b"%d" % number)
                acknowledged.add(b"%d" % number)
        for name in group.names:
            group.hosts[name].disk.before = lambda step: None
        await group.propose(b"last")
        await group.wait_converged()
        assert syncs > 20
        applied = group.machine(group.names[0]).operations
        assert acknowledged <= set(applied)
        assert len(acknowledged) == 40 or slow_s > RaftSettings().election_timeout_min_s
        assert acknowledged
        assert all(group.machine(name).operations == applied for name in group.names)
        assert all(host.error is None for host in group.hosts.values())

    simulate(scenario)


def test_the_last_write_of_an_idle_member_cannot_pass_for_a_torn_one() -> None:
    """Nothing was stopped gracefully, and the disk loses a sector of the last entry afterwards."""

    async def scenario(group: RaftGroup) -> None:
        leader = await group.wait_leader()
        await group.propose(b"last" * 500)
        await group.wait_converged()
        await trio.sleep(0.2)
        await group.crash(leader, lose_all=True)
        disk = group.hosts[leader].disk
        name = next(file for file in disk.names() if b"last" * 300 in disk.read_all(file))
        at = (disk.read_all(name).index(b"last" * 300) // SECTOR + 1) * SECTOR
        disk.damage(name, lambda data: data.__setitem__(slice(at, at + SECTOR), bytes(SECTOR)))
        with pytest.raises(InvariantViolation, match=f"{name} is damaged at byte"):
            await group.start(leader)

    simulate(scenario)


def test_what_fails_first_decides_whether_a_member_may_live_again() -> None:
    """A disk that failed stays failed, although the snapshot being made then finds it full."""

    async def scenario(group: RaftGroup) -> None:
        leader = await group.wait_leader()
        node = group.node(leader)
        node._failed(DiskFailed("journal: EIO"))
        node._failed(DiskFull("snapshot: ENOSPC"))
        await group.hosts[leader].ended.wait()
        assert str(group.hosts[leader].error) == "journal: EIO"
        assert not isinstance(group.hosts[leader].error, DiskFull)

    simulate(scenario)
