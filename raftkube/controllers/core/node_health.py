"""Whether nodes live, and the taints that say so.

A node lives while its Lease or its status is renewed, judged by when this process saw that happen, never by
the node's own clock. Source: k8s.io/kubernetes/pkg/controller/nodelifecycle.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from raftkube.api.objects import items, section
from raftkube.api.resource import Object
from raftkube.api.timestamps import rfc3339
from raftkube.controllers.core.conditions import find_condition

NOT_READY: Final = "node.kubernetes.io/not-ready"
UNREACHABLE: Final = "node.kubernetes.io/unreachable"
UNSCHEDULABLE: Final = "node.kubernetes.io/unschedulable"
# (condition, its status) → key of the NoSchedule taint.
_CONDITION_TAINTS: Final[Mapping[tuple[str, str], str]] = {
    ("Ready", "False"): NOT_READY,
    ("Ready", "Unknown"): UNREACHABLE,
    ("MemoryPressure", "True"): "node.kubernetes.io/memory-pressure",
    ("DiskPressure", "True"): "node.kubernetes.io/disk-pressure",
    ("PIDPressure", "True"): "node.kubernetes.io/pid-pressure",
    ("NetworkUnavailable", "True"): "node.kubernetes.io/network-unavailable",
}
_OURS: Final = frozenset(_CONDITION_TAINTS.values()) | {UNSCHEDULABLE}
_KUBELET_CONDITIONS: Final = ("Ready", "MemoryPressure", "DiskPressure", "PIDPressure")
_PARTIAL_SHARE: Final = 0.55  # upstream's --unhealthy-zone-threshold
_LARGE_CLUSTER: Final = 50


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """What of a node's life was last seen. seen_at: monotonic seconds of this process."""

    lease_renewed: str
    status_beat: str
    seen_at: float


def observe(known: Heartbeat | None, node: Object, lease: Object | None, now: float) -> Heartbeat:
    """The heartbeat after looking at the node; `known` itself if nothing moved."""
    renewed = str(section(lease or {}, "spec").get("renewTime") or "")
    ready = find_condition(section(node, "status"), "Ready")
    beat = str((ready or {}).get("lastHeartbeatTime") or "") if ready_status(node) != "Unknown" else ""
    if known is not None and (known.lease_renewed, known.status_beat) == (renewed, beat):
        return known
    if known is not None and not beat and known.lease_renewed == renewed:
        # We declared it Unknown ourselves: no sign of life.
        return Heartbeat(renewed, beat, known.seen_at)
    return Heartbeat(renewed, beat, now)


def ready_status(node: Object) -> str:
    """ "True", "False" or "Unknown", which is also what no condition means."""
    condition = find_condition(section(node, "status"), "Ready")
    return str((condition or {}).get("status") or "Unknown")


def has_reported(node: Object) -> bool:
    """Whether a kubelet has ever posted a Ready condition."""
    return find_condition(section(node, "status"), "Ready") is not None


def silent_status(node: Object, wall_s: float) -> Object | None:
    """The status of a node that fell silent; None if it says so already."""
    status = section(node, "status")
    conditions = [dict(condition) for condition in items(status, "conditions")]
    changed = [_make_unknown(conditions, kind, node, wall_s) for kind in _KUBELET_CONDITIONS]
    return {**status, "conditions": conditions} if any(changed) else None


def _make_unknown(conditions: list[dict[str, Any]], kind: str, node: Object, wall_s: float) -> bool:
    found = next((c for c in conditions if c.get("type") == kind), None)
    at = rfc3339(wall_s)
    if found is None:
        conditions.append(
            {
                "type": kind, "status": "Unknown", "reason": "NodeStatusNeverUpdated",
                "message": "Kubelet never posted node status.",
                "lastHeartbeatTime": node["metadata"].get("creationTimestamp") or at,
                "lastTransitionTime": at,
            }
        )  # fmt: skip
        return True
    if found.get("status") == "Unknown":
        return False
    found |= {
        "status": "Unknown", "reason": "NodeStatusUnknown",
        "message": "Kubelet stopped posting node status.", "lastTransitionTime": at,
    }  # fmt: skip
    return True


def wanted_taints(node: Object, *, evict: bool, wall_s: float) -> list[Object]:
    """The node's taints as they should be: others' as they are, ours by its conditions. evict: with the
    NoExecute taint of a node that is not ready."""
    present = items(section(node, "spec"), "taints")
    wanted = [(key, "NoSchedule") for key in _no_schedule_keys(node)]
    if evict and (key := eviction_taint(node)) is not None:
        wanted.append((key, "NoExecute"))
    kept = [t for t in present if not _is_ours(t) or (t.get("key"), t.get("effect")) in wanted]
    have = {(taint.get("key"), taint.get("effect")) for taint in kept}
    return kept + [
        {"key": key, "effect": effect, "timeAdded": rfc3339(wall_s)}
        for key, effect in wanted
        if (key, effect) not in have
    ]


def eviction_taint(node: Object) -> str | None:
    """The key of the taint that drives pods off this node; None while it is ready."""
    return {"False": NOT_READY, "Unknown": UNREACHABLE}.get(ready_status(node))


def has_eviction_taint(node: Object) -> bool:
    """Whether it bears such a taint, be it of its present state or of the one before."""
    return any(
        taint.get("key") in (NOT_READY, UNREACHABLE) and taint.get("effect") == "NoExecute"
        for taint in items(section(node, "spec"), "taints")
    )


def _no_schedule_keys(node: Object) -> list[str]:
    status = section(node, "status")
    keys = [
        key
        for (kind, value), key in _CONDITION_TAINTS.items()
        if (find_condition(status, kind) or {}).get("status") == value
    ]
    return keys + ([UNSCHEDULABLE] if section(node, "spec").get("unschedulable") else [])


def _is_ours(taint: Object) -> bool:
    key, effect = taint.get("key"), taint.get("effect")
    return (effect == "NoSchedule" and key in _OURS) or (
        effect == "NoExecute" and key in (NOT_READY, UNREACHABLE)
    )


class Disruption:
    """How much of the cluster is not ready."""

    NONE: Final = "normal"
    PARTIAL: Final = "partial"  # too much for a small cluster: nobody new is driven off
    FULL: Final = "full"  # nobody is ready: it is rather us who are cut off


def disruption(*, unready: int, total: int) -> str:
    """Source: ComputeZoneState; the cluster is one zone."""
    if unready and unready == total:
        return Disruption.FULL
    many = unready > 2 and unready / total >= _PARTIAL_SHARE
    return Disruption.PARTIAL if many and total <= _LARGE_CLUSTER else Disruption.NONE
