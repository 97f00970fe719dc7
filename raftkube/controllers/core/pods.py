"""What controllers ask of pods: active, ready, available; and which of several to delete first.

Source: k8s.io/kubernetes/pkg/controller/controller_utils.go (ActivePodsWithRanks) and pkg/api/v1/pod.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cmp_to_key
from typing import Final

from raftkube.api.objects import items, section
from raftkube.api.resource import Object
from raftkube.api.timestamps import seconds_or_none
from raftkube.controllers.core.conditions import find_condition, is_true
from raftkube.controllers.core.owners import is_deleting

DELETION_COST: Final = "controller.kubernetes.io/pod-deletion-cost"
_PHASE_ORDER: Final = {"Pending": 0, "Unknown": 1, "Running": 2}


def phase(pod: Object) -> str:
    """status.phase, "Pending" before anything is known."""
    return str(section(pod, "status").get("phase") or "Pending")


def is_finished(pod: Object) -> bool:
    """Whether its phase is final."""
    return phase(pod) in ("Succeeded", "Failed")


def is_active(pod: Object) -> bool:
    """Neither finished nor being deleted: it counts as a replica."""
    return not is_finished(pod) and not is_deleting(pod)


def is_ready(pod: Object) -> bool:
    """Whether its Ready condition is True."""
    return is_true(section(pod, "status"), "Ready")


def ready_since(pod: Object) -> float | None:
    """When it became ready, in seconds since 1970; None if it is not, or does not say."""
    condition = find_condition(section(pod, "status"), "Ready")
    if condition is None or condition.get("status") != "True":
        return None
    return seconds_or_none(condition.get("lastTransitionTime"))


def available_in_s(pod: Object, min_ready_s: int, now: float) -> float | None:
    """Seconds until it counts as available: at most 0 if it does; None while it is not ready."""
    if not is_ready(pod):
        return None
    if min_ready_s == 0:
        return 0.0
    since = ready_since(pod)
    return None if since is None else since + min_ready_s - now


def is_available(pod: Object, min_ready_s: int, now: float) -> bool:
    """Ready for at least `min_ready_s`."""
    remaining = available_in_s(pod, min_ready_s, now)
    return remaining is not None and remaining <= 0


def choose_victims(
    pods: Sequence[Object], related: Iterable[Object], count: int, *, now: float
) -> list[Object]:
    """The `count` pods whose deletion harms least. related: pods of the same application, also of other
    ReplicaSets; of two pods the one goes that shares its node with more of them."""
    if count >= len(pods):
        return list(pods)
    on_node = Counter(_node(pod) for pod in related if is_active(pod))

    def compare(a: Object, b: Object) -> int:
        return _compare(a, b, on_node, now)

    return sorted(pods, key=cmp_to_key(compare))[:count]


def _compare(a: Object, b: Object, on_node: Counter[str], now: float) -> int:
    """Negative: `a` goes first."""
    if (order := _sign(_rank(a, on_node), _rank(b, on_node))) != 0:
        return order
    if is_ready(a) and (order := _newer_first(ready_since(a), ready_since(b), a, b, now)) != 0:
        return order
    if (order := _restarts(b) - _restarts(a)) != 0:
        return order
    return _newer_first(_created(a), _created(b), a, b, now)


def _rank(pod: Object, on_node: Counter[str]) -> tuple[bool, int, bool, int, int]:
    """Unassigned, early, unready, cheap and doubled-up pods come first."""
    node = _node(pod)
    return (bool(node), _PHASE_ORDER.get(phase(pod), 1), is_ready(pod), _deletion_cost(pod), -on_node[node])


def _sign(a: tuple[int, ...], b: tuple[int, ...]) -> int:
    return (a > b) - (a < b)


def _newer_first(at_a: float | None, at_b: float | None, a: Object, b: Object, now: float) -> int:
    """By age on a logarithmic scale, so that among pods of about the same age chance (their uid) decides.
    Source: KEP-2185."""
    if at_a == at_b:
        return 0
    if at_a is None or at_b is None:
        return -1 if at_a is None else 1
    rank_a, rank_b = _age_rank(now - at_a), _age_rank(now - at_b)
    if rank_a != rank_b:
        return rank_a - rank_b
    return -1 if a["metadata"]["uid"] < b["metadata"]["uid"] else 1


def _age_rank(age_s: float) -> int:
    return int(math.log2(age_s * 1e9)) if age_s > 0 else -1


def _node(pod: Object) -> str:
    return str(section(pod, "spec").get("nodeName") or "")


def _created(pod: Object) -> float | None:
    return seconds_or_none(pod["metadata"].get("creationTimestamp"))


def _restarts(pod: Object) -> int:
    return max(
        (c.get("restartCount") or 0 for c in items(section(pod, "status"), "containerStatuses")), default=0
    )


def _deletion_cost(pod: Object) -> int:
    text = str(section(pod["metadata"], "annotations").get(DELETION_COST) or "0")
    return int(text) if text.lstrip("-").isdigit() else 0
