from __future__ import annotations

from typing import Any

import pytest
from api_samples import CREATED, T0, created_ok, deployment, pod, resource
from hypothesis import given
from hypothesis import strategies as st

from raftkube.api.deletion import (
    DeleteOptions,
    Deletion,
    begin_deletion,
    check_preconditions,
    deletion_complete,
    gc_finalizers,
)
from raftkube.api.objects import copy_json
from raftkube.api.resource import Object
from raftkube.api.status import ApiError


def _delete(plural: str, obj: Object, now: float = T0, **options: Any) -> Deletion:
    before = copy_json(obj)
    decided = begin_deletion(resource(plural), obj, DeleteOptions(**options), now=now)
    assert obj == before, "the stored object is shared with the cache and must not be changed"
    return decided


def _running() -> Object:
    stored = created_ok("pods", pod(nodeName="node-1"))
    stored["status"]["phase"] = "Running"
    return stored


def test_what_nothing_holds_goes_at_once() -> None:
    assert _delete("configmaps", created_ok("configmaps", {"metadata": {"name": "a"}})).delete_now


def test_a_finalizer_holds_it_marked() -> None:
    stored = created_ok("deployments", deployment())
    stored["metadata"]["finalizers"] = ["example.com/a"]
    decided = _delete("deployments", stored)
    assert (decided.delete_now, decided.changed) == (False, True)
    assert decided.obj["metadata"] == {
        **stored["metadata"], "deletionTimestamp": CREATED, "deletionGracePeriodSeconds": 0, "generation": 2,
    }  # fmt: skip
    again = _delete("deployments", decided.obj, now=T0 + 5)
    assert (again.delete_now, again.changed) == (False, False)


def test_a_running_pod_gets_its_grace_period() -> None:
    stored = _running()
    decided = _delete("pods", stored)
    assert not decided.delete_now
    meta = decided.obj["metadata"]
    assert (meta["deletionTimestamp"], meta["deletionGracePeriodSeconds"]) == ("2026-01-01T00:00:30Z", 30)
    assert meta["generation"] == 2
    waiting = _delete("pods", decided.obj, now=T0 + 1)
    assert (waiting.delete_now, waiting.changed) == (False, False)
    assert not _delete("pods", decided.obj, now=T0 + 1, grace_period_s=60).changed
    shorter = _delete("pods", decided.obj, now=T0 + 1, grace_period_s=5)
    assert shorter.obj["metadata"]["deletionTimestamp"] == "2026-01-01T00:00:05Z"
    assert shorter.obj["metadata"]["deletionGracePeriodSeconds"] == 5
    assert shorter.obj["metadata"]["generation"] == 2
    assert _delete("pods", decided.obj, now=T0 + 1, grace_period_s=0).delete_now


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_a_pod_that_ended_goes_at_once(phase: str) -> None:
    stored = _running()
    stored["status"]["phase"] = phase
    assert _delete("pods", stored, grace_period_s=30).delete_now


def test_a_pod_that_no_node_runs_goes_at_once() -> None:
    assert _delete("pods", created_ok("pods", pod())).delete_now


def test_force_and_nonsense_grace() -> None:
    assert _delete("pods", _running(), grace_period_s=0).delete_now
    assert _delete("pods", _running(), grace_period_s=-5).obj["metadata"]["deletionGracePeriodSeconds"] == 1


def test_a_finalizer_holds_a_pod_even_when_forced() -> None:
    stored = _running()
    stored["metadata"]["finalizers"] = ["example.com/a"]
    decided = _delete("pods", stored, grace_period_s=0)
    assert not decided.delete_now
    assert decided.obj["metadata"]["deletionGracePeriodSeconds"] == 0


@pytest.mark.parametrize(
    ("carried", "policy", "expected"),
    [
        ([], "", []), ([], "Background", []), ([], "Foreground", ["foregroundDeletion"]),
        ([], "Orphan", ["orphan"]), (["orphan"], "", ["orphan"]), (["orphan"], "Background", []),
        (["orphan"], "Foreground", ["foregroundDeletion"]),
        (["foregroundDeletion"], "", ["foregroundDeletion"]),
        (["a.b/c"], "Orphan", ["a.b/c", "orphan"]), (["a.b/c", "orphan"], "Background", ["a.b/c"]),
    ],
)  # fmt: skip
def test_propagation_becomes_finalizers(carried: list[str], policy: str, expected: list[str]) -> None:
    assert gc_finalizers(resource("deployments"), {"finalizers": carried}, policy) == expected


def test_foreground_marks_and_waits() -> None:
    decided = _delete("deployments", created_ok("deployments", deployment()), propagation="Foreground")
    assert not decided.delete_now
    assert decided.obj["metadata"]["finalizers"] == ["foregroundDeletion"]
    assert decided.obj["metadata"]["deletionTimestamp"] == CREATED


