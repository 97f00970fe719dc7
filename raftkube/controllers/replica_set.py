"""Carries out the plans of `core.replica_set`.

A pod's name is drawn here and sent with its generateName, so that a create whose answer was lost can be
repeated without making a second pod. While it is not known whether a pod was made, its name is kept: the next
round asks for it before it counts, and makes no other before it has tried that name again.
"""

from __future__ import annotations

from functools import partial
from typing import Final

import structlog

from raftkube.api.metadata import generate_name
from raftkube.api.objects import section
from raftkube.api.selectors import label_selector_of
from raftkube.api.status import ApiError
from raftkube.client.cache import CONTROLLER_UID, NAMESPACE
from raftkube.client.endpoints import PODS, REPLICA_SETS, Object, Objects, object_key
from raftkube.client.errors import FencingTokenStale, IndefiniteApiError
from raftkube.client.work_queue import WorkQueue
from raftkube.controllers.core import replica_set as core
from raftkube.controllers.core.owners import (
    adoption_patch,
    controlled_by,
    controller_of,
    is_deleting,
    removal_patch,
)
from raftkube.controllers.runtime import Context, carry_out, namespace_ends
from raftkube.controllers.tracked import ORPHANS
from raftkube.rng import name_suffix

log = structlog.get_logger(__name__)

_FIRST_BATCH: Final = 1  # doubles while creates succeed (SlowStartInitialBatchSize)
_CREATE_ATTEMPTS: Final = 4


