"""What a member says of the room on its disk, and how long it waits for some."""

from __future__ import annotations

import errno
from random import Random

import trio

from chaos.sim.clock import SimClock, run_simulation
from chaos.sim.disk import SimDisk
from chaos.sim.simulated_store import NAMES, SimulatedStore, settled
from raftkube.disk import SyncFailed, disk_failure
from raftkube.errors import DiskFailed, DiskFull
from raftkube.store.server.room import LOW_BYTES, Room

MIB = 1024 * 1024


def test_low_space_is_told_before_there_is_none() -> None:
    async def main() -> None:
        disk = SimDisk(Random(1), capacity_bytes=LOW_BYTES + MIB)
        room = Room(disk, SimClock(), segment_bytes=MIB)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(room.watch)
            await trio.sleep(1)
            assert room.warning is None
            disk.open("big", create=True).preallocate(2 * MIB)
            await trio.sleep(6)
            assert room.warning is not None
            assert "255.0 MiB free in /simulated" in room.warning
            disk.remove("big")
            await trio.sleep(6)
            assert room.warning is None
            nursery.cancel_scope.cancel()

    run_simulation(1, main)


def test_the_wait_ends_with_room_and_grows_when_room_was_not_what_was_missing() -> None:
    async def main() -> None:
        disk = SimDisk(Random(1))
        room = Room(disk, SimClock(), segment_bytes=MIB)
        waits = []
        for _ in range(8):  # a quota: there seems to be room
            began = trio.current_time()
            await room.wait()
            waits.append(trio.current_time() - began)
        assert waits == [1, 2, 4, 8, 16, 30, 30, 30]
        await trio.sleep(100)
        disk.full = True
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(room.wait)
            await trio.sleep(1000)
            disk.full = False
        assert 1000 <= trio.current_time() - began <= 1001

    run_simulation(1, main)


def test_each_failure_has_a_sentence_with_what_is_to_be_done() -> None:
    room = Room(SimDisk(Random(1)), SimClock(), segment_bytes=16 * MIB)
    full = disk_failure(OSError(errno.EDQUOT, "Disk quota exceeded"), "journal")
    assert type(full) is DiskFull
    assert room.sentence(full) == (
        "failed: journal: Disk quota exceeded; this member takes part in nothing until 32.0 MiB are free in"
        " /simulated. Free some: it goes on by itself"
    )
    broken = disk_failure(SyncFailed(errno.ENOSPC, "No space left on device"), "journal")
    assert type(broken) is DiskFailed
    assert "Replace the disk of /simulated, then restart this member" in room.sentence(broken)


def test_a_member_over_its_quota_tries_again_ever_more_slowly_until_it_is_raised() -> None:
    async def main() -> None:
        async with trio.open_nursery() as nursery:
            store = SimulatedStore(1, nursery)
            await store.start_all()
            async with store.client("client") as client:
                await client.put(b"k", b"v")
                victim, refused = NAMES[0], 0

                def before(step: str) -> None:
                    nonlocal refused
                    if step in ("write", "create", "preallocate"):
                        refused += 1
                        raise OSError(errno.EDQUOT, "Disk quota exceeded")

                store.disks[victim].before = before
                for number in range(25):
                    await client.put(b"k%d" % number, b"v")
                    await trio.sleep(0.8)
                assert 2 < refused < 8
                status = await client.status(store.clients[victim])
                assert any("quota" in error for error in status["errors"])
                store.disks[victim].before = lambda step: None
                with trio.fail_after(60):
                    await settled(client)
                assert store.failures == []
            nursery.cancel_scope.cancel()

    run_simulation(1, main)
