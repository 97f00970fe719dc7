"""The pod garbage collector: removes pods of nodes that no longer exist, which no kubelet will ever end.

Source: k8s.io/kubernetes/pkg/controller/podgc (gcOrphaned).
"""

from __future__ import annotations

import structlog

from raftkube.api.objects import section
from raftkube.client.cache import NODE
from raftkube.client.endpoints import NODES, PODS, Object, object_key
from raftkube.client.work_queue import WorkQueue
from raftkube.controllers.core.pods import is_finished
from raftkube.controllers.runtime import Context
from raftkube.controllers.taint_eviction import mark_disrupted

log = structlog.get_logger(__name__)


class PodGarbageCollector:
    """Keys are those of pods. quarantine_s: how long a node must be gone; it may come back."""

    name = "pod-garbage-collector-controller"

    def __init__(self, context: Context, quarantine_s: float = 40.0) -> None:
        self.queue: WorkQueue[str] = WorkQueue(context.clock)
        self._clock = context.clock
        self._quarantine_s = quarantine_s
        self._nodes = context.tracked(NODES)
        self._pods = context.tracked(PODS)

    def attach(self) -> None:
        """Begin to listen, when all caches are complete: until then every node would seem to be gone."""
        self._nodes.on_change(self._node_changed)
        self._pods.on_change(self._pod_changed)

    def _node_changed(self, old: Object | None, new: Object | None) -> None:
        if new is None and old is not None:
            for pod in self._pods.by_index(NODE, old["metadata"]["name"]):
                self.queue.add_after(object_key(pod), self._quarantine_s)

    def _pod_changed(self, old: Object | None, new: Object | None) -> None:
        if new is None:
            return
        node = section(new, "spec").get("nodeName")
        if node and self._nodes.get(node) is None:
            self.queue.add_after(object_key(new), self._quarantine_s)

    async def reconcile(self, key: str) -> None:
        """Ask the server for the node; if it is gone, so is the pod."""
        await self._pods.caught_up()
        pod = self._pods.get_key(key)
        node = section(pod or {}, "spec").get("nodeName")
        if pod is None or not node or await self._nodes.find(node) is not None:
            return
        if not is_finished(pod):
            message = "PodGC: node no longer exists"
            now = self._clock.wall()
            pod = await mark_disrupted(self._pods, pod, "DeletionByPodGC", message, now=now, failed=True)
        await self._pods.delete(pod, grace_period_s=0)
        log.info("pod_of_vanished_node_deleted", pod=key, node=node)
