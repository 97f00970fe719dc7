"""A snapshot that is being built: the member goes on with the old state, and nothing that happens meanwhile
(appends, another leader, a newer snapshot, a crash) makes the new one wrong."""

from __future__ import annotations

from random import Random

import msgpack
import pytest
import trio
from test_guard import Guarded
from test_snapshots import SETTINGS, Sent, deliver, entries, hand_over, image, member

from chaos.sim.clock import run_simulation
from chaos.sim.disk import SimDisk
from chaos.sim.raft_group import RaftGroup
from raftkube.errors import DiskFailed
from raftkube.store.raft import messages as msg
from raftkube.store.raft.membership import CONFIGURATION, Configuration
from raftkube.store.raft.replica import Replica
from raftkube.store.raft.settings import RaftSettings
from raftkube.store.raft.snapshot_files import SnapshotId, SnapshotWriter, file_name, snapshot_names


def operations(first: int, last: int, term: int = 2) -> list[bytes]:
    return [b"%d/%d" % (n, term) for n in range(first, last + 1)]


def build(replica: Replica) -> None:
    """All slices; the state then waits to be put in place by the next step."""
    while replica.snapshots.installs.build_slice():
        pass


def test_the_old_state_serves_and_heartbeats_are_answered_until_the_swap() -> None:
    sent, disk = Sent(), SimDisk(Random(1))
    replica, machine = member(disk, sent)
    deliver(replica, msg.APPEND, 2, 5, 1, 0, entries(2, 5, 2))
    whole = image(20, 2)
    hand_over(replica, msg.SNAPSHOT, 2, 20, 2, 0, whole, True)
    assert ("n2", [msg.SNAPSHOT_OK, 2, 20, len(whole), False]) in sent
    replica.snapshots.installs.build_slice()
    sent.clear()
    hand_over(replica, msg.APPEND, 2, 20, 22, 2, [])
    assert ("n2", [msg.APPENDED, 2, 6, True, False]) in sent
    assert machine.operations == operations(2, 5)
    assert snapshot_names(disk) == []
    build(replica)
    sent.clear()
    replica.pump()
    assert ("n2", [msg.SNAPSHOT_OK, 2, 20, 0, True]) in sent
    assert machine.operations == operations(2, 20)
    assert snapshot_names(disk) == [file_name(SnapshotId(20, 2))]


def test_a_leader_that_asks_again_is_told_that_everything_arrived() -> None:
    sent, disk = Sent(), SimDisk(Random(1))
    replica, machine = member(disk, sent)
    hand_over(replica, msg.APPEND, 2, 1, 99, 2, [])
    whole = image(20, 2)
    hand_over(replica, msg.SNAPSHOT, 2, 20, 2, 0, whole, True)
    replica.snapshots.installs.build_slice()
    for offset, data in ((len(whole), b""), (0, whole)):
        sent.clear()
        hand_over(replica, msg.SNAPSHOT, 2, 20, 2, offset, data, True)
        assert sent == [("n2", [msg.SNAPSHOT_OK, 2, 20, len(whole), False])]
    build(replica)
    replica.pump()
    assert machine.operations == operations(2, 20)


def test_appends_that_reach_the_snapshot_meanwhile_stay() -> None:
    """A new leader with a longer log goes on by entries: what was acknowledged is never dropped."""
    sent, disk = Sent(), SimDisk(Random(1))
    replica, machine = member(disk, sent)
    hand_over(replica, msg.APPEND, 2, 1, 99, 2, [])
    hand_over(replica, msg.SNAPSHOT, 2, 20, 2, 0, image(20, 2), True)
    hand_over(replica, msg.APPEND, 3, 10, 1, 0, entries(2, 30, 2), sender="n3")
    assert machine.operations == operations(2, 10)
    build(replica)
    replica.pump()
    assert machine.operations == operations(2, 20)
    assert replica.journal.last_index == 30
    hand_over(replica, msg.APPEND, 3, 30, 30, 2, [], sender="n3")
    assert machine.operations == operations(2, 30)


def test_a_snapshot_that_the_log_has_overtaken_is_dropped() -> None:
    sent, disk = Sent(), SimDisk(Random(1))
    replica, machine = member(disk, sent)
    hand_over(replica, msg.APPEND, 2, 1, 99, 2, [])
    hand_over(replica, msg.SNAPSHOT, 2, 20, 2, 0, image(20, 2), True)
    hand_over(replica, msg.APPEND, 3, 30, 1, 0, entries(2, 30, 2), sender="n3")
    build(replica)
    replica.pump()
    assert machine.operations == operations(2, 30)
    assert (replica.journal.first_index, replica.snapshots.index) == (1, 0)
    assert not [name for name in disk.names() if name.startswith("snapshot")]


