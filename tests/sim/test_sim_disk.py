"""The fake disk keeps the contract of the real one, and forgets what the real one may forget."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from chaos.sim.disk import SECTOR, SimDisk
from raftkube.disk import Disk, SystemDisk


@pytest.fixture(params=["real", "fake"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Disk:
    return SystemDisk(str(tmp_path / "data")) if request.param == "real" else SimDisk(Random(1))


def test_a_missing_file_is_an_error(disk: Disk) -> None:
    with pytest.raises(FileNotFoundError):
        disk.open("absent")
    for step in (lambda: disk.rename("absent", "b"), lambda: disk.remove("absent")):
        with pytest.raises(FileNotFoundError):
            step()


def test_what_is_written_is_read(disk: Disk) -> None:
    file = disk.open("a", create=True)
    file.append(b"hello ")
    file.append(b"world")
    assert file.read(6, 100) == b"world"
    assert file.read(100, 5) == b""
    file.write_at(0, b"J")
    assert disk.open("a").read(0, 5) == b"Jello"
    file.write_at(14, b"!")
    assert file.read(10, 10) == b"d\0\0\0!"
    assert file.size() == 15
    file.sync()


def test_preallocated_room_reads_as_zeros(disk: Disk) -> None:
    file = disk.open("a", create=True)
    file.append(b"x")
    file.preallocate(10)
    assert (file.size(), file.read(0, 10)) == (10, b"x" + bytes(9))
    file.preallocate(5)
    assert file.size() == 10
    file.truncate(3)
    assert (file.size(), file.read(0, 10)) == (3, b"x\0\0")
    file.truncate(6)
    assert file.read(0, 10) == b"x" + bytes(5)


def test_rename_replaces_and_remove_removes(disk: Disk) -> None:
    for name in ("a", "b"):
        disk.open(name, create=True).append(name.encode())
    disk.rename("a", "b")
    assert disk.names() == ["b"]
    assert disk.open("b").read(0, 10) == b"a"
    held = disk.open("b")
    disk.remove("b")
    assert disk.names() == []
    assert held.read(0, 10) == b"a"  # an open file outlives its name
    disk.sync_directory()
    assert disk.free_bytes() > 0


def _crashed(seed: int, work: Callable[[SimDisk], None], *, lose_all: bool = False) -> SimDisk:
    disk = SimDisk(Random(seed))
    work(disk)
    disk.crash(lose_all=lose_all)
    return disk


def test_a_crash_keeps_what_was_synced() -> None:
    def work(disk: SimDisk) -> None:
        file = disk.open("a", create=True)
        file.append(b"x" * 3 * SECTOR)
        file.sync()
        disk.sync_directory()
        file.write_at(SECTOR, b"y" * SECTOR)

    survived = set()
    for seed in range(30):
        content = _crashed(seed, work).read_all("a")
        assert content[:SECTOR] == content[2 * SECTOR :] == b"x" * SECTOR
        assert content[SECTOR : 2 * SECTOR] in (b"x" * SECTOR, b"y" * SECTOR)  # whole or not at all
        survived.add(content[SECTOR])
    assert survived == {ord("x"), ord("y")}
    assert _crashed(1, work, lose_all=True).read_all("a") == b"x" * 3 * SECTOR


def test_a_name_is_durable_only_with_its_directory() -> None:
    def work(disk: SimDisk) -> None:
        file = disk.open("old", create=True)
        file.append(b"old")
        file.sync()
        disk.sync_directory()
        new = disk.open("new.tmp", create=True)
        new.append(b"new")
        new.sync()
        disk.rename("new.tmp", "old")

    outcomes = {
        (tuple(disk.names()), disk.read_all("old")) for disk in (_crashed(s, work) for s in range(40))
    }
    assert outcomes == {(("old",), b"old"), (("new.tmp", "old"), b"old"), (("old",), b"new")}


def test_unsynced_bytes_of_a_durable_name_are_lost() -> None:
    def work(disk: SimDisk) -> None:
        disk.open("a", create=True).append(b"x" * 100)
        disk.sync_directory()

    assert _crashed(1, work, lose_all=True).read_all("a") == b""


def test_handles_from_before_the_crash_fail() -> None:
    disk = SimDisk(Random(1))
    file = disk.open("a", create=True)
    disk.sever()
    for step in (file.sync, file.size, lambda: file.append(b"x")):
        with pytest.raises(OSError):
            step()


def test_faults_are_injected_once() -> None:
    disk = SimDisk(Random(1))
    file = disk.open("a", create=True)
    disk.fail_next["sync"] = errno.EIO
    with pytest.raises(OSError, match="EIO"):
        file.sync()
    file.sync()


def test_a_full_disk_refuses_growth() -> None:
    disk = SimDisk(Random(1), capacity_bytes=1000)
    file = disk.open("a", create=True)
    file.append(bytes(900))
    with pytest.raises(OSError, match="no space"):
        file.append(bytes(101))
    with pytest.raises(OSError, match="no space"):
        file.preallocate(1001)
    file.write_at(0, b"in place")
    assert disk.free_bytes() == 100
