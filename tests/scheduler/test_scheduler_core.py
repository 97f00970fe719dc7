"""Filters, scores and decisions: upstream's rules and words; no node is ever overcommitted."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scheduler_objects import info, node, pod

from raftkube.rng import seeded_rng
from raftkube.scheduler.core.cluster_view import ClusterView
from raftkube.scheduler.core.decide import Placed, Unschedulable, decide
from raftkube.scheduler.core.matching import tolerates
from raftkube.scheduler.core.pod_info import PodInfo, wants_scheduling
from raftkube.scheduler.core.resources import pod_requests

TAINT = {"key": "dedicated", "value": "db", "effect": "NoSchedule"}


def view_of(*nodes: dict[str, Any]) -> ClusterView:
    view = ClusterView()
    for obj in nodes:
        view.set_node(obj)
    return view


def outcome(view: ClusterView, pod_info: PodInfo, seed: int = 1) -> str:
    """A node's name, or the message."""
    match decide(pod_info, view.nodes(), seeded_rng(seed)):
        case Placed(name):
            return name
        case Unschedulable(message):
            return message


def bound(name: str, node_name: str, **fields: Any) -> PodInfo:
    return info(name, nodeName=node_name, **fields)


# Resources ----------------------------------------------------------------------------------


def test_requests_are_the_larger_of_running_and_initializing() -> None:
    def container(cpu: str, **more: str) -> dict[str, Any]:
        return {"resources": {"requests": {"cpu": cpu}}} | more

    assert pod_requests({"containers": [container("100m"), container("0.2")]}) == {"cpu": 300}
    spec = {
        "containers": [container("100m")],
        "initContainers": [
            container("50m"),
            container("200m", restartPolicy="Always"),
            container("500m"),
            container("10m", restartPolicy="Always"),
        ],
        "overhead": {"cpu": "1m", "memory": "1Ki"},
    }
    # Running: 100 + 200 + 10; the third step: 500 beside the first sidecar.
    assert pod_requests(spec) == {"cpu": 701, "memory": 1024}


def test_without_requests_it_counts_for_comparisons_only() -> None:
    assert info("a").requests == {}
    assert info("a").nonzero_requests == {"cpu": 100, "memory": 200 * 1024 * 1024}
    assert info("a", cpu="1").nonzero_requests == {"cpu": 1000, "memory": 200 * 1024 * 1024}


# Filters: one reason each, in upstream's words ----------------------------------------------


@pytest.mark.parametrize(
    ("node_fields", "pod_fields", "reason"),
    [
        ({"cpu": "1"}, {"cpu": "1500m"}, "Insufficient cpu"),
        ({"memory": "1Gi"}, {"memory": "1025Mi"}, "Insufficient memory"),
        ({"cpu": "1", "memory": "1"}, {"cpu": "2", "memory": "2"}, "Insufficient cpu, 1 Insufficient memory"),
        ({"pods": "0"}, {}, "Too many pods"),
        ({"unschedulable": True}, {}, "node(s) were unschedulable"),
        ({"taints": [TAINT]}, {}, "node(s) had untolerated taint {dedicated: db}"),
        (
            {"taints": [{"key": "node.kubernetes.io/not-ready", "effect": "NoExecute"}]},
            {},
            "node(s) had untolerated taint {node.kubernetes.io/not-ready: }",
        ),
        ({}, {"nodeSelector": {"disk": "ssd"}}, "node(s) didn't match Pod's node affinity/selector"),
    ],
)
def test_reasons(node_fields: dict[str, Any], pod_fields: dict[str, Any], reason: str) -> None:
    assert outcome(view_of(node("n1", **node_fields)), info("p", **pod_fields)) == (
        f"0/1 nodes are available: 1 {reason}."
    )


def test_reasons_are_counted_and_sorted() -> None:
    view = view_of(node("n1", cpu="1"), node("n2", cpu="1"), node("n3", taints=[TAINT]))
    assert outcome(view, info("p", cpu="2")) == (
        "0/3 nodes are available: 1 node(s) had untolerated taint {dedicated: db}, 2 Insufficient cpu."
    )


