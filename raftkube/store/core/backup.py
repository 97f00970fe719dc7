"""A backup: one state of the store as a file that stands for itself, whatever becomes of the members.

    MAGIC | header: length u32, crc u32, msgpack map | chunks: length u32, data | 0 u32 | sha256 (32 bytes)

The header says whose state it is; the chunks are those of a snapshot (`raftkube.store.core.snapshot`), with
their own checksums and the state's hash inside. The sha256 is taken over all bytes before it.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

import msgpack

from raftkube.errors import BackupDamaged, InvariantViolation
from raftkube.store.core.restore import verified_sections
from raftkube.store.core.snapshot import HEADER, KEYS

MAGIC: Final = b"RKBACKUP\x01\n"
_HEAD: Final = struct.Struct("<II")
_LENGTH: Final = struct.Struct("<I")
_HEADER_BYTES_MAX: Final = 65_536
_CHUNK_BYTES_MAX: Final = 64 * 1024 * 1024

Read = Callable[[int], bytes]  # up to so many bytes, fewer only at the end


class BackupHeader(NamedTuple):
    """`member` made it, of the cluster `cluster_id`, when its state was at `revision`."""

    cluster_id: str
    member: str
    version: str
    revision: int
    compact_revision: int


class BackupStatus(NamedTuple):
    """What a whole backup holds; `sha256` as hex digits."""

    sha256: str
    revision: int
    compact_revision: int
    total_keys: int
    total_bytes: int
    cluster_id: str
    member: str
    version: str


class BackupEncoder:
    """The bytes of a backup, in order: `begin`, a `chunk` for each, `end`."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()

    def begin(self, header: BackupHeader) -> bytes:
        packed = msgpack.packb(header._asdict())
        return self._note(MAGIC + _HEAD.pack(len(packed), zlib.crc32(packed)) + packed)

    def chunk(self, data: bytes) -> bytes:
        return self._note(_LENGTH.pack(len(data)) + data) if data else b""

    def end(self) -> bytes:
        zero = self._note(_LENGTH.pack(0))
        return zero + self._digest.digest()

    def _note(self, data: bytes) -> bytes:
        self._digest.update(data)
        return data


class BackupReader:
    """Reads what BackupEncoder made. Every method raises BackupDamaged, in a sentence, on anything else."""

    def __init__(self, read: Read) -> None:
        self._read = read
        self._digest = hashlib.sha256()
        self.sha256 = ""  # of the backup, once `chunks` has ended
        self.bytes_read = 0
        if self._take(len(MAGIC), "its beginning") != MAGIC:
            raise BackupDamaged("it is not a backup of this store (its first bytes are others)")
        size, crc = _HEAD.unpack(self._take(_HEAD.size, "its header"))
        packed = self._take(min(size, _HEADER_BYTES_MAX), "its header")
        if zlib.crc32(packed) != crc:
            raise BackupDamaged("its header does not match its checksum")
        try:
            self.header = BackupHeader(**msgpack.unpackb(packed))
        except (TypeError, ValueError) as error:
            raise BackupDamaged("its header is of another format") from error

    def chunks(self) -> Iterator[bytes]:
        """The snapshot's bytes. They are good once the iterator has ended."""
        while size := _LENGTH.unpack(self._take(_LENGTH.size, "a chunk's length"))[0]:
            if size > _CHUNK_BYTES_MAX:
                raise BackupDamaged(f"a chunk at byte {self.bytes_read} has an impossible length")
            yield self._take(size, "a chunk")
        expected = self._digest.digest()
        if self._take(len(expected), "its hash") != expected:
            raise BackupDamaged("its bytes do not match its hash")
        if self._read(1):
            raise BackupDamaged("it goes on after its end")
        self.sha256 = expected.hex()

    def _take(self, size: int, what: str) -> bytes:
        data = self._read(size)
        if len(data) != size:
            at = self.bytes_read + len(data)
            raise BackupDamaged(f"it is cut off at byte {at}, in {what}")
        self.bytes_read += size
        self._digest.update(data)
        return data


def check_backup(read: Read) -> BackupStatus:
    """Read a backup to its end. Raises BackupDamaged: what is wrong, as the end of a sentence."""
    reader = BackupReader(read)
    header, keys = reader.header, 0
    last: tuple[bytes, bool] = (b"", False)  # a key may go on in the next section
    try:
        for kind, items in verified_sections(reader.chunks()):
            if kind == HEADER and tuple(items[1:3]) != (header.revision, header.compact_revision):
                raise BackupDamaged("its header and its content tell of different revisions")
            for key, versions in items if kind == KEYS else ():
                keys += last[1] and last[0] != key
                if versions:
                    last = key, versions[-1][3] > 0
    except InvariantViolation as error:
        raise BackupDamaged(str(error)) from error
    return BackupStatus(
        reader.sha256, header.revision, header.compact_revision, keys + last[1], reader.bytes_read,
        header.cluster_id, header.member, header.version,
    )  # fmt: skip
