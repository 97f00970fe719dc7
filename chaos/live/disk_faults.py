"""Faults of the store members' disks: full, failing, slow, rotten, lost, and the power that goes.

Members run over `chaos.live.faulty_disk`. What a person does by hand after such a fault is done here as the
docs say: a restart after a failed sync, `raftkube repair` for a disk that is damaged or lost.
"""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import psutil
import trio

from chaos.live import fault as of
from chaos.live.fault import Act, Fault, Record, Site, ask_all
from chaos.live.fault_file import NO_FAULTS, DoorFaults
from chaos.live.observers import failures
from chaos.live.power_loss import Dropped, lose_power
from chaos.live.shadow import SECTOR
from raftkube.store.raft import journal_format

_SAFE: Final = "nothing acknowledged is lost; the other members go on"
_STEP_S: Final = 30.0
_REPAIR_S: Final = 90.0
_SYNC_DELAY_S: Final = 0.25
_HUNG_SYNC_S: Final = 5.0
_BEFORE_THE_LOSS_S: Final = 0.4  # less than an election timeout: the load goes on
_JOURNALS: Final = "journal-*.log"
_SEGMENT_HEADER_BYTES: Final = 48


# The power.


async def _power_loss(site: Site, targets: list[str]) -> Record | None:
    """SIGKILL while syncs hang, so that something waits for one; then each directory as the disk would show
    it. At the first loss of a run all that no sync had covered is gone, later that or a part of it."""
    site.power_losses += 1
    lose_all = site.power_losses == 1 or site.rng.random() < 0.5
    pids = await site.cluster.pids(targets)
    for member in targets:
        site.ask_doors(member, DoorFaults(sync_delay_s=_HUNG_SYNC_S))
    await trio.sleep(_BEFORE_THE_LOSS_S)
    await kill_and_wait(site, targets, pids)
    for member in targets:
        site.ask_doors(member, NO_FAULTS)
    dropped = {member: await _lose_power(site, member, lose_all=lose_all) for member in targets}
    await ask_all(site, "start", targets)
    for member, lost in dropped.items():
        if lost.sectors or lost.changes:
            site.observers.see("power-loss", component=member, sectors=lost.sectors, changes=lost.changes)
    return {"sectors_dropped": sum(lost.sectors for lost in dropped.values()), "lose_all": lose_all}


async def _lose_power(site: Site, member: str, *, lose_all: bool) -> Dropped:
    rng = random.Random(site.rng.getrandbits(64))
    return await trio.to_thread.run_sync(lambda: lose_power(site.data_of(member), rng, lose_all=lose_all))


async def kill_and_wait(site: Site, targets: list[str], pids: list[int] | None = None) -> None:
    """SIGKILL; they are gone when this returns. `pids` are theirs, if known."""
    if pids is None:
        pids = await site.cluster.pids(targets)
    await ask_all(site, "kill", targets)

    async def gone() -> bool:
        await trio.lowlevel.checkpoint()
        return not any(psutil.pid_exists(pid) for pid in pids)

    await site.until(gone, f"{', '.join(targets)} to be dead", _STEP_S)


# Errors of the disk.


def _doors(faults: DoorFaults, low_s: float, high_s: float) -> Act:
    """One member's doors do that for a while."""

    async def act(site: Site, targets: list[str]) -> Record | None:
        site.ask_doors(targets[0], faults)
        try:
            await site.for_a_while(low_s, high_s)
        finally:
            site.ask_doors(targets[0], NO_FAULTS)
        return None

    return act


async def _failing(site: Site, targets: list[str]) -> Record | None:
    """Writes or syncs of a member fail until it says so; then it is restarted by hand. In between it must
    take part in nothing."""
    member, step = targets[0], site.rng.choice(("sync", "write"))
    site.ask_doors(member, DoorFaults(failing=step))
    try:
        await site.until(lambda: _says_failed(site, member), f"{member} to say that its disk failed", _STEP_S)
        stood_at = _applied(site, member)
        await site.for_a_while(1, 2)
        if _applied(site, member) != stood_at:
            site.doubts.append(f"{member} went on after its disk had failed")
    finally:
        site.ask_doors(member, NO_FAULTS)
    await ask_all(site, "restart", [member])
    return {"step": step}


