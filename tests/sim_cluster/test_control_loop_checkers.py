"""Every invariant of control loops: a history that keeps it, and ones that break it."""

from __future__ import annotations

from typing import Any

import pytest
from object_histories import (
    CONTROLLER_MANAGER,
    LEASE,
    Story,
    deployment,
    node,
    obj,
    pod,
    replica_set,
)

from chaos.checkers.control_loops import judge_control_loops
from chaos.checkers.history import history_of

PODS_PATH = "/api/v1/namespaces/default/pods"


def test_what_has_converged_is_valid() -> None:
    story = Story()
    story.put("core/nodes/n", node("n", pods="3"))
    story.put("apps/deployments/default/d", deployment("d", 1))
    story.put("apps/replicasets/default/rs", replica_set("rs", 1, owner="d"))
    story.put("core/pods/default/p", pod("p", "1", owner="rs"))
    story.put("core/pods/default/p", pod("p", "1", owner="rs", node="n"))
    verdict = story.judge()
    assert verdict.word == "valid", verdict.violations
    assert verdict.checked["bindings"] == verdict.checked["pods created by control loops"] == 1


def test_a_run_without_an_end_is_unknown() -> None:
    story = Story()
    story.observe("peace")
    story.put("core/nodes/n", node("n"))
    story.observe("end")
    assert judge_control_loops(history_of(story.records[:-1])).word == "unknown"


@pytest.mark.parametrize(
    "left",
    [
        ("core/pods/default/p", obj("p", "1", metadata={"deletionTimestamp": "2025-01-01T00:00:00Z"})),
        ("core/pods/default/p", pod("p", "1")),
        ("core/pods/default/p", pod("p", "1", node="gone")),
        ("core/pods/default/p", pod("p", "1", phase="Pending") | {"status": {}}),
        ("apps/replicasets/default/rs", replica_set("rs", 2)),
        ("apps/replicasets/default/rs", replica_set("rs", 0, generation=2)),
        ("apps/deployments/default/d", deployment("d", 1) | {"status": {"observedGeneration": 1}}),
        ("core/nodes/m", node("m") | {"status": {}}),
        ("core/nodes/m", node("m") | {"spec": {"taints": [{"key": "k"}]}}),
    ],
    ids=[
        "terminating",
        "unbound",
        "nowhere",
        "unready",
        "too-few",
        "unobserved",
        "unrolled",
        "lost",
        "tainted",
    ],
)
def test_c1_what_is_left_undone(left: tuple[str, dict[str, Any]]) -> None:
    story = Story()
    story.put("core/nodes/n", node("n"))
    story.put(*left)
    assert story.broken() == {"C1"}


@pytest.mark.parametrize("later", ["m", ""])
def test_c2_a_pod_that_moves(later: str) -> None:
    story = Story()
    for name in "nm":
        story.put(f"core/nodes/{name}", node(name))
    story.put("core/pods/default/p", pod("p", "1"))
    story.put("core/pods/default/p", pod("p", "1", node="n"))
    story.put("core/pods/default/p", pod("p", "1", node=later))
    assert "C2" in story.broken()


def test_c2_another_pod_of_that_name_may_be_elsewhere() -> None:
    story = Story()
    for name in "nm":
        story.put(f"core/nodes/{name}", node(name))
    story.put("core/pods/default/p", pod("p", "1", node="n"))
    story.delete("core/pods/default/p")
    story.put("core/pods/default/p", pod("p", "2", node="m"))
    assert not story.broken()


def _pods(story: Story, count: int, owner: str = "rs", first: int = 0) -> None:
    for number in range(first, first + count):
        story.put(f"core/pods/default/p{number}", pod(f"p{number}", str(number), owner=owner))


def test_c3_one_pod_too_many() -> None:
    story = Story()
    story.put("apps/replicasets/default/rs", replica_set("rs", 2))
    _pods(story, 3)
    assert "C3" in story.broken()


@pytest.mark.parametrize(("observed", "broken"), [(1, False), (2, True)])
def test_c3_a_size_that_may_not_have_been_seen_counts(observed: int, broken: bool) -> None:
    story = Story()
    story.put("apps/replicasets/default/rs", replica_set("rs", 2))
    story.put("apps/replicasets/default/rs", replica_set("rs", 1, generation=2, observed=observed))
    _pods(story, 2)
    assert ("C3" in story.broken()) == broken


