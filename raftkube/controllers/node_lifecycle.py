"""The node lifecycle controller: notices nodes that fell silent, marks them and their pods, taints them.

Keys are names of nodes. Nothing is polled: a node's next look is due when its grace period would end.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import structlog

from raftkube.api.objects import items, section
from raftkube.api.timestamps import rfc3339
from raftkube.client.cache import NODE
from raftkube.client.endpoints import LEASES, NODES, PODS, Object, object_key
from raftkube.client.work_queue import WorkQueue
from raftkube.controllers.core import node_health as core
from raftkube.controllers.core import pods
from raftkube.controllers.runtime import Context

log = structlog.get_logger(__name__)

LEASE_NAMESPACE: Final = "kube-node-lease"
_WEIGH_AGAIN_S: Final = 5.0  # upstream's --node-monitor-period


@dataclass(frozen=True, slots=True)
class NodeTimes:
    """Seconds. grace: silence after which a node counts as lost; startup_grace: the same for one that has
    never reported; eviction_period: between two nodes that are tainted NoExecute."""

    grace_s: float = 40.0
    startup_grace_s: float = 60.0
    eviction_period_s: float = 10.0


class NodeLifecycleController:
    """Needs few workers; a node is worked on by one at a time."""

    name = "node-lifecycle-controller"

    def __init__(self, context: Context, times: NodeTimes) -> None:
        self.queue: WorkQueue[str] = WorkQueue(context.clock)
        self._clock = context.clock
        self._events = context.recorder("node-controller")
        self._times = times
        self._beats: dict[str, core.Heartbeat] = {}
        self._next_eviction_at = float("-inf")
        self._disruption = core.Disruption.NONE
        self._nodes = context.tracked(NODES)
        self._leases = context.tracked(LEASES)
        self._pods = context.tracked(PODS)
        self._nodes.on_change(self._node_changed)
        self._leases.on_change(self._lease_changed)

    # Signs of life --------------------------------------------------------------------------

    def _node_changed(self, old: Object | None, new: Object | None) -> None:
        changed = new or old
        assert changed is not None
        if new is None:
            self._beats.pop(changed["metadata"]["name"], None)
        else:
            self._look(new)
            self.queue.add(object_key(new))

    def _lease_changed(self, old: Object | None, new: Object | None) -> None:
        """Only noted: the node is looked at when its grace period ends."""
        if new is None or new["metadata"].get("namespace") != LEASE_NAMESPACE:
            return
        node = self._nodes.get(new["metadata"]["name"])
        if node is not None:
            self._look(node)

    def _look(self, node: Object) -> core.Heartbeat:
        name = node["metadata"]["name"]
        lease = self._leases.get(name, LEASE_NAMESPACE)
        beat = core.observe(self._beats.get(name), node, lease, self._clock.monotonic())
        self._beats[name] = beat
        return beat

    # One round ------------------------------------------------------------------------------

    async def reconcile(self, key: str) -> None:
        """Judge the node, then bring its status, its pods and its taints in line."""
        await self._nodes.caught_up()
        await self._pods.caught_up()
        node = self._nodes.get(key)
        if node is None:
            return
        left_s = self._grace_left_s(node)
        if left_s > 0:
            self.queue.add_after(key, left_s)
        elif await self._declare_silent(node):
            return  # that changed the node: the next round sees it, and the cluster, as they are now
        self._weigh_disruption()
        await self._mark_pods(node)
        await self._taint(node)

    def _grace_left_s(self, node: Object) -> float:
        beat = self._look(node)
        grace_s = self._times.grace_s if core.has_reported(node) else self._times.startup_grace_s
        return beat.seen_at + grace_s - self._clock.monotonic()

    async def _declare_silent(self, node: Object) -> bool:
        """Whether its status did not say so before."""
        status = core.silent_status(node, self._clock.wall())
        if status is None:
            return False
        log.warning("node_silent", node=node["metadata"]["name"])
        await self._nodes.update_status(node | {"status": status})
        text = f"Node {node['metadata']['name']} status is now: NodeNotReady"
        self._events.normal(node, "NodeNotReady", text)
        return True

    async def _mark_pods(self, node: Object) -> None:
        """Pods of a node that nobody hears of are not ready, whatever their last status says."""
        if core.ready_status(node) != "Unknown" or not core.has_reported(node):
            return
        for pod in self._pods.by_index(NODE, node["metadata"]["name"]):
            if not pods.is_ready(pod):
                continue
            await self._pods.patch(pod, self._not_ready(pod), subresource="status")
            self._events.warning(pod, "NodeNotReady", "Node is not ready")

    def _not_ready(self, pod: Object) -> Object:
        at = rfc3339(self._clock.wall())
        status = section(pod, "status")
        conditions = [
            {**each, "status": "False", "lastTransitionTime": at} if each.get("type") == "Ready" else each
            for each in items(status, "conditions")
        ]
        metadata = pod["metadata"]
        identity = {"uid": metadata["uid"], "resourceVersion": metadata["resourceVersion"]}
        return {"metadata": identity, "status": {"conditions": conditions}}

    # Taints ---------------------------------------------------------------------------------

    def _weigh_disruption(self) -> None:
        """When the state of the cluster as a whole changes, every node is judged anew."""
        nodes = self._nodes.list()
        unready = sum(1 for node in nodes if core.ready_status(node) != "True" or self._is_suspect(node))
        now = core.disruption(unready=unready, total=len(nodes))
        if now != self._disruption:
            log.warning("cluster_disruption", was=self._disruption, now=now)
            self._disruption = now
            for node in nodes:
                self.queue.add(object_key(node))

    def _is_suspect(self, node: Object) -> bool:
        """Halfway to being lost. When we are cut off from all nodes, their grace periods end one after
        another; the first to end must not cost its pods."""
        return self._clock.monotonic() - self._look(node).seen_at > self._times.grace_s / 2

    async def _taint(self, node: Object) -> None:
        taints = core.wanted_taints(node, evict=self._may_evict(node), wall_s=self._clock.wall())
        present = items(section(node, "spec"), "taints")
        if taints == present:
            return
        metadata = node["metadata"]
        identity = {"uid": metadata["uid"], "resourceVersion": metadata["resourceVersion"]}
        await self._nodes.patch(node, {"metadata": identity, "spec": {"taints": taints or None}})
        log.info("node_tainted", node=metadata["name"], taints=[f"{t['key']}:{t['effect']}" for t in taints])

    def _may_evict(self, node: Object) -> bool:
        """Whether the node may bear its NoExecute taint: one node after another, and nobody new when much
        of the cluster is gone. What it bears already stays, unless all are gone."""
        if core.eviction_taint(node) is None:
            return False
        if self._disruption != core.Disruption.NONE:
            self.queue.add_after(object_key(node), _WEIGH_AGAIN_S)
            return self._disruption == core.Disruption.PARTIAL and core.has_eviction_taint(node)
        if core.has_eviction_taint(node):
            return True
        wait_s = self._next_eviction_at - self._clock.monotonic()
        if wait_s > 0:
            self.queue.add_after(object_key(node), wait_s)
            return False
        self._next_eviction_at = self._clock.monotonic() + self._times.eviction_period_s
        return True
