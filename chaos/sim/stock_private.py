"""Every private name of stock pysyncobj 0.3.17 that the simulation touches; nothing else in chaos may.

Stock pysyncobj opens files, maps them and reads the clock through module globals. While a member's
`StockWorld` is entered they lead to its simulated disk and clock; outside of any, to the originals. What is
replaced is the file system under it, never a line of its logic: `FileJournal`, `MetaStorer`, `Serializer`
and `SyncObj` run as they are.

Two things differ from a real process. Its clock creeps by 0.2 ms with every look, for stock has loops that
only end by time. A mapping (mmap) is a file on the simulated disk: what is written to it is there for the
process, and durable only once something syncs it.
"""

from __future__ import annotations

import builtins
import os
import shutil
import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import pysyncobj.journal as _journal
import pysyncobj.serializer as _serializer
import pysyncobj.syncobj as _syncobj
from pysyncobj import SyncObj
from pysyncobj.journal import FileJournal

from chaos.sim.disk import SimDisk, SimFile
from raftkube.rng import Rng
from raftkube.store.raft.private import LEADER, World

_CREEP_S: Final = 200e-6


class StockWorld(World):
    """One stock member's clock, chance and disk."""

    def __init__(self, rng: Rng, disk: SimDisk) -> None:
        self._now = 0.0
        self._depth = 0  # a step may lead back into its own world
        self.disk = disk
        super().__init__(rng)

    @property
    def now(self) -> float:
        """The step's time, a little later with every look."""
        self._now += _CREEP_S
        return self._now

    @now.setter
    def now(self, at: float) -> None:
        self._now = max(self._now, at)

    def __enter__(self) -> StockWorld:
        global _disk
        if self._depth == 0:
            super().__enter__()
            _disk = self.disk
        self._depth += 1
        return self

    def __exit__(self, *error: object) -> None:
        global _disk
        self._depth -= 1
        if self._depth == 0:
            _disk = None
            super().__exit__(*error)


_disk: SimDisk | None = None


class _DiskFile:
    """What `open` gives on a simulated disk: enough of a binary file for stock."""

    def __init__(self, file: SimFile) -> None:
        self._file, self._at = file, 0

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(self._at, self._file.size() if size < 0 else size)
        self._at += len(data)
        return data

    def write(self, data: bytes) -> int:
        self._file.append(data)
        return len(data)

    def flush(self) -> None:
        """To the page cache, where it is already. Stock calls no fsync."""

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> _DiskFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_file(path: str, mode: str = "r") -> Any:
    """`open` as stock calls it: "rb" or "wb"."""
    if _disk is None:
        return builtins.open(path, mode)
    file = _disk.open(path, create="w" in mode)
    if "w" in mode:
        file.truncate(0)
    return _DiskFile(file)


def _rename(source: str, target: str) -> None:
    if _disk is None:
        shutil.move(source, target)
    else:
        _disk.rename(source, target)


def _exists(path: str) -> bool:
    return os.path.isfile(path) if _disk is None else path in _disk.names()


class MappedFile:
    """Stock's `ResizableFile`: a mapping that grows by doubling and is never synced while it is used."""

    def __init__(
        self,
        fileName: str,
        initialSize: int = 1024,
        resizeFactor: float = 2.0,
        defaultContent: bytes | None = None,
    ) -> None:
        assert _disk is not None, "stock journals are opened within their world"
        created = fileName not in _disk.names()
        self._file = _disk.open(fileName, create=True)
        self._factor = resizeFactor
        if created and defaultContent is not None:
            self._file.append(defaultContent)
        if self._file.size() == 0:
            raise ValueError("cannot mmap an empty file")
        self._file.preallocate(initialSize)

    def write(self, offset: int, values: bytes) -> None:
        size = self._file.size()
        if offset + len(values) > size:
            self._file.preallocate(max(int(size * self._factor), offset + len(values)))
        self._file.write_at(offset, values)

    def read(self, offset: int, size: int) -> bytes:
        return self._file.read(offset, size)

    def flush(self) -> None:
        self._file.sync()

    def _destroy(self) -> None:
        self._file.sync()
        self._file.close()


@contextmanager
def _mapped_files() -> Iterator[None]:
    original, _journal.ResizableFile = _journal.ResizableFile, MappedFile
    try:
        yield
    finally:
        _journal.ResizableFile = original


def open_journal(world: StockWorld, name: str) -> FileJournal:
    """Stock's own journal on the world's disk. Raises what stock raises on what it cannot read."""
    with world, _mapped_files():
        return FileJournal(name)


_journal.open = open_file
_journal.shutil = types.SimpleNamespace(move=_rename)
_serializer.open = open_file
_serializer.atomicReplace = _rename
_syncobj.os = types.SimpleNamespace(path=types.SimpleNamespace(isfile=_exists))


class StockView:
    """Plain names for a stock member's private state."""

    def __init__(self, core: SyncObj) -> None:
        self._core = core

    @property
    def leads(self) -> bool:
        return bool(self._core._SyncObj__raftState == LEADER)

    @property
    def term(self) -> int:
        return int(self._core.raftCurrentTerm)

    @property
    def leader(self) -> str | None:
        node = self._core._SyncObj__raftLeader
        return None if node is None else str(node.id)

    @property
    def log(self) -> list[tuple[bytes, int, int]]:
        return list(self._core._SyncObj__raftLog[:])

    @property
    def last_index(self) -> int:
        log = self._core._SyncObj__raftLog
        return int(log[-1][1]) if len(log) else 0

    @property
    def vote(self) -> str | None:
        return self._core._SyncObj__votedForNodeId  # type: ignore[no-any-return]

    @property
    def queued(self) -> int:
        """Commands that wait for a tick."""
        return len(self._core._SyncObj__commandsQueue._FastQueue__queue)


@contextmanager
def pipe_notifier() -> Iterator[None]:
    """Members made meanwhile wake their poller by a pipe, as stock does outside of simulations."""
    enabled, _syncobj.PIPE_NOTIFIER_ENABLED = _syncobj.PIPE_NOTIFIER_ENABLED, True
    try:
        yield
    finally:
        _syncobj.PIPE_NOTIFIER_ENABLED = enabled
