"""The journal gives back every synced batch or refuses with file and offset; only an unfinished last
batch is cut. Every byte of a small journal is damaged in turn, and every write boundary crashed at."""

from __future__ import annotations

import errno
import itertools
from collections.abc import Callable
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chaos.sim.disk import SimDisk
from raftkube.errors import DiskFailed, DiskFull, InvariantViolation
from raftkube.store.raft import journal_format as fmt
from raftkube.store.raft.journal import SegmentedJournal
from raftkube.store.raft.journal_recovery import segment_name

NO_OP = b"\x01"


class StillClock:
    """Time does not matter to the journal but for its statistics."""

    def monotonic(self) -> float:
        return 0.0

    def wall(self) -> float:
        return 0.0


def open_journal(disk: SimDisk, segment_bytes: int = 4096) -> SegmentedJournal:
    return SegmentedJournal(disk, Random(1), StillClock(), segment_bytes=segment_bytes)


def state(journal: SegmentedJournal) -> tuple[Any, ...]:
    return journal[:], journal.getCurrentTerm(), journal.getVotedForNodeId()


def small_journal(
    disk: SimDisk, *, sealed: bool = False, after_each: Callable[[], None] = lambda: None
) -> list[tuple[Any, ...]]:
    """A journal of a few batches in two segments; the state after each sync."""
    journal = open_journal(disk)
    states = []
    journal.setCurrentTerm(1, "store-2")
    for index in range(1, 7):
        journal.add(b"command-%d" % index * (1 + 40 * (index % 3)), index, 1)
        if index == 4:
            journal.deleteEntriesFrom(3)
            journal.add(b"other", 4, 1)
        journal.setRaftCommitIndex(max(1, index - 2))
        journal.sync()
        states.append(state(journal))
        after_each()
    if sealed:
        journal.close()
    assert len([name for name in disk.names() if name.endswith(".log")]) == 2
    return states


def test_what_was_synced_comes_back() -> None:
    disk = SimDisk(Random(1))
    states = small_journal(disk)
    disk.crash(lose_all=True)
    journal = open_journal(disk)
    assert state(journal) == states[-1]
    assert journal.getRaftCommitIndex() == 4


def test_what_was_not_synced_is_gone() -> None:
    disk = SimDisk(Random(1))
    states = small_journal(disk)
    journal = open_journal(disk)
    journal.add(b"unsynced", 7, 2)
    disk.crash(lose_all=True)
    assert state(open_journal(disk)) == states[-1]


def test_an_empty_disk_is_an_empty_journal() -> None:
    journal = open_journal(SimDisk(Random(1)))
    assert (journal[:], journal.getCurrentTerm(), journal.getVotedForNodeId()) == ([], 0, None)
    assert not journal.sync()


def _recover_or_locate(disk: SimDisk) -> tuple[Any, ...] | None:
    """The recovered state; None if it was refused, with file and offset."""
    try:
        return state(open_journal(disk))
    except InvariantViolation as refusal:
        located = "journal-" in str(refusal) and "at byte" in str(refusal)
        return None if located else ("refused without a location", str(refusal))


def test_a_flip_of_any_byte_is_found_or_harmless() -> None:
    """Every byte of every segment: no flip may cost a synced entry silently, not even in the last batch."""
    original = SimDisk(Random(1))
    final = small_journal(original)[-1]
    refused = harmless = 0
    for name in original.names():
        for offset in range(len(original.read_all(name))):
            disk = original.clone(Random(2))
            disk.damage(name, lambda data, at=offset: data.__setitem__(at, data[at] ^ 0x10))
            recovered = _recover_or_locate(disk)
            assert recovered in (None, final), f"{name} byte {offset}"
            refused += recovered is None
            harmless += recovered is not None
    assert refused > 3000
    assert harmless > 3000  # padding, and what lies behind the last batch of a segment


