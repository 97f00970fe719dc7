"""Strategic merge patch on built-in kinds, as kubectl's verbs use it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftkube.api import codecs
from raftkube.api.objects import copy_json
from raftkube.api.status import ApiError
from raftkube.apiserver.core.patches import apply_patch, apply_strategic_patch

POD = "io.k8s.api.core.v1.Pod"
DEPLOYMENT = "io.k8s.api.apps.v1.Deployment"
NODE = "io.k8s.api.core.v1.Node"
SERVICE = "io.k8s.api.core.v1.Service"


def spec(**members: Any) -> dict[str, Any]:
    return {"spec": members}


def containers(*items: dict[str, Any]) -> dict[str, Any]:
    return spec(containers=list(items))


A, B = {"name": "a", "image": "1"}, {"name": "b", "image": "1"}
CASES = {
    "kubectl set image": (POD, containers(A, B),
        {"spec": {"$setElementOrder/containers": [{"name": "a"}, {"name": "b"}],
                  "containers": [{"image": "2", "name": "b"}]}},
        containers(A, {"name": "b", "image": "2"})),
    "a new container goes before what it does not name": (POD, containers(A),
        containers({"name": "c"}), containers({"name": "c"}, A)),
    "reorder": (POD, containers(A, B),
        {"spec": {"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]}}, containers(B, A)),
    "delete a container": (POD, containers(A, B), containers({"name": "a", "$patch": "delete"}),
        containers(B)),
    "replace all containers": (POD, containers(A, B), containers({"$patch": "replace"}, {"name": "z"}),
        containers({"name": "z"})),
    "kubectl cordon": (NODE, spec(podCIDR="x"), spec(unschedulable=True),
        spec(podCIDR="x", unschedulable=True)),
    "kubectl uncordon": (NODE, spec(unschedulable=True), spec(unschedulable=None), spec()),
    "kubectl taint: taints replace": (NODE, spec(taints=[{"key": "a", "effect": "NoSchedule"}]),
        spec(taints=[{"key": "b", "effect": "NoExecute"}]),
        spec(taints=[{"key": "b", "effect": "NoExecute"}])),
    "tolerations replace": (POD, spec(tolerations=[{"key": "a"}]), spec(tolerations=[{"key": "b"}]),
        spec(tolerations=[{"key": "b"}])),
    "command replaces": (POD, containers({"name": "a", "command": ["x", "y"]}),
        containers({"name": "a", "command": ["z"]}), containers({"name": "a", "command": ["z"]})),
    "env merges by name": (POD, containers({"name": "a", "env": [{"name": "X", "value": "1"}]}),
        containers({"name": "a", "env": [{"name": "Y", "value": "2"}]}),
        containers({"name": "a", "env": [{"name": "Y", "value": "2"}, {"name": "X", "value": "1"}]})),
    "ports merge by containerPort": (POD, containers({"name": "a", "ports": [{"containerPort": 80}]}),
        containers({"name": "a", "ports": [{"containerPort": 80, "name": "http"}]}),
        containers({"name": "a", "ports": [{"containerPort": 80, "name": "http"}]})),
    "service ports merge by port": (SERVICE, spec(ports=[{"port": 80, "name": "a"}, {"port": 81}]),
        spec(ports=[{"port": 81, "$patch": "delete"}]), spec(ports=[{"port": 80, "name": "a"}])),
    "conditions merge by type": (POD, {"status": {"conditions": [{"type": "Ready", "status": "False"}]}},
        {"status": {"$setElementOrder/conditions": [{"type": "Ready"}, {"type": "X"}],
                    "conditions": [{"type": "Ready", "status": "True"}, {"type": "X", "status": "True"}]}},
        {"status": {"conditions": [{"type": "Ready", "status": "True"}, {"type": "X", "status": "True"}]}}),
    "owner references merge by uid": (POD, {"metadata": {"ownerReferences": [{"uid": "1"}, {"uid": "2"}]}},
        {"metadata": {"ownerReferences": [{"$patch": "delete", "uid": "1"}]}},
        {"metadata": {"ownerReferences": [{"uid": "2"}]}}),
    "finalizers are a set": (POD, {"metadata": {"finalizers": ["a", "b"]}},
        {"metadata": {"finalizers": ["b", "c"]}}, {"metadata": {"finalizers": ["a", "b", "c"]}}),
    "delete from finalizers": (POD, {"metadata": {"finalizers": ["a", "b"]}},
        {"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"]}}, {"metadata": {"finalizers": ["b"]}}),
    "labels merge, null removes": (POD, {"metadata": {"labels": {"a": "1", "b": "2"}}},
        {"metadata": {"labels": {"a": None, "c": "3"}}}, {"metadata": {"labels": {"b": "2", "c": "3"}}}),
    "nulls in what is new are dropped": (POD, {}, {"metadata": {"labels": {"a": None, "b": "1"}}},
        {"metadata": {"labels": {"b": "1"}}}),
    "a volume changes its source with retainKeys": (POD,
        spec(volumes=[{"name": "v", "emptyDir": {"medium": "Memory"}}]),
        spec(volumes=[{"name": "v", "$retainKeys": ["name", "hostPath"], "hostPath": {"path": "/x"}}]),
        spec(volumes=[{"name": "v", "hostPath": {"path": "/x"}}])),
    "strategy changes its type with retainKeys": (DEPLOYMENT,
        spec(strategy={"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}),
        spec(strategy={"$retainKeys": ["type"], "type": "Recreate"}), spec(strategy={"type": "Recreate"})),
    "replace an object": (DEPLOYMENT, spec(selector={"matchLabels": {"a": "b"}}),
        spec(selector={"$patch": "replace", "matchLabels": {"c": "d"}}),
        spec(selector={"matchLabels": {"c": "d"}})),
    "delete an object's contents": (DEPLOYMENT, spec(strategy={"type": "Recreate"}),
        spec(strategy={"$patch": "delete"}), spec(strategy={})),
    "delete what is not there": (DEPLOYMENT, spec(), spec(strategy={"$patch": "delete"}), spec()),
    "an order without its list": (POD, spec(), {"spec": {"$setElementOrder/containers": [{"name": "a"}]}},
        spec()),
    "an order over an empty list": (POD, containers(),
        {"spec": {"$setElementOrder/containers": [{"name": "a"}]}}, containers()),
    "kubectl rollout restart": (DEPLOYMENT, spec(template={"spec": {"containers": [A]}}),
        spec(template={"metadata": {"annotations": {"kubectl.kubernetes.io/restartedAt": "now"}}}),
        spec(template={"metadata": {"annotations": {"kubectl.kubernetes.io/restartedAt": "now"}},
                       "spec": {"containers": [A]}})),
    "a resource quantity": (POD, containers({"name": "a", "resources": {"limits": {"cpu": "1"}}}),
        containers({"name": "a", "resources": {"limits": {"memory": "1Gi"}}}),
        containers({"name": "a", "resources": {"limits": {"cpu": "1", "memory": "1Gi"}}})),
    "an unknown field is taken (and dropped later)": (POD, spec(), spec(nonsense=[1]), spec(nonsense=[1])),
    "duplicates in the old list all go": (POD, containers(A, A, B),
        containers({"name": "a", "$patch": "delete"}), containers(B)),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_kinds(name: str) -> None:
    schema, old, patch, result = CASES[name]
    before = copy_json([old, patch])
    assert apply_strategic_patch(old, patch, schema) == result
    assert [old, patch] == before, "the arguments must not change"


REFUSED = {
    "no merge key": (containers(A), containers({"image": "x"}), "does not contain declared merge key: name"),
    "no merge key in a deletion": (containers(A), containers({"$patch": "delete"}), "declared merge key"),
    "an unknown directive": (containers(A), containers({"name": "a", "$patch": "explode"}),
        "unknown patch type"),
    "an unknown directive of an object": (spec(), {"spec": {"$patch": "merge"}}, "unknown patch type"),
    "items of two types": (containers(A), containers("x"), "not identical"),  # type: ignore[arg-type]
    "lists of lists": (containers(A), containers([]), "lists of lists"),  # type: ignore[arg-type]
    "a merge key that is an object": (containers(A), containers({"name": {}}), "merge key must be"),
    "an order that is no list": (containers(A), {"spec": {"$setElementOrder/containers": 1}},
        "setElementOrder"),
    "an order of no field": (containers(A), {"spec": {"$setElementOrder": []}}, "setElementOrder"),
    "an order that contradicts": (containers(A, B), {"spec": {
        "$setElementOrder/containers": [{"name": "a"}], "containers": [{"name": "b"}]}}, "does not match"),
    "a deletion list that is no list": ({"metadata": {"finalizers": ["a"]}},
        {"metadata": {"$deleteFromPrimitiveList/finalizers": "a"}}, "primitive list"),
    "a deletion list of no field": ({}, {"$deleteFromPrimitiveList": []}, "primitive list"),
    "retainKeys that is no list": (spec(volumes=[{"name": "v"}]),
        spec(volumes=[{"name": "v", "$retainKeys": "name"}]), "retainKeys"),
    "retainKeys without what the patch sets": (spec(volumes=[{"name": "v"}]),
        spec(volumes=[{"name": "v", "$retainKeys": ["name"], "emptyDir": {}}]), "retainKeys"),
    "no object": ({}, [], "must be a JSON object"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_patch_that_cannot_be_applied_is_the_clients_fault(name: str) -> None:
    old, patch, text = REFUSED[name]
    with pytest.raises(ApiError, match=text) as caught:
        apply_strategic_patch(old, patch, POD)
    assert caught.value.code in (400, 422)


def test_a_kind_without_a_schema_knows_no_strategic_merge() -> None:
    with pytest.raises(ApiError) as caught:
        apply_strategic_patch({}, {}, "")
    assert caught.value.code == 415


@pytest.mark.parametrize("media_type", [codecs.MERGE_PATCH, codecs.STRATEGIC_PATCH, codecs.JSON_PATCH])
def test_the_patched_object_is_its_own(media_type: str) -> None:
    old = {"metadata": {"name": "p", "labels": {"a": "b"}}, "spec": {"containers": [dict(A)]}}
    before = copy_json(old)
    patch: Any = [] if media_type == codecs.JSON_PATCH else {"metadata": {"labels": {"c": "d"}}}
    new = apply_patch(old, patch, media_type=media_type, schema=POD)
    new["metadata"]["labels"]["x"] = "y"
    new["spec"]["containers"][0]["image"] = "changed"
    assert old == before


NAMES = st.sampled_from(["a", "b", "c", "d", "e"])
ITEMS = st.lists(st.builds(lambda name, image: {"name": name, "image": image}, NAMES, NAMES),
                 max_size=5, unique_by=lambda item: item["name"])  # fmt: skip


@given(ITEMS, ITEMS)
def test_with_an_order_the_outcome_is_what_apply_wants(old: list[Any], new: list[Any]) -> None:
    """As `kubectl apply` patches: everything, in order, and deletions. The outcome is `new`."""
    gone = [{"name": item["name"], "$patch": "delete"} for item in old
            if item["name"] not in {other["name"] for other in new}]  # fmt: skip
    order = [{"name": item["name"]} for item in new]
    patch = {"spec": {"$setElementOrder/containers": order, "containers": new + gone}}
    assert apply_strategic_patch(containers(*old), patch, POD)["spec"]["containers"] == new


@given(ITEMS, ITEMS)
def test_without_an_order_nothing_is_lost(old: list[Any], new: list[Any]) -> None:
    merged = apply_strategic_patch(containers(*old), containers(*new), POD)["spec"]["containers"]
    expected = {item["name"]: item for item in old} | {item["name"]: item for item in new}
    assert {item["name"]: item for item in merged} == expected
    assert len(merged) == len(expected)
