"""The door to the disk: one directory, flat file names, every durability step spelled out.

The calls block: a simulation answers them at once, and the real ones take what the disk takes. A `Disk`
that fails raises OSError, a failed sync the subclass `SyncFailed`; the caller never retries a failed sync,
nor trusts the page cache after one (`File.uncache` says why).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from typing import Final, Protocol

from raftkube.errors import ConfigError, DiskFailed, DiskFull

_NO_ROOM: Final = frozenset((errno.ENOSPC, errno.EDQUOT))


class SyncFailed(OSError):
    """A sync failed, for whatever reason: what was written since the last good one may be gone although
    reading it back still shows it."""


def disk_failure(error: OSError, what: str) -> DiskFailed:
    """`error` as the error of a member: DiskFull if only room is missing. A failed sync never counts as
    that: a file system that finds no room so late (delayed allocation, NFS) has lost pages as well."""
    kind = DiskFull if error.errno in _NO_ROOM and not isinstance(error, SyncFailed) else DiskFailed
    return kind(f"{what}: {error.strerror or error}")


class File(Protocol):
    """A file opened for reading at offsets and for appending."""

    def size(self) -> int:
        """Bytes in the file."""
        ...

    def read(self, offset: int, length: int) -> bytes:
        """Up to `length` bytes from `offset`; shorter only at the end of the file."""
        ...

    def append(self, data: bytes) -> None:
        """Add `data` at the end. On OSError any prefix of it may have been written."""
        ...

    def write_at(self, offset: int, data: bytes) -> None:
        """Overwrite from `offset`, growing the file where needed. On OSError any part may be written."""
        ...

    def preallocate(self, size: int) -> None:
        """Make room up to `size` bytes, read back as zeros; no effect if the file is larger."""
        ...

    def truncate(self, size: int) -> None:
        """Cut the file to `size` bytes."""
        ...

    def sync(self) -> None:
        """fdatasync: when it returns, all earlier writes survive a power loss. Raises SyncFailed."""
        ...

    def uncache(self) -> None:
        """Read from the device from now on, not from memory; to be called right after a sync.

        After a failed sync Linux marks the pages clean: reading shows what was written, later syncs
        succeed, and the device never gets it. A process that starts cannot know that one before it failed,
        so it syncs, drops the cache and believes what it then reads. Source: the PostgreSQL developers'
        "fsyncgate" of 2018; Rebello et al., "Can Applications Recover from fsync Failures?", ATC '20.
        """
        ...

    def close(self) -> None:
        """Release the handle, once; says nothing of durability."""
        ...


class Disk(Protocol):
    """One directory, held by one process, called `path` in messages. Names are flat: no separators."""

    path: str

    def names(self) -> list[str]:
        """The files' names, sorted."""
        ...

    def open(self, name: str, *, create: bool = False) -> File:
        """Open `name`; FileNotFoundError unless it exists or `create` is set."""
        ...

    def rename(self, source: str, target: str) -> None:
        """Atomically replace `target` by `source`; durable only after `sync_directory`."""
        ...

    def remove(self, name: str) -> None:
        """Unlink `name`; durable only after `sync_directory`."""
        ...

    def sync_directory(self) -> None:
        """Make creations, renames and removals durable. Raises SyncFailed."""
        ...

    def free_bytes(self) -> int:
        """Bytes that an ordinary user may still write."""
        ...

    def close(self) -> None:
        """Give up the directory's lock."""
        ...


class SystemFile:
    """A file descriptor. Source: open(2), fdatasync(2)."""

    __slots__ = ("_end", "_fd")

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._end = os.fstat(fd).st_size

    def size(self) -> int:
        return self._end

    def read(self, offset: int, length: int) -> bytes:
        parts = []
        while length > 0:
            part = os.pread(self._fd, length, offset)
            if not part:
                break
            parts.append(part)
            offset += len(part)
            length -= len(part)
        return b"".join(parts)

    def append(self, data: bytes) -> None:
        self.write_at(self._end, data)

    def write_at(self, offset: int, data: bytes) -> None:
        view = memoryview(data)
        while view:
            done = os.pwrite(self._fd, view, offset)
            offset += done
            view = view[done:]
        self._end = max(self._end, offset)

    def preallocate(self, size: int) -> None:
        if size > self._end:
            os.posix_fallocate(self._fd, 0, size)
            self._end = size

    def truncate(self, size: int) -> None:
        os.ftruncate(self._fd, size)
        self._end = size

    def sync(self) -> None:
        try:
            os.fdatasync(self._fd)
        except OSError as error:
            raise SyncFailed(error.errno, error.strerror) from error

    def uncache(self) -> None:
        os.posix_fadvise(self._fd, 0, 0, os.POSIX_FADV_DONTNEED)

    def close(self) -> None:
        fd, self._fd = self._fd, -1  # closed twice, it might be another file's by then
        if fd >= 0:
            os.close(fd)


class SystemDisk:
    """A real directory under an exclusive lock, so that two processes never share a journal."""

    def __init__(self, path: str) -> None:
        """Create (mode 0700) and lock `path`. Raises ConfigError: unusable or in use."""
        self.path = path
        try:
            _make_directory(path, mode=0o700)
            self._directory_fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
            self._lock_fd = os.open(os.path.join(path, "LOCK"), os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise ConfigError(f"data directory {path!r} cannot be used: {error.strerror}") from error
        try:
            fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self.close()
            raise ConfigError(f"data directory {path!r} is in use by another process") from error

    def names(self) -> list[str]:
        return sorted(name for name in os.listdir(self.path) if name != "LOCK")

    def open(self, name: str, *, create: bool = False) -> SystemFile:
        flags = os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if create else 0)
        return SystemFile(os.open(os.path.join(self.path, name), flags, 0o600))

    def rename(self, source: str, target: str) -> None:
        os.rename(os.path.join(self.path, source), os.path.join(self.path, target))

    def remove(self, name: str) -> None:
        os.unlink(os.path.join(self.path, name))

    def sync_directory(self) -> None:
        try:
            os.fsync(self._directory_fd)
        except OSError as error:
            raise SyncFailed(error.errno, error.strerror) from error

    def free_bytes(self) -> int:
        stat = os.statvfs(self.path)
        return stat.f_bavail * stat.f_frsize

    def close(self) -> None:
        for fd in (self._lock_fd, self._directory_fd):
            with contextlib.suppress(OSError):
                os.close(fd)


def _make_directory(path: str, *, mode: int = 0o777) -> None:
    """Make `path` and what is missing above it, durably: a directory that a power loss forgets takes along
    all that was synced in it."""
    path = os.path.abspath(path)
    if os.path.isdir(path):
        return
    parent = os.path.dirname(path)
    _make_directory(parent)
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, mode=mode)
    fd = os.open(parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