async def _says_failed(site: Site, member: str) -> bool:
    await trio.lowlevel.checkpoint()
    return bool(failures(site.observers.statuses[member][1]))


def _applied(site: Site, member: str) -> int:
    return int(site.observers.statuses[member][1]["applied_index"])


async def _slow(site: Site, targets: list[str]) -> Record | None:
    """Each sync takes longer; the member's own figures must show it."""
    member = targets[0]
    site.ask_doors(member, DoorFaults(sync_delay_s=_SYNC_DELAY_S))
    try:
        before = await _syncs(site, member)
        await site.for_a_while(3, 5)
        after = await _syncs(site, member)
    finally:
        site.ask_doors(member, NO_FAULTS)
    syncs = after[0] - before[0]
    took_ms = round(1000 * (after[1] - before[1]) / syncs) if syncs else 0
    if took_ms >= 800 * _SYNC_DELAY_S:
        site.observers.see("slow-sync", component=member, syncs=round(syncs), ms=took_ms)
    return {"syncs": round(syncs), "sync_ms": took_ms}


async def _syncs(site: Site, member: str) -> tuple[float, float]:
    """How many syncs its metrics count, and the seconds that they took."""
    name = "etcd_disk_wal_fsync_duration_seconds"
    figures: dict[str, float] = {}
    for line in (await site.cluster.metrics(member)).body.decode().splitlines():
        word, _, value = line.rpartition(" ")
        figures[word] = float(value) if word.startswith(name) else 0.0
    return figures.get(f"{name}_count", 0.0), figures.get(f"{name}_sum", 0.0)


# Rot and loss.


def _rotten(damage: Any) -> Act:
    """A member is killed, its journal damaged where it was synced long ago, and the member started: it must
    refuse, and `raftkube repair` bring it back."""

    async def act(site: Site, targets: list[str]) -> Record | None:
        member = targets[0]
        await kill_and_wait(site, targets)
        path = max(site.data_of(member).glob(_JOURNALS))
        at = await trio.to_thread.run_sync(damage, path, site.rng)
        await ask_all(site, "start", targets)
        await site.until(lambda: _refuses(site, member), f"{member} to refuse its data", _STEP_S)
        await _repair(site, member)
        return {"file": path.name, "at_byte": at}

    return act


def flip_bit(path: Path, rng: random.Random) -> int:
    """One bit of a batch that was synced long ago; where."""
    at = rng.choice(list(_bytes_of_old_batches(path)))
    with path.open("r+b") as stream:
        stream.seek(at)
        byte = stream.read(1)[0] ^ (1 << rng.randrange(8))
        stream.seek(at)
        stream.write(bytes([byte]))
    return at


def zero_sector(path: Path, rng: random.Random) -> int:
    """One sector of a batch that was synced long ago reads as zeros; where."""
    at = rng.choice(list(_bytes_of_old_batches(path))) // SECTOR * SECTOR
    with path.open("r+b") as stream:
        stream.seek(at)
        stream.write(bytes(SECTOR))
    return at


