"""What watchers are fed from: events encoded once, by group of watchers that want the same.

A group is one selection (range, prev_kv, filters). Its log holds references to encoded events, by
revision, for as long as its slowest subscriber needs them; every subscriber has a position in it and
nothing else. What several subscribers at one position get is joined once (`Segment`).

Pure: nothing here sends or waits.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from raftkube.wire.frames import pack
from raftkube.wire.rpc import EVENTS, FRAGMENT, events_frame
from raftkube.wire.store import PUT_EVENT, Event, prefix_end

# One segment stops growing here, so that a frame stays small against the socket's buffer times a few.
SEGMENT_BYTES: Final = 262_144
# A single revision longer than this is cut into fragments, far below the frame limit.
FRAGMENT_BYTES: Final = 4 * 1024 * 1024
_SEGMENTS_KEPT: Final = 8
_FRAMES_KEPT: Final = 64
_TRIM_ITEMS: Final = 1_024
_EVENT_OVERHEAD_BYTES: Final = 64


class Selector(NamedTuple):
    """Which events a group sees, and how they are encoded."""

    key: bytes
    range_end: bytes
    prev_kv: bool = False
    no_put: bool = False
    no_delete: bool = False

    def wants(self, event: Event) -> bool:
        """Whether its filters let `event` pass (the range is not looked at)."""
        return not (self.no_put if event.type == PUT_EVENT else self.no_delete)


class EncodedEvent:
    """An event with its encodings, each made once and only when somebody wants it."""

    __slots__ = ("_plain", "_with_prev", "event")

    def __init__(self, event: Event) -> None:
        self.event = event
        self._plain = b""
        self._with_prev = b""

    def encoding(self, prev_kv: bool) -> bytes:
        """The msgpack of the event, with or without what it replaced."""
        if prev_kv:
            if not self._with_prev:
                self._with_prev = pack(self.event)
            return self._with_prev
        if not self._plain:
            self._plain = pack((self.event.type, self.event.kv, None))
        return self._plain

    @property
    def size_bytes(self) -> int:
        """About what it costs to keep."""
        return len(self.event.kv.key) + len(self.event.kv.value) + _EVENT_OVERHEAD_BYTES


class Item(NamedTuple):
    """The events of one revision that a group sees; `offset` is the hub's byte count before them, `before`
    the group's count of events."""

    revision: int
    events: tuple[bytes, ...]
    offset: int
    before: int = 0


class Segment:
    """Consecutive items as frames. `end` is the position after it, `revision` the last one inside."""

    __slots__ = ("_frames", "_parts", "end", "event_count", "revision")

    def __init__(self, parts: list[tuple[int, int, bytes]], end: int, revision: int) -> None:
        self._parts = parts  # (kind, count, encoded events)
        self.event_count = sum([count for _, count, _ in parts])
        self._frames: dict[bytes, bytes] = {}
        self.end = end
        self.revision = revision

    def frame(self, ids: bytes) -> bytes:
        """The frames for these packed watch ids; equal ids on many connections share the bytes."""
        made = self._frames.get(ids)
        if made is None:
            made = b"".join(
                [events_frame(kind, ids, self.revision, count, data) for kind, count, data in self._parts]
            )
            if len(self._frames) < _FRAMES_KEPT:
                self._frames[ids] = made
        return made


def make_segment(items: Iterable[Item], start: int) -> Segment:
    """As many of `items` (at least one) as fit SEGMENT_BYTES; `start` is the first one's position."""
    events: list[bytes] = []
    size = 0
    revision = 0
    for item in items:
        item_bytes = sum(map(len, item.events))
        if events and size + item_bytes > SEGMENT_BYTES:
            break
        events.extend(item.events)
        size += item_bytes
        revision = item.revision
        start += 1
    return Segment(_cut(events, size), start, revision)


def _cut(events: list[bytes], size: int) -> list[tuple[int, int, bytes]]:
    if size <= FRAGMENT_BYTES:
        return [(EVENTS, len(events), b"".join(events))]
    parts: list[tuple[int, int, bytes]] = []
    batch: list[bytes] = []
    batch_bytes = 0
    for event in events:
        if batch and batch_bytes + len(event) > FRAGMENT_BYTES:
            parts.append((FRAGMENT, len(batch), b"".join(batch)))
            batch, batch_bytes = [], 0
        batch.append(event)
        batch_bytes += len(event)
    return [*parts, (EVENTS, len(batch), b"".join(batch))]