@pytest.mark.long
@pytest.mark.parametrize("bits", [1 << bit for bit in range(8)] + [0xFF])
def test_every_bit_of_every_byte(bits: int) -> None:
    original = SimDisk(Random(1))
    final = small_journal(original)[-1]
    for name in original.names():
        for offset in range(len(original.read_all(name))):
            disk = original.clone(Random(2))
            disk.damage(name, lambda data, at=offset: data.__setitem__(at, data[at] ^ bits))
            assert _recover_or_locate(disk) in (None, final), f"{name} byte {offset}"


def test_a_journal_cut_short_at_any_byte_is_refused() -> None:
    original = SimDisk(Random(1))
    small_journal(original)
    for name in original.names():
        for length in range(len(original.read_all(name))):
            disk = original.clone(Random(2))
            disk.damage(name, lambda data, keep=length: data.__delitem__(slice(keep, None)))
            assert _recover_or_locate(disk) is None, f"{name} cut to {length}"


def sectors(disk: SimDisk, name: str) -> range:
    return range(0, len(disk.read_all(name)), fmt.SECTOR)


def test_a_zeroed_sector_anywhere_in_a_sealed_journal_is_refused_or_harmless() -> None:
    original = SimDisk(Random(1))
    final = small_journal(original, sealed=True)[-1]
    refused = 0
    for name in original.names():
        for at in sectors(original, name):
            disk = original.clone(Random(2))
            blank = not any(original.read_all(name)[at : at + fmt.SECTOR])
            disk.damage(
                name, lambda data, at=at: data.__setitem__(slice(at, at + fmt.SECTOR), bytes(fmt.SECTOR))
            )
            recovered = _recover_or_locate(disk)
            seal = name == original.names()[-1] and at == last_sector(original, name)
            assert recovered == (final if blank or seal else None), f"{name} sector at {at}"
            refused += recovered is None
    assert refused == 10


def last_sector(disk: SimDisk, name: str) -> int:
    """Where the last sector that holds anything begins."""
    return (len(disk.read_all(name).rstrip(b"\0")) - 1) // fmt.SECTOR * fmt.SECTOR


def test_any_two_sectors_swapped_are_refused() -> None:
    """Also between segments: what stands in the wrong place is never taken for what belongs there."""
    original = SimDisk(Random(1))
    final = small_journal(original, sealed=True)[-1]
    places = [(name, at) for name in original.names() for at in sectors(original, name)]
    contents = {place: original.read_all(place[0])[place[1] : place[1] + fmt.SECTOR] for place in places}
    for one, other in itertools.combinations(places, 2):
        if contents[one] == contents[other]:
            continue
        disk = original.clone(Random(2))
        for (name, at), content in ((one, contents[other]), (other, contents[one])):
            disk.damage(
                name, lambda data, at=at, new=content: data.__setitem__(slice(at, at + fmt.SECTOR), new)
            )
        assert _recover_or_locate(disk) is None, f"{one} and {other}: {final}"


def test_a_segment_that_went_back_in_time_is_refused() -> None:
    """Each segment is replaced by what it was after each earlier sync. The last one alone may come back
    older without a trace, as a whole disk may; then it is a state that was synced, never a mixture."""
    disk = SimDisk(Random(1))
    images: list[dict[str, bytes]] = []
    states = small_journal(
        disk, after_each=lambda: images.append({n: disk.read_all(n) for n in disk.names()})
    )
    last = disk.names()[-1]
    refused = 0
    for older in images[:-1]:
        for name, image in older.items():
            if image == disk.read_all(name):
                continue
            copy = disk.clone(Random(2))
            copy.damage(name, lambda data, image=image: data.__setitem__(slice(None), image))
            recovered = _recover_or_locate(copy)
            assert recovered is None or (name == last and recovered in states), name
            refused += recovered is None
    assert refused >= 2


def test_a_duplicated_segment_is_refused() -> None:
    original = SimDisk(Random(1))
    small_journal(original)
    for name in original.names():
        for number in (1, 2, 3, 4):
            if segment_name(number) == name:
                continue
            disk = original.clone(Random(2))
            file = disk.open(segment_name(number), create=True)
            file.truncate(0)
            file.write_at(0, original.read_all(name))
            file.sync()
            disk.sync_directory()
            assert _recover_or_locate(disk) is None, f"{name} as {number}"


