"""The events since compaction, by revision: what a watch that starts in the past is fed from.

Every revision above the first has events and each takes the next number, so the events of a revision
stand at a known position: no search.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from raftkube.types import Revision
from raftkube.wire.store import Event

# One call of `select` looks at no more revisions than this, so that a watch on a quiet prefix does not
# hold up the node: about a millisecond.
REVISIONS_SCANNED_MAX: Final = 4_096
# Nor does it return much more than this: each watch that catches up holds what one call gave it.
SELECTED_BYTES_MAX: Final = 1024 * 1024


class EventBatch(NamedTuple):
    """Events by revision, in order; never a part of a revision. All revisions up to and including
    `through` were looked at, even if none had a matching event: resume after it."""

    revisions: tuple[tuple[Revision, tuple[Event, ...]], ...]
    through: Revision


class EventHistory:
    """Events of the revisions from `first` on, without gaps."""

    __slots__ = ("_events", "_gone", "first")

    def __init__(self, first: int) -> None:
        self.first = first
        self._gone = 0  # places in front whose events are forgotten
        self._events: list[tuple[Event, ...]] = []

    def __len__(self) -> int:
        return len(self._events) - self._gone

    def append(self, events: tuple[Event, ...]) -> None:
        """Add the events of the next revision."""
        self._events.append(events)

    def at(self, revision: int) -> tuple[Event, ...]:
        """The events of `revision`; empty if it lies before the first."""
        return self._events[self._gone + revision - self.first] if revision >= self.first else ()

    def drop_below(self, revision: int) -> None:
        """Forget the revisions below `revision`, in time linear in how many there are."""
        count = revision - self.first
        if count > 0:
            self._events[self._gone : self._gone + count] = [()] * count
            self.first, self._gone = revision, self._gone + count
            if 2 * self._gone > len(self._events):  # the list moves seldom, for it may be long
                del self._events[: self._gone]
                self._gone = 0

    def select(self, after: int, key: bytes, range_end: bytes, limit: int) -> EventBatch:
        """Events of keys in a range, of revisions above `after`: about `limit`, or SELECTED_BYTES_MAX."""
        begin = self._gone + max(0, after + 1 - self.first)
        end = min(len(self._events), begin + REVISIONS_SCANNED_MAX)
        found: list[tuple[Revision, tuple[Event, ...]]] = []
        position, room_bytes = begin, SELECTED_BYTES_MAX
        while position < end and limit > 0 and room_bytes > 0:
            events = select_events(self._events[position], key, range_end)
            if events:
                found.append((Revision(self._revision_at(position)), events))
                limit -= len(events)
                room_bytes -= sum([event_bytes(event) for event in events])
            position += 1
        return EventBatch(tuple(found), Revision(max(after, self._revision_at(position) - 1)))

    def _revision_at(self, position: int) -> int:
        return self.first + position - self._gone


def event_bytes(event: Event) -> int:
    """Of its keys and values, what it replaced included."""
    prev_bytes = 0 if event.prev_kv is None else len(event.prev_kv.value)
    return len(event.kv.key) + len(event.kv.value) + prev_bytes


def select_events(events: tuple[Event, ...], key: bytes, range_end: bytes) -> tuple[Event, ...]:
    """Those whose key lies in the range; `range_end` as in raftkube.wire.store."""
    if not range_end:
        return tuple([event for event in events if event.kv.key == key])
    if range_end == b"\x00":
        return tuple([event for event in events if event.kv.key >= key])
    return tuple([event for event in events if key <= event.kv.key < range_end])
