"""The bytes of the journal, pure: segments, batches, records.

A segment is a file of fixed size, preallocated as zeros. Its first sector (512 bytes) is the segment's
header; batches follow, each from a sector of its own, so that a sector once synced is never written again.

    segment   magic, its number, number of its first batch, chain value before it, salt, size, crc
    batch     magic, number, salt, previous chain, body length, zero sectors, body crc, header crc | body

A batch is what one sync made durable. Its chain value is its header's crc, which covers the previous
chain value and the body's crc, so that no batch can be lost, moved or swapped between valid ones. The
salt is chosen at random for each segment: no value that a client writes can look like a batch.
Checksums are CRC-32 (zlib's polynomial): they find rot and tears, not an adversary with the disk in hand.

A sector is assumed to be written whole or not at all. So a batch that a crash tore has more zero sectors
than its header counted (or no header at all); a batch with all its sectors and a wrong checksum is damage.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

SECTOR: Final = 512
VERSION: Final = 1
SEGMENT_MAGIC: Final = b"RKJRNL%c\n" % VERSION
BATCH_MAGIC: Final = b"RKB\x01"

_SEGMENT: Final = struct.Struct("<8sQQIQQ")
_BATCH: Final = struct.Struct("<4sQQIIII")
_CRC: Final = struct.Struct("<I")
BATCH_HEADER_BYTES: Final = _BATCH.size + _CRC.size

_ENTRY: Final = struct.Struct("<BQQI")
_HARD_STATE: Final = struct.Struct("<BQH")
_INDEX: Final = struct.Struct("<BQ")
_RESET: Final = struct.Struct("<BQQ")

ENTRY, HARD_STATE, COMMIT, TRUNCATE, RESET, COMPACT = 1, 2, 3, 4, 5, 6


class SegmentHeader(NamedTuple):
    """`chain` is the chain value of the last batch before this segment."""

    number: int
    first_batch: int
    chain: int
    salt: int
    size: int

    def pack(self) -> bytes:
        """One sector."""
        head = _SEGMENT.pack(SEGMENT_MAGIC, *self)
        return (head + _CRC.pack(zlib.crc32(head))).ljust(SECTOR, b"\0")


class BatchHeader(NamedTuple):
    """`body_bytes` without the padding up to the next sector."""

    number: int
    salt: int
    previous_chain: int
    body_bytes: int
    zero_sectors: int
    body_crc: int
    chain: int

    @property
    def total_bytes(self) -> int:
        """Header, body and padding."""
        return padded(BATCH_HEADER_BYTES + self.body_bytes)


@dataclass(frozen=True, slots=True)
class Record:
    """One of: ENTRY (index, term, command), HARD_STATE (term, vote), COMMIT (index), TRUNCATE (first index
    removed), RESET (index, term of the only entry left), COMPACT (first index kept)."""

    kind: int
    index: int = 0
    term: int = 0
    command: bytes = b""
    vote: str | None = None


def padded(size: int) -> int:
    """`size` rounded up to whole sectors."""
    return -(-size // SECTOR) * SECTOR


def unpack_segment_header(sector: bytes) -> SegmentHeader | None:
    """The header in `sector`, or None if it is damaged."""
    size = _SEGMENT.size
    if len(sector) < size + _CRC.size or _CRC.unpack_from(sector, size)[0] != zlib.crc32(sector[:size]):
        return None
    magic, *fields = _SEGMENT.unpack_from(sector)
    return SegmentHeader(*fields) if magic == SEGMENT_MAGIC else None


def version_of(sector: bytes) -> int | None:
    """The version of the journal whose segment begins with `sector`; None if that header is damaged. (Later
    versions keep magic and checksum where they are.)"""
    head = sector[: _SEGMENT.size]
    whole = len(sector) >= _SEGMENT.size + _CRC.size
    if not whole or _CRC.unpack_from(sector, _SEGMENT.size)[0] != zlib.crc32(head):
        return None
    return head[6] if head[:6] + head[7:8] == SEGMENT_MAGIC[:6] + SEGMENT_MAGIC[7:8] else None


def unpack_batch_header(data: bytes, offset: int = 0) -> BatchHeader | None:
    """The batch header at `offset`, or None if there is no whole one."""
    head = data[offset : offset + BATCH_HEADER_BYTES]
    if len(head) < BATCH_HEADER_BYTES or head[:4] != BATCH_MAGIC:
        return None
    (crc,) = _CRC.unpack_from(head, _BATCH.size)
    if crc != zlib.crc32(head[: _BATCH.size]):
        return None
    number, salt, previous_chain, size, zeros, body_crc = _BATCH.unpack_from(head)[1:]
    return BatchHeader(number, salt, previous_chain, size, zeros, body_crc, crc)


def pack_batch(body: bytes, *, number: int, salt: int, previous_chain: int) -> tuple[bytes, int]:
    """The batch as it stands in the file, whole sectors, and its chain value."""
    zeros = _body_zero_sectors(body)
    head = _BATCH.pack(BATCH_MAGIC, number, salt, previous_chain, len(body), zeros, zlib.crc32(body))
    chain = zlib.crc32(head)
    data = b"".join((head, _CRC.pack(chain), body))
    return data.ljust(padded(len(data)), b"\0"), chain


def count_zero_sectors(data: bytes) -> int:
    """Sectors of `data` that are all zero; its end counts as padded with zeros."""
    return sum(1 for at in range(0, len(data), SECTOR) if not any(data[at : at + SECTOR]))


def _body_zero_sectors(body: bytes) -> int:
    """What `count_zero_sectors` will find in the whole batch. The first sector holds the header, so it
    never counts; the search for a run of zeros makes the common answer cheap."""
    tail = (BATCH_HEADER_BYTES + len(body)) % SECTOR
    if bytes(SECTOR) not in body and (not tail or any(body[-tail:]) or len(body) < tail):
        return 0
    return count_zero_sectors(b"h".ljust(BATCH_HEADER_BYTES, b"\0") + body)


def pack_entry(command: bytes, index: int, term: int) -> tuple[bytes, bytes]:
    """Two parts to be written one after the other; the command is not copied."""
    return _ENTRY.pack(ENTRY, index, term, len(command)), command


def pack_hard_state(term: int, vote: str | None) -> bytes:
    """Current term and the member voted for in it."""
    name = b"" if vote is None else vote.encode()
    return _HARD_STATE.pack(HARD_STATE, term, len(name)) + name


def pack_index(kind: int, index: int) -> bytes:
    """A COMMIT, TRUNCATE or COMPACT record."""
    return _INDEX.pack(kind, index)


def pack_reset(index: int, term: int) -> bytes:
    """A RESET record."""
    return _RESET.pack(RESET, index, term)


def records(body: bytes) -> Iterator[Record]:
    """The records of a batch whose checksum holds. Raises ValueError: it was not written by this format."""
    at, end = 0, len(body)
    try:
        while at < end:
            kind = body[at]
            if kind == ENTRY:
                _, index, term, size = _ENTRY.unpack_from(body, at)
                at += _ENTRY.size
                yield Record(ENTRY, index, term, body[at : at + size])
                at += size
            elif kind == HARD_STATE:
                _, term, size = _HARD_STATE.unpack_from(body, at)
                at += _HARD_STATE.size
                yield Record(HARD_STATE, term=term, vote=body[at : at + size].decode() or None)
                at += size
            elif kind == RESET:
                _, index, term = _RESET.unpack_from(body, at)
                at += _RESET.size
                yield Record(RESET, index, term)
            elif kind in (COMMIT, TRUNCATE, COMPACT):
                yield Record(kind, _INDEX.unpack_from(body, at)[1])
                at += _INDEX.size
            else:
                raise ValueError(f"unknown record kind {kind}")
    except struct.error as error:
        raise ValueError(str(error)) from error
    if at != end:
        raise ValueError("a record runs past its batch")
