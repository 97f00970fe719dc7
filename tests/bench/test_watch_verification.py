"""The watch bench counts only what it has verified: lost, doubled, late and foreign events are violations."""

from __future__ import annotations

import pytest
from watch_frames import SIDES, START, Watched, events, latencies, write

from bench.errors import Violation
from bench.tape import Ledger

each_side = pytest.mark.parametrize("protocol", SIDES)


@each_side
def test_every_watcher_gets_every_event_once(protocol: str) -> None:
    watched = Watched(protocol)
    for first, count in ((2, 5), (7, 1), (8, 300)):
        watched.feed(events(protocol, write(first, count), [0, 1, 2]))
    assert sum(count for _, count in watched.noted) == 3 * 306
    assert (watched.tape.done, watched.tape.revision) == (306, 307)


@each_side
def test_watchers_may_be_sent_other_portions(protocol: str) -> None:
    watched = Watched(protocol)
    watched.feed(events(protocol, write(2, 7), [0]))
    for first, count in ((2, 3), (5, 6)):
        watched.feed(events(protocol, write(first, count), [1]))
    assert [cursor.count for cursor in watched.cursors] == [7, 9, 0]
    assert watched.tape.done == 0
    watched.feed(events(protocol, write(2, 9), [2]))
    assert watched.tape.done == 7


@each_side
def test_bytes_may_come_in_any_pieces(protocol: str) -> None:
    watched = Watched(protocol)
    data = events(protocol, write(2, 40), [0, 1, 2]) + events(protocol, write(42, 2), [2])
    for start in range(0, len(data), 7):
        watched.feed(data[start : start + 7])
    assert [cursor.count for cursor in watched.cursors] == [40, 40, 42]


@each_side
@pytest.mark.parametrize("watcher", [0, 1], ids=["first", "second"])
@pytest.mark.parametrize("next_write", [9, 6, 2], ids=["gap", "doubled", "again"])
def test_a_gap_or_a_doubled_event_is_a_violation(protocol: str, watcher: int, next_write: int) -> None:
    watched = Watched(protocol)
    watched.feed(events(protocol, write(2, 5), [0, 1, 2]))
    if watcher:
        watched.feed(events(protocol, write(7, 5), [0]))
    with pytest.raises(Violation):
        watched.feed(events(protocol, write(next_write, 1), [watcher]))


@each_side
def test_the_first_event_counts_too(protocol: str) -> None:
    with pytest.raises(Violation, match=f"at revision {START - 1} was sent {START + 1}"):
        Watched(protocol).feed(events(protocol, write(START + 1, 1), [0]))


@each_side
@pytest.mark.parametrize("at", [1, -1], ids=["key", "value"])
def test_a_changed_byte_for_one_watcher_is_a_violation(protocol: str, at: int) -> None:
    watched = Watched(protocol)
    watched.feed(events(protocol, write(2, 5), [0, 1]))
    revision, key, value = write(2, 5)[3][0], write(2, 5)[3][1], write(2, 5)[3][2]
    changed = write(2, 5)
    changed[3] = (revision, key[:-1] + b"X", value) if at == 1 else (revision, key, value[:-1] + b"X")
    with pytest.raises(Violation, match="something else"):
        watched.feed(events(protocol, changed, [2]))


def ledger(writes: list[tuple[int, bytes, bytes]]) -> Ledger:
    made = Ledger(1, START - 1)
    for revision, key, value in writes:
        made.note(revision, 0, key, value)
    return made


@each_side
def test_what_all_watchers_were_sent_is_what_was_written(protocol: str) -> None:
    watched, writes = Watched(protocol), write(2, 9)
    watched.feed(events(protocol, writes, [0, 1, 2]))
    assert ledger([*writes[4:], *writes[:4]]).told() == [watched.tape.digest.told]
    assert ledger(writes[:8]).told() != [watched.tape.digest.told]
    wrong = [*writes[:8], (10, b"/bench/10", b"another value")]
    assert ledger(wrong).told() != [watched.tape.digest.told]


def test_two_writes_of_one_revision_are_a_violation() -> None:
    with pytest.raises(Violation, match="revision 3"):
        ledger([(2, b"k", b"v"), (3, b"k", b"w"), (3, b"k", b"x")])


def test_revisions_of_other_prefixes_may_lie_between_but_none_goes_back() -> None:
    watched = Watched("ours", contiguous=False)
    watched.feed(events("ours", [*write(3, 1), *write(7, 2)], [0]))
    with pytest.raises(Violation, match="at revision 8 was sent 6"):
        watched.feed(events("ours", write(6, 1), [0]))


def test_half_an_event_is_a_violation() -> None:
    watched = Watched("ours")
    watched.feed(events("ours", write(2, 2), [0]))
    with pytest.raises(Violation, match="part of an event"):
        watched.tape.take(watched.cursors[1], bytes(watched.tape._bytes[:5]))


def test_tapes_forget_what_all_have_and_go_on() -> None:
    watched = Watched("ours", watches=2)
    for first in range(2, 40_002, 1_000):
        for watcher in (0, 1):
            watched.feed(
                events("ours", [(n, b"/bench/k", bytes(500)) for n in range(first, first + 1_000)], [watcher])
            )
    assert watched.tape.done == 40_000
    assert len(watched.tape._bytes) < 9 * 1024 * 1024
    assert len(watched.tape._counts) < 20_000
    with pytest.raises(Violation):
        watched.feed(events("ours", write(39_000, 1), [1]))


def test_watches_that_are_ended_are_told_apart() -> None:
    from raftkube.errors import WatchEnded
    from raftkube.wire import rpc

    watched = Watched("ours")
    watched.feed(events("ours", write(2, 3), [1]))
    watched.feed(rpc.ended([2], WatchEnded("slow", revision=4, reason="slow").to_wire()))
    assert watched.session.ended == {1: 4}


def test_percentiles_are_upper_edges() -> None:
    made = latencies(*(n / 1000 for n in range(1, 1001)))
    assert made.percentile_ms(0.5) == pytest.approx(500, abs=0.03)
    assert made.percentile_ms(0.999) == pytest.approx(999, abs=0.03)
    other = latencies(5.0)
    other.merge(made.pairs)
    assert (other.count, other.percentile_ms(1.0)) == (1001, 5000.01)
    assert latencies().told()["p99_ms"] == 0.0
