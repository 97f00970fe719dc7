"""One decision: the best node for a pod, or why there is none, in upstream's words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from raftkube.rng import Rng
from raftkube.scheduler.core.cluster_view import NodeInfo
from raftkube.scheduler.core.filters import why_not
from raftkube.scheduler.core.pod_info import PodInfo
from raftkube.scheduler.core.scores import total_scores

NO_NODES = "no nodes available to schedule pods"


class Placed(NamedTuple):
    """It goes to this node."""

    node_name: str


class Unschedulable(NamedTuple):
    """It fits nowhere now. `message` is what `kubectl describe` shows."""

    message: str


def decide(pod: PodInfo, nodes: Sequence[NodeInfo], rng: Rng) -> Placed | Unschedulable:
    """Filter, score, pick; equal scores are decided by `rng`."""
    if not nodes:
        return Unschedulable(NO_NODES)
    fitting: list[NodeInfo] = []
    counted: Counter[str] = Counter()
    for node in nodes:
        reasons = why_not(pod, node)
        counted.update(reasons)
        if not reasons:
            fitting.append(node)
    if not fitting:
        return Unschedulable(_message(len(nodes), counted))
    if len(fitting) == 1:
        return Placed(fitting[0].name)
    totals = total_scores(pod, fitting)
    best = max(totals)
    return Placed(rng.choice([n.name for n, total in zip(fitting, totals, strict=True) if total == best]))


def _message(nodes: int, counted: Counter[str]) -> str:
    """FitError.Error (pkg/scheduler/framework/types.go): reasons with their counts, sorted as text."""
    reasons = ", ".join(sorted(f"{count} {reason}" for reason, count in counted.items()))
    return f"0/{nodes} nodes are available: {reasons}."
