"""The taint eviction controller: deletes pods from nodes whose NoExecute taints they do not tolerate (any
longer). Keys are those of pods."""

from __future__ import annotations

import structlog

from raftkube.api.objects import items, section
from raftkube.client.cache import NODE
from raftkube.client.endpoints import NODES, PODS, Object, object_key
from raftkube.client.work_queue import WorkQueue
from raftkube.controllers.core.conditions import make_condition, with_condition
from raftkube.controllers.core.owners import is_deleting
from raftkube.controllers.core.pods import is_finished
from raftkube.controllers.core.taint_eviction import eviction_at, no_execute_taints
from raftkube.controllers.runtime import Context
from raftkube.controllers.tracked import Tracked

log = structlog.get_logger(__name__)


class TaintEvictionController:
    """One worker or several."""

    name = "taint-eviction-controller"

    def __init__(self, context: Context) -> None:
        self.queue: WorkQueue[str] = WorkQueue(context.clock)
        self._clock = context.clock
        self._events = context.recorder(self.name)
        self._nodes = context.tracked(NODES)
        self._pods = context.tracked(PODS)
        self._since: dict[str, float] = {}  # node → when its taints without timeAdded were first seen
        self._nodes.on_change(self._node_changed)
        self._pods.on_change(self._pod_changed)

    def _node_changed(self, old: Object | None, new: Object | None) -> None:
        before = no_execute_taints(old) if old is not None else []
        taints = no_execute_taints(new) if new is not None else []
        if old is not None and not taints:
            self._since.pop(old["metadata"]["name"], None)
        if new is not None and taints != before:
            self._since.setdefault(new["metadata"]["name"], self._clock.wall())
            for pod in self._pods.by_index(NODE, new["metadata"]["name"]):
                self.queue.add(object_key(pod))

    def _pod_changed(self, old: Object | None, new: Object | None) -> None:
        if new is not None and section(new, "spec").get("nodeName"):
            node = self._nodes.get(new["spec"]["nodeName"])
            if node is not None and no_execute_taints(node):
                self.queue.add(object_key(new))

    async def reconcile(self, key: str) -> None:
        """Delete the pod if its time has come, else come back when it will have."""
        await self._pods.caught_up()
        pod = self._pods.get_key(key)
        if pod is None or is_deleting(pod) or is_finished(pod):
            return
        node = self._nodes.get(str(section(pod, "spec").get("nodeName") or ""))
        if node is None:
            return
        now = self._clock.wall()
        since = self._since.get(node["metadata"]["name"], now)
        at = eviction_at(pod, no_execute_taints(node), since=since)
        if at is None:
            return
        if at > now:
            self.queue.add_after(key, at - now)
            return
        await self._evict(pod)

    async def _evict(self, pod: Object) -> None:
        self._events.normal(pod, "TaintManagerEviction", f"Marking for deletion Pod {object_key(pod)}")
        message = "Taint manager: deleting due to NoExecute taint"
        marked = await mark_disrupted(
            self._pods, pod, "DeletionByTaintManager", message, now=self._clock.wall()
        )
        await self._pods.delete(marked)
        log.info("pod_evicted", pod=object_key(pod), node=pod["spec"]["nodeName"])


async def mark_disrupted(
    tracked: Tracked, pod: Object, reason: str, message: str, *, now: float, failed: bool = False
) -> Object:
    """Say in the pod's status that it ends for no fault of its own; the pod as it is then. failed: it never
    ran to an end, and nobody will tell."""
    condition = make_condition("DisruptionTarget", "True", reason, message, now=now)
    status = with_condition(section(pod, "status"), condition)
    patch: Object = {"conditions": items(status, "conditions")} | ({"phase": "Failed"} if failed else {})
    metadata = pod["metadata"]
    identity = {"uid": metadata["uid"], "resourceVersion": metadata["resourceVersion"]}
    return await tracked.patch(pod, {"metadata": identity, "status": patch}, subresource="status")
