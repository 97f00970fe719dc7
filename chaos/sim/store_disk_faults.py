"""Faults of disks and clocks, changes of members: see `store_faults`, whose table they are in."""

from __future__ import annotations

import errno
from typing import Final

import trio

from chaos.sim.plan import Injection
from chaos.sim.store_faults import Target, fault, rot

_SYNC_S: Final = 0.4  # the longest that a slow disk takes for one sync
_WALL_S: Final = 7200.0
_SMALLEST_S: Final = 3.0


@fault
async def disk_full(target: Target, injection: Injection) -> bool:
    """ENOSPC for whatever needs room: the member stops acknowledging, and goes on by itself afterwards."""
    disk = target.store.disks[target.machine(injection.choice)]
    disk.full = True
    await trio.sleep(injection.lasts_s)
    disk.full = False
    return True


@fault
async def disk_error(target: Target, injection: Injection) -> bool:
    """EIO at the next write or sync: the member stays up and takes no part; later it is started again, and
    replaced if it must be."""
    name = target.member(injection.choice)
    if name is None:
        return False
    step = ("sync", "write", "sync_directory")[injection.choice % 3]
    disk = target.store.disks[name]
    disk.fail_next[step] = errno.EIO
    await trio.sleep(max(injection.lasts_s, _SMALLEST_S))
    hit = step not in disk.fail_next
    disk.fail_next.clear()
    if hit and name in target.store.names:
        await target.store.kill(name)
        await target.surgery.start(name)
    return hit


@fault
async def slow_disk(target: Target, injection: Injection) -> bool:
    """Each sync of a member takes up to 0.4 s, in which it stands still: a sync blocks it."""
    name = target.member(injection.choice)
    if name is None:
        return False
    store, disk = target.store, target.store.disks[name]
    took_s = 0.01 + injection.amount * _SYNC_S
    synced = trio.Event()

    def note(step: str) -> None:
        if step == "sync":
            store.pause(name)
            synced.set()

    disk.before = note
    end_s = trio.current_time() + injection.lasts_s
    while trio.current_time() < end_s:
        with trio.move_on_at(end_s):
            await synced.wait()
            synced = trio.Event()
            await trio.sleep(took_s)
        store.resume(name)
    disk.before = lambda step: None
    return True


@fault
async def bit_rot(target: Target, injection: Injection) -> bool:
    """While one member is down, a bit or a sector of its journal or snapshot changes: it finds that at its
    start, and is replaced. One member at a time."""
    async with target.surgery.turn() as free:
        if not free:
            return False
        name = target.machine(injection.choice)
        await target.store.kill(name)
        if not rot(target.store.disks[name], injection.choice):
            await target.surgery.start(name)
            return False
        await trio.sleep(injection.lasts_s)
        await target.surgery.start_or_replace(name)
    return True


@fault
async def disk_lost(target: Target, injection: Injection) -> bool:
    """One member's disk is gone; it joins again as a learner with a new id. One member at a time."""
    async with target.surgery.turn() as free:
        if not free:
            return False
        name = target.machine(injection.choice)
        await target.store.kill(name)
        await trio.sleep(injection.lasts_s)
        await target.surgery.replace(name)
    return True


@fault
async def wall_jump(target: Target, injection: Injection) -> bool:
    """One machine's wall clock jumps by up to two hours, back or forth."""
    name = target.machine(injection.choice)
    target.store.clocks[name].wall_offset_s += (injection.amount - 0.5) * 2 * _WALL_S
    await trio.lowlevel.checkpoint()
    return True


@fault
async def transfer(target: Target, injection: Injection) -> bool:
    """The leader hands over on request."""
    return await target.surgery.move_leader()


@fault
async def grow_and_shrink(target: Target, injection: Injection) -> bool:
    """A member more joins, and one of the others, the leader perhaps, is removed for good."""
    async with target.surgery.turn() as free:
        if not free:
            return False
        return await target.surgery.exchange(injection.choice)