def _bytes_of_old_batches(path: Path) -> Iterator[int]:
    """Where headers and bodies lie in the older half of a segment (the padding behind them says nothing)."""
    data = path.read_bytes()
    batches = []
    at = SECTOR
    while (header := journal_format.unpack_batch_header(data, at)) is not None:
        batches.append(range(at, at + journal_format.BATCH_HEADER_BYTES + header.body_bytes))
        at += header.total_bytes
    yield from range(_SEGMENT_HEADER_BYTES)
    for batch in batches[: len(batches) // 2]:
        yield from batch


async def _refuses(site: Site, member: str) -> bool:
    """Whether it ended because of its data; then that was seen."""
    row = await _row(site, member)
    if row["phase"] != "failed":
        return False
    site.observers.see("refused", component=member, reason=row["reason"])
    return True


async def _disk_lost(site: Site, targets: list[str]) -> Record | None:
    """A member is killed, its directory deleted, and the member started: it must not take part under its old
    id, and `raftkube repair` bring it back under a new one."""
    await kill_and_wait(site, targets)
    await trio.to_thread.run_sync(shutil.rmtree, site.data_of(targets[0]))
    await ask_all(site, "start", targets)
    await site.for_a_while(1, 2)
    await _repair(site, targets[0])
    return None


async def _repair(site: Site, member: str) -> None:
    """As the docs say."""
    command = [sys.executable, "-m", "raftkube", "repair", member, "--name", site.cluster.state.name]
    with trio.move_on_after(_REPAIR_S) as patience:
        done = await trio.run_process(command, capture_stdout=True, stderr=subprocess.STDOUT, check=False)
    if patience.cancelled_caught:
        site.doubts.append(f"raftkube repair {member} did not end within {_REPAIR_S:g} s")
    elif done.returncode != 0:
        said = done.stdout.decode(errors="replace").strip().splitlines() or [f"exit code {done.returncode}"]
        site.doubts.append(f"raftkube repair {member}: {said[-1]}")


async def _row(site: Site, member: str) -> dict[str, Any]:
    rows: list[dict[str, Any]] = (await site.cluster.ask("status"))["components"]
    return next(row for row in rows if row["name"] == member)


def _fault(
    name: str, group: str, role: str, done: str, consequence: str, spares: str, act: Act, effect: of.Effect
) -> Fault:
    return Fault(name, group, "store", role, done, consequence, spares, act, effect, ("launcher",))


DISK_FAULTS: Final = (
    _fault(
        name="power-loss-all",
        group="power",
        role="all",
        done=(
            "SIGKILL of all members while their syncs hang; of what no sync had covered nothing "
            "survives, or some sectors"
        ),
        consequence="sectors or names that were not synced are gone",
        spares="nothing acknowledged is lost",
        act=_power_loss,
        effect=of.seen_of_it("power-loss"),
    ),
    _fault(
        name="power-loss-store",
        group="power",
        role="any",
        done="the same of one member",
        consequence="sectors or names that were not synced are gone",
        spares=_SAFE,
        act=_power_loss,
        effect=of.seen_of_it("power-loss"),
    ),
    _fault(
        name="enospc-store",
        group="disk",
        role="any",
        done="whatever needs room on a member's disk fails with ENOSPC for 3 to 5 s",
        consequence="it says that its disk failed",
        spares=_SAFE + "; it takes part in nothing, and again by itself once there is room",
        act=_doors(DoorFaults(full=True), 3, 5),
        effect=of.seen_of_it("disk"),
    ),
    _fault(
        name="eio-store",
        group="disk",
        role="any",
        done="writes or syncs of a member fail with EIO; it is restarted by hand",
        consequence="it says that its disk failed",
        spares=_SAFE + "; it stays up, says so, and takes part in nothing",
        act=_failing,
        effect=of.seen_of_it("disk"),
    ),
    _fault(
        name="slow-disk-store",
        group="disk",
        role="any",
        done=f"each sync of a member takes {_SYNC_DELAY_S:g} s longer, for 3 to 5 s",
        consequence="its own figures say so",
        spares=_SAFE,
        act=_slow,
        effect=of.seen_of_it("slow-sync"),
    ),
    _fault(
        name="bitflip-store-minority",
        group="disk",
        role="any",
        done=("SIGKILL of a member, one bit of its journal flipped, start; then `raftkube repair`"),
        consequence="it refuses to start and says where the damage is",
        spares=_SAFE,
        act=_rotten(flip_bit),
        effect=of.seen_of_it("refused"),
    ),
    _fault(
        name="torn-write-store-minority",
        group="disk",
        role="any",
        done=("SIGKILL of a member, a synced sector of its journal zeroed, start; then `raftkube repair`"),
        consequence="it refuses to start and says where the damage is",
        spares=_SAFE,
        act=_rotten(zero_sector),
        effect=of.seen_of_it("refused"),
    ),
    _fault(
        name="whole-disk-lost-store-follower",
        group="disk",
        role="follower",
        done=("SIGKILL of a follower, its directory deleted, start; then `raftkube repair`"),
        consequence="it comes back under a new id",
        spares=_SAFE + "; it never speaks for what it forgot",
        act=_disk_lost,
        effect=of.seen_of_it("id"),
    ),
)
