"""Snapshots as files: written beside the log, checked at every byte, replaced in one durable step.

    magic | header length u32, crc u32, msgpack [version, index, term, configuration]
    | chunks: length u32, crc u32, data | the end: length 0, crc of all chunks' crcs

A chunk is what the state machine yielded, byte for byte. The same bytes travel to other members.
"""

from __future__ import annotations

import contextlib
import struct
import zlib
from collections.abc import Iterator
from typing import Any, Final, NamedTuple, NoReturn

import msgpack

from raftkube.disk import Disk, File
from raftkube.errors import InvariantViolation

_MAGIC: Final = b"RKSNAP\x01\n"
_VERSION: Final = 2  # 1 did not carry the configuration
_PART: Final = struct.Struct("<II")
_PREFIX: Final = "snapshot-"
_SUFFIX: Final = ".snap"
_MADE: Final = ".made.tmp"
_HEADER_BYTES_MAX: Final = 65_536
_CHUNK_BYTES_MAX: Final = 64 * 1024 * 1024
_SYNC_BYTES: Final = 4 * 1024 * 1024


class SnapshotId(NamedTuple):
    """The last entry that the snapshot covers."""

    last_index: int
    term: int


def file_name(snapshot: SnapshotId) -> str:
    """Sorts in the order of the indexes."""
    return f"{_PREFIX}{snapshot.last_index:016d}{_SUFFIX}"


def snapshot_names(disk: Disk) -> list[str]:
    """The snapshots' files, the oldest first."""
    return [name for name in disk.names() if name.startswith(_PREFIX) and name.endswith(_SUFFIX)]


def remove_unfinished(disk: Disk) -> None:
    """Remove files that never became snapshots."""
    for name in disk.names():
        if name.startswith(_PREFIX) and name.endswith(".tmp"):
            disk.remove(name)


class SnapshotWriter:
    """A snapshot in the making: `write` chunks, then `finish`. Raises OSError: the disk failed."""

    def __init__(self, disk: Disk, snapshot: SnapshotId, configuration: bytes | None = None) -> None:
        """`configuration`: the encoded members that hold at the snapshot; None says nothing of them."""
        self._disk, self.snapshot, self._crc, self._unsynced = disk, snapshot, 0, 0
        self._temporary = f"{_PREFIX}{snapshot.last_index:016d}{_MADE}"
        for name in disk.names():  # what is left of one that was given up
            if name.startswith(_PREFIX) and name.endswith(_MADE):
                disk.remove(name)
        self._file = _fresh(disk, self._temporary)
        header = msgpack.packb([_VERSION, snapshot.last_index, snapshot.term, configuration])
        try:
            self._file.append(_MAGIC + _PART.pack(len(header), zlib.crc32(header)) + header)
        except OSError:
            self.abandon()
            raise

    def write(self, chunk: bytes) -> None:
        """Append one chunk of the state. Raises InvariantViolation: longer than any reader would take."""
        if len(chunk) > _CHUNK_BYTES_MAX:
            raise InvariantViolation(f"the state machine made a chunk of {len(chunk)} bytes")
        if chunk:
            crc = zlib.crc32(chunk)
            self._crc = zlib.crc32(crc.to_bytes(4, "little"), self._crc)
            self._file.append(_PART.pack(len(chunk), crc) + chunk)
            self._unsynced += len(chunk)
            if self._unsynced >= _SYNC_BYTES:  # no single sync may keep the heartbeats waiting
                self._file.sync()
                self._unsynced = 0

    def abandon(self) -> None:
        """Give it up; what cannot be removed now is removed by the next one, or at the next start."""
        self._file.close()
        with contextlib.suppress(OSError):
            self._disk.remove(self._temporary)

    def finish(self) -> str:
        """Make it durable under its name, which it returns; older snapshots go."""
        self._file.append(_PART.pack(0, self._crc))
        return _publish(self._disk, self._file, self._temporary, self.snapshot)


