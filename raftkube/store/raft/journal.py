"""The journal: log, term, vote and commit index in one append-only sequence of batches.

Invariants:
* what `sync()` returned for survives a power loss, and a sector once synced is never written again;
* recovery gives back every synced batch, or refuses with file and offset; only the last batch may be
  cut, and only if it lacks sectors (a crash in the middle of its write) and is not sealed;
* a batch is sealed, proved to have been synced, by whatever batch stands behind it: the next one, or an
  empty one as soon as nothing has been written for a moment;
* an entry at or below the commit index is never removed from the end;
* after a failed write or sync nothing is written again.

`journal_format` describes the bytes. pysyncobj indexes the entries as a list of (command, index, term).
"""

from __future__ import annotations

from typing import Any, Final

import structlog
from pysyncobj.journal import Journal

from raftkube.clock import Clock
from raftkube.disk import Disk, File, disk_failure
from raftkube.errors import DiskFailed, InvariantViolation
from raftkube.rng import Rng
from raftkube.store.raft import journal_format as fmt
from raftkube.store.raft.counters import DURATION_BUCKETS_S, Histogram
from raftkube.store.raft.journal_recovery import Entry, Recovered, Segment, recover, segment_name
from raftkube.store.raft.membership import CONFIGURATION, Configuration, ConfigurationLog

log = structlog.get_logger(__name__)

_SEGMENT_BYTES: Final = 16 * 1024 * 1024
_SEAL_AFTER_S: Final = 0.05
_NEVER: Final = float("inf")


