"""One attempt's log file: written as output arrives, rotated by size.

Rotation renames `0.log` to `0.log.1`, that to `0.log.2`, and so on; readers follow the file that they
have open to its end and then go on in the new one.
"""

from __future__ import annotations

import contextlib
import os
from io import FileIO
from pathlib import Path
from typing import NamedTuple

import trio

from raftkube.kubelet.core.log_format import encode


class Rotation(NamedTuple):
    """Upstream's containerLogMaxSize and containerLogMaxFiles."""

    bytes_max: int = 10 * 1024 * 1024
    files_max: int = 5


class ContainerLog:
    """Appends to `path`. A write that the disk refuses is dropped: a full disk must not stop containers."""

    def __init__(self, path: str, rotation: Rotation) -> None:
        self.path = path
        self.ended = False
        self._rotation = rotation
        self._file: FileIO | None = None
        self._bytes = 0
        self._changed = trio.lowlevel.ParkingLot()

    async def wait_change(self) -> None:
        if self.ended:
            await trio.lowlevel.checkpoint()
        else:
            await self._changed.park()

    def append(self, stream: str, chunk: bytes, wall_s: float) -> None:
        """Write `chunk` of stream "stdout" or "stderr" as seen at `wall_s`."""
        entries = encode(stream, chunk, wall_s)
        with contextlib.suppress(OSError):
            while entries:
                entries = entries[self._write(entries) :]
        self._changed.unpark_all()

    def _write(self, entries: bytes) -> int:
        """Write as many of `entries` as fit into one file, at least one; how many bytes that were."""
        file = self._file or self._open()
        room = max(0, self._rotation.bytes_max - self._bytes)
        size = len(entries) if len(entries) <= room else entries.rfind(b"\n", 0, room) + 1
        if not size:
            if self._bytes:
                file = self._rotate()
            size = entries.index(b"\n") + 1
        file.write(entries[:size])
        self._bytes += size
        return size

    def close(self) -> None:
        """Nothing more will come."""
        self.ended = True
        self.release()
        self._changed.unpark_all()

    def release(self) -> None:
        """Close the file; another writer may go on with it."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _open(self) -> FileIO:
        Path(self.path).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._file = FileIO(self.path, "ab")
        self._bytes = os.fstat(self._file.fileno()).st_size
        return self._file

    def _rotate(self) -> FileIO:
        self.release()
        for number in range(self._rotation.files_max - 1, 0, -1):
            older = self.path if number == 1 else f"{self.path}.{number - 1}"
            with contextlib.suppress(FileNotFoundError):
                os.replace(older, f"{self.path}.{number}")
        if self._rotation.files_max <= 1:
            Path(self.path).unlink(missing_ok=True)
        return self._open()
