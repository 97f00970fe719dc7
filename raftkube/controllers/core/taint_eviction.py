"""When a pod must leave a node because of its NoExecute taints.

Counted from the taint's own timeAdded, so that a new leader does not start the clock anew.
Source: k8s.io/kubernetes/pkg/controller/tainteviction.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from raftkube.api.objects import items, section
from raftkube.api.resource import Object
from raftkube.api.timestamps import seconds_or_none


def no_execute_taints(node: Object) -> list[Object]:
    """Those that drive pods off."""
    return [t for t in items(section(node, "spec"), "taints") if t.get("effect") == "NoExecute"]


def eviction_at(pod: Object, taints: Sequence[Object], *, since: float) -> float | None:
    """When to delete the pod, in seconds since 1970: `-inf` for at once, None for never.

    since: when taints that have no timeAdded were first seen.
    """
    if not taints:
        return None
    tolerations = items(section(pod, "spec"), "tolerations")
    moments = [_leave_at(taint, tolerations, since) for taint in taints]
    return min((at for at in moments if at is not None), default=None)


def _leave_at(taint: Object, tolerations: Sequence[Object], since: float) -> float | None:
    matching = [toleration for toleration in tolerations if tolerates(toleration, taint)]
    if not matching:
        return -math.inf
    limits = [t["tolerationSeconds"] for t in matching if t.get("tolerationSeconds") is not None]
    if not limits:
        return None
    added = seconds_or_none(taint.get("timeAdded"))
    return (since if added is None else added) + max(0.0, float(min(limits)))


def tolerates(toleration: Object, taint: Object) -> bool:
    """Source: k8s.io/api/core/v1/toleration.go (ToleratesTaint)."""
    if toleration.get("effect") and toleration["effect"] != taint.get("effect"):
        return False
    if toleration.get("key") and toleration["key"] != taint.get("key"):
        return False
    if (toleration.get("operator") or "Equal") == "Exists":
        return True
    same_value = (toleration.get("value") or "") == (taint.get("value") or "")
    return bool(toleration.get("key")) and same_value
