"""The disk of live runs: it fails when asked to, and a power loss leaves what was synced."""

from __future__ import annotations

import errno
import random
from pathlib import Path

import pytest

from chaos.live.fault_file import DoorFaults, FaultFile
from chaos.live.faulty_disk import FaultyDisk
from chaos.live.power_loss import lose_power
from raftkube.clock import SystemClock
from raftkube.disk import File, SyncFailed
from raftkube.store.raft.journal import SegmentedJournal


class Member:
    """A data directory, its fault file, and the process that uses it."""

    def __init__(self, root: Path) -> None:
        self.data = root / "data" / "store-1"
        self.data.parent.mkdir()
        self.faults = FaultFile.of(root, "store-1")

    def start(self) -> FaultyDisk:
        return FaultyDisk(str(self.data), FaultFile.beside(str(self.data), "store-1"))


@pytest.fixture
def member(tmp_path: Path) -> Member:
    return Member(tmp_path)


def write(disk: FaultyDisk, name: str, data: bytes) -> File:
    file = disk.open(name, create=True)
    file.append(data)
    return file


def text(member: Member, name: str) -> bytes:
    return (member.data / name).read_bytes()


def test_a_kill_loses_nothing_and_a_power_loss_what_was_not_synced(member: Member) -> None:
    disk = member.start()
    file = write(disk, "journal", b"a" * 512)
    file.sync()
    disk.sync_directory()
    file.append(b"b" * 1024)
    disk.close()
    again = member.start()
    assert again.open("journal").read(0, 4096) == b"a" * 512 + b"b" * 1024
    again.close()
    dropped = lose_power(member.data, random.Random(1), lose_all=True)
    assert text(member, "journal") == b"a" * 512
    assert (dropped.sectors, dropped.changes) == (2, 0)


def test_what_a_later_process_syncs_survives(member: Member) -> None:
    disk = member.start()
    write(disk, "journal", b"x" * 700)
    disk.sync_directory()
    disk.close()
    again = member.start()
    again.open("journal").sync()
    again.close()
    assert lose_power(member.data, random.Random(1), lose_all=True).sectors == 0
    assert text(member, "journal") == b"x" * 700


def test_names_need_a_sync_of_the_directory(member: Member) -> None:
    disk = member.start()
    write(disk, "kept", b"1").sync()
    write(disk, "removed", b"2").sync()
    disk.sync_directory()
    disk.remove("removed")
    write(disk, "new", b"3").sync()
    disk.rename("kept", "renamed")
    disk.close()
    dropped = lose_power(member.data, random.Random(1), lose_all=True)
    assert dropped.changes == 3
    assert {path.name: path.read_bytes() for path in member.data.iterdir()} == {"kept": b"1", "removed": b"2"}


def test_a_file_that_replaces_another_takes_its_own_content_along(member: Member) -> None:
    disk = member.start()
    write(disk, "identity", b"old").sync()
    disk.sync_directory()
    write(disk, "identity.tmp", b"new").sync()
    disk.rename("identity.tmp", "identity")
    disk.close()
    before = {path.name: path.read_bytes() for path in member.data.iterdir() if path.is_file()}
    assert before["identity"] == b"new"
    lose_power(member.data, random.Random(1), lose_all=True)
    assert text(member, "identity") == b"old"


def test_of_unsynced_sectors_some_survive_and_all_orders_of_survival_are_tried(member: Member) -> None:
    found = set()
    for seed in range(40):
        disk = member.start()
        file = disk.open("journal", create=True)
        file.truncate(0)
        file.append(b"\0" * 1024)
        file.sync()
        disk.sync_directory()
        file.write_at(0, b"1" * 512 + b"2" * 512)
        disk.close()
        lose_power(member.data, random.Random(seed), lose_all=False)
        survived = text(member, "journal")
        found.add((survived[0:1], survived[512:513]))
    assert found == {(one, two) for one in (b"\0", b"1") for two in (b"\0", b"2")}