def test_c3_finished_deleted_and_adopted_pods_do_not_count() -> None:
    story = Story()
    story.put("apps/replicasets/default/rs", replica_set("rs", 1))
    story.put("core/pods/default/done", pod("done", "d", owner="rs", phase="Succeeded"))
    going = {
        "deletionTimestamp": "2025-01-01T00:00:00Z",
        "ownerReferences": [{"uid": "rs", "controller": True}],
    }
    story.put("core/pods/default/going", obj("going", "g", metadata=going))
    story.put("core/pods/default/found", pod("found", "f"))
    story.put("core/pods/default/found", pod("found", "f", owner="rs"))
    _pods(story, 1)
    assert "C3" not in story.broken()


@pytest.mark.parametrize(("surge", "broken"), [(2, False), (1, True)])
def test_c3_all_replica_sets_of_a_deployment_together(surge: int, broken: bool) -> None:
    story = Story()
    story.put("apps/deployments/default/d", deployment("d", 2, surge=surge))
    for uid in ("old", "new"):
        story.put(f"apps/replicasets/default/{uid}", replica_set(uid, 2, owner="d"))
    _pods(story, 2, "old")
    _pods(story, 2, "new", first=2)
    assert ("C3" in story.broken()) == broken


def test_c3_a_deployment_that_is_being_deleted_resizes_nothing() -> None:
    story = Story()
    going = deployment("d", 1, surge=0)
    going["metadata"]["deletionTimestamp"] = "2025-01-01T00:00:00Z"
    story.put("apps/deployments/default/d", going)
    story.put("apps/replicasets/default/rs", replica_set("rs", 3, owner="d"))
    _pods(story, 3)
    assert "C3" not in story.broken()


def test_c4_what_lost_its_owners() -> None:
    story = Story()
    story.put("apps/replicasets/default/rs", replica_set("rs", 0, owner="never"))
    assert story.broken() == {"C4"}


@pytest.mark.parametrize(
    ("room", "broken"), [({"pods": "2"}, False), ({"pods": "1"}, True), ({"cpu": "300m", "pods": "9"}, True)]
)
def test_c5_a_node_that_is_given_too_much(room: dict[str, str], broken: bool) -> None:
    story = Story()
    story.put("core/nodes/n", node("n", **room))
    asks = {"containers": [{"resources": {"requests": {"cpu": "0.2"}}}]}
    for name in ("a", "b"):
        story.put(f"core/pods/default/{name}", pod(name, name, **asks))
        story.put(f"core/pods/default/{name}", pod(name, name, node="n", **asks))
    assert ("C5" in story.broken()) == broken


@pytest.mark.parametrize(
    ("user", "path", "given", "broken"),
    [
        (CONTROLLER_MANAGER, f"{PODS_PATH}/p", {"uid": "u", "resourceVersion": "1"}, False),
        (CONTROLLER_MANAGER, f"{PODS_PATH}/p", {"uid": "u"}, True),
        (CONTROLLER_MANAGER, "/api/v1/nodes/n", {}, True),
        (CONTROLLER_MANAGER, PODS_PATH, {}, False),
        ("system:node:n", f"{PODS_PATH}/p", {"uid": "u"}, False),
        ("system:node:n", f"{PODS_PATH}/p", {}, True),
        ("kubernetes-admin", f"{PODS_PATH}/p", {}, False),
    ],
)
def test_c6_deletes_name_what_they_mean(user: str, path: str, given: dict[str, str], broken: bool) -> None:
    story = Story()
    story.request(user, "DELETE", path, preconditions=given)
    assert story.broken() == ({"C6"} if broken else set())


def _lease(holder: str) -> dict[str, Any]:
    return obj("kube-controller-manager", holder, spec={"holderIdentity": holder})


@pytest.mark.parametrize("answered", [True, False])
@pytest.mark.parametrize(("token", "broken"), [("3", False), ("1", True)])
def test_l3_a_write_by_a_deposed_leader(token: str, broken: bool, answered: bool) -> None:
    story = Story()
    story.put(LEASE, _lease("a"))
    story.delete(LEASE)
    assert story.put(LEASE, _lease("b")) == 3
    api = story.request(CONTROLLER_MANAGER, "POST", "/apis/x/y", token=token)
    revision = story.put("core/configmaps/default/c", obj("c", "c"))
    story.write(api, "core/configmaps/default/c", revision=revision if answered else None)
    assert story.broken() == ({"L3"} if broken else set())


