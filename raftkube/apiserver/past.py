"""A resource's objects as they were: what is in the cache, without the events that came later.

The log of a watch cache holds each event with the state before it. So a page of a list that began at a
revision is made of the objects as they are, but for those few that have changed since.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from raftkube.apiserver.cache import ResourceCache
from raftkube.apiserver.stored import Stored


class PastPage(NamedTuple):
    """Objects in order of keys. next_start: the key to go on from, if any is left; remaining: how many keys
    of the range are left, selected or not."""

    items: list[Stored]
    next_start: bytes | None
    remaining: int


def page_at(
    cache: ResourceCache,
    start: bytes,
    end: bytes,
    *,
    revision: int,
    limit: int,
    keep: Callable[[Stored], bool],
) -> PastPage | None:
    """The first `limit` (0: all) objects of [start, end) at `revision` that `keep` takes.

    `revision` is one that the cache has reached. None: the log no longer goes back to it.
    """
    before = _states_before(cache, revision)
    if before is None:
        return None
    changed = {key: stored for key, stored in before.items() if start <= key < end}
    items: list[Stored] = []
    seen = 0
    total = cache.count(start, end) + sum(
        (stored is not None) - (cache.get(key) is not None) for key, stored in changed.items()
    )
    for stored in _objects(cache, changed, start, end):
        if not keep(stored):
            seen += 1
        elif limit and len(items) == limit:
            return PastPage(items, stored.key, total - seen)
        else:
            items.append(stored)
            seen += 1
    return PastPage(items, None, 0)


def _states_before(cache: ResourceCache, revision: int) -> dict[bytes, Stored | None] | None:
    """What changed after `revision` → its state then."""
    position = cache.position_after(revision)
    events = None if position is None else cache.events_from(position, cache.end_position - position)
    if events is None:
        return None
    states: dict[bytes, Stored | None] = {}
    for event in events:
        stored = event.new or event.old
        if stored is not None:
            states.setdefault(stored.key, event.old)
    return states


def _objects(
    cache: ResourceCache, changed: dict[bytes, Stored | None], start: bytes, end: bytes
) -> Iterator[Stored]:
    """In order of keys; those that are gone since stand only in `changed`."""
    gone = iter(sorted(key for key in changed if cache.get(key) is None))
    next_gone = next(gone, None)
    for key in cache.keys(start, end):
        while next_gone is not None and next_gone < key:
            yield from _if_any(changed[next_gone])
            next_gone = next(gone, None)
        yield from _if_any(changed[key] if key in changed else cache.get(key))
    while next_gone is not None:
        yield from _if_any(changed[next_gone])
        next_gone = next(gone, None)


def _if_any(stored: Stored | None) -> tuple[Stored, ...]:
    return () if stored is None else (stored,)
