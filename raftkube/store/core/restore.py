"""A snapshot's bytes as a state again, piece by piece, so that whoever builds it can do other things between.

Each function that yields is a build in slices: a slice is a few milliseconds of work, whatever the state
holds, and is measured by what it handles, never by a clock. Nothing is used before its section's checksum
held; the state as a whole is good only once the build has ended, for the last section has its hash.
"""

from __future__ import annotations

import zlib
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import islice
from typing import Any, Final, TypeVar

import msgpack

from raftkube.errors import InvariantViolation
from raftkube.store.core.history import EventHistory
from raftkube.store.core.keyspace import Keyspace
from raftkube.store.core.leases import LeaseTable
from raftkube.store.core.sessions import SessionCopy, SessionTable
from raftkube.store.core.snapshot import (
    ALARMS,
    EDGE,
    END,
    FORMAT,
    FORMATS_READ,
    HEADER,
    HISTORY,
    KEYS,
    LEASES,
    SESSIONS,
    Section,
)
from raftkube.store.core.space import Alarms, Space, version_bytes
from raftkube.wire.store import DELETE_EVENT, PUT_EVENT, Event, KeyValue, event_from_wire

_SLICE_ITEMS: Final = 1_024

Slices = Generator[None, None, None]
_Built = TypeVar("_Built")


@dataclass(slots=True)
class Image:
    """The state that a snapshot holds. `edge`: the events of the compact revision."""

    revision: int = 0
    compact_revision: int = 0
    keyspace: Keyspace = field(default_factory=Keyspace)
    leases: LeaseTable = field(default_factory=LeaseTable)
    sessions: SessionTable = field(default_factory=SessionTable)
    alarms: Alarms = field(default_factory=Alarms)
    space: Space = field(default_factory=lambda: Space(0))
    edge: list[Event] = field(default_factory=list)
    changes: list[list[bytes]] = field(default_factory=list)
    history: EventHistory = field(default_factory=lambda: EventHistory(0))


def build_image(chunks: Iterable[bytes]) -> Generator[None, None, Image]:
    """The content of a snapshot, however its bytes are cut. Raises InvariantViolation on any damage."""
    sections = verified_sections(chunks)
    nothing: tuple[int, Any] = (END, None)
    kind, header = next(sections, nothing)
    if kind != HEADER or header[0] not in FORMATS_READ:
        raise InvariantViolation(f"not a snapshot of format {FORMAT}")
    image = Image(revision=header[1], compact_revision=header[2])
    image.leases.first_renewal = header[3] if len(header) > 3 else 0
    image.space = Space(max(image.compact_revision, 1) + 1)
    for kind, items in sections:
        yield from _add_section(image, kind, items)
        yield
    yield from _add_history(image)
    return image


def _add_section(image: Image, kind: int, items: list[Any]) -> Slices:
    if kind == LEASES:
        for lease, ttl_s, renewal in items:
            image.leases.add(lease, ttl_s, renewal)
    elif kind == SESSIONS:
        for session, below, highest, results in items:
            image.sessions.load(SessionCopy(session, below, highest, results))
    elif kind == ALARMS:
        image.alarms.on = {(member, alarm) for member, alarm in items}
    elif kind == EDGE:
        image.edge += map(event_from_wire, items)
    elif kind == KEYS:
        yield from _add_keys(image, items)
    elif kind == HISTORY:
        image.changes += items
    else:
        raise InvariantViolation(f"the snapshot holds an unknown section ({kind})")


def _add_keys(image: Image, items: list[Any]) -> Slices:
    keyspace, edge = image.keyspace, image.compact_revision
    for number, (key, versions) in enumerate(items, 1):
        before = keyspace.get(key)  # its versions may have begun in an earlier section
        kvs = [KeyValue(key, *version) for version in versions]
        keyspace.extend(key, kvs)
        image.space.in_use += sum([version_bytes(kv) for kv in kvs if kv.mod_revision <= edge])
        image.leases.move(key, _lease(image, before), _lease(image, keyspace.get(key)))
        if not number % _SLICE_ITEMS:
            yield


def _lease(image: Image, newest: KeyValue | None) -> int:
    """What the newest version so far hangs on; if others follow, that lease may have ended since."""
    return newest.lease if newest is not None and newest.lease in image.leases else 0


def _add_history(image: Image) -> Slices:
    """The events that the keys and the order of changes imply."""
    first_change = image.revision + 1 - len(image.changes)
    history = image.history = EventHistory(first_change - bool(image.edge))
    if image.edge:
        history.append(tuple(image.edge))
    handled = 0
    for revision, keys in enumerate(image.changes, first_change):
        events: list[Event] = []
        remaining = iter(keys)  # a single revision may have changed every key
        while part := list(islice(remaining, _SLICE_ITEMS)):
            found = [_event(image.keyspace, key, revision) for key in part]
            image.space.grow(found)
            events += found
            handled += len(part)
            if handled >= _SLICE_ITEMS:
                handled = 0
                yield
        history.append(tuple(events))
        image.space.end_revision()


def _event(keyspace: Keyspace, key: bytes, revision: int) -> Event:
    kv, prev = keyspace.version(key, revision)
    return Event(PUT_EVENT if kv.version else DELETE_EVENT, kv, prev)


def verified_sections(chunks: Iterable[bytes]) -> Iterator[tuple[int, Any]]:
    """The sections but the last, unpacked; those seen so far are good each for itself, and the whole once
    the iterator has ended. Raises InvariantViolation on any damage."""
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


def all_at_once(slices: Generator[None, None, _Built]) -> _Built:
    """What the build returns, for whoever has nothing else to do meanwhile."""
    while True:
        try:
            next(slices)
        except StopIteration as done:
            built: _Built = done.value
            return built
