"""A state machine as bytes: what a snapshot holds, and what the state's hash is taken over.

A snapshot is a stream of sections, each the msgpack array [kind, crc32 of the payload, payload], with
the payload in msgpack itself:

    HEADER   [format, revision, compact_revision]
    LEASES   [[lease, ttl_s, renewal], ...]
    EDGE     the events of the compact revision, in order
    KEYS     [[key, [[value, create, mod, version, lease], ...]], ...]; a key may go on in the next one
    HISTORY  [[key, ...], ...]: for each later revision the keys that changed, in the order of its events
    END      [state hash]

Events above the compact revision are not stored: they are two neighbouring versions of a key. Those of
the compact revision are, since what they replaced is gone from the keys. The state hash is taken over
all payloads before the end; it covers what can be read, and nothing that waits to be trimmed.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import islice
from typing import Any, Final, TypeVar

import msgpack

from raftkube.errors import InvariantViolation
from raftkube.store.core.history import EventHistory, event_bytes
from raftkube.store.core.keyspace import Keyspace, visible
from raftkube.wire.store import DELETE_EVENT, PUT_EVENT, Event, KeyValue, event_from_wire

FORMAT: Final = 1
HEADER: Final = 1
LEASES: Final = 2
EDGE: Final = 3
KEYS: Final = 4
HISTORY: Final = 5
END: Final = 6

# Sections are cut by what they hold alone, so that equal states give equal bytes.
SECTION_BYTES: Final = 256 * 1024
_SECTION_ITEMS: Final = 1_024
_VERSION_OVERHEAD_BYTES: Final = 48

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


@dataclass(slots=True)
class Image:
    """The content of a snapshot."""

    revision: int
    compact_revision: int
    leases: list[list[int]] = field(default_factory=list)
    edge: list[Event] = field(default_factory=list)
    records: dict[bytes, list[KeyValue]] = field(default_factory=dict)
    changes: list[list[bytes]] = field(default_factory=list)


def snapshot_chunks(pin: Pin, keyspace: Keyspace, history: EventHistory) -> Iterator[bytes]:
    """The snapshot, a section at a time; the state may move on between them."""
    digest = blake2b(digest_size=8)
    for kind, payload in _sections(pin, keyspace, history):
        digest.update(payload)
        yield _frame(kind, payload)
    yield _frame(END, _pack([int.from_bytes(digest.digest(), "big")]))


def hash_state(pin: Pin, keyspace: Keyspace, history: EventHistory) -> int:
    """64 bits over everything that a snapshot would hold."""
    digest = blake2b(digest_size=8)
    for _, payload in _sections(pin, keyspace, history):
        digest.update(payload)
    return int.from_bytes(digest.digest(), "big")


def read_snapshot(chunks: Iterable[bytes]) -> Image:
    """The content of a snapshot, however its bytes are cut. Raises InvariantViolation on any damage."""
    sections = _verified_sections(chunks)
    nothing: tuple[int, Any] = (END, None)
    kind, header = next(sections, nothing)
    if kind != HEADER or header[0] != FORMAT:
        raise InvariantViolation(f"not a snapshot of format {FORMAT}")
    image = Image(revision=header[1], compact_revision=header[2])
    for kind, items in sections:
        _add_section(image, kind, items)
    return image


def history_of(image: Image, keyspace: Keyspace) -> EventHistory:
    """The events that the keys and the order of changes imply."""
    edge = [tuple(image.edge)] if image.edge else []
    first_change = image.revision + 1 - len(image.changes)
    history = EventHistory(first_change - len(edge))
    for events in edge:
        history.append(events)
    for revision, keys in enumerate(image.changes, first_change):
        history.append(tuple([_event(keyspace, key, revision) for key in keys]))
    return history


def _event(keyspace: Keyspace, key: bytes, revision: int) -> Event:
    kv, prev = keyspace.version(key, revision)
    return Event(PUT_EVENT if kv.version else DELETE_EVENT, kv, prev)


def _sections(pin: Pin, keyspace: Keyspace, history: EventHistory) -> Iterator[Section]:
    yield HEADER, _pack([FORMAT, pin.revision, pin.compact_revision])
    for batch in _batches(pin.leases):
        yield LEASES, _pack(batch)
    for events in _batches_by_size(pin.edge, event_bytes):
        yield EDGE, _pack(events)
    yield from _key_sections(pin, keyspace)
    first = max(history.first, pin.compact_revision + 1)
    revisions = range(first, pin.revision + 1)
    changes = ([event.kv.key for event in history.at(revision)] for revision in revisions)
    for batch in _batches_by_size(changes, lambda keys: sum(map(len, keys))):
        yield HISTORY, _pack(batch)


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


def _verified_sections(chunks: Iterable[bytes]) -> Iterator[tuple[int, Any]]:
    digest = blake2b(digest_size=8)
    ended = False
    for kind, payload in _unframed(chunks):
        if ended:
            raise InvariantViolation("the snapshot goes on after its end")
        content = msgpack.unpackb(payload)
        if kind == END:
            ended = True
            if content != [int.from_bytes(digest.digest(), "big")]:
                raise InvariantViolation("the snapshot does not have the hash of its state")
            continue
        digest.update(payload)
        yield kind, content
    if not ended:
        raise InvariantViolation("the snapshot is cut short")


def _unframed(chunks: Iterable[bytes]) -> Iterator[Section]:
    unpacker = msgpack.Unpacker(max_buffer_size=0)
    try:
        for chunk in chunks:
            unpacker.feed(chunk)
            for frame in unpacker:
                yield _checked(frame)
    except (ValueError, msgpack.exceptions.UnpackException) as error:
        raise InvariantViolation("the snapshot's framing is damaged") from error


def _checked(frame: Any) -> Section:
    match frame:
        case [int(kind), int(crc), bytes(payload)] if zlib.crc32(payload, kind) == crc:
            return kind, payload
    raise InvariantViolation("a section of the snapshot fails its checksum")


def _add_section(image: Image, kind: int, items: list[Any]) -> None:
    match kind:
        case 2:  # LEASES
            image.leases += items
        case 3:  # EDGE
            image.edge += map(event_from_wire, items)
        case 4:  # KEYS
            for key, versions in items:
                image.records.setdefault(key, []).extend([KeyValue(key, *version) for version in versions])
        case 5:  # HISTORY
            image.changes += items
        case _:
            raise InvariantViolation(f"the snapshot holds an unknown section ({kind})")


def _frame(kind: int, payload: bytes) -> bytes:
    return _pack([kind, zlib.crc32(payload, kind), payload])


def _pack(content: Any) -> bytes:
    packed: bytes = msgpack.packb(content)
    return packed
