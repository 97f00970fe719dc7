"""Snapshot files at every damaged byte; installs that are cut off, resumed, or crash half-way."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from random import Random

import msgpack
import pytest
import trio

from chaos.sim.clock import run_simulation
from chaos.sim.disk import SimDisk
from chaos.sim.raft_group import RaftGroup
from raftkube.errors import DiskFailed, InvariantViolation
from raftkube.store.raft import messages as msg
from raftkube.store.raft.membership import Configuration
from raftkube.store.raft.mutants import find
from raftkube.store.raft.private import REGULAR
from raftkube.store.raft.replica import Replica
from raftkube.store.raft.settings import RaftSettings
from raftkube.store.raft.snapshot_files import (
    IncomingSnapshot,
    SnapshotId,
    SnapshotReader,
    SnapshotWriter,
    file_name,
    snapshot_names,
)

CHUNKS = [b"first chunk", b"x" * 300, b"last"]
SETTINGS = RaftSettings(snapshot_log_entries=50, retain_entries=10, snapshot_chunk_bytes=300)


def written(disk: SimDisk, index: int = 40, term: int = 3) -> str:
    writer = SnapshotWriter(disk, SnapshotId(index, term))
    for chunk in CHUNKS:
        writer.write(chunk)
    return writer.finish()


def test_chunks_come_back_as_they_were_given() -> None:
    disk = SimDisk(Random(1))
    name = written(disk)
    disk.crash(lose_all=True)
    reader = SnapshotReader(disk, name)
    assert reader.snapshot == SnapshotId(40, 3)
    assert list(reader.chunks()) == CHUNKS


def test_a_newer_snapshot_replaces_the_older_one() -> None:
    disk = SimDisk(Random(1))
    old = SnapshotReader(disk, written(disk, 40))
    new = written(disk, 50)
    assert snapshot_names(disk) == [new]
    assert list(old.chunks()) == CHUNKS  # whoever is still reading it may go on


def test_every_flipped_byte_and_every_cut_is_found() -> None:
    original = SimDisk(Random(1))
    name = written(original)
    size = len(original.read_all(name))
    for at in range(size):
        for change in (
            lambda data, at=at: data.__setitem__(at, data[at] ^ 1),
            lambda data, at=at: data.__delitem__(slice(at, None)),
        ):
            disk = original.clone(Random(2))
            disk.damage(name, change)
            with pytest.raises(InvariantViolation, match=f"{name} is"):
                list(SnapshotReader(disk, name).chunks())


def test_a_received_snapshot_is_checked_before_it_counts() -> None:
    source = SimDisk(Random(1))
    content = source.read_all(written(source))
    disk = SimDisk(Random(2))
    incoming = IncomingSnapshot(disk, SnapshotId(40, 3))
    for at in range(0, len(content), 100):
        assert incoming.size == at
        incoming.write(content[at : at + 100])
    assert list(incoming.chunks()) == CHUNKS
    assert list(SnapshotReader(disk, incoming.publish()).chunks()) == CHUNKS

    for snapshot, damaged in (
        (SnapshotId(41, 3), content),
        (SnapshotId(40, 4), content),
        (SnapshotId(40, 3), content[:-1]),
        (SnapshotId(40, 3), content.replace(b"first", b"FIRST")),
    ):
        disk = SimDisk(Random(2))
        incoming = IncomingSnapshot(disk, snapshot)
        incoming.write(damaged)
        with pytest.raises(InvariantViolation):
            list(incoming.chunks())
        incoming.drop()
        assert disk.names() == []


class Clock:
    now = 100.0

    def monotonic(self) -> float:
        return self.now

    wall = monotonic


class Machine:
    def __init__(self) -> None:
        self.operations: list[bytes] = []

    def apply(self, index: int, payload: bytes, operations: object = None) -> list[int]:
        self.operations += msgpack.unpackb(payload)
        return [index]

    def snapshot(self) -> Iterator[bytes]:
        return iter([msgpack.packb(self.operations)])

    def restoring(self, chunks: Iterator[bytes]) -> Generator[None, None, Callable[[], None]]:
        yield
        operations = msgpack.unpackb(b"".join(chunks))
        return lambda: setattr(self, "operations", operations)


class Sent(list[tuple[str, list[object]]]):
    def send(self, name: str, message: list[object]) -> None:
        self.append((name, message))


def member(disk: SimDisk, sent: Sent) -> tuple[Replica, Machine]:
    machine = Machine()
    replica = Replica(
        name="n1", configuration=Configuration.of_names(["n1", "n2", "n3"]),
        disk=disk, clock=Clock(), rng=Random(1), machine=machine, outlet=sent,
        settings=SETTINGS, mutant=find(None), on_role=lambda role: None,
    )  # fmt: skip
    return replica, machine


def entries(first: int, last: int, term: int) -> list[list[object]]:
    return [[REGULAR + msgpack.packb([b"%d/%d" % (n, term)]), n, term] for n in range(first, last + 1)]


def image(index: int, term: int) -> bytes:
    """A leader's snapshot whose state is the operations of entries 2..index."""
    disk = SimDisk(Random(1))
    writer = SnapshotWriter(disk, SnapshotId(index, term))
    writer.write(msgpack.packb([b"%d/%d" % (n, term) for n in range(2, index + 1)]))
    return disk.read_all(writer.finish())


def deliver(replica: Replica, *message: object) -> None:
    """The message and all that it sets going; `hand_over` stops before a snapshot is built."""
    hand_over(replica, *message)
    while replica.snapshots.installs.build_slice():
        pass
    replica.pump()


def hand_over(replica: Replica, *message: object, sender: str = "n2") -> None:
    replica.deliver(sender, [list(message)])
    replica.pump()


