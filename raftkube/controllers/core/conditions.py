"""Conditions in a status: found by type, replaced with their transition time kept.

Source: k8s.io/kubernetes/pkg/controller/deployment/util (SetDeploymentCondition) and its like.
"""

from __future__ import annotations

from raftkube.api.objects import items
from raftkube.api.resource import Object
from raftkube.api.timestamps import rfc3339


def find_condition(status: Object, kind: str) -> Object | None:
    """The condition of this type."""
    return next((c for c in items(status, "conditions") if c.get("type") == kind), None)


def is_true(status: Object, kind: str) -> bool:
    """Whether the condition is there and "True"."""
    found = find_condition(status, kind)
    return found is not None and found.get("status") == "True"


def make_condition(
    kind: str, status: str, reason: str, message: str, *, now: float, updated: bool = False
) -> Object:
    """A condition that begins now. updated: with lastUpdateTime, as Deployments have it."""
    at = rfc3339(now)
    condition = {
        "type": kind, "status": status, "lastTransitionTime": at, "reason": reason, "message": message,
    }  # fmt: skip
    return condition | ({"lastUpdateTime": at} if updated else {})


def without_condition(status: Object, kind: str) -> Object:
    """`status` without the condition; no conditions at all is no list."""
    kept = [c for c in items(status, "conditions") if c.get("type") != kind]
    rest = {key: value for key, value in status.items() if key != "conditions"}
    return rest | ({"conditions": kept} if kept else {})


def with_condition(status: Object, condition: Object) -> Object:
    """`status` with the condition, put last. Same status and reason as before: nothing changes; same
    status: the transition time is kept."""
    old = find_condition(status, condition["type"])
    if old is not None and old.get("status") == condition["status"]:
        if old.get("reason") == condition["reason"]:
            return status
        condition = condition | {"lastTransitionTime": old.get("lastTransitionTime")}
    rest = without_condition(status, condition["type"])
    return rest | {"conditions": [*items(rest, "conditions"), condition]}