def test_another_leaders_install_of_the_same_state_goes_on() -> None:
    sent, disk = Sent(), SimDisk(Random(1))
    replica, machine = member(disk, sent)
    hand_over(replica, msg.APPEND, 2, 1, 99, 2, [])
    whole = image(20, 2)
    hand_over(replica, msg.SNAPSHOT, 2, 20, 2, 0, whole, True)
    replica.snapshots.installs.build_slice()
    hand_over(replica, msg.APPEND, 3, 1, 99, 3, [], sender="n3")
    sent.clear()
    hand_over(replica, msg.SNAPSHOT, 3, 20, 2, 0, whole[:50], False, sender="n3")
    assert sent == [("n3", [msg.SNAPSHOT_OK, 3, 20, len(whole), False])]
    build(replica)
    sent.clear()
    replica.pump()
    assert ("n3", [msg.SNAPSHOT_OK, 3, 20, 0, True]) in sent
    assert machine.operations == operations(2, 20)


@pytest.mark.parametrize("built", [False, True])
def test_a_newer_snapshot_in_the_middle_takes_the_place(built: bool) -> None:
    sent, disk = Sent(), SimDisk(Random(1))
    replica, machine = member(disk, sent)
    hand_over(replica, msg.APPEND, 2, 1, 99, 2, [])
    hand_over(replica, msg.SNAPSHOT, 2, 20, 2, 0, image(20, 2), True)
    replica.snapshots.installs.build_slice()
    hand_over(replica, msg.APPEND, 3, 1, 99, 3, [], sender="n3")
    newer = image(40, 2)
    hand_over(replica, msg.SNAPSHOT, 3, 40, 2, 0, newer[:60], False, sender="n3")
    if built:
        build(replica)
        replica.pump()
        assert machine.operations == operations(2, 20)
    hand_over(replica, msg.SNAPSHOT, 3, 40, 2, 60, newer[60:], True, sender="n3")
    build(replica)
    replica.pump()
    assert machine.operations == operations(2, 40)
    assert [name for name in disk.names() if "snapshot" in name] == [file_name(SnapshotId(40, 2))]


def test_an_older_snapshot_in_the_middle_changes_nothing() -> None:
    sent, disk = Sent(), SimDisk(Random(1))
    replica, machine = member(disk, sent)
    hand_over(replica, msg.APPEND, 2, 1, 99, 2, [])
    hand_over(replica, msg.SNAPSHOT, 2, 20, 2, 0, image(20, 2), True)
    sent.clear()
    hand_over(replica, msg.SNAPSHOT, 2, 15, 2, 0, image(15, 2), True)
    assert sent == []
    build(replica)
    replica.pump()
    hand_over(replica, msg.SNAPSHOT, 2, 15, 2, 0, image(15, 2), True)
    assert ("n2", [msg.SNAPSHOT_OK, 2, 15, 0, True]) in sent
    assert machine.operations == operations(2, 20)


def test_a_crash_at_every_boundary_while_it_is_built_and_put_in_place() -> None:
    """With appends in between; every entry acknowledged is there afterwards, in the log or the state."""
    boundary, outcomes = 0, set()
    while True:
        disk, sent = SimDisk(Random(boundary)), Sent()
        replica, _ = member(disk, sent)
        deliver(replica, msg.APPEND, 2, 3, 1, 0, entries(2, 5, 2))
        left = boundary

        def before(step: str, disk: SimDisk = disk) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                disk.sever()
                raise OSError(5, "power")

        disk.before = before
        whole, finished = image(20, 2), False
        try:
            for at in range(0, len(whole), 80):
                hand_over(replica, msg.SNAPSHOT, 2, 20, 2, at, whole[at : at + 80], at + 80 >= len(whole))
            replica.snapshots.installs.build_slice()
            hand_over(replica, msg.APPEND, 2, 7, 5, 2, entries(6, 8, 2))
            build(replica)
            replica.pump()
            finished = True
        except DiskFailed:
            pass
        disk.before = lambda step: None
        disk.crash()
        acknowledged = max((m[2] - 1 for _, m in sent if m[0] == msg.APPENDED and m[4]), default=0)
        again, machine = member(disk, Sent())
        held = max(again.journal.last_index, again.core.applied_index)
        assert held >= acknowledged
        assert machine.operations == operations(2, again.core.applied_index)
        outcomes.add((again.core.applied_index, acknowledged))
        if finished:
            break
        boundary += 1
    assert boundary > 8
    assert {20} <= {applied for applied, _ in outcomes}
    assert {5, 8} <= {acknowledged for _, acknowledged in outcomes}


@pytest.mark.parametrize("seed", range(4))
def test_a_member_far_behind_catches_up_while_writes_go_on(seed: int) -> None:
    """The log is not cut under an install, however many snapshots the leader makes meanwhile."""
    settings = RaftSettings(snapshot_log_entries=30, retain_entries=2, snapshot_chunk_bytes=300)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            group = RaftGroup(seed, nursery, settings=settings)
            await group.start_all()
            leader = await group.wait_leader()
            late = next(name for name in group.names if name != leader)
            await group.crash(late)
            for number in range(200):
                await group.propose(b"%d" % number * 20)
            await group.start(late)
            installed = 0
            for number in range(400):  # each write is as long as a part's way there and back
                await group.propose(b"more %d" % number * 20)
                installed = installed or group.node(late).status().snapshot_index
            assert installed
            assert group.node(late).status().applied_index > group.node(leader).status().applied_index - 100
            await group.wait_converged()
            assert group.machine(late).operations == group.machine(leader).operations
            assert group.violations == []
            nursery.cancel_scope.cancel()

    run_simulation(seed, main)


