"""What a power loss would leave of a directory: kept beside it while its process runs.

    <directory>/SHADOW/names.json   the names as they are, and as the last directory sync left them
                       <id>         what was synced of a file

A SIGKILL keeps what stands in the page cache, so it shows no missing fsync. Here every sync copies what was
written since to the shadow, before it returns; `chaos.live.power_loss` later makes the directory anew from
that. Files go by ids of our own, because names change before they are durable and inode numbers are used
again. A process that is killed between a step and its note in names.json is mended by the inode numbers.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

import orjson

FOLDER: Final = "SHADOW"
SECTOR: Final = 512
_NAMES: Final = "names.json"
_COMPARED_BYTES: Final = 256 * SECTOR
_NOT_FILES: Final = frozenset((FOLDER, "LOCK"))


@dataclass(slots=True)
class Names:
    """`live`: name -> [id, inode]; `durable`: name -> id, as of the last directory sync; `changes` since
    then, in order: ["create", name, id], ["rename", source, target], ["remove", name]. `lost`: id ->
    sectors whose sync failed: the page cache shows them, the disk never got them."""

    next_id: int = 1
    live: dict[str, list[int]] = field(default_factory=dict)
    durable: dict[str, int] = field(default_factory=dict)
    changes: list[list[str | int]] = field(default_factory=list)
    lost: dict[str, list[int]] = field(default_factory=dict)


class Shadow:
    """Of `directory`, which exists. One without a shadow counts as durable as it is."""

    def __init__(self, directory: str | Path) -> None:
        self._directory = Path(directory)
        self.folder = self._directory / FOLDER
        self._dirty: dict[int, set[int]] = {}
        if (self.folder / _NAMES).exists():
            self.names = Names(**orjson.loads((self.folder / _NAMES).read_bytes()))
            self._reconcile()
        else:
            self.names = Names()
            self._begin()

    def _begin(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        for name, inode in self._files().items():
            id_ = self._new_id()
            self.names.live[name], self.names.durable[name] = [id_, inode], id_
            shutil.copyfile(self._directory / name, self.content(id_))
        self._note()

    def _reconcile(self) -> None:
        """Names as they are in the directory; the last step before a kill may not have been noted."""
        by_inode = {inode: id_ for id_, inode in self.names.live.values()}
        live: dict[str, list[int]] = {}
        for name, inode in self._files().items():
            id_ = by_inode.get(inode)
            if id_ is None:
                id_ = self._new_id()
                self.names.changes.append(["create", name, id_])
            live[name] = [id_, inode]
        self.names.live = live
        self._note()

    def _files(self) -> dict[str, int]:
        """Name -> inode number."""
        there = sorted(name for name in os.listdir(self._directory) if name not in _NOT_FILES)
        return {name: os.stat(self._directory / name).st_ino for name in there}

    def _new_id(self) -> int:
        self.names.next_id += 1
        return self.names.next_id - 1

    def _note(self) -> None:
        temporary = self.folder / f"{_NAMES}.tmp"
        temporary.write_bytes(orjson.dumps(asdict(self.names)))
        temporary.replace(self.folder / _NAMES)

    def content(self, id_: int) -> Path:
        """Where the synced content of a file lies (if it was ever synced)."""
        return self.folder / str(id_)

    # Steps of the directory, noted once they were taken.

    def created(self, name: str) -> None:
        """`name` was created if it is not known yet."""
        if name not in self.names.live:
            id_ = self._new_id()
            self.names.live[name] = [id_, os.stat(self._directory / name).st_ino]
            self.names.changes.append(["create", name, id_])
            self._note()

    def renamed(self, source: str, target: str) -> None:
        self.names.live[target] = self.names.live.pop(source)
        self.names.changes.append(["rename", source, target])
        self._note()

    def removed(self, name: str) -> None:
        self.names.live.pop(name, None)
        self.names.changes.append(["remove", name])
        self._note()

    def directory_synced(self) -> None:
        """All of the above is durable."""
        self.names.durable = {name: id_ for name, (id_, _) in self.names.live.items()}
        self.names.changes = []
        self._note()
        kept = {str(id_) for id_ in self.names.durable.values()}
        for path in self.folder.iterdir():
            if path.name.isdigit() and path.name not in kept:
                path.unlink()

    # Steps of a file.

    def opened(self, name: str) -> int:
        """The file's id. What an earlier process wrote and did not sync differs from what was synced: the
        next sync will cover it."""
        id_ = self.names.live[name][0]
        if id_ not in self._dirty:
            lost = set(self.names.lost.get(str(id_), ()))
            self._dirty[id_] = set(differing(self._directory / name, self.content(id_))) - lost
        return id_

    def written(self, id_: int, start: int, end: int) -> None:
        """The bytes from `start` to `end` were written, or cut off, and wait for a sync."""
        sectors = range(start // SECTOR, -(-end // SECTOR))
        self._dirty[id_].update(sectors)
        if str(id_) in self.names.lost:
            self.names.lost[str(id_)] = sorted(set(self.names.lost[str(id_)]).difference(sectors))

    def synced(self, fd: int, id_: int) -> None:
        """A sync of the file has returned: its sectors are durable, and so is its size."""
        content = os.open(self.content(id_), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(content, os.fstat(fd).st_size)
            for at, length in _runs(self._dirty.get(id_, set())):
                os.pwrite(content, os.pread(fd, length, at), at)
        finally:
            os.close(content)
        self._dirty[id_] = set()

    def sync_failed(self, id_: int) -> None:
        """The kernel marks the pages clean: no later sync will write them."""
        lost = set(self.names.lost.get(str(id_), ())) | self._dirty.get(id_, set())
        self.names.lost[str(id_)] = sorted(lost)
        self._dirty[id_] = set()
        self._note()

    def uncached(self, fd: int, id_: int) -> None:
        """Reading shows what the disk has: what a failed sync lost is gone."""
        lost = self.names.lost.pop(str(id_), None)
        if not lost:
            return
        durable = self.content(id_).read_bytes() if self.content(id_).exists() else b""
        size = os.fstat(fd).st_size
        for at, length in _runs(set(lost) - self._dirty.get(id_, set())):
            wanted = min(length, size - at)
            os.pwrite(fd, durable[at : at + wanted].ljust(wanted, b"\0"), at)
        self._note()


def differing(live: Path, durable: Path) -> Iterator[int]:
    """The sectors of `live` that are not as in `durable`; beyond its end, those that are not zeros."""
    with live.open("rb") as left:
        right = durable.open("rb") if durable.exists() else None
        try:
            at = 0
            while data := left.read(_COMPARED_BYTES):
                other = (right.read(_COMPARED_BYTES) if right else b"").ljust(len(data), b"\0")
                if data != other:
                    for offset in range(0, len(data), SECTOR):
                        if data[offset : offset + SECTOR] != other[offset : offset + SECTOR]:
                            yield (at + offset) // SECTOR
                at += len(data)
        finally:
            if right is not None:
                right.close()


def _runs(sectors: Iterable[int]) -> Iterator[tuple[int, int]]:
    """(offset, length) in bytes of each run of neighbours."""
    first = last = None
    for sector in sorted(sectors):
        if first is None or last is None:
            first = last = sector
        elif sector == last + 1:
            last = sector
        else:
            yield first * SECTOR, (last - first + 1) * SECTOR
            first = last = sector
    if first is not None and last is not None:
        yield first * SECTOR, (last - first + 1) * SECTOR
