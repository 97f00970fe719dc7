"""Signs of life, taints and evictions, without a clock."""

from __future__ import annotations

import math
from typing import Any

import pytest

from raftkube.api.timestamps import rfc3339
from raftkube.controllers.core import node_health
from raftkube.controllers.core.conditions import find_condition
from raftkube.controllers.core.taint_eviction import eviction_at, tolerates

Object = dict[str, Any]
WALL = 1_000_000.0


def node(ready: str | None = "True", *, beat: str = "t1", **spec: Any) -> Object:
    conditions = [] if ready is None else [{"type": "Ready", "status": ready, "lastHeartbeatTime": beat}]
    return {
        "metadata": {"name": "n", "creationTimestamp": "t0"},
        "spec": spec,
        "status": {"conditions": conditions},
    }


def lease(renewed: str) -> Object:
    return {"spec": {"renewTime": renewed}}


def test_a_renewed_lease_or_a_posted_status_is_a_sign_of_life() -> None:
    first = node_health.observe(None, node(), lease("r1"), 10)
    assert first.seen_at == 10
    assert node_health.observe(first, node(), lease("r1"), 20) is first
    assert node_health.observe(first, node(), lease("r2"), 20).seen_at == 20
    assert node_health.observe(first, node(beat="t2"), lease("r1"), 20).seen_at == 20


def test_our_own_verdict_is_no_sign_of_life_but_the_return_is() -> None:
    alive = node_health.observe(None, node(), lease("r1"), 10)
    lost = node_health.observe(alive, node("Unknown"), lease("r1"), 60)
    assert lost.seen_at == 10
    assert node_health.observe(lost, node("True", beat="t9"), lease("r1"), 70).seen_at == 70


def test_a_silent_node_is_unknown_in_upstreams_words() -> None:
    status = node_health.silent_status(node(), WALL)
    assert status is not None
    ready = find_condition(status, "Ready")
    assert ready == {
        "type": "Ready", "status": "Unknown", "reason": "NodeStatusUnknown",
        "message": "Kubelet stopped posting node status.",
        "lastHeartbeatTime": "t1", "lastTransitionTime": rfc3339(WALL),
    }  # fmt: skip
    assert find_condition(status, "DiskPressure")["reason"] == "NodeStatusNeverUpdated"
    assert node_health.silent_status(node() | {"status": status}, WALL + 9) is None


@pytest.mark.parametrize(
    ("found", "evict", "expected"),
    [
        (node("True"), True, []),
        (node("False"), False, ["not-ready:NoSchedule"]),
        (node("False"), True, ["not-ready:NoSchedule", "not-ready:NoExecute"]),
        (node("Unknown"), True, ["unreachable:NoSchedule", "unreachable:NoExecute"]),
        (node(None), False, []),
        (node("True", unschedulable=True), True, ["unschedulable:NoSchedule"]),
    ],
)
def test_taints_follow_conditions(found: Object, evict: bool, expected: list[str]) -> None:
    taints = node_health.wanted_taints(found, evict=evict, wall_s=WALL)
    assert [f"{t['key'].removeprefix('node.kubernetes.io/')}:{t['effect']}" for t in taints] == expected
    assert all(taint["timeAdded"] == rfc3339(WALL) for taint in taints)


def test_others_taints_stay_and_ours_keep_their_time() -> None:
    own = {"key": node_health.NOT_READY, "effect": "NoExecute", "timeAdded": "long ago"}
    others = {"key": "dedicated", "effect": "NoExecute"}
    stale = {"key": node_health.UNREACHABLE, "effect": "NoExecute"}
    found = node("False", taints=[others, own, stale])
    taints = node_health.wanted_taints(found, evict=True, wall_s=WALL)
    assert taints[:2] == [others, own]
    assert stale not in taints
    assert node_health.has_eviction_taint(found)


@pytest.mark.parametrize(
    ("unready", "total", "expected"),
    [(0, 3, "normal"), (1, 3, "normal"), (3, 3, "full"), (1, 1, "full"), (3, 5, "partial"), (2, 3, "normal"),
     (60, 100, "normal")],
)  # fmt: skip
def test_disruption(unready: int, total: int, expected: str) -> None:
    assert node_health.disruption(unready=unready, total=total) == expected


# Evictions -----------------------------------------------------------------------------------

TAINT = {"key": node_health.UNREACHABLE, "effect": "NoExecute", "timeAdded": rfc3339(WALL)}


def pod(*tolerations: Object) -> Object:
    return {"spec": {"tolerations": list(tolerations)}}


def tolerating(seconds: int | None, key: str = node_health.UNREACHABLE) -> Object:
    found: Object = {"key": key, "operator": "Exists", "effect": "NoExecute"}
    return found if seconds is None else found | {"tolerationSeconds": seconds}


@pytest.mark.parametrize(
    ("found", "taints", "expected"),
    [
        (pod(), [], None),
        (pod(), [TAINT], -math.inf),
        (pod(tolerating(None)), [TAINT], None),
        (pod(tolerating(300)), [TAINT], WALL + 300),
        (pod(tolerating(300), tolerating(60)), [TAINT], WALL + 60),
        (pod(tolerating(-5)), [TAINT], WALL),
        (pod(tolerating(300)), [TAINT, {"key": "other", "effect": "NoExecute"}], -math.inf),
        (pod(tolerating(10)), [{k: v for k, v in TAINT.items() if k != "timeAdded"}], 510),
    ],
    ids=["none", "untolerated", "for ever", "a while", "the shortest", "negative", "another", "undated"],
)
def test_when_a_pod_must_go(found: Object, taints: list[Object], expected: float | None) -> None:
    assert eviction_at(found, taints, since=500) == expected


@pytest.mark.parametrize(
    ("toleration", "expected"),
    [
        ({"operator": "Exists"}, True),
        ({"key": "k", "operator": "Exists"}, True),
        ({"key": "k", "value": "v"}, True),
        ({"key": "k", "value": "w"}, False),
        ({"key": "j", "operator": "Exists"}, False),
        ({"key": "k", "operator": "Exists", "effect": "NoSchedule"}, False),
        ({}, False),
    ],
)
def test_toleration(toleration: Object, expected: bool) -> None:
    assert tolerates(toleration, {"key": "k", "value": "v", "effect": "NoExecute"}) is expected