def test_a_log_that_holds_the_snapshots_entry_is_kept() -> None:
    """Raft §7: an install that comes late shortens nothing."""
    sent, disk = Sent(), SimDisk(Random(1))
    replica, machine = member(disk, sent)
    deliver(replica, msg.APPEND, 2, 1, 1, 0, entries(2, 30, 2))
    assert replica.core.applied_index == 1
    deliver(replica, msg.SNAPSHOT, 2, 20, 2, 0, image(20, 2), True)
    assert replica.journal.last_index == 30
    assert machine.operations == [b"%d/2" % n for n in range(2, 21)]
    deliver(replica, msg.APPEND, 2, 30, 30, 2, [])
    assert machine.operations == [b"%d/2" % n for n in range(2, 31)]


def test_a_divergent_log_gives_way_to_the_snapshot() -> None:
    sent, disk = Sent(), SimDisk(Random(1))
    replica, machine = member(disk, sent)
    deliver(replica, msg.APPEND, 1, 1, 1, 0, entries(2, 30, 1))
    deliver(replica, msg.APPEND, 2, 1, 99, 2, [])
    deliver(replica, msg.SNAPSHOT, 2, 20, 2, 0, image(20, 2), True)
    assert (replica.journal.first_index, replica.journal.last_index) == (20, 20)
    assert machine.operations == [b"%d/2" % n for n in range(2, 21)]
    deliver(replica, msg.APPEND, 2, 22, 20, 2, entries(21, 22, 2))
    assert machine.operations[-1] == b"22/2"


def test_a_snapshot_of_what_is_applied_already_changes_nothing() -> None:
    sent, disk = Sent(), SimDisk(Random(1))
    replica, machine = member(disk, sent)
    deliver(replica, msg.APPEND, 2, 30, 1, 0, entries(2, 30, 2))
    sent.clear()
    deliver(replica, msg.SNAPSHOT, 2, 20, 2, 0, image(20, 2), True)
    assert ("n2", [msg.SNAPSHOT_OK, 2, 20, 0, True]) in sent
    assert replica.snapshots.index == 0
    assert len(machine.operations) == 29


def test_parts_out_of_place_are_asked_for_again() -> None:
    sent, disk = Sent(), SimDisk(Random(1))
    replica, machine = member(disk, sent)
    whole = image(20, 2)
    deliver(replica, msg.APPEND, 2, 1, 99, 2, [])
    for offset, data, last, wanted in (
        (10, whole[10:20], False, 0),
        (0, whole[:10], False, 10),
        (0, whole[:10], False, 10),
        (50, whole[50:], True, 10),
    ):
        sent.clear()
        deliver(replica, msg.SNAPSHOT, 2, 20, 2, offset, data, last)
        assert ("n2", [msg.SNAPSHOT_OK, 2, 20, wanted, False]) in sent
    deliver(replica, msg.SNAPSHOT, 2, 20, 2, 10, whole[10:], True)
    assert replica.core.applied_index == 20
    assert len(machine.operations) == 19


def test_a_crash_at_every_boundary_of_an_install() -> None:
    """Before: the old log. After: the snapshot. Never anything else, and term and vote stay."""
    whole, boundary, outcomes = image(20, 2), 0, set()
    while True:
        disk = SimDisk(Random(boundary))
        replica, _ = member(disk, Sent())
        deliver(replica, msg.APPEND, 1, 3, 1, 0, entries(2, 5, 1))
        deliver(replica, msg.APPEND, 2, 3, 99, 2, [])
        left = boundary

        def before(step: str, disk: SimDisk = disk) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                disk.sever()
                raise OSError(5, "power")

        disk.before = before
        try:
            deliver(replica, msg.SNAPSHOT, 2, 20, 2, 0, whole, True)
            finished = True
        except DiskFailed:
            finished = False
        disk.before = lambda step: None
        disk.crash()
        again, machine = member(disk, Sent())
        assert again.core.term == 2
        if again.core.applied_index == 20:
            assert machine.operations == [b"%d/2" % n for n in range(2, 21)]
            outcomes.add("new")
        else:
            assert not finished
            assert again.journal.last_index == 5
            assert again.core.commit_index >= 1
            outcomes.add("old")
        if finished:
            break
        boundary += 1
    assert boundary > 5
    assert outcomes == {"old", "new"}


def test_a_snapshot_without_a_journal_is_refused() -> None:
    disk = SimDisk(Random(1))
    written(disk)
    with pytest.raises(InvariantViolation, match="journal"):
        member(disk, Sent())


def test_a_log_whose_snapshot_is_gone_is_refused() -> None:
    disk = SimDisk(Random(1))
    replica, _ = member(disk, Sent())
    deliver(replica, msg.APPEND, 2, 1, 99, 2, [])
    deliver(replica, msg.SNAPSHOT, 2, 20, 2, 0, image(20, 2), True)
    disk.remove(file_name(SnapshotId(20, 2)))
    disk.sync_directory()
    disk.crash()
    with pytest.raises(InvariantViolation, match="no snapshot"):
        member(disk, Sent())


@pytest.mark.parametrize("seed", range(4))
def test_an_install_survives_cuts_and_resets(seed: int) -> None:
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
            for _ in range(6):
                await trio.sleep(group.rng.uniform(0.01, 0.1))
                group.network.reset(leader, late)
                await group.propose(b"more")
            await group.wait_converged()
            assert group.machine(late).operations == group.machine(leader).operations
            assert group.node(late).status().snapshot_index > 200
            assert group.violations == []
            nursery.cancel_scope.cancel()

    run_simulation(seed, main)
