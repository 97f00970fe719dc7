"""A directory in memory that forgets, tears and fails as real ones do.

What is written is visible at once; what survives a crash is what was synced, plus a seeded choice of the
sectors (512 bytes) written since, and a seeded prefix of the directory's changes since its last sync. A
sector survives whole or not at all. A write that fails leaves a seeded prefix of its sectors; a sync that
fails leaves pages that look written and never are (`uncache` shows the truth).
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from raftkube.disk import SyncFailed
from raftkube.rng import Rng

SECTOR: Final = 512
NEEDS_ROOM: Final = frozenset(("create", "preallocate", "write", "rename"))


@dataclass(slots=True)
class _Inode:
    live: bytearray = field(default_factory=bytearray)
    durable: bytearray = field(default_factory=bytearray)
    dirty: set[int] = field(default_factory=set)


class SimDisk:
    """Implements `raftkube.disk.Disk`. `before` is called with the name of each step before it is taken
    and may raise OSError (or crash the member): every write boundary is a place to fail. `before_read` is
    the same for reads, which leave nothing behind."""

    def __init__(self, rng: Rng, *, capacity_bytes: int = 1 << 40) -> None:
        self._rng = rng
        self._capacity_bytes = capacity_bytes
        self._generation = 0
        self._live: dict[str, _Inode] = {}
        self._durable: dict[str, _Inode] = {}
        self._changes: list[Callable[[dict[str, _Inode]], None]] = []
        self.before: Callable[[str], None] = lambda step: None
        self.before_read: Callable[[], None] = lambda: None
        self.path = "/simulated"
        self.steps = 0
        self.bytes_read = 0
        self.fail_next: dict[str, int] = {}  # step -> errno, once
        self.full = False  # until it is set back, whatever needs room fails (also in place: copy on write)

    # raftkube.disk.Disk

    def names(self) -> list[str]:
        return sorted(self._live)

    def open(self, name: str, *, create: bool = False) -> SimFile:
        inode = self._live.get(name)
        if inode is None:
            if not create:
                raise FileNotFoundError(errno.ENOENT, "no such file", name)
            self._step("create")
            inode = _Inode()
            self._change(lambda names: names.__setitem__(name, inode))
        return SimFile(self, inode)

    def rename(self, source: str, target: str) -> None:
        self._step("rename")
        if source not in self._live:
            raise FileNotFoundError(errno.ENOENT, "no such file", source)

        def rename(names: dict[str, _Inode]) -> None:
            if source in names:
                names[target] = names.pop(source)

        self._change(rename)

    def remove(self, name: str) -> None:
        self._step("remove")
        if name not in self._live:
            raise FileNotFoundError(errno.ENOENT, "no such file", name)

        def remove(names: dict[str, _Inode]) -> None:
            names.pop(name, None)

        self._change(remove)

    def sync_directory(self) -> None:
        try:
            self._step("sync_directory")
        except OSError as error:
            raise SyncFailed(error.errno, error.strerror) from error
        self._durable = dict(self._live)
        self._changes.clear()

    def free_bytes(self) -> int:
        if self.full:
            return 0
        return max(0, self._capacity_bytes - sum(len(inode.live) for inode in self._live.values()))

    def close(self) -> None:
        pass

    # The simulation's side.

    def sever(self) -> None:
        """Every open handle fails from now on; nothing is lost yet. First step of a crash."""
        self._generation += 1

    def crash(self, *, lose_all: bool = False) -> None:
        """Power loss: keep what was synced and what chance lets survive (nothing, if `lose_all`)."""
        self.sever()
        kept = 0 if lose_all else self._rng.randint(0, len(self._changes))
        names = dict(self._durable)
        for change in self._changes[:kept]:
            change(names)
        self._changes.clear()
        for inode in {id(inode): inode for inode in (*self._live.values(), *names.values())}.values():
            self._forget(inode, lose_all=lose_all)
        self._live, self._durable = names, dict(names)

    def write_back(self) -> None:
        """All that was written is durable, as the kernel does after a while without being asked."""
        for inode in self._live.values():
            inode.durable = bytearray(inode.live)
            inode.dirty.clear()
        self._durable = dict(self._live)
        self._changes.clear()

    def read_all(self, name: str) -> bytes:
        """The file's bytes as they are visible now."""
        return bytes(self._live[name].live)

    def damage(self, name: str, change: Callable[[bytearray], None]) -> None:
        """Rot: change the file behind everyone's back, durably."""
        inode = self._live[name]
        change(inode.live)
        inode.durable = bytearray(inode.live)
        inode.dirty.clear()

    def clone(self, rng: Rng) -> SimDisk:
        """An independent copy of the durable state."""
        other = SimDisk(rng, capacity_bytes=self._capacity_bytes)
        for name, inode in self._durable.items():
            other._live[name] = _Inode(bytearray(inode.durable), bytearray(inode.durable))
        other._durable = dict(other._live)
        return other

    def _forget(self, inode: _Inode, *, lose_all: bool) -> None:
        survivors = set() if lose_all else {n for n in sorted(inode.dirty) if self._rng.random() < 0.5}
        keeps_size = not lose_all and self._rng.random() < 0.5
        image = bytearray(inode.durable)
        if keeps_size:
            del image[len(inode.live) :]
            image.extend(bytes(len(inode.live) - len(image)))
        for sector in sorted(survivors):
            at = sector * SECTOR
            end = min(at + SECTOR, len(inode.live), len(image))
            if at < end:
                image[at:end] = inode.live[at:end]
        inode.live, inode.durable, inode.dirty = image, bytearray(image), set()

    def _prefix(self, size: int) -> int:
        """How much of a write of `size` bytes stands there although it failed: whole sectors."""
        return self._rng.randint(0, max(0, size - 1) // SECTOR) * SECTOR

    def _change(self, change: Callable[[dict[str, _Inode]], None]) -> None:
        change(self._live)
        self._changes.append(change)

    def _step(self, step: str, grow_bytes: int = 0) -> None:
        self.steps += 1
        self.before(step)
        number = self.fail_next.pop(step, None)
        if number is not None:
            raise OSError(number, errno.errorcode[number])
        if (grow_bytes and grow_bytes > self.free_bytes()) or (self.full and step in NEEDS_ROOM):
            raise OSError(errno.ENOSPC, "no space left on device")


class MountedDisk:
    """The disk as one process sees it (`raftkube.disk.Disk`): once severed, it reaches nothing more."""

    def __init__(self, disk: SimDisk) -> None:
        self._disk, self._generation = disk, disk._generation
        self.path = disk.path

    def _reached(self) -> SimDisk:
        if self._generation != self._disk._generation:
            raise OSError(errno.EIO, "the disk is gone")
        return self._disk

    def names(self) -> list[str]:
        return self._reached().names()

    def open(self, name: str, *, create: bool = False) -> SimFile:
        return self._reached().open(name, create=create)

    def rename(self, source: str, target: str) -> None:
        self._reached().rename(source, target)

    def remove(self, name: str) -> None:
        self._reached().remove(name)

    def sync_directory(self) -> None:
        self._reached().sync_directory()

    def free_bytes(self) -> int:
        return self._reached().free_bytes()

    def close(self) -> None:
        pass


class SimFile:
    """Implements `raftkube.disk.File`."""

    def __init__(self, disk: SimDisk, inode: _Inode) -> None:
        self._disk, self._inode = disk, inode
        self._generation = disk._generation
        self._closed = False

    def size(self) -> int:
        self._check()
        return len(self._inode.live)

    def read(self, offset: int, length: int) -> bytes:
        self._check()
        self._disk.before_read()
        data = bytes(self._inode.live[offset : offset + length])
        self._disk.bytes_read += len(data)
        return data

    def append(self, data: bytes) -> None:
        self.write_at(len(self._inode.live), data)

    def write_at(self, offset: int, data: bytes) -> None:
        self._check()
        try:
            self._disk._step("write", max(0, offset + len(data) - len(self._inode.live)))
        except OSError:
            self._write(offset, data[: self._disk._prefix(len(data))])
            raise
        self._write(offset, data)

    def _write(self, offset: int, data: bytes) -> None:
        live = self._inode.live
        if not data:
            return
        if offset > len(live):
            live.extend(bytes(offset - len(live)))
        live[offset : offset + len(data)] = data
        self._inode.dirty.update(range(offset // SECTOR, -(-(offset + len(data)) // SECTOR)))

    def preallocate(self, size: int) -> None:
        self._check()
        missing = size - len(self._inode.live)
        if missing > 0:
            self._disk._step("preallocate", missing)
            self._inode.live.extend(bytes(missing))

    def truncate(self, size: int) -> None:
        self._check()
        self._disk._step("truncate")
        live = self._inode.live
        del live[size:]
        live.extend(bytes(size - len(live)))

    def sync(self) -> None:
        self._check()
        inode = self._inode
        try:
            self._disk._step("sync")
        except OSError as error:
            inode.dirty.clear()  # the kernel marks them clean: no later sync will write them
            raise SyncFailed(error.errno, error.strerror) from error
        if len(inode.durable) != len(inode.live):
            del inode.durable[len(inode.live) :]
            inode.durable.extend(bytes(len(inode.live) - len(inode.durable)))
        for sector in inode.dirty:
            at = sector * SECTOR
            inode.durable[at : at + SECTOR] = inode.live[at : at + SECTOR]
        inode.dirty.clear()

    def uncache(self) -> None:
        self._check()
        inode = self._inode
        image = inode.durable[: len(inode.live)].ljust(len(inode.live), b"\0")
        for sector in inode.dirty:  # those cannot be dropped
            at = sector * SECTOR
            image[at : at + SECTOR] = inode.live[at : at + SECTOR]
        inode.live = image

    def close(self) -> None:
        self._closed = True

    def _check(self) -> None:
        if self._closed:
            raise OSError(errno.EBADF, "the file is closed")
        if self._generation != self._disk._generation:
            raise OSError(errno.EIO, "the disk is gone")
