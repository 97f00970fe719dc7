"""Mutants of API servers, controllers and the scheduler, for the world `cluster`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from chaos.mutants.mutant import Mutant, Patch
from raftkube.api.metadata import generate_name
from raftkube.api.status import ApiError
from raftkube.apiserver.cache import ResourceCache, WatchCache
from raftkube.apiserver.fencing import Fences
from raftkube.apiserver.handlers import subresources
from raftkube.apiserver.object_store import Changed, ObjectStore
from raftkube.apiserver.store_storage import StoreStorage
from raftkube.apiserver.stored import Stored
from raftkube.client.endpoints import PODS
from raftkube.client.errors import IndefiniteApiError
from raftkube.client.informer import Informer
from raftkube.controllers.core import replica_set
from raftkube.controllers.garbage_collector import GarbageCollector
from raftkube.controllers.replica_set import ReplicaSetController
from raftkube.controllers.tracked import Tracked
from raftkube.rng import name_suffix
from raftkube.scheduler.binding import Binder
from raftkube.scheduler.core.cluster_view import ClusterView
from raftkube.scheduler.core.queue import SchedulingQueue

_Original = Callable[..., Any]


def _soon_unknown(original: _Original) -> _Original:
    def init(self: StoreStorage, client: Any, **options: Any) -> None:
        original(self, client, timeout_s=0.3)

    return init


def _cluster(name: str, what: str, *patches: Patch) -> Mutant:
    return Mutant(name, what, patches, world="cluster")


def _no_fence(original: _Original) -> _Original:
    return lambda self, user, info, headers, *, created="": None


def _bound_again(original: _Original) -> _Original:
    def bound(call: Any, stored: Stored, binding: Any) -> Any:
        unbound = {**stored.obj, "spec": {**stored.obj["spec"], "nodeName": ""}}
        return original(
            call, Stored(stored.key, unbound, stored.revision, stored.create_revision, stored.lease), binding
        )

    return bound


def _not_looked(original: _Original) -> _Original:
    async def look(self: Binder, pod: Any, node_name: str) -> str:
        return "failed"

    return look


def _kept_in_flight(original: _Original) -> _Original:
    def remove(self: SchedulingQueue, key: str, uid: str = "") -> None:
        waiting = self._pods.get(key)
        if uid or waiting is None or waiting.state not in ("popped", "backoff"):
            original(self, key, uid)

    return remove


def _not_assumed(original: _Original) -> _Original:
    def assume(self: ClusterView, pod: Any, node_name: str) -> None:
        self._assumed[pod.key] = pod.uid

    return assume


def _not_synced(original: _Original) -> _Original:
    async def wait_for_sync(self: Informer) -> None:
        if self.endpoint != PODS:
            await original(self)

    return wait_for_sync


def _not_caught_up(original: _Original) -> _Original:
    async def caught_up(self: Tracked) -> None:
        await self.informer.wait_until(0)

    return caught_up


def _not_fresh(original: _Original) -> _Original:
    async def fresh(self: WatchCache) -> None:
        await self.wait_for(1)

    return fresh


def _deleted_anyway(original: _Original) -> _Original:
    async def delete(self: Tracked, obj: Any, **options: Any) -> None:
        try:
            await original(self, obj, **options)
        except ApiError as error:
            if error.code != 409:
                raise
            bare = {**obj, "metadata": {**obj["metadata"], "uid": "", "resourceVersion": ""}}
            await original(self, bare, **options)

    return delete


def _any_position(original: _Original) -> _Original:
    def position_after(self: ResourceCache, revision: int) -> Any:
        return original(self, max(revision, self._complete_after))

    return position_after


def _followers_stay(original: _Original) -> _Original:
    def load(self: ResourceCache, objects: Any, revision: int) -> None:
        followers, self.followers = self.followers, {}
        original(self, objects, revision)
        self.followers = followers

    return load


def _owner_by_name(original: _Original) -> _Original:
    async def ask_for_owner(self: GarbageCollector, ref: Any, namespace: str) -> Any:
        tracked = self._by_kind.get((str(ref.get("apiVersion")), str(ref.get("kind"))))
        if tracked is None:
            return await original(self, ref, namespace)
        return await tracked.find(str(ref["name"]), namespace if tracked.endpoint.namespaced else "")

    return ask_for_owner


def _another_name(original: _Original) -> _Original:
    async def create_once(self: ReplicaSetController, owner: Any, pod: Any, *, doubtful: bool) -> None:
        for _ in range(3):
            try:
                await self._pods.create(pod)
                return
            except IndefiniteApiError:
                name = generate_name(replica_set.name_prefix(owner), name_suffix(self._rng))
                pod = replica_set.new_pod(owner, name)

    return create_once


def _unknown_is_done(original: _Original) -> _Original:
    async def carry_out(self: ObjectStore, stored: Stored, change: Any, guard: Any) -> Any:
        try:
            return await original(self, stored, change, guard)
        except ApiError as error:
            if error.code != 504 or change is None:
                raise
            revision = self._cache.revision
            obj = {**change.obj, "metadata": {**change.obj["metadata"], "resourceVersion": str(revision)}}
            done = Stored(stored.key, obj, revision, stored.create_revision, stored.lease)
            return Changed(done, removed=change.remove)

    return carry_out


MUTANTS: Final = (
    _cluster("no-fence", "the API server checks no fencing token", (Fences, "of", _no_fence)),
    _cluster(
        "bind-twice",
        "after a missing answer a pod is bound again, wherever there is room",
        (subresources, "_bound", _bound_again),
        (Binder, "_look", _not_looked),
        (SchedulingQueue, "remove", _kept_in_flight),
    ),
    _cluster(
        "forget-assumed",
        "what the scheduler has just decided does not count",
        (ClusterView, "assume", _not_assumed),
    ),
    _cluster(
        "act-before-sync",
        "control loops act before they know all pods",
        (Informer, "wait_for_sync", _not_synced),
    ),
    _cluster(
        "ignore-own-writes",
        "controllers act on caches without their own writes",
        (Tracked, "caught_up", _not_caught_up),
    ),
    _cluster("stale-lists", "lists come from a cache that may lag", (WatchCache, "fresh", _not_fresh)),
    _cluster(
        "delete-anyway",
        "a delete that is refused is repeated without preconditions",
        (Tracked, "delete", _deleted_anyway),
    ),
    _cluster(
        "resume-in-a-gap",
        "a watch resumes where history is gone",
        (ResourceCache, "position_after", _any_position),
    ),
    _cluster(
        "reload-in-silence",
        "watches go on over a reload of the watch cache",
        (ResourceCache, "load", _followers_stay),
    ),
    _cluster(
        "owner-by-name",
        "the garbage collector takes another object of an owner's name for the owner",
        (GarbageCollector, "_ask_for_owner", _owner_by_name),
    ),
    _cluster(
        "another-name",
        "a pod whose create was not answered is made again under another name",
        (ReplicaSetController, "_create_once", _another_name),
    ),
    _cluster(
        "unknown-is-done",
        "a change whose outcome is unknown after 0.3 s is acknowledged",
        (ObjectStore, "_carry_out", _unknown_is_done),
        (StoreStorage, "__init__", _soon_unknown),
    ),
)
