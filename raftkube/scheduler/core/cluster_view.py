"""Nodes and the pods on them, as far as they were seen, plus the pods that we have just put there.

An assumed pod counts on its node from the decision until the cache shows it bound, or the binding is known
to have failed; without that the next decision would give the same room away twice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from raftkube.scheduler.core.pod_info import HostPort, PodInfo, is_finished
from raftkube.scheduler.core.resources import Amounts, add, amounts

Object = dict[str, Any]
_PODS_DEFAULT: Final = 110  # kubelet's --max-pods, where a node does not say


@dataclass(slots=True)
class NodeInfo:
    """One node. `obj` is None while only pods of it were seen. Sums cover `pods`, in the units of
    `raftkube.scheduler.core.resources`."""

    name: str
    obj: Object | None = None
    allocatable: Amounts = field(default_factory=dict)
    pods: dict[str, PodInfo] = field(default_factory=dict)
    requested: Amounts = field(default_factory=dict)
    nonzero_requested: Amounts = field(default_factory=dict)
    spread: Counter[str] = field(default_factory=Counter)  # pods by `spread_key`

    @property
    def pods_max(self) -> int:
        """How many pods it takes."""
        return self.allocatable.get("pods", _PODS_DEFAULT)

    @property
    def labels(self) -> dict[str, str]:
        """Its labels."""
        return (self.obj or {}).get("metadata", {}).get("labels") or {}

    @property
    def spec(self) -> Object:
        """Its spec."""
        return (self.obj or {}).get("spec") or {}

    @property
    def taints(self) -> list[Object]:
        """Its taints."""
        return self.spec.get("taints") or []

    def host_ports(self) -> Iterable[HostPort]:
        """The ports that its pods take."""
        return (port for pod in self.pods.values() for port in pod.host_ports)

    def add(self, pod: PodInfo) -> None:
        self.pods[pod.key] = pod
        self.requested = add(self.requested, pod.requests)
        self.nonzero_requested = add(self.nonzero_requested, pod.nonzero_requests)
        self.spread[pod.spread_key] += 1

    def remove(self, key: str) -> None:
        pod = self.pods.pop(key)
        self.requested = add(self.requested, _negative(pod.requests))
        self.nonzero_requested = add(self.nonzero_requested, _negative(pod.nonzero_requests))
        self.spread[pod.spread_key] -= 1
        if not self.spread[pod.spread_key]:
            del self.spread[pod.spread_key]


class ClusterView:
    """All nodes with their pods. Changed by what is seen and by what is assumed."""

    def __init__(self) -> None:
        self._nodes: dict[str, NodeInfo] = {}
        self._places: dict[str, str] = {}  # pod key → node that it counts on
        self._assumed: dict[str, str] = {}  # pod key → uid

    def nodes(self) -> list[NodeInfo]:
        """The nodes that exist, in order of their names."""
        return [info for _, info in sorted(self._nodes.items()) if info.obj is not None]

    def node(self, name: str) -> NodeInfo | None:
        """One node, if it exists."""
        info = self._nodes.get(name)
        return info if info is not None and info.obj is not None else None

    # What was seen --------------------------------------------------------------------------

    def set_node(self, obj: Object) -> bool:
        """A node as it is now; True if something changed that may let a pod fit. Raises QuantityError."""
        info = self._node(obj["metadata"]["name"])
        before = None if info.obj is None else _what_counts(info.obj)
        status = obj.get("status") or {}
        info.allocatable = amounts(status.get("allocatable") or status.get("capacity"))
        info.obj = obj
        return before != _what_counts(obj)

    def remove_node(self, name: str) -> None:
        """The node is gone; pods that count on it still do, until they are gone as well."""
        info = self._nodes.get(name)
        if info is not None:
            info.obj = None
            self._drop_if_empty(info)

    def set_pod(self, pod: PodInfo) -> bool:
        """A pod as it is now; True if it made room. An unbound one changes nothing if it is assumed."""
        if is_finished(pod.obj):
            return self.remove_pod(pod.key)
        if not pod.node_name:
            if self._assumed.get(pod.key) != pod.uid:
                return self.remove_pod(pod.key)
            return False
        self._assumed.pop(pod.key, None)
        self._place(pod, pod.node_name)
        return False

    def remove_pod(self, key: str) -> bool:
        """A pod is gone or finished; True if it made room."""
        self._assumed.pop(key, None)
        return self._displace(key)

    # What we do -----------------------------------------------------------------------------

    def assume(self, pod: PodInfo, node_name: str) -> None:
        """Count `pod` on this node from now on."""
        self._assumed[pod.key] = pod.uid
        self._place(pod, node_name)

    def forget(self, pod: PodInfo) -> bool:
        """The binding of an assumed pod failed; True if that made room. One that was seen bound stays."""
        if self._assumed.get(pod.key) != pod.uid:
            return False
        return self.remove_pod(pod.key)

    def is_assumed(self, pod: PodInfo) -> bool:
        """Whether its binding is under way."""
        return self._assumed.get(pod.key) == pod.uid

    def _node(self, name: str) -> NodeInfo:
        return self._nodes.setdefault(name, NodeInfo(name))

    def _place(self, pod: PodInfo, node_name: str) -> None:
        self._displace(pod.key)
        self._node(node_name).add(pod)
        self._places[pod.key] = node_name

    def _displace(self, key: str) -> bool:
        name = self._places.pop(key, None)
        if name is None:
            return False
        info = self._nodes[name]
        info.remove(key)
        self._drop_if_empty(info)
        return True

    def _drop_if_empty(self, info: NodeInfo) -> None:
        if info.obj is None and not info.pods:
            del self._nodes[info.name]


def _what_counts(obj: Object) -> tuple[Any, ...]:
    """The parts of a node that decide where pods fit; heartbeats change none of them."""
    status = obj.get("status") or {}
    spec = obj.get("spec") or {}
    return (
        obj["metadata"].get("labels") or {}, spec.get("taints") or [], bool(spec.get("unschedulable")),
        status.get("allocatable") or status.get("capacity") or {},
    )  # fmt: skip


def _negative(amounts_: Amounts) -> Amounts:
    return {name: -amount for name, amount in amounts_.items()}
