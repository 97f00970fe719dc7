"""The history that watchers catch up with: read and encoded once for all that need the same of it.

Many watchers come back together, and from about the same revision: a member that went away leaves all of its
own to the others. What one of them has been sent the next one needs too, so slices are kept while anybody
catches up. A slice covers the revisions behind `after` up to `through`, which never change.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple

import trio

from raftkube.store.core import EventBatch, StateMachine
from raftkube.store.server.watch_log import EncodedEvent, Item, Segment, Selector, make_segment
from raftkube.types import Revision

_EVENTS_PER_SLICE: Final = 512
_KEPT_BYTES_MAX: Final = 16 * 1024 * 1024


class Slice(NamedTuple):
    """What one selection sees of the revisions up to `through`. `size_bytes`: of the encoded events."""

    through: int
    segments: list[Segment]
    event_count: int
    size_bytes: int

    def frames(self, ids: bytes) -> bytes:
        """For these packed watch ids; empty if it holds no event."""
        frames = [segment.frame(ids) for segment in self.segments]
        return frames[0] if len(frames) == 1 else b"".join(frames)


class Past:
    """Slices of one member's history. `turn` is held while one is read and sent, so that a thousand watchers
    that catch up take one slice each time round the event loop, and everybody else goes on between."""

    def __init__(self) -> None:
        self.turn = trio.Lock()
        self._slices: dict[tuple[Selector, int], Slice] = {}
        self._kept_bytes = 0
        self._readers = 0

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Slices are kept as long as somebody is inside."""
        self._readers += 1
        try:
            yield
        finally:
            self._readers -= 1
            if not self._readers:
                self.forget()

    def slice(self, core: StateMachine, selector: Selector, after: int) -> Slice:
        """What follows `after`, about as much as is sent at once. Raises Compacted."""
        found = self._slices.get((selector, after))
        if found is None:
            found = _read(core, selector, after)
            if found.through > after:  # else there was nothing yet, and soon will be
                self._keep((selector, after), found)
        return found

    def forget(self) -> None:
        """Drop what is kept: nobody needs it, or the state was replaced."""
        self._slices.clear()
        self._kept_bytes = 0

    def _keep(self, at: tuple[Selector, int], made: Slice) -> None:
        while self._slices and self._kept_bytes + made.size_bytes > _KEPT_BYTES_MAX:
            self._kept_bytes -= self._slices.pop(next(iter(self._slices))).size_bytes
        self._slices[at] = made
        self._kept_bytes += made.size_bytes


def _read(core: StateMachine, selector: Selector, after: int) -> Slice:
    batch = core.events_between(Revision(after), selector.key, selector.range_end, _EVENTS_PER_SLICE)
    return _encode(batch, selector)


def _encode(batch: EventBatch, selector: Selector) -> Slice:
    items = []
    for revision, events in batch.revisions:
        chosen = tuple([EncodedEvent(e).encoding(selector.prev_kv) for e in events if selector.wants(e)])
        if chosen:
            items.append(Item(revision, chosen, 0))
    segments: list[Segment] = []
    start = 0
    while start < len(items):
        segments.append(make_segment(items[start:], start))
        start = segments[-1].end
    count = sum([segment.event_count for segment in segments])
    return Slice(batch.through, segments, count, sum([len(event) for item in items for event in item.events]))
