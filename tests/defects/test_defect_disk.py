"""Defects of pysyncobj's journal on a disk that loses power, or rots. Each beside raftkube."""

from __future__ import annotations

import pytest

from chaos.sim.disk import SimDisk
from chaos.sim.groups import GroupOptions, Kind
from chaos.sim.scenario import Scenario, run
from chaos.sim.stock_private import StockWorld, open_journal
from raftkube.errors import DiskFailed
from raftkube.rng import seeded_rng
from raftkube.store.raft.journal import SegmentedJournal

KINDS = pytest.mark.parametrize("kind", ["stock", "raftkube"])
_WRITES = [b"%04d" % number + b"x" * 700 for number in range(20)]


def _journal_with(scenario: Scenario, name: str, value: bytes) -> tuple[str, int]:
    """The file of that member that holds the value, and where."""
    disk = scenario.group.disk(name)
    for file in disk.names():
        at = disk.read_all(file).find(value)
        if at >= 0:
            return file, at
    raise AssertionError("no file holds the value")


@KINDS
def test_a_power_loss_of_all_loses_nothing_acknowledged(kind: Kind) -> None:
    """Stock's journal is a mapping that nothing syncs before the acknowledgement."""

    async def story(scenario: Scenario) -> int:
        await scenario.write(await scenario.leader(), *_WRITES)
        for name in scenario.group.names:
            await scenario.group.crash(name, lose_all=True)
        try:
            await scenario.group.start_all()
        except ValueError:
            return len(_WRITES)  # the journal exists without a byte: stock does not start
        leader = await scenario.leader()
        return len([write for write in _WRITES if write not in scenario.group.operations(leader)])

    assert run(kind, story) == (len(_WRITES) if kind == "stock" else 0)


async def _rotten(scenario: Scenario) -> tuple[str, list[bytes]]:
    """Flip one bit in the middle of a client's value, in one stopped member's journal; what it then says."""
    group, name = scenario.group, "store-1"
    await scenario.leader()
    await scenario.write("store-1", *_WRITES)
    await group.stop(name)
    file, at = _journal_with(scenario, name, _WRITES[7])

    def flip(data: bytearray) -> None:
        data[at + 300] ^= 1

    group.disk(name).damage(file, flip)
    try:
        await group.start(name)
    except Exception as error:  # noqa: BLE001 whatever a kind raises
        return str(error), []
    await scenario.leader()
    return "", list(group.operations(name))


@KINDS
def test_rot_is_found(kind: Kind) -> None:
    """No checksum: stock applies what the disk made of a value."""
    said, operations = run(kind, _rotten, GroupOptions(size=1))
    if kind == "stock":
        assert len(operations) == len(_WRITES)
        assert _WRITES[7] not in operations  # and nobody was told
    else:
        assert "damaged at byte" in said


@KINDS
def test_damage_is_said_where_it_is(kind: Kind) -> None:
    """A page that never reached the disk reads as zeros."""

    async def story(scenario: Scenario) -> str:
        group, name = scenario.group, "store-1"
        await scenario.leader()
        await scenario.write(name, *_WRITES)
        await group.stop(name)

        file, at = _journal_with(scenario, name, _WRITES[7])

        def zero(data: bytearray) -> None:
            data[at : at + 4096] = bytes(4096)

        group.disk(name).damage(file, zero)
        try:
            await group.start(name)
        except Exception as error:  # noqa: BLE001 whatever a kind raises
            return f"{type(error).__name__}: {error}"
        return ""

    said = run(kind, story, GroupOptions(size=1))
    print(said)
    assert (said.startswith("error: unpack")) if kind == "stock" else ("damaged at byte" in said)


def test_a_torn_vote_reads_as_no_vote_in_stock() -> None:
    """`.meta` is written anew for each vote, never synced, and any error in reading it means "term 0"."""
    disk = SimDisk(seeded_rng(1))
    world = StockWorld(seeded_rng(1), disk)
    journal = open_journal(world, "journal")
    with world:
        journal.setCurrentTerm(7, "store-2")
    disk.damage("journal.meta", lambda data: data.clear())
    reopened = open_journal(world, "journal")
    assert (reopened.getCurrentTerm(), reopened.getVotedForNodeId()) == (0, None)


class _Still:
    def monotonic(self) -> float:
        return 0.0

    def wall(self) -> float:
        return 0.0


def test_a_vote_is_whole_or_not_there_in_raftkube() -> None:
    """A power loss at every step of the disk: what `sync` returned for is there, else the vote before it."""
    crashed = True
    steps = 0
    while crashed:
        steps += 1
        disk = SimDisk(seeded_rng(steps))
        journal = SegmentedJournal(disk, seeded_rng(1), _Still())
        journal.setCurrentTerm(6, "store-3")
        journal.sync()
        journal.setCurrentTerm(7, "store-2")
        crashed = _crash_in_sync(disk, journal, steps)
        disk.crash(lose_all=steps % 2 == 0)
        reopened = SegmentedJournal(disk, seeded_rng(2), _Still())
        found = (reopened.getCurrentTerm(), reopened.getVotedForNodeId())
        assert found == (7, "store-2") or (crashed and found == (6, "store-3"))
    assert steps > 2


def _crash_in_sync(disk: SimDisk, journal: SegmentedJournal, steps: int) -> bool:
    """Sync; True if the disk failed at its step number `steps`."""
    left = steps

    def count(step: str) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            raise OSError(5, f"no power before {step}")

    disk.before = count
    try:
        journal.sync()
    except DiskFailed:
        return True
    finally:
        disk.before = lambda step: None
    return False