class IncomingSnapshot:
    """The bytes of another member's snapshot, gathered in order beside our own."""

    def __init__(self, disk: Disk, snapshot: SnapshotId) -> None:
        self._disk, self.snapshot = disk, snapshot
        self._temporary = f"{_PREFIX}{snapshot.last_index:016d}.received.tmp"
        self._file = _fresh(disk, self._temporary)

    @property
    def size(self) -> int:
        """Bytes received: the offset of the next part."""
        return self._file.size()

    def write(self, data: bytes) -> None:
        """Append the next part."""
        self._file.append(data)
        if self.size // _SYNC_BYTES != (self.size - len(data)) // _SYNC_BYTES:
            self._file.sync()

    def chunks(self) -> Iterator[bytes]:
        """The state, checked as it is read. Raises InvariantViolation: damaged, or another one than was
        announced."""
        if _read_header(self._file, self._temporary)[0] != self.snapshot:
            _damage(self._temporary, 0, "it is not the snapshot that was announced")
        yield from _read_chunks(self._file, self._temporary)

    def publish(self) -> str:
        """Make it durable under its name, which it returns; whoever calls has read all its chunks."""
        return _publish(self._disk, self._file, self._temporary, self.snapshot)

    def drop(self) -> None:
        """Give it up."""
        self._file.close()
        self._disk.remove(self._temporary)


class SnapshotReader:
    """An open snapshot; it can be read to its end even after a newer one has replaced it."""

    def __init__(self, disk: Disk, name: str) -> None:
        """Raises InvariantViolation: its header is damaged."""
        self.name, self._file = name, disk.open(name)
        self.snapshot, self.configuration = _read_header(self._file, name)
        if file_name(self.snapshot) != name:
            _damage(name, 0, f"it covers entry {self.snapshot.last_index}")

    @property
    def size(self) -> int:
        return self._file.size()

    def read(self, offset: int, length: int) -> bytes:
        """Raw bytes, for another member."""
        return self._file.read(offset, length)

    def chunks(self) -> Iterator[bytes]:
        """The state, checked. Raises InvariantViolation at the first damaged chunk."""
        return _read_chunks(self._file, self.name)

    def close(self) -> None:
        self._file.close()


def _fresh(disk: Disk, name: str) -> File:
    file = disk.open(name, create=True)
    try:
        file.truncate(0)
    except OSError:
        file.close()
        raise
    return file


def _publish(disk: Disk, file: File, temporary: str, snapshot: SnapshotId) -> str:
    file.sync()
    file.close()
    name = file_name(snapshot)
    disk.rename(temporary, name)
    disk.sync_directory()
    for older in snapshot_names(disk):
        if older < name:
            disk.remove(older)
    return name


def _damage(name: str, offset: int, what: str) -> NoReturn:
    raise InvariantViolation(f"{name} is damaged at byte {offset}: {what}")


def _read_header(file: File, name: str) -> tuple[SnapshotId, bytes | None]:
    start = file.read(0, len(_MAGIC) + _PART.size)
    if len(start) < len(_MAGIC) + _PART.size or start[: len(_MAGIC)] != _MAGIC:
        _damage(name, 0, "it is not a snapshot")
    size, crc = _PART.unpack_from(start, len(_MAGIC))
    header = file.read(len(start), size) if size <= _HEADER_BYTES_MAX else b""
    if len(header) != size or zlib.crc32(header) != crc:
        _damage(name, len(_MAGIC), "its header does not match its checksum")
    fields: Any = msgpack.unpackb(header)
    if fields[0] not in (1, _VERSION):
        raise InvariantViolation(f"{name} is of version {fields[0]}, this program reads {_VERSION}")
    return SnapshotId(fields[1], fields[2]), fields[3] if fields[0] > 1 else None


def _read_chunks(file: File, name: str) -> Iterator[bytes]:
    at = len(_MAGIC) + _PART.size + _PART.unpack(file.read(len(_MAGIC), _PART.size))[0]
    total = 0
    while True:
        part = file.read(at, _PART.size)
        size, crc = _PART.unpack(part) if len(part) == _PART.size else (_CHUNK_BYTES_MAX + 1, 0)
        if size > _CHUNK_BYTES_MAX:
            _damage(name, at, "a chunk's head is missing or unreadable")
        if size == 0:
            if crc != total or at + _PART.size != file.size():
                _damage(name, at, "the chunks do not add up")
            return
        chunk = file.read(at + _PART.size, size)
        if len(chunk) != size or zlib.crc32(chunk) != crc:
            _damage(name, at, "a chunk does not match its checksum")
        total = zlib.crc32(crc.to_bytes(4, "little"), total)
        yield chunk
        at += _PART.size + size
