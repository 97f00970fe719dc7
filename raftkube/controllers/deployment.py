"""Carries out the plans of `core.deployment`."""

from __future__ import annotations

from typing import assert_never

import structlog

from raftkube.api.objects import section
from raftkube.api.selectors import label_selector_of
from raftkube.api.status import ApiError
from raftkube.client.cache import CONTROLLER_UID, NAMESPACE
from raftkube.client.endpoints import DEPLOYMENTS, PODS, REPLICA_SETS, Object, object_key
from raftkube.client.errors import FencingTokenStale, IndefiniteApiError
from raftkube.client.work_queue import WorkQueue
from raftkube.controllers.core import deployment as core
from raftkube.controllers.core.owners import adoption_patch, controller_of, is_deleting, removal_patch
from raftkube.controllers.core.rollout import is_rolling
from raftkube.controllers.runtime import Context, namespace_ends
from raftkube.controllers.tracked import ORPHANS

log = structlog.get_logger(__name__)


class _Stop(Exception):
    """The rest of the round does not hold any more; the next one starts from what is then observed."""


class DeploymentController:
    """Keys are those of Deployments."""

    name = "deployment-controller"

    def __init__(self, context: Context) -> None:
        self.queue: WorkQueue[str] = WorkQueue(context.clock)
        self._clock = context.clock
        self._events = context.recorder(self.name)
        self._deployments = context.tracked(DEPLOYMENTS)
        self._sets = context.tracked(REPLICA_SETS)
        self._pods = context.tracked(PODS)
        self._deployments.on_change(self._deployment_changed)
        self._sets.on_change(self._set_changed)
        self._pods.on_change(self._pod_changed)

    # What there is to look at ---------------------------------------------------------------

    def _deployment_changed(self, old: Object | None, new: Object | None) -> None:
        if new is not None:
            self.queue.add(object_key(new))

    def _set_changed(self, old: Object | None, new: Object | None) -> None:
        for replica_set in (old, new):
            if replica_set is not None and (ref := controller_of(replica_set)) is not None:
                self._add_controller(replica_set, ref)
        if new is not None and controller_of(new) is None and not is_deleting(new):
            self._look_for_adopters(new)

    def _add_controller(self, replica_set: Object, ref: Object) -> None:
        if ref.get("kind") == DEPLOYMENTS.kind:
            self.queue.add(f"{replica_set['metadata']['namespace']}/{ref['name']}")

    def _look_for_adopters(self, replica_set: Object) -> None:
        labels = section(replica_set["metadata"], "labels")
        for deployment in self._deployments.by_index(NAMESPACE, replica_set["metadata"]["namespace"]):
            if label_selector_of(deployment["spec"].get("selector")).matches(labels):
                self.queue.add(object_key(deployment))

    def _pod_changed(self, old: Object | None, new: Object | None) -> None:
        """The last old pod that goes lets a Recreate deployment move on."""
        ref = controller_of(old) if old is not None and new is None else None
        if old is None or ref is None or ref.get("kind") != REPLICA_SETS.kind:
            return
        replica_set = self._sets.get(ref["name"], old["metadata"]["namespace"])
        if replica_set is not None and (owner := controller_of(replica_set)) is not None:
            self._add_controller(replica_set, owner)

    # One round ------------------------------------------------------------------------------

    async def reconcile(self, key: str) -> None:
        """Plan a round and carry it out."""
        for tracked in (self._deployments, self._sets, self._pods):
            await tracked.caught_up()
        deployment = self._deployments.get_key(key)
        if deployment is None:
            return
        try:
            for action in core.plan(self._observe(deployment), now=self._clock.wall()):
                await self._carry_out(key, deployment, action)
        except _Stop:
            self.queue.add(key)

    def _observe(self, deployment: Object) -> core.Observed:
        metadata = deployment["metadata"]
        sets = self._sets.by_index(CONTROLLER_UID, metadata["uid"])
        sets += self._sets.by_index(ORPHANS, metadata["namespace"])
        if is_rolling(deployment):
            return core.Observed(deployment, sets)
        uids = [rs["metadata"]["uid"] for rs in sets if controller_of(rs)]
        return core.Observed(deployment, sets, {u: self._pods.by_index(CONTROLLER_UID, u) for u in uids})

    async def _carry_out(self, key: str, deployment: Object, action: core.Action) -> None:
        match action:
            case core.Adopt(replica_set):
                await self._adopt(deployment, replica_set)
            case core.Release(replica_set):
                await self._sets.patch(
                    replica_set, removal_patch(replica_set, [deployment["metadata"]["uid"]])
                )
            case core.Create(replica_set, event):
                await self._create(deployment, replica_set)
                self._tell(deployment, event)
            case core.Update(replica_set, event):
                await self._sets.update(replica_set)
                self._tell(deployment, event)
            case core.Delete(replica_set):
                await self._sets.delete(replica_set)
            case core.WriteStatus(changed):
                await self._deployments.update_status(changed)
            case core.Warn(reason, message):
                self._events.warning(deployment, reason, message)
            case core.Recheck(after_s):
                self.queue.add_after(key, after_s)
            case _:
                assert_never(action)

    def _tell(self, deployment: Object, event: str) -> None:
        if event:
            self._events.normal(deployment, core.SCALING, event)

    async def _adopt(self, deployment: Object, replica_set: Object) -> None:
        """After asking the server: what is being deleted must not gather ReplicaSets."""
        fresh = await self._deployments.read(deployment)
        if fresh is None or is_deleting(fresh):
            raise ApiError(409, "Conflict", f"{object_key(deployment)} is being deleted and adopts nothing")
        await self._sets.patch(replica_set, adoption_patch(deployment, replica_set))
        raise _Stop  # its resourceVersion has moved, and the plan's later writes carry the old one

    # The new ReplicaSet ---------------------------------------------------------------------

    async def _create(self, deployment: Object, replica_set: Object) -> None:
        try:
            await self._sets.create(replica_set)
        except (FencingTokenStale, IndefiniteApiError):
            raise  # the name is fixed: the next round finds out
        except ApiError as error:
            if error.reason == "AlreadyExists":
                await self._meet_taken_name(deployment, replica_set, error)
            elif not namespace_ends(error):
                await self._report_failure(deployment, replica_set, error)
            raise

    async def _meet_taken_name(self, deployment: Object, replica_set: Object, error: ApiError) -> None:
        """Ours already (the cache lags), or a hash collision, which is counted. Raises _Stop."""
        metadata = replica_set["metadata"]
        taken = await self._sets.find(metadata["name"], metadata["namespace"])
        if taken is not None and core.is_ours(deployment, taken):
            self._sets.wrote(taken)
        elif taken is not None:
            log.info("template_hash_collision", deployment=object_key(deployment), name=metadata["name"])
            await self._deployments.update_status(core.after_collision(deployment))
        raise _Stop from error

    async def _report_failure(self, deployment: Object, replica_set: Object, error: ApiError) -> None:
        changed, warning = core.after_failed_create(
            deployment, replica_set["metadata"]["name"], error.message, self._clock.wall()
        )
        self._events.warning(deployment, warning.reason, warning.message)
        if changed is not deployment:
            await self._deployments.update_status(changed)
