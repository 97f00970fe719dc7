"""Which of the nodes that fit is best: 0 to 100 from each plugin, weighted as upstream does by default.

Source: k8s.io/kubernetes/pkg/scheduler/framework/plugins; weights: apis/config/v1/default_plugins.go.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from raftkube.scheduler.core.cluster_view import NodeInfo
from raftkube.scheduler.core.matching import matches_term, untolerated
from raftkube.scheduler.core.pod_info import PodInfo

SCORE_MAX: Final = 100
_COMPARED: Final = ("cpu", "memory")


class Score(NamedTuple):
    """`scores(pod, nodes)`: one number from 0 to 100 for each node, in their order."""

    name: str
    weight: int
    scores: Callable[[PodInfo, Sequence[NodeInfo]], list[float]]


def least_allocated(pod: PodInfo, nodes: Sequence[NodeInfo]) -> list[float]:
    """The share of cpu and memory that stays free, on average."""
    return [
        sum(SCORE_MAX * (1 - used) for used in shares) / len(shares) if (shares := _shares(pod, node)) else 0
        for node in nodes
    ]


def balanced_allocation(pod: PodInfo, nodes: Sequence[NodeInfo]) -> list[float]:
    """How evenly cpu and memory are used: 100 less the standard deviation of their shares."""
    return [SCORE_MAX * (1 - _deviation(_shares(pod, node))) for node in nodes]


def taint_toleration(pod: PodInfo, nodes: Sequence[NodeInfo]) -> list[float]:
    """The fewer taints of the kind PreferNoSchedule are not tolerated, the better."""
    tolerations = [
        toleration
        for toleration in pod.spec.get("tolerations") or ()
        if toleration.get("effect") in (None, "", "PreferNoSchedule")
    ]
    counts = [len(untolerated(node.taints, tolerations, ("PreferNoSchedule",))) for node in nodes]
    return _fewest(counts)


def node_affinity(pod: PodInfo, nodes: Sequence[NodeInfo]) -> list[float]:
    """The weights of the preferred node affinities that hold, against the best node's."""
    affinity = (pod.spec.get("affinity") or {}).get("nodeAffinity") or {}
    preferred = affinity.get("preferredDuringSchedulingIgnoredDuringExecution") or ()
    sums = [
        sum(
            int(preference.get("weight") or 0)
            for preference in preferred
            if _prefers(preference.get("preference") or {}, node)
        )
        for node in nodes
    ]
    best = max(sums)
    return [SCORE_MAX * weight / best if best else 0 for weight in sums]


def topology_spread(pod: PodInfo, nodes: Sequence[NodeInfo]) -> list[float]:
    """The fewer pods of the same controller a node has, the better (upstream's default constraint of
    PodTopologySpread on kubernetes.io/hostname, without explicit constraints)."""
    if not pod.spread_key:
        return [0.0] * len(nodes)
    return _fewest([node.spread[pod.spread_key] for node in nodes])


SCORES: Final = (
    Score("TaintToleration", 3, taint_toleration),
    Score("NodeAffinity", 2, node_affinity),
    Score("PodTopologySpread", 2, topology_spread),
    Score("NodeResourcesFit", 1, least_allocated),
    Score("NodeResourcesBalancedAllocation", 1, balanced_allocation),
)


def total_scores(pod: PodInfo, nodes: Sequence[NodeInfo]) -> list[float]:
    """The weighted sum over all plugins, for each node."""
    totals = [0.0] * len(nodes)
    for plugin in SCORES:
        for position, score in enumerate(plugin.scores(pod, nodes)):
            totals[position] += plugin.weight * score
    return totals


def _shares(pod: PodInfo, node: NodeInfo) -> list[float]:
    """The share of each compared resource that is used once the pod is there, at most 1."""
    shares = []
    for name in _COMPARED:
        if there := node.allocatable.get(name, 0):
            used = node.nonzero_requested.get(name, 0) + pod.nonzero_requests.get(name, 0)
            shares.append(min(used / there, 1.0))
    return shares


def _deviation(shares: list[float]) -> float:
    if not shares:
        return 0.0
    mean = sum(shares) / len(shares)
    return float((sum((share - mean) ** 2 for share in shares) / len(shares)) ** 0.5)


def _fewest(counts: list[int]) -> list[float]:
    most = max(counts)
    return [SCORE_MAX * (most - count) / most if most else SCORE_MAX for count in counts]


def _prefers(term: dict[str, object], node: NodeInfo) -> bool:
    # A preference without any expression holds everywhere (unlike a required term).
    return not term or matches_term(term, node.name, node.labels)
