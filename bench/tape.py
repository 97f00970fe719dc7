"""What watchers must be sent, as one tape of encoded events a prefix; every watcher of it is a cursor.

The first watcher that is sent an event extends the tape: the event is parsed, its revision must follow, and
it goes into the tape's digest, which the writer's own record must equal in the end (`Ledger`). Everybody
else's bytes are compared with the tape where their cursor stands: a gap, a doubled event or a changed byte
cannot match. Comparing costs a fourteenth of hashing.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable
from typing import Final, NamedTuple

from bench.errors import Violation

# In front of every value: when the write was due (ns of the monotonic clock), and its number.
STAMP: Final = struct.Struct(">QI")
_TRIM_BYTES: Final = 8 * 1024 * 1024
_NS: Final = 1e-9


class Encoded(NamedTuple):
    """A parsed event and the length of its encoding."""

    revision: int
    key: bytes
    value: bytes
    size_bytes: int


Parse = Callable[[bytes], list[Encoded]]


class Digest:
    """A running hash of (revision, key, value), in order of revisions."""

    def __init__(self) -> None:
        self._hash = hashlib.blake2b(digest_size=16)
        self.count = 0

    def add(self, revision: int, key: bytes, value: bytes) -> None:
        self._hash.update(b"%d %d " % (revision, len(key)) + key + value)
        self.count += 1

    @property
    def told(self) -> str:
        """Count and hash, to be compared across processes."""
        return f"{self.count} {self._hash.hexdigest()}"


class Cursor:
    """A watcher's place: `at` in bytes, `count` in events. `number` is the watcher's own."""

    __slots__ = ("at", "count", "number", "tape")

    def __init__(self, tape: Tape, number: int) -> None:
        self.tape, self.number = tape, number
        self.at = self.count = 0
        tape.enter()


class Tape:
    """The events of one prefix from `start_revision` on. `contiguous`: every revision has one of them."""

    def __init__(self, start_revision: int, parse: Parse, *, contiguous: bool = True) -> None:
        self.revision = start_revision - 1
        self.digest = Digest()
        self._parse, self._contiguous = parse, contiguous
        self._bytes = bytearray()
        self._base = self._end = 0  # offsets of the first byte kept and behind the last
        self._counts: dict[int, int] = {0: 0}  # offset behind an event -> events up to there
        self._ends: list[int] = []
        self._dues: list[float] = []
        self._first = 0  # events that were trimmed
        self._places: dict[int, int] = {}  # count -> cursors that stand there
        self.done = 0  # events that every cursor has

    def enter(self) -> None:
        """One more cursor, at the start."""
        self._places[0] = self._places.get(0, 0) + 1

    def take(self, cursor: Cursor, chunk: bytes | memoryview) -> int:
        """`cursor` was sent these encoded events: move it on; how many they are. Raises Violation."""
        at, end = cursor.at, cursor.at + len(chunk)
        if end > self._end:
            self._extend(at, chunk)
        elif not self._bytes.startswith(chunk, at - self._base):
            raise Violation(self._difference(cursor, bytes(chunk)))
        count = self._counts.get(end)
        if count is None:
            raise Violation(f"watcher {cursor.number} was sent part of an event near {self.revision}")
        before, cursor.at, cursor.count = cursor.count, end, count
        self._move(before, count)
        return count - before

    def dues(self, after: int, through: int) -> list[float]:
        """When the writes of these events (by count) were due, in seconds of the monotonic clock."""
        return self._dues[after - self._first : through - self._first]

    def _extend(self, at: int, chunk: bytes | memoryview) -> None:
        known = self._end - at
        if known and not self._bytes.startswith(chunk[:known], at - self._base):
            raise Violation(f"two watchers were sent different events up to revision {self.revision}")
        fresh = bytes(chunk[known:])
        for event in self._parse(fresh):
            if event.revision != self.revision + 1 if self._contiguous else event.revision <= self.revision:
                raise Violation(f"a watch at revision {self.revision} was sent {event.revision}")
            self.revision = event.revision
            self.digest.add(event.revision, event.key, event.value)
            self._end += event.size_bytes
            self._ends.append(self._end)
            self._dues.append(STAMP.unpack_from(event.value)[0] * _NS)
            self._counts[self._end] = self._first + len(self._ends)
        self._bytes += fresh
        if len(self._bytes) > _TRIM_BYTES:
            self._trim()

    def _difference(self, cursor: Cursor, chunk: bytes) -> str:
        sent = self._parse(chunk)[:1]
        told = f"revision {sent[0].revision}" if sent else "no event"
        return (
            f"watcher {cursor.number}, which has {cursor.count} events of a tape up to revision "
            f"{self.revision}, was sent {told} where others were sent something else"
        )

    def _move(self, before: int, count: int) -> None:
        places = self._places
        places[count] = places.get(count, 0) + 1
        left = places[before] - 1
        if left:
            places[before] = left
        else:
            del places[before]
            if before == self.done:
                self.done = min(places)

    def _trim(self) -> None:
        """Forget what every cursor has passed."""
        passed = self.done - self._first
        if passed <= 0:
            return
        offset = self._ends[passed - 1]
        for end in self._ends[: passed - 1]:
            del self._counts[end]
        self._counts.pop(self._base, None)
        self._counts[offset] = self.done
        del self._bytes[: offset - self._base], self._ends[:passed], self._dues[:passed]
        self._base, self._first = offset, self.done


class Ledger:
    """What was written, by the writer's own record: one digest a prefix, in order of revisions, though
    acknowledgements may come in any order."""

    def __init__(self, prefixes: int, revision: int) -> None:
        self._digests = [Digest() for _ in range(prefixes)]
        self._early: dict[int, tuple[int, bytes, bytes]] = {}
        self.revision = revision

    def note(self, revision: int, prefix: int, key: bytes, value: bytes) -> None:
        """An acknowledged write. Raises Violation: two writes were given one revision."""
        if revision <= self.revision or revision in self._early:
            raise Violation(f"two writes were given revision {revision}")
        self._early[revision] = (prefix, key, value)
        while (entry := self._early.pop(self.revision + 1, None)) is not None:
            self._add(self.revision + 1, entry)

    def told(self) -> list[str]:
        """Each prefix's digest, for what was acknowledged."""
        for revision in sorted(self._early):
            self._add(revision, self._early.pop(revision))
        return [digest.told for digest in self._digests]

    def _add(self, revision: int, entry: tuple[int, bytes, bytes]) -> None:
        prefix, key, value = entry
        self._digests[prefix].add(revision, key, value)
        self.revision = revision
