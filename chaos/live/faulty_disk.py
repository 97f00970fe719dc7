"""A real directory that fails when asked to, and that knows what a power loss would leave of it.

It stands before `raftkube.disk.SystemDisk` in the processes that `chaos.live.faulty_store` starts. Each step
looks at the member's `FaultFile` first; what may be lost is kept track of by a `Shadow`.
"""

from __future__ import annotations

import errno
import os
import time
from typing import Final, NoReturn

from chaos.live.fault_file import FaultFile
from chaos.live.shadow import FOLDER, Shadow
from raftkube.disk import SyncFailed, SystemDisk, SystemFile

_NEEDS_ROOM: Final = frozenset(("create", "preallocate", "write", "rename"))


class FaultyDisk:
    """Implements `raftkube.disk.Disk` over the directory `path`."""

    def __init__(self, path: str, faults: FaultFile) -> None:
        """Raises ConfigError as SystemDisk does."""
        self._disk, self._faults = SystemDisk(path), faults
        self.path = path
        self._shadow = Shadow(path)

    def names(self) -> list[str]:
        return [name for name in self._disk.names() if name != FOLDER]

    def open(self, name: str, *, create: bool = False) -> FaultyFile:
        if create and name not in self.names():
            self.step("create")
        file = _RealFile(os.path.join(self.path, name), create=create)
        self._shadow.created(name)
        return FaultyFile(self, file, self._shadow, name)

    def rename(self, source: str, target: str) -> None:
        self.step("rename")
        self._disk.rename(source, target)
        self._shadow.renamed(source, target)

    def remove(self, name: str) -> None:
        self.step("remove")
        self._disk.remove(name)
        self._shadow.removed(name)

    def sync_directory(self) -> None:
        self.sync_step()
        self._disk.sync_directory()
        self._shadow.directory_synced()

    def free_bytes(self) -> int:
        return 0 if self._faults.read().full else self._disk.free_bytes()

    def close(self) -> None:
        self._disk.close()

    def step(self, kind: str) -> None:
        """Fail if it is asked for. Raises OSError."""
        faults = self._faults.read()
        if faults.full and kind in _NEEDS_ROOM:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if faults.failing == kind:
            _fail()

    def sync_step(self) -> None:
        """Fail or be slow if it is asked for. Raises SyncFailed."""
        faults = self._faults.read()
        if faults.sync_delay_s:
            time.sleep(faults.sync_delay_s)
        if faults.failing == "sync":
            raise SyncFailed(errno.EIO, os.strerror(errno.EIO))


def _fail() -> NoReturn:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


class _RealFile(SystemFile):
    """A SystemFile whose descriptor the shadow may read."""

    __slots__ = ("fd",)

    def __init__(self, path: str, *, create: bool) -> None:
        flags = os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if create else 0)
        self.fd = os.open(path, flags, 0o600)
        super().__init__(self.fd)


class FaultyFile:
    """Implements `raftkube.disk.File`."""

    __slots__ = ("_disk", "_file", "_id", "_shadow")

    def __init__(self, disk: FaultyDisk, file: _RealFile, shadow: Shadow, name: str) -> None:
        self._disk, self._file, self._shadow = disk, file, shadow
        self._id = shadow.opened(name)

    def size(self) -> int:
        return self._file.size()

    def read(self, offset: int, length: int) -> bytes:
        return self._file.read(offset, length)

    def append(self, data: bytes) -> None:
        self.write_at(self._file.size(), data)

    def write_at(self, offset: int, data: bytes) -> None:
        self._disk.step("write")
        self._shadow.written(self._id, offset, offset + len(data))
        self._file.write_at(offset, data)

    def preallocate(self, size: int) -> None:
        if size > self._file.size():
            self._disk.step("preallocate")
            self._file.preallocate(size)

    def truncate(self, size: int) -> None:
        self._disk.step("truncate")
        self._shadow.written(self._id, size, self._file.size())
        self._file.truncate(size)

    def sync(self) -> None:
        try:
            self._disk.sync_step()
            self._file.sync()
        except OSError:
            self._shadow.sync_failed(self._id)
            raise
        self._shadow.synced(self._file.fd, self._id)

    def uncache(self) -> None:
        self._shadow.uncached(self._file.fd, self._id)
        self._file.uncache()

    def close(self) -> None:
        self._file.close()