@pytest.mark.parametrize("seed", range(3))
def test_a_leader_that_dies_in_the_middle_of_an_install(seed: int) -> None:
    async def main() -> None:
        async with trio.open_nursery() as nursery:
            group = RaftGroup(seed, nursery, settings=SETTINGS)
            await group.start_all()
            leader = await group.wait_leader()
            late = next(name for name in group.names if name != leader)
            await group.crash(late)
            for number in range(300):
                await group.propose(b"%d" % number * 20)
            await group.start(late)
            await trio.sleep(group.rng.uniform(0.05, 0.3))
            await group.crash(leader)
            await group.start(leader)
            for _ in range(30):
                await group.propose(b"more")
            await group.wait_converged()
            assert group.machine(late).operations == group.machine(leader).operations
            assert group.violations == []
            nursery.cancel_scope.cancel()

    run_simulation(seed, main)


def test_a_snapshot_of_no_state_is_refused_and_asked_for_again() -> None:
    sent, disk = Sent(), SimDisk(Random(1))
    replica, machine = member(disk, sent)
    deliver(replica, msg.APPEND, 2, 5, 1, 0, entries(2, 5, 2))
    whole = image(20, 2)
    damaged = whole[:-30] + bytes([whole[-30] ^ 1]) + whole[-29:]
    deliver(replica, msg.SNAPSHOT, 2, 20, 2, 0, damaged, True)
    assert machine.operations == operations(2, 5)
    sent.clear()
    hand_over(replica, msg.SNAPSHOT, 2, 20, 2, len(whole), b"", True)
    assert sent == [("n2", [msg.SNAPSHOT_OK, 2, 20, 0, False])]
    deliver(replica, msg.SNAPSHOT, 2, 20, 2, 0, whole, True)
    assert machine.operations == operations(2, 20)
    assert msgpack.unpackb(b"".join(machine.snapshot())) == machine.operations


def test_sending_goes_on_where_a_broken_connection_left_it() -> None:
    """What had arrived is not sent again, though the connection breaks after every few parts."""
    settings = RaftSettings(snapshot_log_entries=50, retain_entries=10, snapshot_chunk_bytes=20)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            group = RaftGroup(1, nursery, settings=settings)
            await group.start_all()
            leader = await group.wait_leader()
            late = next(name for name in group.names if name != leader)
            await group.crash(late)
            for number in range(300):
                await group.propose(b"%d" % number * 20)
            await group.start(late)
            sizes: list[int] = []
            with trio.fail_after(120):
                while not group.node(late).status().snapshot_index > 200:
                    await trio.sleep(0.2)
                    sizes += [
                        group.hosts[late].disk.open(name).size()
                        for name in group.hosts[late].disk.names()
                        if name.endswith(".received.tmp")
                    ]
                    group.network.reset(leader, late)
                    await group.propose(b"more")
            assert len(set(sizes)) > 2
            assert sizes == sorted(sizes)
            await group.wait_converged()
            assert group.machine(late).operations == group.machine(leader).operations
            nursery.cancel_scope.cancel()

    run_simulation(1, main)


def test_a_follower_that_falls_silent_is_not_waited_for() -> None:
    async def main() -> None:
        async with trio.open_nursery() as nursery:
            group = RaftGroup(1, nursery, settings=SETTINGS)
            await group.start_all()
            leader = await group.wait_leader()
            late = next(name for name in group.names if name != leader)
            await group.crash(late)
            for number in range(300):
                await group.propose(b"%d" % number * 20)
            await group.start(late)
            replica = group.node(leader)._replica
            assert replica is not None
            with trio.fail_after(10):
                while not replica.snapshots._sending:
                    await trio.sleep(0.001)
            await group.crash(late)
            await trio.sleep(20)
            assert not replica.snapshots._sending
            for number in range(200):
                await group.propose(b"%d" % number * 20)
            assert replica.snapshots._needed == {}
            assert replica.journal.first_index > 400
            nursery.cancel_scope.cancel()

    run_simulation(1, main)


def test_an_install_that_leaves_the_members_as_they_are_touches_no_connection() -> None:
    """Least of all those to members that the directory's first configuration does not hold."""
    guarded = Guarded()
    now = Configuration.of_names(["n1", "n2", "m3", "m4"])
    guarded.receive("n2", msg.APPEND, 1, 1, 1, 0, [[CONFIGURATION + now.encode(), 2, 1]])
    told: list[Configuration] = []
    guarded.replica.journal.configurations.on_change = told.append
    writer = SnapshotWriter(guarded.disk, SnapshotId(20, 2), now.encode())
    writer.write(b"state")
    guarded.replica.snapshots._follow_on(writer.finish(), writer.snapshot)
    assert guarded.replica.journal.first_index == 20
    assert guarded.replica.configuration == now
    assert told == []
