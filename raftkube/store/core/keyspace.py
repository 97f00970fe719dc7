"""Keys and their versions.

A record is the list of a key's versions, oldest first; at most one per revision. A version whose
`version` is 0 is a tombstone. Records whose newest version is a put stand in `live`, the others in
`dead`, so that a read of the newest state never steps over deleted keys.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from itertools import islice
from operator import itemgetter
from typing import Any, Final, NamedTuple

from sortedcontainers import SortedDict

from raftkube.errors import InvariantViolation
from raftkube.wire.store import KeyValue

Record = list[KeyValue]
_mod_revision = itemgetter(3)
_new: Final = tuple.__new__  # a NamedTuple's own constructor is a Python call more


class Selection(NamedTuple):
    """Key-values in key order, and how many there are when no limit cuts them."""

    kvs: list[KeyValue]
    total: int


def tombstone(key: bytes, revision: int) -> KeyValue:
    """The version that a deletion writes; also the `kv` of its event."""
    return KeyValue(key, b"", 0, revision, 0, 0)


def visible(record: Record, *, compact_revision: int, revision: int) -> Record:
    """The versions that reads from `compact_revision` to `revision` can still return.

    The newest at or below `compact_revision` stays, unless it is a tombstone (etcd's keyIndex.compact).
    """
    first = bisect_right(record, compact_revision, key=_mod_revision)
    if first and record[first - 1].version:
        first -= 1
    return record[first : bisect_right(record, revision, key=_mod_revision)]


def version_at(record: Record, revision: int) -> KeyValue | None:
    """The version that a read at `revision` sees; None if the key did not exist then."""
    newest = record[-1]
    if newest.mod_revision > revision:
        position = bisect_right(record, revision, key=_mod_revision)
        if not position:
            return None
        newest = record[position - 1]
    return newest if newest.version else None


class Keyspace:
    """Every key with its versions. Revisions are given by the caller, and only ever rise."""

    __slots__ = ("_dead", "_live")

    def __init__(self) -> None:
        self._live: Any = SortedDict()  # dict of key -> record, iterable by range
        self._dead: Any = SortedDict()

    def get(self, key: bytes) -> KeyValue | None:
        """The newest version of `key`; None if it does not exist."""
        record: Record | None = self._live.get(key)
        return None if record is None else record[-1]

    def put(self, key: bytes, value: bytes, lease: int, revision: int) -> tuple[KeyValue, KeyValue | None]:
        """Write a version; return it and the one before."""
        record = self._live.get(key)
        if record is not None:
            prev: KeyValue = record[-1]
            _, _, created, _, version, _ = prev
            kv = _new(KeyValue, (key, value, created, revision, version + 1, lease))
            record.append(kv)
            return kv, prev
        kv = KeyValue(key, value, revision, revision, 1, lease)
        if key in self._dead:
            record = self._dead.pop(key)
            record.append(kv)
        else:
            record = [kv]
        self._live[key] = record
        return kv, None

    def delete(self, key: bytes, revision: int) -> KeyValue:
        """Write a tombstone over `key`, which must exist; return the version before."""
        record: Record = self._live.pop(key)
        prev = record[-1]
        record.append(tombstone(key, revision))
        self._dead[key] = record
        return prev

    def select(self, key: bytes, range_end: bytes, limit: int) -> Selection:
        """The newest versions in a range: O(log n + what is returned)."""
        if not range_end:
            kv = self.get(key)
            return Selection([] if kv is None else [kv], 0 if kv is None else 1)
        live = self._live
        keys = _keys_in(live, key, range_end)
        if limit:
            kvs = [live[name][-1] for name in islice(keys, limit)]
            return Selection(kvs, self.count(key, range_end))
        kvs = [live[name][-1] for name in keys]
        return Selection(kvs, len(kvs))

    def count(self, key: bytes, range_end: bytes) -> int:
        """How many keys of a range exist now: O(log n)."""
        if not range_end:
            return int(key in self._live)
        end = len(self._live) if range_end == b"\x00" else self._live.bisect_left(range_end)
        return max(0, end - int(self._live.bisect_left(key)))

    def select_at(self, key: bytes, range_end: bytes, limit: int, revision: int) -> Selection:
        """The versions that were the newest at `revision`, which must not be compacted."""
        kvs = [
            kv for record in self._records(key, range_end) if (kv := version_at(record, revision)) is not None
        ]
        return Selection(kvs[:limit] if limit else kvs, len(kvs))

    def version(self, key: bytes, revision: int) -> tuple[KeyValue, KeyValue | None]:
        """The version written at exactly `revision`, tombstone or not, and the one that it replaced.

        Raises InvariantViolation if there is none.
        """
        record = self._record(key) or []
        position = bisect_right(record, revision, key=_mod_revision) - 1
        if position < 0 or record[position].mod_revision != revision:
            raise InvariantViolation(f"no version of {key!r} was written at revision {revision}")
        prev = record[position - 1] if position else None
        return record[position], prev if prev is not None and prev.version else None

    def compact(self, key: bytes, compact_revision: int) -> None:
        """Drop the versions of `key` that no read at or above `compact_revision` can return."""
        record = self._record(key)
        if record is None:
            return
        if record[0].version and (len(record) == 1 or record[1].mod_revision > compact_revision):
            return  # only the oldest lies at or below, and it is still read
        record[:] = visible(record, compact_revision=compact_revision, revision=record[-1].mod_revision)
        if not record:
            del self._dead[key]

    def records_after(self, key: bytes, count: int) -> list[tuple[bytes, Record]]:
        """Up to `count` keys above `key` in order, deleted ones too, with their records."""
        exclusive = (False, True)
        live = islice(self._live.irange(key, inclusive=exclusive), count)
        dead = islice(self._dead.irange(key, inclusive=exclusive), count)
        names = sorted([*live, *dead])[:count]
        return [(name, self._live.get(name) or self._dead[name]) for name in names]

    def extend(self, key: bytes, versions: Record) -> None:
        """Add versions, oldest first, at least one, behind those that `key` has, as a snapshot holds them."""
        record = self._record(key)
        if record is not None:
            del (self._live if record[-1].version else self._dead)[key]
            versions = record + versions
        (self._live if versions[-1].version else self._dead)[key] = versions

    def discard(self, count: int) -> bool:
        """Free up to so many keys of each index; True once there are none."""
        for index in (self._live, self._dead):
            for _ in range(min(count, len(index))):
                index.popitem()
        return not self._live and not self._dead

    def _record(self, key: bytes) -> Record | None:
        record: Record | None = self._live.get(key)
        return self._dead.get(key) if record is None else record

    def _records(self, key: bytes, range_end: bytes) -> list[Record]:
        if not range_end:
            record = self._record(key)
            return [] if record is None else [record]
        names = sorted([*_keys_in(self._live, key, range_end), *_keys_in(self._dead, key, range_end)])
        return [self._live.get(name) or self._dead[name] for name in names]


def _keys_in(index: Any, key: bytes, range_end: bytes) -> Iterator[bytes]:
    """The keys of an interval in order; `range_end` as in raftkube.wire.store, but not b""."""
    if range_end == b"\x00":
        names: Iterator[bytes] = index.irange(key)
    elif range_end <= key:
        names = iter(())
    else:
        names = index.irange(key, range_end, inclusive=(True, False))
    return names