def test_no_nodes() -> None:
    assert outcome(view_of(), info("p")) == "no nodes available to schedule pods"


def test_extended_resources_and_ephemeral_storage() -> None:
    view = view_of(node("n1", extended={"example.com/gpu": "1", "ephemeral-storage": "1Gi"}))
    two = {"name": "c", "resources": {"requests": {"example.com/gpu": "2"}}}
    assert "Insufficient example.com/gpu" in outcome(view, info("p", containers=[two]))
    much = {"name": "c", "resources": {"requests": {"ephemeral-storage": "2Gi"}}}
    assert "Insufficient ephemeral-storage" in outcome(view, info("p", containers=[much]))
    one = {"name": "c", "resources": {"requests": {"example.com/gpu": "1", "ephemeral-storage": "1Gi"}}}
    assert outcome(view, info("p", containers=[one])) == "n1"
    unknown = {"name": "c", "resources": {"requests": {"example.com/fpga": "1"}}}
    assert "Insufficient example.com/fpga" in outcome(view, info("p", containers=[unknown]))


def test_host_ports() -> None:
    def with_port(**port: Any) -> dict[str, Any]:
        return {"containers": [{"name": "c", "ports": [port]}]}

    view = view_of(node("n1"))
    view.set_pod(bound("a", "n1", **with_port(hostPort=80, hostIP="127.0.0.1")))
    reason = "0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports."
    assert outcome(view, info("p", **with_port(hostPort=80))) == reason
    assert outcome(view, info("p", **with_port(hostPort=80, hostIP="127.0.0.2"))) == "n1"
    assert outcome(view, info("p", **with_port(hostPort=80, protocol="UDP"))) == "n1"
    assert outcome(view, info("p", **with_port(hostPort=81))) == "n1"


@pytest.mark.parametrize(
    ("expression", "names"),
    [
        ({"key": "zone", "operator": "In", "values": ["a", "b"]}, {"n1", "n2"}),
        ({"key": "zone", "operator": "NotIn", "values": ["a"]}, {"n2", "n3"}),
        ({"key": "zone", "operator": "Exists"}, {"n1", "n2"}),
        ({"key": "zone", "operator": "DoesNotExist"}, {"n3"}),
        ({"key": "cores", "operator": "Gt", "values": ["4"]}, {"n2"}),
        ({"key": "cores", "operator": "Lt", "values": ["5"]}, {"n1"}),
        ({"key": "zone", "operator": "Nonsense"}, set()),
    ],
)
def test_required_node_affinity(expression: dict[str, Any], names: set[str]) -> None:
    view = view_of(
        node("n1", labels={"zone": "a", "cores": "4"}),
        node("n2", labels={"zone": "b", "cores": "8"}),
        node("n3"),
    )
    term = {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}
    affinity = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": term}}
    found = {outcome(view, info("p", affinity=affinity), seed) for seed in range(20)}
    assert {name for name in found if name in ("n1", "n2", "n3")} == names


def test_terms_are_alternatives_and_fields_name_nodes() -> None:
    view = view_of(node("n1"), node("n2"), node("n3", labels={"zone": "c"}))
    terms = [
        {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n2"]}]},
        {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["c"]}]},
        {},  # matches nothing
    ]
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}
    found = {outcome(view, info("p", affinity={"nodeAffinity": required}), seed) for seed in range(20)}
    assert found == {"n2", "n3"}


@pytest.mark.parametrize(
    ("toleration", "covers"),
    [
        ({"key": "dedicated", "value": "db", "effect": "NoSchedule"}, True),
        ({"key": "dedicated", "operator": "Equal", "value": "db"}, True),
        ({"key": "dedicated", "value": "web"}, False),
        ({"key": "dedicated", "operator": "Exists"}, True),
        ({"key": "dedicated", "operator": "Exists", "effect": "NoExecute"}, False),
        ({"operator": "Exists"}, True),
        ({"key": "other", "operator": "Exists"}, False),
        ({"value": "db"}, False),
    ],
)
def test_tolerations(toleration: dict[str, Any], covers: bool) -> None:
    assert tolerates(toleration, TAINT) is covers
    fits = outcome(view_of(node("n1", taints=[TAINT])), info("p", tolerations=[toleration])) == "n1"
    assert fits is covers


