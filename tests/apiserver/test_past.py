"""Pages of the past, out of the cache and its log, are those of the state at that revision."""

from __future__ import annotations

import random

import orjson
import pytest

from raftkube.api.registry import find
from raftkube.apiserver.cache import ResourceCache
from raftkube.apiserver.past import page_at
from raftkube.apiserver.stored import Stored
from raftkube.wire.store import PUT_EVENT, Event, KeyValue, prefix_end

MAPS = find("", "v1", "configmaps")
assert MAPS is not None
PREFIX = MAPS.key_prefix("").encode()
State = dict[bytes, int]  # key → revision


def key_of(name: str) -> bytes:
    assert MAPS is not None
    return MAPS.key("default", name).encode()


def event(name: str, revision: int, *, put: bool = True) -> Event:
    obj = {"metadata": {"name": name, "namespace": "default"}, "data": {"v": str(revision)}}
    value = orjson.dumps(obj) if put else b""
    kind = PUT_EVENT if put else 1 - PUT_EVENT
    return Event(kind, KeyValue(key_of(name), value, revision, revision, 1, 0), None)


def written(seed: int, count: int, history: int = 4_096) -> tuple[ResourceCache, dict[int, State]]:
    """A cache after random writes, and the state at each revision."""
    assert MAPS is not None
    rng = random.Random(seed)
    cache = ResourceCache(MAPS, history=history)
    states: dict[int, State] = {1: {}}
    for revision in range(2, 2 + count):
        name = f"m{rng.randrange(12):02d}"
        state = dict(states[revision - 1])
        put = rng.random() < 0.6
        cache.apply(event(name, revision, put=put))
        if put:
            state[key_of(name)] = revision
        else:
            state.pop(key_of(name), None)
        states[revision] = state
    return cache, states


def odd(stored: Stored) -> bool:
    return int(stored.obj["data"]["v"]) % 2 == 1


def everything(_: Stored) -> bool:
    return True


@pytest.mark.parametrize("seed", range(8))
def test_pages_are_the_state_at_their_revision(seed: int) -> None:
    cache, states = written(seed, 80)
    rng = random.Random(seed)
    for revision, state in states.items():
        for keep in (everything, odd):
            limit = rng.randrange(0, 5)
            start, found = PREFIX, list[tuple[bytes, int]]()
            for _ in range(20):
                page = page_at(cache, start, prefix_end(PREFIX), revision=revision, limit=limit, keep=keep)
                assert page is not None
                assert not limit or len(page.items) <= limit
                found += [(stored.key, stored.revision) for stored in page.items]
                if page.next_start is None:
                    assert page.remaining == 0
                    break
                assert page.remaining == len([key for key in state if key >= page.next_start])
                start = page.next_start
            wanted = [(key, at) for key, at in sorted(state.items()) if keep is everything or at % 2]
            assert found == wanted


def test_what_the_log_has_lost_is_not_made_up() -> None:
    cache, states = written(1, 100, history=10)
    end = prefix_end(PREFIX)
    assert page_at(cache, PREFIX, end, revision=2, limit=0, keep=everything) is None
    newest = max(states)
    page = page_at(cache, PREFIX, end, revision=newest - 5, limit=0, keep=everything)
    assert page is not None
    assert {stored.key: stored.revision for stored in page.items} == states[newest - 5]


def test_another_range_is_left_out() -> None:
    cache, _ = written(3, 60)
    page = page_at(cache, key_of("m03"), key_of("m07"), revision=61, limit=0, keep=everything)
    assert page is not None
    assert all(key_of("m03") <= stored.key < key_of("m07") for stored in page.items)
