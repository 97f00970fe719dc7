"""A cache of one resource that follows the API, tells handlers of changes, and knows how far it is.

Level-based: a handler hears that an object changed, with its last known states; several changes may arrive
as one, and after a gap (410) the differences between the old cache and the new list are what it hears.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import structlog
import trio

from raftkube.client.cache import Cache, IndexFunction
from raftkube.client.endpoints import Endpoint, Object, Objects, object_key, revision_of
from raftkube.client.reflector import Reflector, Scope
from raftkube.client.rest import RestClient
from raftkube.client.watch import WatchEvent
from raftkube.rng import Rng

log = structlog.get_logger(__name__)

Handler = Callable[[Object | None, Object | None], None]


class Informer:
    """`run` it in a nursery; read it through `get`, `list`, `by_index`. Objects are shared: copy before
    changing one."""

    def __init__(
        self,
        client: RestClient,
        endpoint: Endpoint,
        *,
        rng: Rng,
        namespace: str = "",
        label_selector: str = "",
        field_selector: str = "",
        indexes: Mapping[str, IndexFunction] | None = None,
    ) -> None:
        """indexes: name → function that gives an object's values; see `raftkube.client.cache.INDEXES`."""
        self.endpoint = endpoint
        scope = Scope(endpoint, namespace, label_selector, field_selector)
        self._reflector = Reflector(client, scope, self, rng)
        self._cache = Cache(indexes)
        self._handlers: list[Handler] = []
        self._synced = trio.Event()
        self._revision = 0
        self._written = 0
        self._advanced = trio.lowlevel.ParkingLot()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Follow until cancelled; `started` is called once the cache is complete."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._reflector.run)
            await self._synced.wait()
            task_status.started()

    # Reading --------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._cache)

    def get(self, name: str, namespace: str = "") -> Object | None:
        """The object of this name."""
        return self._cache.get(f"{namespace}/{name}" if namespace else name)

    def get_key(self, key: str) -> Object | None:
        """The object of this `object_key`."""
        return self._cache.get(key)

    def list(self) -> Objects:
        """All objects."""
        return self._cache.list()

    def by_index(self, index: str, value: str) -> Objects:
        """The objects for which this index has this value. KeyError: no such index."""
        return self._cache.by_index(index, value)

    # Following ------------------------------------------------------------------------------

    def on_change(self, handler: Handler) -> None:
        """Call `handler(old, new)` for each change: old is None for a new object, new for one that went.

        A handler only takes note (adds to a queue); it must not wait nor raise. What the cache holds
        already is told at once.
        """
        self._handlers.append(handler)
        for obj in self._cache.list():
            handler(None, obj)

    def add_handlers(
        self,
        *,
        added: Callable[[Object], None] | None = None,
        updated: Callable[[Object, Object], None] | None = None,
        deleted: Callable[[Object], None] | None = None,
    ) -> None:
        """The same by kind of change: added(new), updated(old, new), deleted(last known state)."""

        def dispatch(old: Object | None, new: Object | None) -> None:
            if old is None and new is not None:
                if added is not None:
                    added(new)
            elif old is not None and new is None:
                if deleted is not None:
                    deleted(old)
            elif old is not None and new is not None and updated is not None:
                updated(old, new)

        self.on_change(dispatch)

    @property
    def synced(self) -> bool:
        """Whether the first list is in."""
        return self._synced.is_set()

    async def wait_for_sync(self) -> None:
        """Wait until the first list is in."""
        await self._synced.wait()

    @property
    def revision(self) -> int:
        """The resourceVersion up to which the cache is complete, 0 before the first list."""
        return self._revision

    async def wait_until(self, resource_version: str | int) -> None:
        """Wait until the cache holds everything up to `resource_version`."""
        wanted = int(resource_version)
        await trio.lowlevel.checkpoint()
        while self._revision < wanted:
            await self._advanced.park()

    def wrote(self, obj: Object) -> None:
        """Remember the answer to a write of ours, for `wait_for_writes`."""
        self._written = max(self._written, revision_of(obj))

    async def wait_for_writes(self) -> None:
        """Wait until the cache holds all of our own writes (see `wrote`), so that a reconcile does not
        act twice on one observation. Source: Kubernetes 1.36's workload controllers."""
        await self.wait_until(self._written)

    # Sink of the reflector ------------------------------------------------------------------

    def replace(self, objects: Objects, resource_version: str) -> None:
        gone = dict.fromkeys(self._cache.keys())
        for obj in objects:
            gone.pop(object_key(obj), None)
            self._put(obj)
        for key in gone:
            self._remove(key)
        self._advance(resource_version)
        self._synced.set()

    def apply(self, event: WatchEvent) -> None:
        if event.type == "DELETED":
            self._remove(object_key(event.object), event.object)
        else:
            self._put(event.object)
        self._advance(event.object["metadata"]["resourceVersion"])

    def progress(self, resource_version: str) -> None:
        self._advance(resource_version)

    def _put(self, obj: Object) -> None:
        old = self._cache.put(obj)
        if old is not None and old["metadata"].get("uid") != obj["metadata"].get("uid"):
            self._tell(old, None)  # deleted and created anew while nobody looked
            old = None
        if old is None or revision_of(old) != revision_of(obj):
            self._tell(old, obj)

    def _remove(self, key: str, last: Object | None = None) -> None:
        old = self._cache.remove(key)
        if old is not None:
            self._tell(last or old, None)

    def _tell(self, old: Object | None, new: Object | None) -> None:
        for handler in self._handlers:
            handler(old, new)

    def _advance(self, resource_version: str) -> None:
        self._revision = max(self._revision, int(resource_version))
        self._advanced.unpark_all()
