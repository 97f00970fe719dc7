"""Namespaces that die, nodes that fall silent or vanish, and what every namespace is given."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from controlled_world import Cluster, add_node, cluster, deployment, rolled_out, until

from raftkube.api.timestamps import rfc3339
from raftkube.client.endpoints import (
    CONFIG_MAPS,
    DEPLOYMENTS,
    LEASES,
    NAMESPACES,
    NODES,
    PODS,
    REPLICA_SETS,
    SECRETS,
    SERVICE_ACCOUNTS,
    Object,
)
from raftkube.client.rest import RestClient
from raftkube.clock import SystemClock
from raftkube.controllers.controller_manager import Choice
from raftkube.controllers.core.conditions import find_condition
from raftkube.controllers.node_lifecycle import NodeTimes

QUICK = Choice(
    root_ca="PEM",
    node_times=NodeTimes(grace_s=1.0, startup_grace_s=1.0, eviction_period_s=0.1),
    vanished_node_quarantine_s=0.2,
)


async def test_each_namespace_gets_its_account_and_the_ca(tmp_path: Path) -> None:
    async with cluster(tmp_path) as c:
        c.start()
        await c.admin.create(NAMESPACES, {"metadata": {"name": "shop"}})

        async def given() -> bool:
            account = await c.find(SERVICE_ACCOUNTS, "default", "shop")
            published = await c.find(CONFIG_MAPS, "kube-root-ca.crt", "shop")
            return account is not None and published is not None and published["data"] == {"ca.crt": "PEM"}

        await until("shop has both", given)
        await c.admin.delete(SERVICE_ACCOUNTS, "default", "shop")
        await c.patch(CONFIG_MAPS, "kube-root-ca.crt", {"data": {"ca.crt": "forged"}}, "shop")
        await until("both are mended", given)


async def test_a_deleted_namespace_is_emptied_and_goes(tmp_path: Path) -> None:
    async with cluster(tmp_path) as c:
        c.start()
        await c.admin.create(NAMESPACES, {"metadata": {"name": "shop"}})
        made = deployment(2)
        made["metadata"]["namespace"] = "shop"
        await c.admin.create(DEPLOYMENTS, made)
        await c.admin.create(SECRETS, {"metadata": {"name": "key", "namespace": "shop"}})

        async def runs() -> bool:
            return len(await c.names(PODS, "shop")) == 2

        await until("it has pods", runs)
        await c.world.kubectl("delete", "namespace", "shop", "--timeout=30s")
        assert await c.find(NAMESPACES, "shop") is None
        for endpoint in (DEPLOYMENTS, REPLICA_SETS, PODS, SECRETS, CONFIG_MAPS, SERVICE_ACCOUNTS):
            assert await c.names(endpoint, "shop") == []


async def test_a_namespace_says_what_it_waits_for(tmp_path: Path) -> None:
    async with cluster(tmp_path) as c:
        c.start()
        await c.admin.create(NAMESPACES, {"metadata": {"name": "shop"}})
        held = {"metadata": {"name": "held", "namespace": "shop", "finalizers": ["example.com/hold"]}}
        await c.admin.create(CONFIG_MAPS, held)
        await c.admin.delete(NAMESPACES, "shop")

        async def told() -> bool:
            status = (await c.admin.get(NAMESPACES, "shop"))["status"]
            remaining = find_condition(status, "NamespaceFinalizersRemaining")
            return remaining is not None and remaining["message"] == (
                "Some content in the namespace has finalizers remaining: "
                "example.com/hold in 1 resource instances"
            )

        await until("it tells of the finalizer", told)
        await c.patch(CONFIG_MAPS, "held", {"metadata": {"finalizers": None}}, "shop")

        async def is_gone() -> bool:
            return await c.find(NAMESPACES, "shop") is None

        await until("it goes", is_gone)


# Nodes ---------------------------------------------------------------------------------------


async def beat(admin: RestClient, name: str) -> None:
    """Renew the node's Lease twice a second."""
    lease = {"metadata": {"name": name, "namespace": "kube-node-lease"}, "spec": {"holderIdentity": name}}
    await admin.create(LEASES, lease)
    while True:
        renewed = {"spec": {"renewTime": rfc3339(SystemClock().wall(), micros=True)}}
        await admin.patch(LEASES, name, renewed, "kube-node-lease")
        await trio.sleep(0.3)


def bound_pod(name: str, node: str, *, seconds: int | None = None) -> Object:
    tolerations = [] if seconds is None else [
        {"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds}
        for key in ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")
    ]  # fmt: skip
    return {
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "nodeName": node, "tolerations": tolerations, "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "web", "image": "web"}],
        },
    }  # fmt: skip