def test_recovery_reads_each_byte_that_is_kept_about_once() -> None:
    """Linear in what is kept, whatever was written and dropped before."""
    read: dict[int, int] = {}
    for kept in (50, 100, 200, 400):
        disk = SimDisk(Random(1))
        journal = open_journal(disk, segment_bytes=65536)
        journal.setCurrentTerm(1, "store-1")
        for index in range(1, 1000):
            journal.add(b"x" * 900, index, 1)
            journal.setRaftCommitIndex(index)
            journal.compact(index - kept)
            journal.sync()
        journal.close()
        on_disk = sum(len(disk.read_all(name)) for name in disk.names())
        disk.bytes_read = steps = disk.steps = 0
        open_journal(disk, segment_bytes=65536)
        steps, read[kept] = disk.steps, disk.bytes_read
        assert on_disk / 2 < read[kept] < 1.6 * on_disk  # a batch's first sector is read twice
        assert steps < 5 * len(disk.names())  # each is opened, synced and dropped from the cache
    assert read[400] < 10 * read[50]


def test_what_a_failed_sync_left_in_memory_is_not_believed() -> None:
    """After a failed fsync Linux shows what was written and will never write it: a process that comes
    after must not promise what only the page cache holds."""
    disk = SimDisk(Random(1))
    journal = open_journal(disk)
    journal.setCurrentTerm(1, "store-1")
    journal.add(b"first", 1, 1)
    journal.sync()
    disk.fail_next["sync"] = errno.EIO
    journal.add(b"never written", 2, 1)
    with pytest.raises(DiskFailed):
        journal.sync()
    assert b"never written" in disk.read_all(disk.names()[-1])  # as any reader would see it
    recovered = open_journal(disk)
    assert [entry[0] for entry in recovered[:]] == [b"first"]
    recovered.add(b"second", 2, 1)
    recovered.sync()
    disk.crash(lose_all=True)
    assert [entry[0] for entry in open_journal(disk)[:]] == [b"first", b"second"]


def test_only_missing_room_counts_as_full() -> None:
    """A sync that finds no room (delayed allocation) has lost pages like any failed sync."""
    for step, kind in (("write", DiskFull), ("preallocate", DiskFull), ("sync", DiskFailed)):
        disk = SimDisk(Random(1))
        journal = open_journal(disk)
        disk.fail_next[step] = errno.ENOSPC
        journal.add(NO_OP, 1, 0)
        with pytest.raises(DiskFailed) as caught:
            journal.sync()
        assert type(caught.value) is kind
        with pytest.raises(kind):
            journal.sync()


def test_a_missing_segment_is_refused() -> None:
    original = SimDisk(Random(1))
    small_journal(original)
    first = original.names()[0]
    original.remove(first)
    original.sync_directory()
    assert _recover_or_locate(original) is None


@pytest.mark.parametrize("seed", range(6))
def test_a_crash_at_every_write_boundary(seed: int) -> None:
    """Whatever step the power fails at: all that was synced before is back, and the journal goes on."""

    class Crash(Exception):
        pass

    boundary = 0
    while True:
        disk = SimDisk(Random(seed))
        left = boundary

        def before(step: str) -> None:
            nonlocal left
            if left == 0:
                raise Crash(step)
            left -= 1

        disk.before = before
        states: list[tuple[Any, ...]] = [([], 0, None)]
        pending: tuple[Any, ...] = states[0]
        try:
            journal = open_journal(disk, segment_bytes=2048)
            for index in range(1, 8):
                journal.setCurrentTerm(index, "store-1")
                journal.add(b"x" * 700, index, index)
                if index == 5:
                    journal.setRaftCommitIndex(4)
                    journal.compact(3)
                pending = state(journal)
                journal.sync()
                states.append(pending)
                if index % 3 == 0:
                    journal.seal()
            journal.reset(50, 9, NO_OP)  # an installed snapshot: old segments go
            journal.add(b"after", 51, 9)
            pending = state(journal)
            journal.sync()
            states.append(pending)
            journal.close()
        except Crash:
            pass
        else:
            assert boundary > 30
            return
        disk.before = lambda step: None
        disk.crash()
        recovered = state(open_journal(disk, segment_bytes=2048))
        assert recovered in (states[-1], pending), f"seed {seed} boundary {boundary}"
        again = open_journal(disk, segment_bytes=2048)
        next_index = again.last_index + 1
        again.add(b"next", next_index, 99)
        again.sync()
        disk.crash(lose_all=True)
        assert open_journal(disk, segment_bytes=2048)[-1] == (b"next", next_index, 99)
        boundary += 1