def test_l3_a_refused_write_changes_nothing_and_another_may_have_made_the_change() -> None:
    story = Story()
    story.put(LEASE, _lease("a"))
    old = story.request(CONTROLLER_MANAGER, "POST", "/apis/x/y", token="9")
    new = story.request(CONTROLLER_MANAGER, "POST", "/apis/x/y", token="1")
    story.write(old, "core/configmaps/default/never", revision=None)
    story.put("core/configmaps/default/c", obj("c", "c"))
    story.write(old, "core/configmaps/default/c", revision=None)
    story.write(new, "core/configmaps/default/c", revision=None)
    assert not story.broken()


def test_l3_a_write_without_a_token() -> None:
    story = Story()
    story.put(LEASE, _lease("a"))
    api = story.request(CONTROLLER_MANAGER, "POST", "/apis/x/y")
    story.write(
        api, "core/configmaps/default/c", revision=story.put("core/configmaps/default/c", obj("c", "c"))
    )
    assert story.broken() == {"L3"}


def test_l5_a_lease_that_changes_hands_without_a_gap() -> None:
    story = Story()
    story.put(LEASE, _lease("a"))
    story.put(LEASE, _lease("b"))
    assert story.broken() == {"L5"}


@pytest.mark.parametrize(("second", "broken"), [("a", False), ("b", True)])
def test_l6_two_processes_under_one_token(second: str, broken: bool) -> None:
    story = Story()
    story.put(LEASE, _lease("a"))
    story.request(CONTROLLER_MANAGER, "POST", "/apis/x/y", token="1", process="a")
    story.request(CONTROLLER_MANAGER, "POST", "/apis/x/y", token="1", process=second)
    story.request(CONTROLLER_MANAGER, "POST", "/apis/x/y", token="2", process="b")
    assert story.broken() == ({"L6"} if broken else set())


def test_a1_an_acknowledged_write_that_is_not_there() -> None:
    story = Story()
    revision = story.put("core/configmaps/default/c", obj("c", "c"))
    story.user("core/configmaps/default/c", {"resourceVersion": str(revision)})
    assert not story.broken()
    story.user("core/configmaps/default/lost", {"resourceVersion": str(revision)})
    assert story.broken() == {"A1"}


class TestA2:
    """What a watch of the API shows; the log has p at 1, p again at 2, nothing at 3, q at 4."""

    KEY = "/registry/core/pods/default/"

    def story(self) -> Story:
        story = Story()
        story.put("core/pods/default/p", pod("p", "1", phase="Succeeded"))
        story.put("core/pods/default/p", pod("p", "1", phase="Succeeded"))
        story.put("core/configmaps/default/c", obj("c", "c"))
        story.put("core/pods/default/q", pod("q", "2", phase="Succeeded"))
        return story

    def test_everything_in_order(self) -> None:
        story = self.story()
        story.seen("replace", 1, objects={f"{self.KEY}p": 1})
        story.seen("apply", 2, key=f"{self.KEY}p", present=True)
        story.seen("progress", 3)
        story.seen("apply", 4, key=f"{self.KEY}q", present=True)
        story.seen("progress", 4)
        assert not story.broken()

    def test_a_list_that_is_not_the_state(self) -> None:
        story = self.story()
        story.seen("replace", 2, objects={f"{self.KEY}p": 1})
        assert story.broken() == {"A2"}

    def test_an_event_that_never_came(self) -> None:
        story = self.story()
        story.seen("replace", 1, objects={f"{self.KEY}p": 1})
        story.seen("apply", 4, key=f"{self.KEY}q", present=True)
        assert story.broken() == {"A2"}

    def test_a_mark_that_promised_too_much(self) -> None:
        story = self.story()
        story.seen("replace", 1, objects={f"{self.KEY}p": 1})
        story.seen("progress", 3)
        assert story.broken() == {"A2"}

    def test_an_event_that_came_twice(self) -> None:
        story = self.story()
        story.seen("replace", 2, objects={f"{self.KEY}p": 2})
        story.seen("apply", 2, key=f"{self.KEY}p", present=True)
        assert story.broken() == {"A2"}

    def test_an_event_that_never_happened(self) -> None:
        story = self.story()
        story.seen("replace", 2, objects={f"{self.KEY}p": 2})
        story.seen("apply", 4, key=f"{self.KEY}z", present=True)
        assert story.broken() == {"A2"}


def test_a3_an_exception_at_a_boundary() -> None:
    story = Story()
    story.observe("bug", host="scheduler-1", text="KeyError: 'x'")
    assert story.broken() == {"A3"}
