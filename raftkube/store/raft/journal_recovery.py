"""Reading the journal back: every synced batch, or a refusal that names file and offset."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from typing import Final, NoReturn

from raftkube.disk import Disk, File
from raftkube.errors import InvariantViolation
from raftkube.store.raft import journal_format as fmt

Entry = tuple[bytes, int, int]  # (command, index, term): the shape that pysyncobj indexes

_PREFIX: Final = "journal-"
_SUFFIX: Final = ".log"
_NO_OP: Final = b"\x01"


@dataclass(slots=True)
class Segment:
    """A segment file; `high` is the highest index of an entry ever written to it."""

    name: str
    number: int
    salt: int
    size: int
    high: int


@dataclass(slots=True)
class Recovered:
    """The journal's state, and where the next batch goes. `torn`: (file, offset) where an unfinished
    batch was cut; `sealed`: the last batch is an empty one; `file` is open on the last segment, None if
    there is none yet."""

    entries: list[Entry] = field(default_factory=list)
    term: int = 0
    vote: str | None = None
    commit: int = 1  # pysyncobj's first entry, a no-op, counts as committed everywhere
    first: int = 1
    chain: int = 0
    next_batch: int = 1
    segments: list[Segment] = field(default_factory=list)
    file: File | None = None
    position: int = fmt.SECTOR
    torn: tuple[str, int] | None = None
    sealed: bool = True


def segment_name(number: int) -> str:
    """Sorts in the order of the numbers."""
    return f"{_PREFIX}{number:016d}{_SUFFIX}"


def recover(disk: Disk) -> Recovered:
    """Replay all segments, each synced and read from the device; cut an unfinished last batch.

    What an earlier process wrote may stand in the page cache only, and the node is about to act on it; it
    may even stand there only to be lost (`File.uncache`). Raises InvariantViolation: damage, with file and
    offset; OSError: the disk does not answer.
    """
    state = Recovered()
    names = _clean(disk)
    for position, name in enumerate(names):
        if state.file is not None:
            state.file.close()
        state.file = disk.open(name)
        state.file.sync()
        state.file.uncache()
        _replay_segment(state, name, state.file, last=position == len(names) - 1)
        if state.torn:
            state.file.sync()
    disk.sync_directory()
    _check(state, names)
    return state


def _clean(disk: Disk) -> list[str]:
    """Remove segments that never got their names; the names of the others in order."""
    for name in disk.names():
        if name.startswith(_PREFIX) and name.endswith(".tmp"):
            disk.remove(name)
    return [name for name in disk.names() if name.startswith(_PREFIX) and name.endswith(_SUFFIX)]


def _damage(name: str, offset: int, what: str) -> NoReturn:
    raise InvariantViolation(
        f"{name} is damaged at byte {offset}: {what}; this member must not take part again under its id,"
        " but `raftkube repair` rebuilds it from the others"
    )


def _replay_segment(state: Recovered, name: str, file: File, *, last: bool) -> None:
    sector = file.read(0, fmt.SECTOR)
    version = fmt.version_of(sector)
    if version not in (None, fmt.VERSION):
        raise InvariantViolation(
            f"{name} is of version {version}, this program reads {fmt.VERSION}: start the one that wrote it"
        )
    header = fmt.unpack_segment_header(sector)
    if header is None or segment_name(header.number) != name:
        _damage(name, 0, "its header is not a journal's")
    if file.size() != header.size:
        _damage(name, min(file.size(), header.size), f"it is {file.size()} bytes long, not {header.size}")
    if not state.segments:
        state.chain, state.next_batch = header.chain, header.first_batch
    elif (header.chain, header.first_batch) != (state.chain, state.next_batch):
        _damage(name, 0, f"batch {state.next_batch} should come first, it begins with {header.first_batch}")
    elif header.number != state.segments[-1].number + 1:
        _damage(name, 0, f"segment {state.segments[-1].number + 1} is missing before it")
    state.segments.append(Segment(name, header.number, header.salt, header.size, 0))
    state.position = fmt.SECTOR
    while _replay_batch(state, name, file, last=last):
        pass


def _replay_batch(state: Recovered, name: str, file: File, *, last: bool) -> bool:
    """Replay the batch at the position; False at the segment's end."""
    at, segment = state.position, state.segments[-1]
    if at + fmt.SECTOR > segment.size:
        return False
    sector = file.read(at, fmt.SECTOR)
    header = fmt.unpack_batch_header(sector)
    if header is None:
        if any(sector):
            _damage(name, at, "a batch's header is unreadable")
        _end_of_segment(state, name, file, last=last)
        return False
    if (header.salt, header.number, header.previous_chain) != (segment.salt, state.next_batch, state.chain):
        _damage(name, at, f"batch {header.number} stands where {state.next_batch} belongs")
    data = file.read(at, header.total_bytes)
    body = data[fmt.BATCH_HEADER_BYTES : fmt.BATCH_HEADER_BYTES + header.body_bytes]
    if len(body) != header.body_bytes or zlib.crc32(body) != header.body_crc:
        if not last or fmt.count_zero_sectors(data) <= header.zero_sectors:
            _damage(name, at, f"batch {header.number} does not match its checksum")
        _end_of_segment(state, name, file, last=last)
        return False
    _apply(state, name, at, body)
    state.sealed = not body
    state.chain, state.next_batch = header.chain, header.number + 1
    state.position = at + header.total_bytes
    return True