@pytest.mark.parametrize("step", ["write", "sync", "preallocate", "rename", "sync_directory"])
@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC], ids=["EIO", "ENOSPC"])
def test_a_failed_step_finishes_the_journal(step: str, number: int) -> None:
    disk = SimDisk(Random(1))
    journal = open_journal(disk)
    disk.fail_next[step] = number
    journal.add(NO_OP, 1, 0)
    with pytest.raises(DiskFailed):
        journal.sync()
    before = disk.steps
    with pytest.raises(DiskFailed):  # never retried: the kernel may have dropped the pages
        journal.sync()
    assert disk.steps == before


def test_an_unfinished_last_batch_is_cut_and_overwritten() -> None:
    for seed in range(40):
        disk = SimDisk(Random(seed))
        journal = open_journal(disk, segment_bytes=65536)
        journal.add(b"first", 1, 1)
        journal.sync()
        disk.before = lambda step, disk=disk: disk.sever() if step == "sync" else None
        journal.add(bytes(range(1, 256)) * 20, 2, 1)
        with pytest.raises(DiskFailed):
            disk.fail_next["sync"] = errno.EIO
            journal.sync()
        disk.before = lambda step: None
        disk.crash()
        recovered = open_journal(disk, segment_bytes=65536)
        assert recovered[0] == (b"first", 1, 1)
        recovered.add(b"second", recovered.last_index + 1, 1)
        recovered.sync()
        disk.crash(lose_all=True)
        assert open_journal(disk, segment_bytes=65536)[-1][0] == b"second"


def test_committed_entries_are_never_truncated() -> None:
    journal = open_journal(SimDisk(Random(1)))
    for index in range(1, 5):
        journal.add(b"x", index, 1)
    journal.setRaftCommitIndex(3)
    with pytest.raises(InvariantViolation, match="committed"):
        journal.deleteEntriesFrom(2)
    journal.deleteEntriesFrom(3)
    assert journal.last_index == 3


def test_entries_follow_one_another() -> None:
    journal = open_journal(SimDisk(Random(1)))
    journal.add(b"x", 1, 2)
    for index, term in ((1, 2), (3, 2), (2, 1)):
        with pytest.raises(InvariantViolation):
            journal.add(b"x", index, term)


def test_compaction_drops_segments_and_keeps_term_and_vote() -> None:
    disk = SimDisk(Random(1))
    journal = open_journal(disk)
    journal.setCurrentTerm(7, "store-3")
    for index in range(1, 60):
        journal.add(b"x" * 300, index, 7)
        journal.setRaftCommitIndex(index)
        journal.sync()
    segments = len(disk.names())
    journal.compact(50)
    journal.sync()
    assert len(disk.names()) < segments
    assert segment_name(1) not in disk.names()
    disk.crash(lose_all=True)
    recovered = open_journal(disk)
    assert (recovered.first_index, recovered.last_index) == (50, 59)
    assert (recovered.getCurrentTerm(), recovered.getVotedForNodeId()) == (7, "store-3")