class SegmentedJournal(Journal):  # type: ignore[misc]
    """pysyncobj's journal on a `Disk`. Nothing is durable before `sync`."""

    def __init__(
        self,
        disk: Disk,
        rng: Rng,
        clock: Clock,
        *,
        segment_bytes: int = _SEGMENT_BYTES,
        fsync: bool = True,
        configurations: ConfigurationLog | None = None,
    ) -> None:
        """Recover what the disk holds and sync it. Raises InvariantViolation: damaged, where;
        DiskFailed: the disk does not answer."""
        self._disk, self._rng, self._clock = disk, rng, clock
        self._segment_bytes, self._fsync = segment_bytes, fsync
        self.failed: DiskFailed | None = None
        self.fsyncs = 0
        self.fsync_s_total = 0.0
        self.fsync_s = Histogram(DURATION_BUCKETS_S)
        self.fsync_s_last = 0.0
        self.written_bytes = 0
        try:
            recovered = recover(disk)
        except OSError as error:
            raise disk_failure(error, "journal cannot be recovered") from error
        if recovered.torn:
            log.warning("journal_tail_cut", file=recovered.torn[0], at_byte=recovered.torn[1])
        self._adopt(recovered)
        # Told of every entry with a configuration, for it is in force as soon as it stands here.
        self.configurations = configurations or ConfigurationLog(Configuration({}))
        for command, index, _ in self._entries:
            if command[:1] == CONFIGURATION:
                self.configurations.appended(index, command)

    def _adopt(self, recovered: Recovered) -> None:
        self._entries: list[Entry] = recovered.entries
        self._term, self._vote = recovered.term, recovered.vote
        self._commit, self._durable_commit = recovered.commit, recovered.commit
        self._first = recovered.first
        self._chain, self._batch = recovered.chain, recovered.next_batch
        self._segments: list[Segment] = recovered.segments
        self._file: File | None = recovered.file
        self._position = recovered.position
        self._live_bytes = sum(len(entry[0]) for entry in self._entries)
        self._pending: list[bytes] = []
        self._pending_high = 0
        self._dirty = False
        self.seal_at = _NEVER if recovered.sealed else 0.0  # clock seconds: when `seal` is due

    # The list that pysyncobj sees.

    def __getitem__(self, item: Any) -> Any:
        return self._entries[item]

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, command: bytes, idx: int, term: int) -> None:
        """Append an entry. Raises InvariantViolation: it does not follow the last one."""
        if self._entries:
            _, last_index, last_term = self._entries[-1]
            if idx != last_index + 1 or term < last_term:
                raise InvariantViolation(f"entry {idx}/{term} cannot follow {last_index}/{last_term}")
        self._entries.append((command, idx, term))
        self._pending.extend(fmt.pack_entry(command, idx, term))
        self._pending_high = max(self._pending_high, idx)
        self._live_bytes += len(command)
        self._dirty = True
        if command[:1] == CONFIGURATION:
            self.configurations.appended(idx, command)

    def deleteEntriesFrom(self, entryFrom: int) -> None:
        """Remove the entries from that position on (a conflict with the leader's log).

        Raises InvariantViolation: one of them is committed.
        """
        if entryFrom >= len(self._entries):
            return
        index = self._entries[entryFrom][1]
        if index <= self._commit:
            raise InvariantViolation(f"entry {index} is committed (up to {self._commit}) and never truncated")
        self._live_bytes -= sum(len(entry[0]) for entry in self._entries[entryFrom:])
        del self._entries[entryFrom:]
        self._pending.append(fmt.pack_index(fmt.TRUNCATE, index))
        self._dirty = True
        self.configurations.truncated(index)

    def deleteEntriesTo(self, entryTo: int) -> None:
        """pysyncobj's compaction, which raftkube replaces by `compact`."""
        raise InvariantViolation("the log is compacted by `compact` alone")

    def clear(self) -> None:
        raise InvariantViolation("the log is never cleared; an installed snapshot resets it")

    def setRaftCommitIndex(self, raftCommitIndex: int) -> None:
        """Noted, and written with the next batch: a lower one after a crash is always safe."""
        self._commit = max(self._commit, raftCommitIndex)

    def getRaftCommitIndex(self) -> int:
        return self._commit

    def setCurrentTerm(self, term: int, votedForNodeId: str | None) -> None:
        if (term, votedForNodeId) != (self._term, self._vote):
            self._term, self._vote = term, votedForNodeId
            self._pending.append(fmt.pack_hard_state(term, votedForNodeId))
            self._dirty = True

    def getCurrentTerm(self) -> int:
        return self._term

    def getVotedForNodeId(self) -> str | None:
        return self._vote

    def _destroy(self) -> None:
        pass

    # What raftkube adds.

    @property
    def first_index(self) -> int:
        """The oldest entry's index: the base, known to be committed, whose command may be gone."""
        return self._entries[0][1] if self._entries else self._first

    @property
    def last_index(self) -> int:
        return self._entries[-1][1] if self._entries else 0

    @property
    def live_bytes(self) -> int:
        """Bytes of the commands that the log holds."""
        return self._live_bytes

    @property
    def dirty(self) -> bool:
        """True while something waits for `sync`."""
        return self._dirty

    def term_at(self, index: int) -> int | None:
        """The term of the entry at `index`; None if the log does not hold it."""
        at = index - self.first_index
        return self._entries[at][2] if 0 <= at < len(self._entries) else None

    def compact(self, first: int) -> None:
        """Drop the entries before `first`, which stays as the base. Out of range: no effect. Segments go
        after the next sync. At least two entries stay, for pysyncobj looks at the second."""
        at = first - self.first_index
        if not 0 < at <= len(self._entries) - 2 or first > self._commit:
            return
        self._live_bytes -= sum(len(entry[0]) for entry in self._entries[:at])
        del self._entries[:at]
        self._first = first
        self._pending.append(fmt.pack_index(fmt.COMPACT, first))
        self._dirty = True

    def reset(self, index: int, term: int, no_op: bytes) -> None:
        """A snapshot up to (index, term) has been installed: it is all that the log holds."""
        self._entries = [(no_op, index, term)]
        self._live_bytes = len(no_op)
        self._first = index
        self._commit = max(self._commit, index)
        self._pending.append(fmt.pack_reset(index, term))
        self._pending_high = max(self._pending_high, index)
        self._dirty = True
        self.configurations.truncated(1)

    def sync(self) -> bool:
        """Write what waits as one batch and make it durable; False if nothing waited.

        Raises DiskFailed (DiskFull: only room is missing): the journal is finished, now and at every later
        call.
        """
        if self.failed is not None:
            raise type(self.failed)(*self.failed.args)
        if not self._dirty:
            return False
        try:
            self._write_batch()
        except OSError as error:
            self.failed = disk_failure(error, "journal")
            raise self.failed from error
        return True

    def seal(self) -> None:
        """Prove the last batch to have been synced, by an empty one behind it: rot in it can then no longer
        be taken for a tear. To be called once `seal_at` has passed. Raises as `sync`."""
        self.seal_at = _NEVER
        if not self._dirty and self._position > fmt.SECTOR:
            self._dirty = True
            self.sync()
            self.seal_at = _NEVER

    def close(self) -> None:
        """Seal what is not sealed and release the file. Nothing that waits is written."""
        if self._file is None:
            return
        if self.failed is None and self.seal_at < _NEVER:
            self.seal()
        self._file.close()
        self._file = None

    def _write_batch(self) -> None:
        body = self._body()
        size = fmt.padded(fmt.BATCH_HEADER_BYTES + len(body))
        needed = size if self._position > fmt.SECTOR else size + fmt.padded(len(self._state()))
        if self._file is None or self._position + needed > self._segments[-1].size:
            self._roll(size)
        if self._position == fmt.SECTOR:  # each segment repeats the state, so that older ones may go
            body = self._state() + body
        segment = self._segments[-1]
        data, self._chain = fmt.pack_batch(
            body, number=self._batch, salt=segment.salt, previous_chain=self._chain
        )
        assert self._file is not None
        self._file.write_at(self._position, data)
        if self._fsync:
            self._sync_file(self._file)
        self._position += len(data)
        self.written_bytes += len(data)
        self._batch += 1
        segment.high = max(segment.high, self._pending_high)
        self._pending, self._pending_high, self._dirty = [], 0, False
        self.seal_at = self._clock.monotonic() + _SEAL_AFTER_S
        self._drop_segments()

    def _body(self) -> bytes:
        if self._commit != self._durable_commit:
            self._pending.append(fmt.pack_index(fmt.COMMIT, self._commit))
            self._durable_commit = self._commit
        return b"".join(self._pending)

    def _state(self) -> bytes:
        return (
            fmt.pack_hard_state(self._term, self._vote)
            + fmt.pack_index(fmt.COMPACT, self._first)
            + fmt.pack_index(fmt.COMMIT, self._commit)
        )

    def _sync_file(self, file: File) -> None:
        started = self._clock.monotonic()
        file.sync()
        self.fsync_s_last = took_s = self._clock.monotonic() - started
        self.fsyncs += 1
        self.fsync_s_total += took_s
        self.fsync_s.observe(took_s)

    def _roll(self, batch_bytes: int) -> None:
        """Begin a segment with room for the batch: complete and synced before it gets its name."""
        room = 2 * fmt.SECTOR + fmt.padded(len(self._state())) + batch_bytes
        number = self._segments[-1].number + 1 if self._segments else 1
        size = max(fmt.padded(self._segment_bytes), room)
        header = fmt.SegmentHeader(number, self._batch, self._chain, self._rng.getrandbits(64), size)
        temporary = f"{segment_name(number)}.tmp"
        file = self._disk.open(temporary, create=True)
        file.preallocate(size)
        file.write_at(0, header.pack())
        self._sync_file(file)
        self._disk.rename(temporary, segment_name(number))
        self._disk.sync_directory()
        if self._file is not None:
            self._file.close()
        self._file, self._position = file, fmt.SECTOR
        self._segments.append(Segment(segment_name(number), number, header.salt, size, 0))

    def _drop_segments(self) -> None:
        """Remove segments of which no entry is left, the oldest first, each durably before the next: a
        gap between segments would look like damage."""
        while len(self._segments) > 1 and self._segments[0].high < self._first:
            self._disk.remove(self._segments.pop(0).name)
            self._disk.sync_directory()
