"""A state machine as bytes: what a snapshot holds, and what the state's hash is taken over.

A snapshot is a stream of sections, each the msgpack array [kind, crc32 of the payload, payload], with
the payload in msgpack itself:

    HEADER   [format, revision, compact_revision, first renewal of the next lease (since format 2)]
    LEASES   [[lease, ttl_s, renewal], ...]
    SESSIONS [[session, acknowledged_below, highest, [[sequence, packed result], ...]], ...], in the order
             of their last use
    ALARMS   [[member, alarm], ...]
    EDGE     the events of the compact revision, in order
    KEYS     [[key, [[value, create, mod, version, lease], ...]], ...]; a key may go on in the next one
    HISTORY  [[key, ...], ...]: for each later revision the keys that changed, in the order of its events
    END      [state hash]

Events above the compact revision are not stored: they are two neighbouring versions of a key. Those of
the compact revision are, since what they replaced is gone from the keys. The state hash is taken over
all payloads before the end; it covers what can be read, and nothing that waits to be trimmed. `restore`
reads it all back.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import islice
from typing import Any, Final, TypeVar

import msgpack

from raftkube.store.core.history import EventHistory, event_bytes
from raftkube.store.core.keyspace import Keyspace, visible
from raftkube.store.core.sessions import SessionCopy
from raftkube.wire.store import Event, KeyValue

FORMAT: Final = 2
FORMATS_READ: Final = frozenset((1, FORMAT))  # 1 had neither sessions nor alarms
HEADER: Final = 1
LEASES: Final = 2
EDGE: Final = 3
KEYS: Final = 4
HISTORY: Final = 5
END: Final = 6
SESSIONS: Final = 7
ALARMS: Final = 8

# Sections are cut by what they hold alone, so that equal states give equal bytes.
SECTION_BYTES: Final = 256 * 1024
_SECTION_ITEMS: Final = 1_024
_VERSION_OVERHEAD_BYTES: Final = 48
_RESULT_OVERHEAD_BYTES: Final = 8

Section = tuple[int, bytes]
_Item = TypeVar("_Item")


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Pin:
    """A revision that a snapshot is being taken of, with what has no versions copied.

    While it is referenced, nothing that is visible at it may be trimmed.
    """

    revision: int
    compact_revision: int
    leases: Sequence[tuple[int, int, int]]  # lease, ttl_s, renewal
    edge: tuple[Event, ...]
    sessions: Sequence[SessionCopy] = ()
    alarms: Sequence[tuple[str, str]] = ()
    first_renewal: int = 0


def snapshot_chunks(pin: Pin, keyspace: Keyspace, history: EventHistory) -> Iterator[bytes]:
    """The snapshot, a section at a time; the state may move on between them."""
    digest = blake2b(digest_size=8)
    for kind, payload in _sections(pin, keyspace, history):
        digest.update(payload)
        yield _frame(kind, payload)
    yield _frame(END, _pack([int.from_bytes(digest.digest(), "big")]))


def hash_state(pin: Pin, keyspace: Keyspace, history: EventHistory) -> int:
    """64 bits over everything that a snapshot would hold."""
    slices = hash_slices(pin, keyspace, history)
    while True:
        try:
            next(slices)
        except StopIteration as done:
            return int(done.value)


def hash_slices(pin: Pin, keyspace: Keyspace, history: EventHistory) -> Generator[None, None, int]:
    """As `hash_state`, a section at a time; the state may move on between them."""
    digest = blake2b(digest_size=8)
    for _, payload in _sections(pin, keyspace, history):
        digest.update(payload)
        yield
    return int.from_bytes(digest.digest(), "big")


def _sections(pin: Pin, keyspace: Keyspace, history: EventHistory) -> Iterator[Section]:
    yield HEADER, _pack([FORMAT, pin.revision, pin.compact_revision, pin.first_renewal])
    for batch in _batches(pin.leases):
        yield LEASES, _pack(batch)
    for sessions in _batches_by_size(pin.sessions, _session_bytes):
        yield SESSIONS, _pack(sessions)
    if pin.alarms:
        yield ALARMS, _pack(pin.alarms)
    for events in _batches_by_size(pin.edge, event_bytes):
        yield EDGE, _pack(events)
    yield from _key_sections(pin, keyspace)
    first = max(history.first, pin.compact_revision + 1)
    revisions = range(first, pin.revision + 1)
    changes = ([event.kv.key for event in history.at(revision)] for revision in revisions)
    for batch in _batches_by_size(changes, lambda keys: sum(map(len, keys))):
        yield HISTORY, _pack(batch)


def _session_bytes(session: SessionCopy) -> int:
    return sum([len(packed) + _RESULT_OVERHEAD_BYTES for _, packed in session.results])


def _key_sections(pin: Pin, keyspace: Keyspace) -> Iterator[Section]:
    entries: list[list[Any]] = []
    section_bytes = 0
    for key, versions in _pinned_records(pin, keyspace):
        entries.append([key, []])
        section_bytes += len(key)
        for kv in versions:
            entries[-1][1].append(kv[1:])
            section_bytes += len(kv.value) + _VERSION_OVERHEAD_BYTES
            if section_bytes >= SECTION_BYTES:
                yield KEYS, _pack(entries)
                entries, section_bytes = [[key, []]], len(key)
    if entries:
        yield KEYS, _pack(entries)


def _pinned_records(pin: Pin, keyspace: Keyspace) -> Iterator[tuple[bytes, list[KeyValue]]]:
    """Every key with the versions that are visible at the pin, in key order."""
    after = b""
    while batch := keyspace.records_after(after, _SECTION_ITEMS):
        after = batch[-1][0]
        for key, record in batch:
            versions = visible(record, compact_revision=pin.compact_revision, revision=pin.revision)
            if versions:
                yield key, versions


def _batches(items: Iterable[Any]) -> Iterator[list[Any]]:
    remaining = iter(items)
    while batch := list(islice(remaining, _SECTION_ITEMS)):
        yield batch


def _batches_by_size(items: Iterable[_Item], size_of: Callable[[_Item], int]) -> Iterator[list[_Item]]:
    """Few items are large, yet one revision may have changed a great deal: that one stands alone."""
    batch: list[_Item] = []
    batch_bytes = 0
    for item in items:
        batch.append(item)
        batch_bytes += size_of(item)
        if len(batch) == _SECTION_ITEMS or batch_bytes >= SECTION_BYTES:
            yield batch
            batch, batch_bytes = [], 0
    if batch:
        yield batch


def _frame(kind: int, payload: bytes) -> bytes:
    return _pack([kind, zlib.crc32(payload, kind), payload])


def _pack(content: Any) -> bytes:
    packed: bytes = msgpack.packb(content)
    return packed
