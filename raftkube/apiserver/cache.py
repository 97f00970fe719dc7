"""The watch cache: every object of the API in memory, fed by one watch of the store.

One store watch feeds all resources, so there is one revision for the whole cache: when it is at R, each
resource's objects are exactly those of the store at R. Each resource keeps its last events in a log;
watchers hold a cursor into it, never a queue, and whoever falls behind the log is ended.

A read that must be fresh asks the store for a progress mark: the answer is the store's revision, and a
mark of at least that revision comes behind all events up to it. Reads that arrive together share one
mark, asked for after they arrived.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final
from weakref import WeakValueDictionary

import structlog
import trio
from sortedcontainers import SortedDict

from raftkube.api.resource import Resource
from raftkube.apiserver.fan_out import FanOut, Follower
from raftkube.apiserver.storage import Storage, StorageWatch
from raftkube.apiserver.stored import Stored, decode
from raftkube.errors import Compacted, StoreError, WatchEnded
from raftkube.wire.store import PUT_EVENT, Event, KeyValue, Range, prefix_end

log = structlog.get_logger(__name__)

REGISTRY: Final = b"/registry/"
HISTORY_EVENTS: Final = 4_096
_LOAD_PAGE: Final = 500
_RETRY_S: Final = 0.2


class CacheEvent:
    """One change of one object, with its encoded forms: made when first asked for, shared by all watchers.

    A deletion has no `new`. `deleted` is what a watcher is shown when the object leaves its sight: the
    last state with the revision of this event.
    """

    __slots__ = ("_deleted", "forms", "new", "old", "revision")

    def __init__(self, revision: int, old: Stored | None, new: Stored | None) -> None:
        self.revision = revision
        self.old = old
        self.new = new
        self.forms: dict[Any, bytes] = {}
        self._deleted: Stored | None = None

    @property
    def deleted(self) -> Stored:
        if self._deleted is None:
            assert self.old is not None
            self._deleted = self.old.at(self.revision)
        return self._deleted


class ResourceCache:
    """The objects of one resource, and the events that led to them."""

    def __init__(self, resource: Resource, *, history: int) -> None:
        self.resource = resource
        self.prefix = resource.key_prefix().encode()
        self._history = history
        self._objects: SortedDict = SortedDict()
        self._events: list[CacheEvent] = []
        self._base = 0  # the position of _events[0]
        self._complete_after = 0  # every event above this revision is, or was, in the log
        self.followers: dict[Follower, None] = {}  # in the order of coming, whatever their hashes
        self.views: WeakValueDictionary[Any, Any] = WeakValueDictionary()  # of those who watch now
        self.listeners: list[Callable[[Stored | None, Stored | None], None]] = []

    def __len__(self) -> int:
        return len(self._objects)

    def get(self, key: bytes) -> Stored | None:
        """The object at a store key."""
        found: Stored | None = self._objects.get(key)
        return found

    def select(self, prefix: bytes) -> Iterable[Stored]:
        """All objects whose key starts with `prefix`, in order of keys."""
        if prefix == self.prefix:
            return list(map(self._objects.__getitem__, self._objects))
        keys = self._objects.irange(prefix, prefix_end(prefix), inclusive=(True, False))
        return [self._objects[key] for key in keys]

    def keys(self, start: bytes, end: bytes) -> Iterator[bytes]:
        """Of [start, end), in order; not to be changed meanwhile."""
        found: Iterator[bytes] = self._objects.irange(start, end, inclusive=(True, False))
        return found

    def count(self, start: bytes, end: bytes) -> int:
        """How many objects have keys in [start, end)."""
        return int(self._objects.bisect_left(end) - self._objects.bisect_left(start))

    @property
    def end_position(self) -> int:
        """Where the next event will stand."""
        return self._base + len(self._events)

    def position_after(self, revision: int) -> int | None:
        """Where to start for every event above `revision`; None if some of them are gone."""
        if revision < self._complete_after:
            return None
        low, high = 0, len(self._events)
        while low < high:
            middle = (low + high) // 2
            if self._events[middle].revision <= revision:
                low = middle + 1
            else:
                high = middle
        return self._base + low

    def events_from(self, position: int, count: int) -> list[CacheEvent] | None:
        """Up to `count` events from `position` on; None if it fell out of the log."""
        if position < self._base:
            return None
        start = position - self._base
        return self._events[start : start + count]

    def follow(self, follower: Follower) -> None:
        """Call `follower` from now on."""
        self.followers[follower] = None

    def unfollow(self, follower: Follower) -> None:
        """The opposite of `follow`."""
        self.followers.pop(follower, None)

    def apply(self, event: Event) -> None:
        """Take one event of the store."""
        key, revision = event.kv.key, event.kv.mod_revision
        old = self.get(key)
        if event.type == PUT_EVENT:
            new = decode(event.kv)
            self._objects[key] = new
        else:
            new = None
            self._objects.pop(key, None)
            if old is None:
                return
        self._events.append(CacheEvent(revision, old, new))
        for listener in self.listeners:
            listener(old, new)
        if len(self._events) > 2 * self._history:
            self._trim()

    def load(self, objects: Iterator[Stored], revision: int) -> None:
        """Start over from a whole state: whoever follows is ended, for there may be a gap."""
        old_objects, self._objects = self._objects, SortedDict((item.key, item) for item in objects)
        self._base = self.end_position
        self._events = []
        self._complete_after = revision
        for listener in self.listeners:
            for old in old_objects.values():
                listener(old, None)
            for new in self._objects.values():
                listener(None, new)
        for follower in list(self.followers):
            follower.end()

    def _trim(self) -> None:
        dropped = len(self._events) - self._history
        self._complete_after = self._events[dropped - 1].revision
        del self._events[:dropped]
        self._base += dropped


class WatchCache:
    """All resources. `run` keeps it up to date; `ready` is set when it has been loaded once."""

    def __init__(
        self, storage: Storage, resources: Iterable[Resource], *, history: int = HISTORY_EVENTS
    ) -> None:
        self._storage = storage
        self._caches = [ResourceCache(resource, history=history) for resource in resources]
        self._by_resource = {(c.resource.group, c.resource.plural): c for c in self._caches}
        self._by_prefix = {c.prefix: c for c in self._caches}
        self.revision = 0
        self.ready = trio.Event()
        self._advanced = trio.Event()
        self._marks = _Marks()
        self._fan_out = FanOut()

    def of(self, resource: Resource) -> ResourceCache:
        """The cache of one resource."""
        return self._by_resource[resource.group, resource.plural]

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Load, then follow the store until cancelled; `started` once loaded."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._fan_out.run)
            await self._keep_up(task_status)

    async def _keep_up(self, task_status: trio.TaskStatus[None]) -> None:
        started = False
        while True:
            try:
                if not self.revision:
                    await self._load()
                    self.ready.set()
                    if not started:
                        started = True
                        task_status.started()
                await self._follow()
            except Compacted:
                log.warning("watch_cache_starts_over", revision=self.revision)
                self.revision = 0
            except StoreError as error:
                log.warning("watch_cache_waits_for_the_store", error=error.message)
                await trio.sleep(_RETRY_S)

    async def fresh(self) -> None:
        """Wait until the cache holds everything that was committed before this call.

        Waits as long as the store does not answer: callers set a deadline.
        """
        revision = await self._marks.ask()
        await self.wait_for(revision)

    async def wait_for(self, revision: int) -> None:
        """Wait until the cache is at `revision` or beyond."""
        while self.revision < revision or not self.revision:
            await self._advanced.wait()

    async def _load(self) -> None:
        revision = 0
        for cache in self._caches:
            items: list[KeyValue] = []
            start, more = cache.prefix, True
            while more:
                page = Range(start, prefix_end(cache.prefix), revision=revision, limit=_LOAD_PAGE)
                found = await self._storage.range(page)
                revision = revision or found.revision
                items += found.kvs
                more = found.more
                start = found.kvs[-1].key + b"\x00" if found.kvs else start
            cache.load(map(decode, items), revision)
        self._advance(revision, self._caches)

    async def _follow(self) -> None:
        start = self.revision + 1
        failure: StoreError = WatchEnded("the storage ended the watch", revision=self.revision)
        async with self._storage.watch(REGISTRY, prefix_end(REGISTRY), start_revision=start) as watch:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._marks.serve, watch)
                try:
                    async for batch in watch:
                        self._advance(batch.revision, self._apply(batch.events))
                except StoreError as error:
                    failure = error
                nursery.cancel_scope.cancel()
        raise failure

    def _apply(self, events: tuple[Event, ...]) -> Iterable[ResourceCache]:
        """The caches that the events changed."""
        changed: dict[ResourceCache, None] = {}
        for event in events:
            cache = self._by_prefix.get(_resource_prefix(event.kv.key))
            if cache is not None:
                cache.apply(event)
                changed[cache] = None
        return changed

    def _advance(self, revision: int, changed: Iterable[ResourceCache]) -> None:
        self.revision = max(self.revision, revision)
        self._fan_out.tell(changed)
        self._advanced.set()
        self._advanced = trio.Event()


def _resource_prefix(key: bytes) -> bytes:
    """/registry/<group>/<resource>/ of a key."""
    parts = key.split(b"/", 4)
    return b"/".join(parts[:4]) + b"/" if len(parts) == 5 else b""


class _Marks:
    """Rounds of progress requests: those who ask while one is on its way share the next one."""

    def __init__(self) -> None:
        self._waiting: list[_Answer] = []
        self._wanted = trio.Event()

    async def ask(self) -> int:
        answer = _Answer()
        self._waiting.append(answer)
        self._wanted.set()
        try:
            await answer.event.wait()
        finally:
            if answer in self._waiting:
                self._waiting.remove(answer)
        return answer.revision

    async def serve(self, watch: StorageWatch) -> None:
        """Answer until cancelled; who is not answered yet waits for the next watch."""
        while True:
            if not self._waiting:
                self._wanted = trio.Event()
                await self._wanted.wait()
            round_ = list(self._waiting)
            try:
                revision = await watch.request_progress()
            except StoreError as error:
                log.debug("no_progress_mark", error=error.message)
                await trio.sleep(_RETRY_S)
                continue
            for answer in round_:
                answer.revision = revision
                answer.event.set()
                if answer in self._waiting:
                    self._waiting.remove(answer)


class _Answer:
    __slots__ = ("event", "revision")

    def __init__(self) -> None:
        self.event = trio.Event()
        self.revision = 0