async def make_ready(c: Cluster, name: str) -> None:
    pod = await c.admin.get(PODS, name, "default")
    condition = {"type": "Ready", "status": "True", "lastTransitionTime": rfc3339(SystemClock().wall())}
    await c.admin.update_status(PODS, pod | {"status": {"phase": "Running", "conditions": [condition]}})


def taints(node: Object) -> set[str]:
    return {f"{taint['key']}:{taint['effect']}" for taint in node["spec"].get("taints") or ()}


UNREACHABLE = {"node.kubernetes.io/unreachable:NoSchedule", "node.kubernetes.io/unreachable:NoExecute"}


async def test_a_silent_node_is_marked_tainted_and_emptied_and_comes_back(tmp_path: Path) -> None:
    async with cluster(tmp_path, choice=QUICK) as c:
        c.nursery.start_soon(beat, c.admin, "node-1")
        await add_node(c.admin, "dead-1")
        for pod in (bound_pod("patient", "dead-1", seconds=3600), bound_pod("hasty", "dead-1", seconds=0)):
            await c.admin.create(PODS, pod)
            await make_ready(c, pod["metadata"]["name"])
        c.start()

        async def marked() -> bool:
            node = await c.admin.get(NODES, "dead-1")
            ready = find_condition(node["status"], "Ready")
            return (ready["status"], ready["reason"]) == ("Unknown", "NodeStatusUnknown") and (
                taints(node) == UNREACHABLE
            )

        await until("the node is marked and tainted", marked)

        async def evicted() -> bool:
            hasty = await c.find(PODS, "hasty")
            return hasty is None or bool(hasty["metadata"].get("deletionTimestamp"))

        await until("the pod without patience goes", evicted)
        patient = await c.admin.get(PODS, "patient", "default")
        assert find_condition(patient["status"], "Ready")["status"] == "False"
        assert "deletionTimestamp" not in patient["metadata"]
        assert taints(await c.admin.get(NODES, "node-1")) == set(), "the other node is well"

        node = await c.admin.get(NODES, "dead-1")
        condition = {
            "type": "Ready", "status": "True", "reason": "KubeletReady",
            "lastHeartbeatTime": rfc3339(SystemClock().wall() + 1),
        }  # fmt: skip
        c.nursery.start_soon(beat, c.admin, "dead-1")
        await c.admin.update_status(NODES, node | {"status": {"conditions": [condition]}})

        async def untainted() -> bool:
            return taints(await c.admin.get(NODES, "dead-1")) == set()

        await until("it comes back", untainted)


async def test_when_no_node_is_heard_of_nobody_is_driven_off(tmp_path: Path) -> None:
    async with cluster(tmp_path, choice=QUICK) as c:
        await c.admin.create(PODS, bound_pod("web", "node-1", seconds=0))
        c.start()

        async def tainted() -> bool:
            return "node.kubernetes.io/unreachable:NoSchedule" in taints(await c.admin.get(NODES, "node-1"))

        await until("the node is tainted against new pods", tainted)
        assert "node.kubernetes.io/unreachable:NoExecute" not in taints(await c.admin.get(NODES, "node-1"))
        assert await c.names(PODS) == ["web"]


async def test_a_cordoned_node_is_tainted(tmp_path: Path) -> None:
    async with cluster(tmp_path) as c:
        c.start()
        await c.world.kubectl("cordon", "node-1")

        async def tainted() -> bool:
            found = taints(await c.admin.get(NODES, "node-1"))
            return found == {"node.kubernetes.io/unschedulable:NoSchedule"}

        await until("it is tainted", tainted)
        await c.world.kubectl("uncordon", "node-1")

        async def untainted() -> bool:
            return taints(await c.admin.get(NODES, "node-1")) == set()

        await until("it is free", untainted)


@pytest.mark.parametrize("before_start", [True, False])
async def test_pods_of_a_vanished_node_are_replaced(tmp_path: Path, before_start: bool) -> None:
    async with cluster(tmp_path, choice=QUICK) as c:
        c.nursery.start_soon(beat, c.admin, "node-1")
        await add_node(c.admin, "dead-1")
        if not before_start:
            c.start()
        await c.admin.create(DEPLOYMENTS, deployment(2))
        if before_start:
            c.start()
        await until("rolled out", lambda: rolled_out(c))
        lost = bound_pod("lost", "dead-1", seconds=3600)
        await c.admin.create(PODS, lost)
        await c.admin.delete(NODES, "dead-1")

        async def collected() -> bool:
            return await c.find(PODS, "lost") is None

        await until("its pod is collected", collected)
        assert len(await c.names(PODS)) == 2