def _end_of_segment(state: Recovered, name: str, file: File, *, last: bool) -> None:
    """Nothing valid stands at the position. In the last segment what remains of an unfinished batch is
    cut, unless a valid batch stands behind it: then something was lost in between. In the others the
    next segment's header tells whether something is missing."""
    if not last:
        return
    at, segment = state.position, state.segments[-1]
    rest = file.read(at, segment.size - at)
    if rest == bytes(len(rest)):
        return
    for offset in range(fmt.SECTOR, len(rest), fmt.SECTOR):
        header = fmt.unpack_batch_header(rest, offset)
        if header is not None and header.salt == segment.salt and header.number >= state.next_batch:
            _damage(name, at, f"batch {state.next_batch} is missing, {header.number} stands behind it")
    file.write_at(at, bytes(len(rest.rstrip(b"\0"))))
    state.torn = (name, at)


def _apply(state: Recovered, name: str, at: int, body: bytes) -> None:
    try:
        for record in fmt.records(body):
            _apply_record(state, record)
    except ValueError as error:
        _damage(name, at, str(error))


def _apply_record(state: Recovered, record: fmt.Record) -> None:
    entries = state.entries
    if record.kind == fmt.ENTRY:
        if entries and (record.index != entries[-1][1] + 1 or record.term < entries[-1][2]):
            raise ValueError(f"entry {record.index} cannot follow {entries[-1][1]}")
        entries.append((record.command, record.index, record.term))
        state.segments[-1].high = max(state.segments[-1].high, record.index)
    elif record.kind == fmt.HARD_STATE:
        state.term, state.vote = record.term, record.vote
    elif record.kind == fmt.COMMIT:
        state.commit = record.index
    elif record.kind == fmt.TRUNCATE:
        if entries:
            del entries[max(0, record.index - entries[0][1]) :]
    elif record.kind == fmt.COMPACT:
        state.first = record.index
        if entries:
            del entries[: max(0, record.index - entries[0][1])]
    else:
        state.entries = [(_NO_OP, record.index, record.term)]
        state.first = record.index
        state.segments[-1].high = max(state.segments[-1].high, record.index)


def _check(state: Recovered, names: list[str]) -> None:
    """The pieces must make a log that a running node could have had."""
    if not state.entries:
        if state.first > 1 or state.commit > 1:
            _damage(names[0], 0, f"the log should begin at {state.first} and is empty")
        return
    first, last = state.entries[0][1], state.entries[-1][1]
    if first != state.first:
        _damage(names[0], 0, f"the log should begin at {state.first} and begins at {first}")
    if state.commit > last:
        _damage(names[-1], state.position, f"entry {state.commit} was committed, the log ends at {last}")