class ReplicaSetController:
    """Keys are those of ReplicaSets."""

    name = "replicaset-controller"

    def __init__(self, context: Context) -> None:
        self.queue: WorkQueue[str] = WorkQueue(context.clock)
        self._clock = context.clock
        self._rng = context.rng
        self._events = context.recorder(self.name)
        self._sets = context.tracked(REPLICA_SETS)
        self._pods = context.tracked(PODS)
        self._doubtful: dict[str, list[str]] = {}  # ReplicaSet's uid -> names of pods that may be there
        self._sets.on_change(self._set_changed)
        self._pods.on_change(self._pod_changed)

    # What there is to look at ---------------------------------------------------------------

    def _set_changed(self, old: Object | None, new: Object | None) -> None:
        if new is not None:
            self.queue.add(object_key(new))
        elif old is not None:
            self._doubtful.pop(old["metadata"]["uid"], None)

    def _pod_changed(self, old: Object | None, new: Object | None) -> None:
        for pod in (old, new):
            ref = controller_of(pod) if pod is not None else None
            if pod is not None and ref is not None and ref.get("kind") == REPLICA_SETS.kind:
                self.queue.add(f"{pod['metadata']['namespace']}/{ref['name']}")
        if new is not None and controller_of(new) is None and not is_deleting(new):
            self._look_for_adopters(new)

    def _look_for_adopters(self, pod: Object) -> None:
        labels = section(pod["metadata"], "labels")
        for replica_set in self._sets.by_index(NAMESPACE, pod["metadata"]["namespace"]):
            if label_selector_of(replica_set["spec"].get("selector")).matches(labels):
                self.queue.add(object_key(replica_set))

    # One round ------------------------------------------------------------------------------

    async def reconcile(self, key: str) -> None:
        """Claim, create or delete pods, then report."""
        await self._sets.caught_up()
        replica_set = self._sets.get_key(key)
        if replica_set is None:
            return
        await self._resolve_doubts(replica_set)
        await self._pods.caught_up()
        planned = core.plan(self._observe(replica_set), now=self._clock.wall())
        await self._claim(replica_set, planned)
        error = await self._scale(replica_set, planned)
        await self._report(replica_set, planned, error)
        if error is not None:
            raise error

    def _observe(self, replica_set: Object) -> core.Observed:
        metadata = replica_set["metadata"]
        candidates = self._pods.by_index(CONTROLLER_UID, metadata["uid"])
        candidates += self._pods.by_index(ORPHANS, metadata["namespace"])
        related = self._related(replica_set) if len(candidates) > core.replicas_of(replica_set) else []
        return core.Observed(replica_set, candidates, related or candidates)

    def _related(self, replica_set: Object) -> Objects:
        """Pods of all ReplicaSets under the same controller."""
        ref = controller_of(replica_set)
        siblings = self._sets.by_index(CONTROLLER_UID, ref["uid"]) if ref else []
        return [
            pod for each in siblings for pod in self._pods.by_index(CONTROLLER_UID, each["metadata"]["uid"])
        ]

    async def _claim(self, replica_set: Object, planned: core.Plan) -> None:
        if planned.adopt and await self._may_adopt(replica_set):
            for pod in planned.adopt:
                await self._pods.patch(pod, adoption_patch(replica_set, pod))
        for pod in planned.release:
            await self._pods.patch(pod, removal_patch(pod, [replica_set["metadata"]["uid"]]))

    async def _may_adopt(self, replica_set: Object) -> bool:
        """Ask the server: what is being deleted must not gather pods. Raises ApiError 409: it must not."""
        fresh = await self._sets.read(replica_set)
        if fresh is None or is_deleting(fresh):
            raise ApiError(409, "Conflict", f"{object_key(replica_set)} is being deleted and adopts nothing")
        return True

    async def _scale(self, replica_set: Object, planned: core.Plan) -> ApiError | None:
        if planned.create:
            return await self._create(replica_set, planned.create)
        return await carry_out([partial(self._delete_pod, replica_set, pod) for pod in planned.delete])

    async def _report(self, replica_set: Object, planned: core.Plan, error: ApiError | None) -> None:
        now = self._clock.wall()
        failure = "" if error is None or error.code == 409 else error.message
        status = core.next_status(replica_set, planned, failure, now=now)
        if core.status_changed(replica_set, status):
            await self._sets.update_status(replica_set | {"status": status})
        after_s = core.recheck_after_s(replica_set, planned.active, now=now)
        if after_s is not None:
            self.queue.add_after(object_key(replica_set), after_s)

    # Pods -----------------------------------------------------------------------------------

    async def _resolve_doubts(self, replica_set: Object) -> None:
        """What is there must be in the cache before anything is counted. Raises ApiError: no answer."""
        names = self._doubtful.get(replica_set["metadata"]["uid"], [])
        for name in list(names):
            found = await self._pods.find(name, replica_set["metadata"]["namespace"])
            if found is not None:
                self._pods.wrote(found)
                names.remove(name)

    async def _create(self, replica_set: Object, count: int) -> ApiError | None:
        """In batches that double, so that a quota or a broken template costs one refusal, not hundreds."""
        batch, left = _FIRST_BATCH, count
        while left > 0:
            size = min(batch, left)
            error = await carry_out([partial(self._create_pod, replica_set)] * size)
            if error is not None:
                return None if namespace_ends(error) else error
            left -= size
            batch *= 2
        return None

    async def _create_pod(self, replica_set: Object) -> None:
        doubtful = self._doubtful.get(replica_set["metadata"]["uid"])
        name = doubtful.pop() if doubtful else None
        pod = core.new_pod(replica_set, name or self._new_name(replica_set))
        try:
            await self._create_once(replica_set, pod, doubtful=name is not None)
        except FencingTokenStale:
            raise
        except ApiError as error:
            if not namespace_ends(error):
                self._events.warning(replica_set, "FailedCreate", f"Error creating: {error.message}")
            raise
        self._events.normal(replica_set, "SuccessfulCreate", f"Created pod: {pod['metadata']['name']}")

    def _new_name(self, replica_set: Object) -> str:
        return generate_name(core.name_prefix(replica_set), name_suffix(self._rng))

    async def _create_once(self, replica_set: Object, pod: Object, *, doubtful: bool) -> None:
        """Create under this name; after a missing answer again, until it is known to be there.

        doubtful: it may be there already. That a repetition is refused says nothing of what came before it.
        """
        try:
            for attempt in range(_CREATE_ATTEMPTS):
                try:
                    await self._pods.create(pod)
                    return
                except IndefiniteApiError:
                    doubtful = True
                    if attempt + 1 == _CREATE_ATTEMPTS:
                        raise
        except ApiError as error:
            taken = error.reason == "AlreadyExists"
            if doubtful or taken:
                uid = replica_set["metadata"]["uid"]
                self._doubtful.setdefault(uid, []).append(pod["metadata"]["name"])
            if not taken:
                raise
            await self._recognize(replica_set, pod, error)

    async def _recognize(self, replica_set: Object, pod: Object, error: ApiError) -> None:
        """The name is taken: by us, through a create whose answer was lost, or (raises) by another."""
        found = await self._pods.find(pod["metadata"]["name"], pod["metadata"]["namespace"])
        names = self._doubtful.get(replica_set["metadata"]["uid"], [])
        if pod["metadata"]["name"] in names:
            names.remove(pod["metadata"]["name"])
        if found is None or not controlled_by(found, replica_set):
            raise error
        self._pods.wrote(found)

    async def _delete_pod(self, replica_set: Object, pod: Object) -> None:
        name = pod["metadata"]["name"]
        try:
            await self._pods.delete(pod)
        except FencingTokenStale:
            raise
        except ApiError as error:
            if error.code != 409:  # it changed: the next round chooses again
                self._events.warning(replica_set, "FailedDelete", f"Error deleting: {error.message}")
            raise
        self._events.normal(replica_set, "SuccessfulDelete", f"Deleted pod: {name}")
