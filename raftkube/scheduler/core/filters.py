"""Which nodes a pod fits on. Names, order and reasons are upstream's.

Source: k8s.io/kubernetes/pkg/scheduler/framework/plugins.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from raftkube.scheduler.core.cluster_view import NodeInfo
from raftkube.scheduler.core.matching import matches_term, untolerated
from raftkube.scheduler.core.pod_info import PodInfo

Reasons = Sequence[str]
_FITS: Final[Reasons] = ()
_UNSCHEDULABLE_TAINT: Final = {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}


class Filter(NamedTuple):
    """`reasons(pod, node)` is empty if the pod fits."""

    name: str
    reasons: Callable[[PodInfo, NodeInfo], Reasons]


def node_unschedulable(pod: PodInfo, node: NodeInfo) -> Reasons:
    """The node is cordoned, and the pod does not tolerate that."""
    if not node.spec.get("unschedulable"):
        return _FITS
    if not untolerated([_UNSCHEDULABLE_TAINT], pod.spec.get("tolerations") or (), ("NoSchedule",)):
        return _FITS
    return ("node(s) were unschedulable",)


def node_name(pod: PodInfo, node: NodeInfo) -> Reasons:
    """The pod names another node (one that names a node is bound already; kept for completeness of the
    plugin's contract)."""
    if pod.node_name in ("", node.name):
        return _FITS
    return ("node(s) didn't match the requested node name",)


def taint_toleration(pod: PodInfo, node: NodeInfo) -> Reasons:
    """A taint that keeps pods off; the first one is named."""
    taints = untolerated(node.taints, pod.spec.get("tolerations") or (), ("NoSchedule", "NoExecute"))
    return tuple(
        f"node(s) had untolerated taint {{{taint.get('key')}: {taint.get('value') or ''}}}"
        for taint in taints[:1]
    )


def node_affinity(pod: PodInfo, node: NodeInfo) -> Reasons:
    """nodeSelector, and the required node affinity: one of its terms."""
    wanted = pod.spec.get("nodeSelector") or {}
    matched = all(node.labels.get(key) == value for key, value in wanted.items())
    affinity = (pod.spec.get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
    if matched and required is not None:
        terms = required.get("nodeSelectorTerms") or ()
        matched = any(matches_term(term, node.name, node.labels) for term in terms)
    return _FITS if matched else ("node(s) didn't match Pod's node affinity/selector",)


def node_ports(pod: PodInfo, node: NodeInfo) -> Reasons:
    """A host port that is taken."""
    if pod.host_ports and any(
        mine.conflicts(theirs) for theirs in node.host_ports() for mine in pod.host_ports
    ):
        return ("node(s) didn't have free ports for the requested pod ports",)
    return _FITS


def node_resources_fit(pod: PodInfo, node: NodeInfo) -> Reasons:
    """Room for one more pod, and for everything that it requests. All that is short is named."""
    short = [] if len(node.pods) < node.pods_max else ["Too many pods"]
    for name, amount in sorted(pod.requests.items()):
        free = node.allocatable.get(name, 0) - node.requested.get(name, 0)
        if name != "pods" and amount > 0 and free < amount:
            short.append(f"Insufficient {name}")
    return short


FILTERS: Final = (
    Filter("NodeUnschedulable", node_unschedulable),
    Filter("NodeName", node_name),
    Filter("TaintToleration", taint_toleration),
    Filter("NodeAffinity", node_affinity),
    Filter("NodePorts", node_ports),
    Filter("NodeResourcesFit", node_resources_fit),
)


def why_not(pod: PodInfo, node: NodeInfo) -> Reasons:
    """The reasons of the first filter that refuses; empty if the pod fits."""
    for plugin in FILTERS:
        if reasons := plugin.reasons(pod, node):
            return reasons
    return _FITS
