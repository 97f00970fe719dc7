"""Break any part while something is going on: kubectl keeps answering and the work completes."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable

import pytest
from conftest import Cluster, wait_until

pytestmark = pytest.mark.e2e


def deploy(cluster: Cluster, namespace: str, name: str, replicas: int) -> None:
    cluster.kubectl(
        "create", "deployment", name, "--image=web", f"--replicas={replicas}", "-n", namespace, "--",
        "sleep", "3600",
    )  # fmt: skip


def restart(cluster: Cluster, name: str) -> None:
    cluster.raftkube("start", name)
    wait_until(lambda: cluster.status()[name]["phase"] == "running")


def kill_store_leader(cluster: Cluster) -> str:
    return cluster.raftkube("kill", "--leader", "store").stdout.split()[0]


def kill_scheduler(cluster: Cluster) -> str:
    return cluster.raftkube("kill", "--leader", "scheduler").stdout.split()[0]


def kill_controller_manager(cluster: Cluster) -> str:
    return cluster.raftkube("kill", "--leader", "controller-manager").stdout.split()[0]


def kill_apiserver(cluster: Cluster) -> str:
    return cluster.raftkube("kill", "apiserver-1").stdout.split()[0]


@pytest.mark.parametrize(
    "kill",
    [kill_store_leader, kill_scheduler, kill_controller_manager, kill_apiserver],
    ids=lambda f: f.__name__,
)
def test_a_rollout_completes_while_a_part_is_killed(
    cluster: Cluster, namespace: str, kill: Callable[[Cluster], str]
) -> None:
    deploy(cluster, namespace, "web", 2)
    cluster.kubectl("rollout", "status", "deployment/web", "-n", namespace, "--timeout=60s")
    cluster.kubectl("set", "env", "deployment/web", "ROUND=2", "-n", namespace)
    killed = kill(cluster)
    try:
        for _ in range(5):
            assert cluster.get("nodes")["items"]
        out = cluster.kubectl(
            "rollout", "status", "deployment/web", "-n", namespace, "--timeout=90s", timeout_s=120
        ).stdout
        assert "successfully rolled out" in out
    finally:
        restart(cluster, killed)
    env = cluster.get("deployment", "web", "-n", namespace)["spec"]["template"]["spec"]["containers"][0][
        "env"
    ]
    assert env == [{"name": "ROUND", "value": "2"}]


@pytest.mark.parametrize("kind", ["scheduler", "controller-manager"])
def test_one_of_two_acts_and_the_other_takes_over(cluster: Cluster, kind: str) -> None:
    first = wait_until(lambda: cluster.leader(kind))
    rows = [row for row in cluster.status().values() if row["kind"] == kind]
    assert len(rows) == 2
    assert sum(bool(row.get("leader")) for row in rows) == 1
    lease = json.loads(
        cluster.kubectl("get", "lease", f"kube-{kind}", "-n", "kube-system", "-o", "json").stdout
    )
    assert lease["spec"]["holderIdentity"].startswith(first)
    cluster.raftkube("kill", first)
    try:
        second = wait_until(lambda: (leader := cluster.leader(kind)) not in (None, first) and leader)
        after = cluster.get("lease", f"kube-{kind}", "-n", "kube-system")
        assert after["spec"]["holderIdentity"].startswith(second)
        assert int(after["metadata"]["annotations"]["raftkube.dev/fencing-token"]) > int(
            lease["metadata"]["annotations"]["raftkube.dev/fencing-token"]
        )
    finally:
        restart(cluster, first)


def test_a_scheduler_that_was_stopped_past_its_lease_cannot_write(cluster: Cluster, namespace: str) -> None:
    first = wait_until(lambda: cluster.leader("scheduler"))
    restarts = cluster.status()[first]["restarts"]
    lines = len(cluster.log(first).splitlines())
    cluster.raftkube("pause", first)
    wait_until(lambda: cluster.leader("scheduler") not in (None, first))
    deploy(cluster, namespace, "meanwhile", 2)
    cluster.kubectl("rollout", "status", "deployment/meanwhile", "-n", namespace, "--timeout=60s")
    cluster.raftkube("resume", first)
    wait_until(lambda: cluster.status()[first]["restarts"] > restarts)
    said = "\n".join(cluster.log(first).splitlines()[lines:])
    # Its next write is a binding (stale token) or the renewal of its Lease (another's now): both are
    # refused by the API server, and it ends.
    assert "409" in said
    assert "kube-system/kube-scheduler" in said
    wait_until(lambda: cluster.status()[first]["phase"] == "running")


def test_nothing_acknowledged_is_missing_after_all_stores_are_killed(
    cluster: Cluster, namespace: str
) -> None:
    acknowledged = {}
    for number in range(20):
        made = cluster.kubectl(
            "create", "configmap", f"c{number}", f"--from-literal=n={number}", "-n", namespace, "-o", "json"
        )
        acknowledged[f"c{number}"] = json.loads(made.stdout)["metadata"]["uid"]
    stores = [row for row in cluster.status().values() if row["kind"] == "store"]
    for row in stores:
        os.kill(row["pid"], signal.SIGKILL)
    wait_until(lambda: cluster.leader("store"))  # the supervisor restarts what died unasked
    found = wait_until(
        lambda: cluster.kubectl("get", "configmaps", "-n", namespace, "-o", "json", check=False).stdout
    )
    uids = {item["metadata"]["name"]: item["metadata"]["uid"] for item in json.loads(found)["items"]}
    assert acknowledged.items() <= uids.items()


def test_a_component_that_dies_unasked_is_restarted(cluster: Cluster) -> None:
    row = cluster.status()["balancer"]
    os.kill(row["pid"], signal.SIGKILL)
    after = wait_until(
        lambda: (new := cluster.status()["balancer"])["restarts"] > row["restarts"] and new["pid"] and new
    )
    assert after["pid"] != row["pid"]
    wait_until(lambda: cluster.kubectl("get", "nodes", check=False).returncode == 0)