def test_a_kill_between_a_step_and_its_note_is_mended(member: Member) -> None:
    disk = member.start()
    write(disk, "a", b"1").sync()
    disk.sync_directory()
    disk.close()
    (member.data / "a").rename(member.data / "b")  # taken, and the process died before it noted it
    (member.data / "c").write_bytes(b"2")
    again = member.start()
    assert again.names() == ["b", "c"]
    again.open("c").sync()
    again.sync_directory()
    again.close()
    lose_power(member.data, random.Random(1), lose_all=True)
    assert {path.name: path.read_bytes() for path in member.data.iterdir()} == {"b": b"1", "c": b"2"}


def test_a_full_disk_takes_nothing_and_says_that_no_byte_is_free(member: Member) -> None:
    disk = member.start()
    file = write(disk, "journal", b"1")
    member.faults.write(DoorFaults(full=True))
    assert disk.free_bytes() == 0
    steps = (lambda: file.append(b"2"), lambda: file.preallocate(4096), lambda: disk.open("x", create=True))
    for step in steps:
        with pytest.raises(OSError) as caught:
            step()
        assert caught.value.errno == errno.ENOSPC
    member.faults.write(DoorFaults())
    assert disk.free_bytes() > 0
    file.append(b"2")
    assert file.read(0, 10) == b"12"


def test_after_a_failed_sync_reading_lies_until_the_cache_is_dropped(member: Member) -> None:
    disk = member.start()
    file = write(disk, "journal", b"a" * 512)
    file.sync()
    disk.sync_directory()
    file.append(b"b" * 512)
    member.faults.write(DoorFaults(failing="sync"))
    with pytest.raises(SyncFailed):
        file.sync()
    member.faults.write(DoorFaults())
    disk.close()
    again = member.start()
    file = again.open("journal")
    assert file.read(512, 512) == b"b" * 512
    file.sync()  # succeeds, and writes nothing: the pages are clean
    file.uncache()
    assert file.read(512, 512) == bytes(512)
    file.write_at(512, b"c" * 512)
    file.sync()
    file.uncache()
    assert file.read(512, 512) == b"c" * 512


def test_what_is_cut_off_and_written_anew_is_not_what_was_there(member: Member) -> None:
    disk = member.start()
    file = write(disk, "snapshot.tmp", b"old" * 500)
    file.sync()
    disk.sync_directory()
    file.truncate(0)
    file.preallocate(1500)
    file.sync()
    disk.close()
    lose_power(member.data, random.Random(1), lose_all=True)
    assert text(member, "snapshot.tmp") == bytes(1500)


@pytest.mark.parametrize("lose_all", [True, False])
async def test_the_journal_of_the_store_keeps_what_it_synced(member: Member, lose_all: bool) -> None:
    rng, index = random.Random(7), 0
    for _ in range(8):
        disk = member.start()
        journal = SegmentedJournal(disk, rng, SystemClock(), segment_bytes=16_384)
        assert journal.last_index >= index
        synced = journal.last_index
        for number in range(synced + 1, synced + 40):
            journal.add(b"x" * rng.randrange(1, 900), number, 1)
            if rng.random() < 0.7:
                journal.sync()
                synced = number
        index = synced
        disk.close()
        lose_power(member.data, rng, lose_all=lose_all)
    assert index > 100


async def test_a_journal_that_is_never_synced_is_empty_after_a_power_loss(member: Member) -> None:
    disk = member.start()
    journal = SegmentedJournal(disk, random.Random(1), SystemClock(), fsync=False)
    for number in range(1, 20):
        journal.add(b"x", number, 1)
        journal.sync()
    disk.close()
    assert lose_power(member.data, random.Random(1), lose_all=True).sectors > 0
    assert SegmentedJournal(member.start(), random.Random(1), SystemClock()).last_index == 0
