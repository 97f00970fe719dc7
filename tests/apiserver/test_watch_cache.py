"""The watch cache against the storage it follows: same state at each revision, no event lost, ends told."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import orjson
import pytest
import trio

from raftkube.api.registry import RESOURCES, find
from raftkube.api.resource import Resource
from raftkube.apiserver.cache import ResourceCache, WatchCache
from raftkube.apiserver.memory_storage import MemoryStorage
from raftkube.apiserver.storage import StorageWatch, WatchBatch
from raftkube.errors import Compacted, NoLeader
from raftkube.rng import seeded_rng
from raftkube.wire.store import DeleteRange, Put, Range, Txn, prefix_end


def resource(plural: str) -> Resource:
    found = find("", "v1", plural)
    assert found is not None
    return found


CONFIG_MAPS, PODS = resource("configmaps"), resource("pods")


def put(kind: Resource, name: str, value: int = 0) -> Put:
    obj = {"metadata": {"name": name, "namespace": "default"}, "data": {"v": str(value)}}
    return Put(kind.key("default", name).encode(), orjson.dumps(obj))


class Follower:
    """Collects what a watcher would: every event, in order."""

    def __init__(self, log: ResourceCache) -> None:
        self.log = log
        self.position = log.end_position
        self.seen: list[tuple[int, str | None, str | None]] = []
        self.ended = trio.Event()
        log.follow(self)

    def advance(self) -> None:
        events = self.log.events_from(self.position, 1_000)
        assert events is not None
        self.position += len(events)
        for event in events:
            names = [stored.obj["data"]["v"] if stored else None for stored in (event.old, event.new)]
            self.seen.append((event.revision, names[0], names[1]))

    def end(self) -> None:
        self.ended.set()


class Faulty(MemoryStorage):
    """Its watches end with `errors`, one after the other, when told to."""

    def __init__(self) -> None:
        super().__init__(seeded_rng(1))
        self.errors: list[Exception] = []
        self.silent = False
        self._end = trio.Event()

    def end_watches(self, error: Exception) -> None:
        self.errors.append(error)
        self._end.set()

    @asynccontextmanager
    async def watch(
        self, key: bytes, range_end: bytes, *, start_revision: int
    ) -> AsyncIterator[StorageWatch]:
        async with super().watch(key, range_end, start_revision=start_revision) as inner:
            yield _FaultyWatch(self, inner)


class _FaultyWatch:
    def __init__(self, storage: Faulty, inner: StorageWatch) -> None:
        self._storage = storage
        self._inner = inner

    async def request_progress(self) -> int:
        if self._storage.silent:
            await trio.sleep_forever()
        return await self._inner.request_progress()

    async def __aiter__(self) -> AsyncIterator[WatchBatch]:
        inner = aiter(self._inner)
        while True:
            batch: WatchBatch | None = None
            async with trio.open_nursery() as nursery:

                async def end(scope: trio.CancelScope = nursery.cancel_scope) -> None:
                    await self._storage._end.wait()
                    scope.cancel()

                nursery.start_soon(end)
                batch = await anext(inner)
                nursery.cancel_scope.cancel()
            if self._storage.errors:
                self._storage._end = trio.Event()
                raise self._storage.errors.pop(0)
            if batch is not None:
                yield batch


@asynccontextmanager
async def cached(storage: MemoryStorage, history: int = 1_000) -> AsyncIterator[WatchCache]:
    cache = WatchCache(storage, RESOURCES, history=history)
    async with trio.open_nursery() as nursery:
        await nursery.start(cache.run)
        with trio.fail_after(20):
            yield cache
        nursery.cancel_scope.cancel()


async def state(storage: MemoryStorage, kind: Resource, revision: int) -> dict[bytes, tuple[str, int]]:
    prefix = kind.key_prefix().encode()
    found = await storage.range(Range(prefix, prefix_end(prefix), revision=revision))
    return {kv.key: (orjson.loads(kv.value)["data"]["v"], kv.mod_revision) for kv in found.kvs}


def state_of(log: ResourceCache) -> dict[bytes, tuple[str, int]]:
    return {item.key: (item.obj["data"]["v"], item.revision) for item in log.select(log.prefix)}


@pytest.mark.parametrize("seed", range(5))
async def test_the_cache_is_the_storage_at_its_revision(seed: int) -> None:
    print(f"seed {seed}")
    rng, storage = random.Random(seed), MemoryStorage(seeded_rng(seed))
    for number in range(1_200):  # more than a page to load
        await storage.txn(Txn((), (put(PODS, f"p{number}"),)))
    async with cached(storage) as cache:
        follower = Follower(cache.of(CONFIG_MAPS))
        for number in range(300):
            names = rng.sample("abcdefgh", rng.randrange(1, 4))
            ops = [
                put(rng.choice((CONFIG_MAPS, PODS)), name, number) if rng.random() < 0.7
                else DeleteRange(CONFIG_MAPS.key("default", name).encode())
                for name in names
            ]  # fmt: skip
            await storage.txn(Txn((), tuple(ops)))
            if rng.random() < 0.2:
                await cache.fresh()
                assert cache.revision == await storage.current_revision()
                for kind in (CONFIG_MAPS, PODS):
                    assert state_of(cache.of(kind)) == await state(storage, kind, cache.revision)
        await cache.fresh()
        replayed: dict[str | None, int] = {}
        for revision, old, new in follower.seen:
            assert old != new or old is None
            replayed[new] = revision
        revisions = [revision for revision, _, _ in follower.seen]
        assert revisions == sorted(revisions)
        log = cache.of(CONFIG_MAPS)
        start = log.position_after(revisions[10])
        assert start is not None
        later = log.events_from(start, 10_000)
        assert later is not None
        assert [event.revision for event in later] == [r for r in revisions if r > revisions[10]]


async def test_fresh_knows_of_what_was_committed_before() -> None:
    storage = MemoryStorage(seeded_rng(1))
    async with cached(storage) as cache:
        for number in range(50):
            done = await storage.txn(Txn((), (put(CONFIG_MAPS, "a", number),)))
            await cache.fresh()
            assert cache.revision >= done.revision
            found = cache.of(CONFIG_MAPS).get(CONFIG_MAPS.key("default", "a").encode())
            assert found is not None
            assert found.obj["data"]["v"] == str(number)
            assert found.obj["metadata"]["resourceVersion"] == str(done.revision)
        # A change outside of /registry brings no event, only the mark.
        elsewhere = await storage.txn(Txn((), (Put(b"/other", b"x"),)))
        await cache.fresh()
        assert cache.revision >= elsewhere.revision


async def test_many_who_wait_share_marks() -> None:
    class Counting(Faulty):
        marks = 0

    storage = Counting()
    original = _FaultyWatch.request_progress

    async def counted(self: _FaultyWatch) -> int:
        Counting.marks += 1
        return await original(self)

    async with cached(storage) as cache:
        _FaultyWatch.request_progress = counted  # type: ignore[method-assign]
        try:
            async with trio.open_nursery() as nursery:
                for _ in range(100):
                    nursery.start_soon(cache.fresh)
        finally:
            _FaultyWatch.request_progress = original  # type: ignore[method-assign]
    assert 1 <= Counting.marks <= 3


async def test_a_broken_watch_goes_on_without_gap() -> None:
    storage = Faulty()
    async with cached(storage) as cache:
        follower = Follower(cache.of(CONFIG_MAPS))
        for number in range(10):
            await storage.txn(Txn((), (put(CONFIG_MAPS, "a", number),)))
            if number == 5:
                storage.end_watches(NoLeader("nobody leads"))
        await cache.fresh()
        assert [new for _, _, new in follower.seen] == [str(number) for number in range(10)]
        assert not follower.ended.is_set()


async def test_a_compacted_watch_starts_over_and_ends_who_follows() -> None:
    storage = Faulty()
    async with cached(storage) as cache:
        await storage.txn(Txn((), (put(CONFIG_MAPS, "a"), put(CONFIG_MAPS, "b"))))
        await cache.fresh()
        log = cache.of(CONFIG_MAPS)
        before, follower = cache.revision, Follower(log)
        storage.end_watches(Compacted("gone", compact_revision=1))
        await storage.txn(Txn((), (DeleteRange(CONFIG_MAPS.key("default", "a").encode()),)))
        await follower.ended.wait()
        await cache.fresh()
        assert list(state_of(log)) == [CONFIG_MAPS.key("default", "b").encode()]
        assert log.position_after(before) is None
        assert log.position_after(cache.revision) == log.end_position


async def test_the_log_is_bounded_and_knows_what_it_lost() -> None:
    storage = MemoryStorage(seeded_rng(1))
    async with cached(storage, history=10) as cache:
        start = cache.revision
        for number in range(100):
            await storage.txn(Txn((), (put(CONFIG_MAPS, "a", number),)))
        await cache.fresh()
        log = cache.of(CONFIG_MAPS)
        assert log.position_after(start) is None
        assert log.events_from(0, 1) is None
        position = log.position_after(cache.revision - 5)
        assert position is not None
        kept = log.events_from(position, 100)
        assert kept is not None
        assert [event.revision for event in kept] == list(range(cache.revision - 4, cache.revision + 1))


async def test_listeners_hear_every_change_and_every_start_over() -> None:
    storage = Faulty()
    async with cached(storage) as cache:
        heard: dict[str, str] = {}

        def listen(old: object, new: object) -> None:
            for item, keep in ((old, False), (new, True)):
                if item is not None:
                    name = item.obj["metadata"]["name"]  # type: ignore[attr-defined]
                    heard.pop(name, None)
                    if keep:
                        heard[name] = item.obj["data"]["v"]  # type: ignore[attr-defined]

        log = cache.of(CONFIG_MAPS)
        log.listeners.append(listen)
        follower = Follower(log)
        await storage.txn(Txn((), (put(CONFIG_MAPS, "a", 1), put(CONFIG_MAPS, "b", 2))))
        await cache.fresh()
        assert heard == {"a": "1", "b": "2"}
        storage.end_watches(Compacted("gone", compact_revision=1))
        await storage.txn(Txn((), (DeleteRange(CONFIG_MAPS.key("default", "a").encode()),)))
        await follower.ended.wait()
        await cache.fresh()
        assert heard == {"b": "2"}