def test_a_cordon_can_be_tolerated() -> None:
    toleration = {"key": "node.kubernetes.io/unschedulable", "operator": "Exists", "effect": "NoSchedule"}
    assert outcome(view_of(node("n1", unschedulable=True)), info("p", tolerations=[toleration])) == "n1"


# Scores -------------------------------------------------------------------------------------


def test_the_emptier_node_is_taken() -> None:
    view = view_of(node("n1"), node("n2"))
    view.set_pod(bound("a", "n1", cpu="1"))
    assert {outcome(view, info("p"), seed) for seed in range(10)} == {"n2"}


def test_balance_decides_between_equally_free_nodes() -> None:
    view = view_of(node("n1", cpu="10", memory="10Gi"), node("n2", cpu="10", memory="10Gi"))
    view.set_pod(bound("a", "n1", cpu="6", memory="1Gi"))  # lopsided towards cpu
    view.set_pod(bound("b", "n2", cpu="1", memory="6Gi"))
    assert outcome(view, info("p", cpu="2", memory="1Mi")) == "n2"


def test_preferred_affinity_and_soft_taints() -> None:
    soft = {"key": "k", "effect": "PreferNoSchedule"}
    assert outcome(view_of(node("n1", taints=[soft]), node("n2")), info("p")) == "n2"
    view = view_of(node("n1", labels={"disk": "ssd"}), node("n2"), node("n3"))
    preferred = [
        {"weight": 10, "preference": {"matchExpressions": [{"key": "disk", "operator": "Exists"}]}},
        {"weight": 1, "preference": {}},
    ]
    affinity = {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": preferred}}
    assert {outcome(view, info("p", affinity=affinity), seed) for seed in range(10)} == {"n1"}


def test_replicas_spread() -> None:
    for seed in range(20):
        view = view_of(node("n1", cpu="2"), node("n2", cpu="16", memory="64Gi"))
        rng = seeded_rng(seed)
        for number in range(3):
            replica = info(f"web-{number}", owner="rs")
            placed = decide(replica, view.nodes(), rng)
            assert isinstance(placed, Placed)
            view.assume(replica, placed.node_name)
        used = [len(info_.pods) for info_ in view.nodes()]
        assert sorted(used) == [1, 2], f"seed {seed}"


def test_ties_are_broken_by_the_seed() -> None:
    view = view_of(node("n1"), node("n2"), node("n3"))
    assert {outcome(view, info("p"), seed) for seed in range(50)} == {"n1", "n2", "n3"}
    assert outcome(view, info("p"), 7) == outcome(view, info("p"), 7)


# The cluster as seen ------------------------------------------------------------------------


def test_assumed_pods_count_until_seen_or_forgotten() -> None:
    view = view_of(node("n1", cpu="1"))
    first = info("a", cpu="1")
    view.assume(first, "n1")
    assert "Insufficient cpu" in outcome(view, info("b", cpu="1"))
    view.set_pod(first)  # an old event: still unbound
    assert view.is_assumed(first)
    assert view.forget(first)
    assert outcome(view, info("b", cpu="1")) == "n1"
    view.assume(first, "n1")
    view.set_pod(bound("a", "n1", cpu="1"))
    assert not view.forget(first), "it was seen bound"
    assert "Insufficient cpu" in outcome(view, info("b", cpu="1"))


def test_finished_and_deleted_pods_make_room() -> None:
    view = view_of(node("n1", cpu="1"))
    view.set_pod(bound("a", "n1", cpu="1"))
    done = pod("a", cpu="1", nodeName="n1") | {"status": {"phase": "Succeeded"}}
    assert view.set_pod(PodInfo.of(done))
    assert outcome(view, info("b", cpu="1")) == "n1"
    view.set_pod(bound("c", "n1", cpu="1"))
    assert view.remove_pod("default/c")
    assert not view.remove_pod("default/c")
    assert outcome(view, info("b", cpu="1")) == "n1"


def test_pods_seen_before_their_node_count_on_it() -> None:
    view = ClusterView()
    view.set_pod(bound("a", "n1", cpu="3"))
    assert view.nodes() == []
    view.set_node(node("n1", cpu="4"))
    assert "Insufficient cpu" in outcome(view, info("b", cpu="2"))
    view.remove_node("n1")
    assert outcome(view, info("b")) == "no nodes available to schedule pods"
    view.set_node(node("n1", cpu="4"))
    assert "Insufficient cpu" in outcome(view, info("b", cpu="2"))


def test_heartbeats_change_nothing_that_counts() -> None:
    view = ClusterView()
    assert view.set_node(node("n1"))
    beat = node("n1")
    beat["status"]["conditions"] = [{"type": "Ready", "lastHeartbeatTime": "now"}]
    assert not view.set_node(beat)
    assert view.set_node(node("n1", unschedulable=True))


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        ({}, True),
        ({"nodeName": "n1"}, False),
        ({"schedulingGates": [{"name": "x"}]}, False),
        ({"schedulerName": "mine"}, False),
    ],
)
def test_which_pods_are_ours(change: dict[str, Any], wanted: bool) -> None:
    assert wants_scheduling(pod("a", **change)) is wanted