class GroupLog:
    """One selection's events, in order of revisions. Positions count items from the group's start."""

    __slots__ = ("_base", "_items", "_segments", "event_count", "selector")

    def __init__(self, selector: Selector) -> None:
        self.selector = selector
        self._items: list[Item] = []
        self._base = 0
        self.event_count = 0
        self._segments: dict[int, Segment] = {}

    @property
    def end(self) -> int:
        """The position after the newest item."""
        return self._base + len(self._items)

    def append(self, revision: int, events: Iterable[EncodedEvent], offset: int) -> bool:
        """Add what the filters let pass of one revision; False if that is nothing."""
        selector = self.selector
        chosen = tuple([e.encoding(selector.prev_kv) for e in events if selector.wants(e.event)])
        if chosen:
            self._items.append(Item(revision, chosen, offset, self.event_count))
            self.event_count += len(chosen)
        return bool(chosen)

    def segment(self, start: int) -> Segment:
        """What follows position `start`, which must lie before the end."""
        found = self._segments.get(start)
        if found is None:
            first = start - self._base
            found = make_segment((self._items[i] for i in range(first, len(self._items))), start)
            while len(self._segments) >= _SEGMENTS_KEPT:
                del self._segments[next(iter(self._segments))]
            self._segments[start] = found
        return found

    def item(self, position: int) -> Item:
        """The item at a position that a subscriber still needs."""
        return self._items[position - self._base]

    def trim_due(self, offset: int, bytes_kept_max: int) -> bool:
        """Whether it holds enough to be worth asking for the slowest subscriber."""
        items = self._items
        return len(items) > _TRIM_ITEMS or (bool(items) and offset - items[0].offset > bytes_kept_max)

    def trim(self, position: int) -> None:
        """Forget everything before `position`."""
        if position > self._base:
            del self._items[: position - self._base]
            self._base = position
            for start in [start for start in self._segments if start < position]:
                del self._segments[start]


class Router:
    """Finds the groups that see a key: exact keys and prefixes by lookup, other ranges one by one."""

    def __init__(self) -> None:
        self._exact: dict[bytes, list[GroupLog]] = {}
        self._prefixes: dict[int, dict[bytes, list[GroupLog]]] = {}
        self._ranges: list[GroupLog] = []

    def add(self, group: GroupLog) -> None:
        """Route to `group` from now on."""
        key, range_end = group.selector[:2]
        if not range_end:
            self._exact.setdefault(key, []).append(group)
        elif range_end == prefix_end(key) and range_end != b"\x00":
            self._prefixes.setdefault(len(key), {}).setdefault(key, []).append(group)
        else:
            self._ranges.append(group)

    def remove(self, group: GroupLog) -> None:
        """Undo `add`."""
        key, range_end = group.selector[:2]
        if not range_end:
            _remove(self._exact, key, group)
        elif range_end == prefix_end(key) and range_end != b"\x00":
            prefixes = self._prefixes[len(key)]
            _remove(prefixes, key, group)
            if not prefixes:
                del self._prefixes[len(key)]
        else:
            self._ranges.remove(group)

    def groups(self, key: bytes) -> Iterator[GroupLog]:
        """Every group whose range holds `key`."""
        yield from self._exact.get(key, ())
        for length, prefixes in self._prefixes.items():
            yield from prefixes.get(key[:length], ())
        for group in self._ranges:
            start, end = group.selector[:2]
            if start <= key and (end == b"\x00" or key < end):
                yield group

    def match(self, events: list[EncodedEvent]) -> Iterable[tuple[GroupLog, list[EncodedEvent]]]:
        """The groups that see some of these events of one revision, each with its own, in order."""
        if len(events) == 1:
            return [(group, events) for group in self.groups(events[0].event.kv.key)]
        matched: dict[GroupLog, list[EncodedEvent]] = {}
        for event in events:
            for group in self.groups(event.event.kv.key):
                matched.setdefault(group, []).append(event)
        return matched.items()


def _remove(index: dict[bytes, list[GroupLog]], key: bytes, group: GroupLog) -> None:
    groups = index[key]
    groups.remove(group)
    if not groups:
        del index[key]