@pytest.mark.parametrize("first", [-1, 0, 1, 5, 9, 10, 11, 1000])
def test_compaction_out_of_range_changes_nothing(first: int) -> None:
    """A late compaction after an install must not empty the log; two entries always stay."""
    journal = open_journal(SimDisk(Random(1)))
    for index in range(1, 11):
        journal.add(b"x", index, 1)
    journal.setRaftCommitIndex(9)
    journal.compact(first)
    expected = first if 1 < first <= 9 else 1
    assert journal.first_index == expected
    with pytest.raises(InvariantViolation):
        journal.deleteEntriesTo(3)


def test_a_reset_survives_with_its_base() -> None:
    disk = SimDisk(Random(1))
    journal = open_journal(disk)
    journal.add(b"old", 1, 1)
    journal.sync()
    journal.reset(100, 5, NO_OP)
    journal.add(b"new", 101, 6)
    journal.sync()
    disk.crash(lose_all=True)
    recovered = open_journal(disk)
    assert recovered[:] == [(NO_OP, 100, 5), (b"new", 101, 6)]
    assert recovered.getRaftCommitIndex() == 100


def test_a_sealed_journal_cannot_lose_its_last_batch_to_rot() -> None:
    """After a clean stop even a zeroed sector in the last batch is found."""
    disk = SimDisk(Random(1))
    final = small_journal(disk)[-1]
    journal = open_journal(disk)
    journal.add(b"last" * 400, 7, 2)
    journal.sync()
    final = state(journal)
    journal.close()
    assert state(open_journal(disk)) == final
    name = disk.names()[-1]
    content = disk.read_all(name)
    at = content.rindex(b"last") // 512 * 512
    disk.damage(name, lambda data: data.__setitem__(slice(at, at + 512), bytes(512)))
    assert _recover_or_locate(disk) is None


@given(body=st.binary(max_size=3000), zeros=st.integers(0, 1600), tail=st.binary(max_size=40))
@settings(max_examples=200, deadline=None)
def test_batches_round_trip_and_count_their_zero_sectors(body: bytes, zeros: int, tail: bytes) -> None:
    body = body + bytes(zeros) + tail
    data, chain = fmt.pack_batch(body, number=3, salt=9, previous_chain=77)
    header = fmt.unpack_batch_header(data)
    assert header is not None
    assert (header.number, header.salt, header.previous_chain, header.chain) == (3, 9, 77, chain)
    assert len(data) == header.total_bytes
    assert data[fmt.BATCH_HEADER_BYTES :][: header.body_bytes] == body
    assert header.zero_sectors == fmt.count_zero_sectors(data)


@given(data=st.binary(max_size=200))
@settings(max_examples=300, deadline=None)
def test_arbitrary_bytes_never_crash_the_reader(data: bytes) -> None:
    assert fmt.unpack_batch_header(data) is None or data.startswith(fmt.BATCH_MAGIC)
    try:
        for record in fmt.records(data):
            assert record.kind in range(1, 7)
    except ValueError:
        pass  # the only error that it may raise (UnicodeDecodeError is one)


@pytest.mark.parametrize("command_bytes", range(4400, 4560, 8))
def test_the_first_batch_of_an_empty_segment_stays_within_it(command_bytes: int) -> None:
    """A crash left a new segment without a batch; the next batch, with the state in front, may not fit it."""
    disk = SimDisk(Random(1))
    journal = open_journal(disk)
    journal.setCurrentTerm(7, "a-member-with-a-long-name")
    journal.add(NO_OP, 1, 0)
    journal.sync()
    journal.add(b"x" * 3200, 2, 1)

    def crash_after_the_rename(step: str) -> None:
        if step == "write" and len([name for name in disk.names() if name.endswith(".log")]) == 2:
            raise OSError(errno.EIO, "power lost")

    disk.before = crash_after_the_rename
    with pytest.raises(DiskFailed):
        journal.sync()
    disk.before = lambda step: None
    journal = open_journal(disk)
    assert len(journal._segments) == 2
    journal.add(b"y" * command_bytes, 2, 7)
    journal.sync()
    assert all(len(disk.read_all(segment.name)) == segment.size for segment in journal._segments)
    assert [entry[1] for entry in open_journal(disk)[:]] == [1, 2]