def test_a_namespace_waits_for_its_own_finalizers() -> None:
    stored = created_ok("namespaces", {"metadata": {"name": "team"}})
    decided = _delete("namespaces", stored)
    assert not decided.delete_now
    assert decided.obj["status"]["phase"] == "Terminating"
    emptied = {**decided.obj, "spec": {"finalizers": []}}
    assert _delete("namespaces", emptied, now=T0 + 1).delete_now
    assert deletion_complete(resource("namespaces"), emptied, decided.obj)
    assert not deletion_complete(resource("namespaces"), decided.obj, decided.obj)


def test_the_last_finalizer_removes_the_object() -> None:
    kind = resource("configmaps")
    old = created_ok("configmaps", {"metadata": {"name": "a", "finalizers": ["example.com/a"]}})
    freed = copy_json(old)
    del freed["metadata"]["finalizers"]
    assert not deletion_complete(kind, freed, old), "it is not being deleted"
    old["metadata"]["deletionTimestamp"] = CREATED
    old["metadata"]["deletionGracePeriodSeconds"] = 0
    assert deletion_complete(kind, freed, old)
    assert not deletion_complete(kind, old, old)
    old["metadata"]["deletionGracePeriodSeconds"] = 30
    assert not deletion_complete(kind, freed, old), "its grace period runs"


def test_preconditions() -> None:
    stored = {"metadata": {"name": "a", "uid": "u1", "resourceVersion": "7"}}
    kind = resource("configmaps")
    check_preconditions(stored, kind, uid="u1", resource_version="7")
    check_preconditions(stored, kind, uid="", resource_version="")
    with pytest.raises(ApiError) as caught:
        check_preconditions(stored, kind, uid="u2", resource_version="")
    assert (caught.value.code, caught.value.message) == (
        409,
        'Operation cannot be fulfilled on configmaps "a": Precondition failed: UID in precondition: u2, UID '
        "in object meta: u1",
    )
    with pytest.raises(ApiError, match="ResourceVersion in precondition: 8, "):
        check_preconditions(stored, kind, uid="u1", resource_version="8")


def test_options() -> None:
    body = {
        "kind": "DeleteOptions", "gracePeriodSeconds": 0, "propagationPolicy": "Orphan", "dryRun": ["All"],
        "preconditions": {"uid": "u", "resourceVersion": "3"},
    }  # fmt: skip
    assert DeleteOptions.parse(body) == DeleteOptions(0, "Orphan", "u", "3", True)
    assert DeleteOptions.parse({}) == DeleteOptions()
    assert DeleteOptions.parse({"orphanDependents": True}).propagation == "Orphan"
    assert DeleteOptions.parse({"orphanDependents": False}).propagation == "Background"


@pytest.mark.parametrize(
    ("body", "code", "text"),
    [
        ({"propagationPolicy": "Later"}, 422, 'propagationPolicy: Unsupported value: "Later"'),
        ({"propagationPolicy": "Orphan", "orphanDependents": True}, 422, "cannot be both set"),
        ({"dryRun": ["Some"]}, 422, 'supported values: "All"'),
        ({"gracePeriodSeconds": "soon"}, 400, "gracePeriodSeconds an integer"),
        ({"preconditions": []}, 200, ""),
        ({"preconditions": "u"}, 400, "preconditions must be an object"),
    ],
)
def test_wrong_options(body: dict[str, Any], code: int, text: str) -> None:
    if code == 200:
        assert DeleteOptions.parse(body) == DeleteOptions()
        return
    with pytest.raises(ApiError) as caught:
        DeleteOptions.parse(body)
    assert caught.value.code == code
    assert text in caught.value.message


@given(
    st.lists(st.one_of(st.none(), st.integers(-3, 90)), min_size=1, max_size=6),
    st.lists(st.sampled_from(["orphan", "example.com/a"]), unique=True, max_size=2),
)
def test_grace_only_ever_shrinks_and_finalizers_always_hold(
    requests: list[int | None], finalizers: list[str]
) -> None:
    stored = _running()
    if finalizers:
        stored["metadata"]["finalizers"] = finalizers
    grace_before = None
    for step, grace in enumerate(requests):
        decided = _delete("pods", stored, now=T0 + step, grace_period_s=grace)
        if decided.delete_now:
            assert not finalizers
            return
        grace_now = decided.obj["metadata"]["deletionGracePeriodSeconds"]
        assert grace_before is None or grace_now <= grace_before
        assert decided.obj["metadata"]["generation"] == 2
        stored, grace_before = decided.obj, grace_now
