"""Carries out the plans of `core.garbage` for every resource that is served.

There is no graph beside the caches: owners and dependents are found by their indexes. What the caches do
not show is asked of the server before anything is deleted for its absence.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import NamedTuple, assert_never

import structlog

from raftkube.api.metadata import ORPHAN_FINALIZER
from raftkube.client.cache import OWNER_UID, UID
from raftkube.client.endpoints import Endpoint, Object, split_key
from raftkube.client.work_queue import WorkQueue
from raftkube.controllers.core import garbage as core
from raftkube.controllers.core.garbage import OwnerState
from raftkube.controllers.core.owners import finalizers_patch, references, removal_patch, unblocking_patch
from raftkube.controllers.runtime import Context, carry_out
from raftkube.controllers.served import Served
from raftkube.controllers.tracked import Tracked

log = structlog.get_logger(__name__)


class Item(NamedTuple):
    """An object to look at, this very one by uid."""

    endpoint: Endpoint
    key: str
    uid: str


class GarbageCollector:
    """Keys are Items. Attach it when all caches are complete: what it does not find, it asks for."""

    name = "garbage-collector-controller"

    def __init__(self, context: Context, served: Iterable[Served]) -> None:
        self.queue: WorkQueue[Item] = WorkQueue(context.clock)
        self._tracked = {s.endpoint: context.tracked(s.endpoint) for s in served if s.collectable}
        self._by_kind = {(e.api_version, e.kind): t for e, t in self._tracked.items()}

    def attach(self) -> None:
        """Begin to listen; what is there already is looked at."""
        for tracked in self._tracked.values():
            tracked.on_change(partial(self._changed, tracked.endpoint))

    # What there is to look at ---------------------------------------------------------------

    def _changed(self, endpoint: Endpoint, old: Object | None, new: Object | None) -> None:
        if new is None:
            assert old is not None
            self._add_all(self._dependents(old["metadata"]["uid"]))
            self._add_waiting_owners(old)
            return
        refs_changed = old is None or references(old) != references(new)
        if refs_changed and not all(self._is_settled(ref) for ref in references(new)):
            self._add(endpoint, new)
        if old is not None and refs_changed:
            self._add_waiting_owners(old)
        if core.waits_to_orphan(new) or core.waits_for_dependents(new):
            self._add(endpoint, new)

    def _is_settled(self, ref: Object) -> bool:
        """Whether this owner is known to be there, and not on its way out."""
        owner = self._cached(str(ref.get("uid")))
        return owner is not None and not core.waits_for_dependents(owner[1])

    def _add_waiting_owners(self, obj: Object) -> None:
        for ref in references(obj):
            owner = self._cached(str(ref.get("uid")))
            if owner is not None and core.waits_for_dependents(owner[1]):
                self._add(*owner)

    def _add_all(self, found: Iterable[tuple[Endpoint, Object]]) -> None:
        for endpoint, obj in found:
            self._add(endpoint, obj)

    def _add(self, endpoint: Endpoint, obj: Object) -> None:
        metadata = obj["metadata"]
        namespace = metadata.get("namespace")
        key = f"{namespace}/{metadata['name']}" if namespace else metadata["name"]
        self.queue.add(Item(endpoint, key, metadata["uid"]))

    def _cached(self, uid: str) -> tuple[Endpoint, Object] | None:
        for endpoint, tracked in self._tracked.items():
            for obj in tracked.by_index(UID, uid):
                return endpoint, obj
        return None

    def _dependents(self, uid: str) -> list[tuple[Endpoint, Object]]:
        return [
            (endpoint, obj)
            for endpoint, tracked in self._tracked.items()
            for obj in tracked.by_index(OWNER_UID, uid)
        ]

    # One round ------------------------------------------------------------------------------

    async def reconcile(self, key: Item) -> None:
        """Decide on what the server says of the object and of owners that no cache shows."""
        tracked = self._tracked[key.endpoint]
        namespace, name = split_key(key.key)
        obj = await tracked.find(name, namespace)
        if obj is None or obj["metadata"]["uid"] != key.uid:
            return
        obj = {"apiVersion": key.endpoint.api_version, "kind": key.endpoint.kind, **obj}
        owners = {str(ref["uid"]): await self._owner_state(ref, namespace) for ref in references(obj)}
        dependents = self._dependents(key.uid)
        action = core.plan(obj, owners, [each for _, each in dependents])
        log.debug("garbage_plan", item=f"{key.endpoint.plural} {key.key}", action=type(action).__name__)
        await self._carry_out(tracked, obj, action)

    async def _owner_state(self, ref: Object, namespace: str) -> OwnerState:
        owner = self._cached(str(ref["uid"]))
        obj = owner[1] if owner is not None else await self._ask_for_owner(ref, namespace)
        if obj is None:
            return OwnerState.ABSENT
        return OwnerState.WAITING if core.waits_for_dependents(obj) else OwnerState.SOLID

    async def _ask_for_owner(self, ref: Object, namespace: str) -> Object | None:
        """The owner as the server has it; `ref` itself stands for one of which nothing can be proven: of a
        kind that is not served, or namespaced while its dependent is not."""
        tracked = self._by_kind.get((str(ref.get("apiVersion")), str(ref.get("kind"))))
        if tracked is None or (tracked.endpoint.namespaced and not namespace):
            return {"metadata": ref}
        found = await tracked.find(str(ref["name"]), namespace if tracked.endpoint.namespaced else "")
        return found if found is not None and found["metadata"]["uid"] == ref["uid"] else None

    async def _carry_out(self, tracked: Tracked, obj: Object, action: core.Action) -> None:
        match action:
            case core.Leave():
                pass
            case core.Disown(uids):
                await tracked.patch(obj, removal_patch(obj, uids))
            case core.Collect(propagation, unblock):
                if unblock:
                    obj = await tracked.patch(obj, unblocking_patch(obj))
                await tracked.delete(obj, propagation=propagation)
            case core.Visit(dependents):
                wanted = {each["metadata"]["uid"] for each in dependents}
                found = self._dependents(obj["metadata"]["uid"])
                self._add_all((e, each) for e, each in found if each["metadata"]["uid"] in wanted)
            case core.Finish(finalizer):
                await tracked.patch(obj, finalizers_patch(obj, finalizer))
            case core.Orphan():
                await self._orphan(tracked, obj)
            case _:
                assert_never(action)

    async def _orphan(self, tracked: Tracked, obj: Object) -> None:
        """Dependents are listed from the server: one that a cache does not show yet would be taken for
        garbage once its owner is gone."""
        metadata = obj["metadata"]
        for other in self._tracked.values():
            if metadata.get("namespace") and not other.endpoint.namespaced:
                continue
            listed = await other.client.list(other.endpoint, str(metadata.get("namespace") or ""))
            owned = [each for each in listed.items if _is_owned(each, metadata["uid"])]
            steps = [partial(_disown, other, each, metadata["uid"]) for each in owned]
            if (error := await carry_out(steps)) is not None:
                raise error
        await tracked.patch(obj, finalizers_patch(obj, ORPHAN_FINALIZER))


def _is_owned(obj: Object, uid: str) -> bool:
    return any(ref.get("uid") == uid for ref in references(obj))


async def _disown(tracked: Tracked, obj: Object, uid: str) -> None:
    await tracked.patch(obj, removal_patch(obj, [uid]))
