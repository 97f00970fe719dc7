"""ReplicaSet plans: what is claimed, created, and which pods go first."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftkube.api.timestamps import rfc3339
from raftkube.controllers.core import pods, replica_set
from raftkube.controllers.core.conditions import find_condition
from raftkube.controllers.core.pod_template import same_template, template_hash

NOW = 1_000_000.0
Object = dict[str, Any]


def make_set(replicas: int = 3, **spec: Any) -> Object:
    return {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {"name": "web-abc", "namespace": "default", "uid": "rs-1", "generation": 4},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}, "annotations": {"note": "x"}},
                "spec": {"containers": [{"name": "web", "image": "web"}]},
            },
            **spec,
        },
    }


def make_pod(name: str, *, owner: str = "rs-1", labels: Object | None = None, **more: Any) -> Object:
    metadata: Object = {
        "name": name, "namespace": "default", "uid": name, "resourceVersion": "7",
        "labels": {"app": "web"} if labels is None else labels,
        "creationTimestamp": rfc3339(more.pop("created", NOW - 100)),
    }  # fmt: skip
    if owner:
        metadata["ownerReferences"] = [{"kind": "ReplicaSet", "name": "x", "uid": owner, "controller": True}]
    if more.pop("deleting", False):
        metadata["deletionTimestamp"] = rfc3339(NOW)
    if cost := more.pop("cost", None):
        metadata["annotations"] = {pods.DELETION_COST: cost}
    status: Object = {"phase": more.pop("phase", "Running")}
    if (since := more.pop("ready_since", NOW - 50)) is not None:
        status["conditions"] = [{"type": "Ready", "status": "True", "lastTransitionTime": rfc3339(since)}]
    status["containerStatuses"] = [{"restartCount": more.pop("restarts", 0)}]
    spec = {"nodeName": more.pop("node", "node-1")}
    assert not more
    return {"metadata": metadata, "spec": spec, "status": status}


def names(found: Any) -> list[str]:
    return [pod["metadata"]["name"] for pod in found]


def test_it_creates_what_is_missing_and_counts_only_active_pods() -> None:
    found = [
        make_pod("a"),
        make_pod("finished", phase="Failed"),
        make_pod("going", deleting=True),
        make_pod("anothers", owner="rs-2"),
    ]
    planned = replica_set.plan(replica_set.Observed(make_set(3), found), now=NOW)
    assert (planned.create, names(planned.active), planned.terminating) == (2, ["a"], 1)
    assert planned.delete == planned.adopt == planned.release == ()


def test_it_adopts_matching_orphans_and_releases_what_matches_no_more() -> None:
    found = [
        make_pod("orphan", owner=""),
        make_pod("stranger", owner="", labels={"app": "db"}),
        make_pod("relabelled", labels={"app": "debug"}),
    ]
    planned = replica_set.plan(replica_set.Observed(make_set(1), found), now=NOW)
    assert names(planned.adopt) == ["orphan"]
    assert names(planned.release) == ["relabelled"]
    assert (planned.create, planned.delete) == (0, ())


def test_one_that_is_being_deleted_touches_nothing() -> None:
    rs = make_set(3)
    rs["metadata"]["deletionTimestamp"] = rfc3339(NOW)
    found = [make_pod("a"), make_pod("orphan", owner=""), make_pod("relabelled", labels={})]
    planned = replica_set.plan(replica_set.Observed(rs, found), now=NOW)
    assert (planned.create, planned.delete, planned.adopt, planned.release) == (0, (), (), ())


GOES_FIRST = {
    "unassigned": (make_pod("x", node=""), make_pod("a")),
    "pending": (make_pod("x", phase="Pending"), make_pod("a")),
    "not ready": (make_pod("x", ready_since=None), make_pod("a")),
    "cheaper": (make_pod("x", cost="-5"), make_pod("a", cost="5")),
    "ready for a shorter time": (make_pod("x", ready_since=NOW - 1), make_pod("a", ready_since=NOW - 4000)),
    "restarted more often": (make_pod("x", restarts=3), make_pod("a")),
    "newer": (make_pod("x", created=NOW - 1), make_pod("a", created=NOW - 4000)),
}


@pytest.mark.parametrize("pair", GOES_FIRST.values(), ids=GOES_FIRST)
@pytest.mark.parametrize("turned", [False, True])
def test_which_pod_goes_first(pair: tuple[Object, Object], turned: bool) -> None:
    found = pair[::-1] if turned else pair
    planned = replica_set.plan(replica_set.Observed(make_set(1), found), now=NOW)
    assert names(planned.delete) == ["x"]


def test_of_equal_pods_the_one_that_shares_its_node_goes() -> None:
    found = [make_pod("alone", node="node-1"), make_pod("crowded", node="node-2")]
    related = [*found, make_pod("cousin", owner="rs-2", node="node-2")]
    planned = replica_set.plan(replica_set.Observed(make_set(1), found, related), now=NOW)
    assert names(planned.delete) == ["crowded"]


@given(st.integers(0, 6), st.lists(st.tuples(st.booleans(), st.booleans(), st.integers(0, 3)), max_size=8))
def test_it_never_deletes_more_than_the_surplus_nor_the_better_pod(
    replicas: int, kinds: list[tuple[bool, bool, int]]
) -> None:
    found = [
        make_pod(str(i), node="n" if bound else "", ready_since=NOW - 9 if ready else None, restarts=restarts)
        for i, (bound, ready, restarts) in enumerate(kinds)
    ]
    planned = replica_set.plan(replica_set.Observed(make_set(replicas), found), now=NOW)
    assert len(found) - len(planned.delete) + planned.create == replicas
    assert not (planned.delete and planned.create)
    kept = [pod for pod in found if pod not in planned.delete]
    if any(not pod["spec"]["nodeName"] for pod in kept):
        assert all(not pod["spec"]["nodeName"] for pod in planned.delete)


def test_a_new_pod_has_the_template_and_its_owner() -> None:
    pod = replica_set.new_pod(make_set(), "web-abc-x1y2z")
    assert pod["metadata"] == {
        "name": "web-abc-x1y2z",
        "generateName": "web-abc-",
        "namespace": "default",
        "labels": {"app": "web"},
        "annotations": {"note": "x"},
        "ownerReferences": [
            {
                "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-abc", "uid": "rs-1",
                "controller": True, "blockOwnerDeletion": True,
            }
        ],
    }  # fmt: skip


def test_the_status_counts_ready_and_available_pods() -> None:
    rs = make_set(4, minReadySeconds=30)
    found = [make_pod("a"), make_pod("b", ready_since=NOW - 10), make_pod("c", ready_since=None)]
    planned = replica_set.plan(replica_set.Observed(rs, found), now=NOW)
    status = replica_set.next_status(rs, planned, "", now=NOW)
    assert status == {
        "replicas": 3, "fullyLabeledReplicas": 3, "readyReplicas": 2, "availableReplicas": 1,
        "observedGeneration": 4, "terminatingReplicas": 0,
    }  # fmt: skip
    assert replica_set.recheck_after_s(rs, planned.active, now=NOW) == 20


def test_a_failure_to_create_stands_in_the_status_until_it_is_over() -> None:
    rs = make_set(1)
    planned = replica_set.plan(replica_set.Observed(rs, []), now=NOW)
    rs["status"] = replica_set.next_status(rs, planned, "quota exceeded", now=NOW)
    failure = find_condition(rs["status"], "ReplicaFailure")
    assert (failure["reason"], failure["message"]) == ("FailedCreate", "quota exceeded")
    assert "conditions" not in replica_set.next_status(rs, planned, "", now=NOW)


def test_the_template_hash_ignores_itself_and_nulls_but_sees_changes() -> None:
    template = make_set()["spec"]["template"]
    labelled = {**template, "metadata": {**template["metadata"], "creationTimestamp": None}}
    labelled["metadata"]["labels"] = {"app": "web", "pod-template-hash": template_hash(template)}
    assert same_template(template, labelled)
    assert template_hash(template) == template_hash(labelled) != template_hash(template, 1)
    with_volume = {**template, "spec": {**template["spec"], "volumes": [{"name": "v", "emptyDir": {}}]}}
    without = {**template, "spec": {**template["spec"], "volumes": [{"name": "v"}]}}
    assert not same_template(with_volume, without)