def test_terminating_pods_are_not_ours() -> None:
    obj = pod("a")
    obj["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert not wants_scheduling(obj)


steps = st.lists(
    st.one_of(
        st.tuples(st.just("schedule"), st.integers(0, 30), st.integers(0, 3000), st.integers(0, 3000)),
        st.tuples(st.sampled_from(["seen", "forget", "delete", "finish"]), st.integers(0, 30)),
        st.tuples(st.just("node"), st.integers(0, 3), st.integers(0, 4000)),
    ),
    max_size=80,
)


@given(steps, st.integers(0, 2**32))
def test_no_decision_overcommits_a_node(script: list[tuple[Any, ...]], seed: int) -> None:
    """Whatever is seen, forgotten, deleted or finished in between: at each decision the node has room, by a
    sum made anew from all pods."""
    view, rng = view_of(node("n0", pods="4"), node("n1", cpu="2", memory="2Gi")), seeded_rng(seed)
    places: dict[int, tuple[str, PodInfo]] = {}
    free_of: dict[str, int] = {"n0": 4000, "n1": 2000}
    for step in script:
        match step:
            case ("schedule", number, cpu, memory) if number not in places:
                wanted = info(f"p{number}", cpu=f"{cpu}m", memory=f"{memory}Mi")
                decision = decide(wanted, view.nodes(), rng)
                if isinstance(decision, Placed):
                    name = decision.node_name
                    there = [p for on, p in places.values() if on == name]
                    used = sum(p.requests.get("cpu", 0) for p in there)
                    assert cpu == 0 or used + cpu <= free_of[name]
                    assert name != "n0" or len(there) < 4
                    view.assume(wanted, name)
                    places[number] = (name, wanted)
            case ("seen", number) if number in places:
                name, placed = places[number]
                view.set_pod(PodInfo.of(placed.obj | {"spec": placed.obj["spec"] | {"nodeName": name}}))
            case ("forget", number) if number in places and view.is_assumed(places[number][1]):
                view.forget(places.pop(number)[1])
            case ("delete", number) if number in places:
                view.remove_pod(places.pop(number)[1].key)
            case ("finish", number) if number in places:
                _, placed = places.pop(number)
                view.set_pod(PodInfo.of(placed.obj | {"status": {"phase": "Failed"}}))
            case ("node", number, cpu):
                name = f"n{number}"
                free_of[name] = cpu
                view.set_node(node(name, cpu=f"{cpu}m", pods="4" if number == 0 else "110"))
            case _:
                pass
    for node_info in view.nodes():
        there = [p for on, p in places.values() if on == node_info.name]
        assert node_info.requested.get("cpu", 0) == sum(p.requests.get("cpu", 0) for p in there)
        assert set(node_info.pods) == {p.key for p in there}
        assert node_info.spread == ({"": len(there)} if there else {})
