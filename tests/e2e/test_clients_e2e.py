"""kubectl where controllers and kubelets answer too: drain, logs of former containers, orphans, events."""

from __future__ import annotations

import pytest
from conftest import Cluster, wait_until

pytestmark = pytest.mark.e2e


def test_run_waits_for_a_pod_and_takes_it_away(cluster: Cluster, namespace: str) -> None:
    n = ("-n", namespace)
    out = cluster.kubectl(
        "run", "once", "--image=web", "--rm", "-i", "--restart=Never", "--pod-running-timeout=60s", *n,
        "--", "echo", "hello",
    ).stdout  # fmt: skip
    assert "hello" in out
    assert 'pod "once" deleted' in out
    assert cluster.get("pods", *n)["items"] == []


def test_logs_of_a_container_that_has_no_former_one(cluster: Cluster, namespace: str) -> None:
    n = ("-n", namespace)
    cluster.kubectl("run", "one", "--image=web", *n, "--", "sleep", "3600")
    cluster.kubectl("wait", "--for=condition=Ready", "pod/one", "--timeout=60s", *n)
    refused = cluster.kubectl("logs", "one", "-p", *n, check=False).stderr
    assert refused.strip() == (
        'Error from server (BadRequest): previous terminated container "one" in pod "one" not found'
    )


def test_described_events_are_in_the_order_in_which_they_happened(cluster: Cluster, namespace: str) -> None:
    n = ("-n", namespace)
    cluster.kubectl("run", "one", "--image=web", *n, "--", "sleep", "3600")
    described = wait_until(lambda: _described_with(cluster, n, "Started container"))
    shown = [described.index(word) for word in ("was not unpacked", "Created container", "Started container")]
    assert shown == sorted(shown), described


def _described_with(cluster: Cluster, n: tuple[str, str], word: str) -> str:
    out = cluster.kubectl("describe", "pod", "one", *n).stdout
    return out if word in out else ""


def test_an_orphaned_replica_set_keeps_its_pods(cluster: Cluster, namespace: str) -> None:
    n = ("-n", namespace)
    cluster.kubectl("create", "deployment", "web", "--image=web", *n, "--", "sleep", "3600")
    cluster.kubectl("rollout", "status", "deployment/web", "--timeout=60s", *n)
    cluster.kubectl("delete", "deployment", "web", "--cascade=orphan", *n)
    (left,) = cluster.get("replicasets", *n)["items"]
    assert "ownerReferences" not in left["metadata"]
    assert len(cluster.get("pods", *n)["items"]) == 1
    cluster.kubectl("delete", "replicaset", "--all", "--cascade=foreground", "--timeout=60s", *n)
    assert cluster.get("replicasets,pods", *n)["items"] == []


def test_drain_moves_pods_and_uncordon_lets_them_return(cluster: Cluster, namespace: str) -> None:
    n = ("-n", namespace)
    cluster.kubectl("create", "deployment", "web", "--image=web", "--replicas=4", *n, "--", "sleep", "3600")
    cluster.kubectl("rollout", "status", "deployment/web", "--timeout=60s", *n)
    try:
        out = cluster.kubectl("drain", "node-1", "--force", "--timeout=60s", timeout_s=90).stdout
        assert "node/node-1 drained" in out
        cluster.kubectl("rollout", "status", "deployment/web", "--timeout=60s", *n)
        assert {pod["spec"]["nodeName"] for pod in _alive(cluster, n)} == {"node-2"}
        shown = cluster.kubectl("get", "node", "node-1", "--no-headers").stdout
        assert shown.split()[1] == "Ready,SchedulingDisabled"
    finally:
        cluster.kubectl("uncordon", "node-1")
    cluster.kubectl("taint", "nodes", "node-2", "tests=alone:NoExecute")
    try:
        wait_until(lambda: {pod["spec"].get("nodeName") for pod in _alive(cluster, n)} == {"node-1"})
    finally:
        cluster.kubectl("taint", "nodes", "node-2", "tests:NoExecute-")


def _alive(cluster: Cluster, n: tuple[str, str]) -> list[dict]:  # type: ignore[type-arg]
    return [pod for pod in cluster.get("pods", *n)["items"] if "deletionTimestamp" not in pod["metadata"]]
