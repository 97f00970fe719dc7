"""What a newcomer types, with the real kubectl, against real processes."""

from __future__ import annotations

import os
import subprocess
import threading

import psutil
import pytest
from conftest import KUBECTL, Cluster, wait_until

pytestmark = pytest.mark.e2e

MANIFEST = """
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {colour: blue}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: api, labels: {app: api}}
spec:
  replicas: 1
  selector: {matchLabels: {app: api}}
  template:
    metadata: {labels: {app: api}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - {name: main, image: web, command: [sh, -c, "echo ready; exec sleep 3600"]}
"""


def sleeping(seconds: str) -> list[psutil.Process]:
    """Processes of this machine that run `sleep <seconds>`."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.cmdline() == ["sleep", seconds]:
                found.append(process)
        except psutil.Error:
            continue
    return found


def test_nodes_are_ready(cluster: Cluster) -> None:
    out = cluster.kubectl("get", "nodes", "--no-headers").stdout.splitlines()
    assert [line.split()[:2] for line in out] == [["node-1", "Ready"], ["node-2", "Ready"]]


def test_a_deployment_lives_and_dies(cluster: Cluster, namespace: str) -> None:
    seconds = str(100_000 + os.getpid())
    n = ("-n", namespace)
    cluster.kubectl("create", "deployment", "web", "--image=web", "--replicas=3", *n, "--", "sleep", seconds)
    out = cluster.kubectl("rollout", "status", "deployment/web", *n, "--timeout=60s").stdout
    assert 'deployment "web" successfully rolled out' in out
    pods = cluster.kubectl("get", "pods", "-o", "wide", "--no-headers", *n).stdout.splitlines()
    assert [line.split()[1:3] for line in pods] == [["1/1", "Running"]] * 3
    assert {line.split()[6] for line in pods} == {"node-1", "node-2"}
    assert len(sleeping(seconds)) == 3
    cluster.kubectl("scale", "deployment/web", "--replicas=5", *n)
    wait_until(lambda: len(sleeping(seconds)) == 5)
    cluster.kubectl("rollout", "status", "deployment/web", *n, "--timeout=60s")
    cluster.kubectl("delete", "deployment", "web", *n)
    wait_until(lambda: not sleeping(seconds), timeout_s=90)
    wait_until(lambda: not cluster.get("pods,replicasets", *n)["items"], timeout_s=90)


def test_apply_twice_says_unchanged(cluster: Cluster, namespace: str) -> None:
    n = ("-n", namespace)
    first = cluster.kubectl("apply", "-f", "-", *n, stdin=MANIFEST).stdout
    assert first.splitlines() == ["configmap/settings created", "deployment.apps/api created"]
    cluster.kubectl("rollout", "status", "deployment/api", *n, "--timeout=60s")
    second = cluster.kubectl("apply", "-f", "-", *n, stdin=MANIFEST).stdout
    assert second.splitlines() == ["configmap/settings unchanged", "deployment.apps/api unchanged"]
    changed = cluster.kubectl(
        "apply", "-f", "-", *n, stdin=MANIFEST.replace("replicas: 1", "replicas: 2")
    ).stdout
    assert changed.splitlines()[1] == "deployment.apps/api configured"
    cluster.kubectl("delete", "-f", "-", *n, stdin=MANIFEST)


def test_logs_describe_and_events(cluster: Cluster, namespace: str) -> None:
    n = ("-n", namespace)
    cluster.kubectl("apply", "-f", "-", *n, stdin=MANIFEST)
    cluster.kubectl("rollout", "status", "deployment/api", *n, "--timeout=60s")
    wait_until(lambda: cluster.kubectl("logs", "deployment/api", *n).stdout == "ready\n")
    described = cluster.kubectl("describe", "deployment", "api", *n).stdout
    assert "1 desired | 1 updated | 1 total | 1 available | 0 unavailable" in described
    assert "ScalingReplicaSet" in described
    pods = wait_until(lambda: _described_with(cluster, n, "ImageNotUnpacked"))
    assert "Successfully assigned" in pods
    assert "node-" in cluster.kubectl("describe", "node", "node-1").stdout


def _described_with(cluster: Cluster, n: tuple[str, str], word: str) -> str:
    out = cluster.kubectl("describe", "pods", *n).stdout
    return out if word in out else ""


def test_a_rollout_to_another_image_and_back(cluster: Cluster, namespace: str) -> None:
    n = ("-n", namespace)
    cluster.kubectl("apply", "-f", "-", *n, stdin=MANIFEST)
    cluster.kubectl("rollout", "status", "deployment/api", *n, "--timeout=60s")
    cluster.kubectl("set", "image", "deployment/api", "main=web:2", *n)
    cluster.kubectl("rollout", "status", "deployment/api", *n, "--timeout=60s")
    sets = {item["spec"]["replicas"] for item in cluster.get("replicasets", *n)["items"]}
    assert sets == {0, 1}
    cluster.kubectl("rollout", "undo", "deployment/api", *n)
    cluster.kubectl("rollout", "status", "deployment/api", *n, "--timeout=60s")
    image = cluster.get("deployment", "api", *n)["spec"]["template"]["spec"]["containers"][0]["image"]
    assert image == "web"


def test_get_watch_streams_changes(cluster: Cluster, namespace: str) -> None:
    watch = subprocess.Popen(
        [KUBECTL, "get", "pods", "-w", "-n", namespace, "--no-headers"],
        stdout=subprocess.PIPE, text=True, env=cluster.environment,
    )  # fmt: skip
    lines: list[str] = []
    assert watch.stdout is not None
    reader = threading.Thread(target=lambda: lines.extend(iter(watch.stdout.readline, "")))  # type: ignore[union-attr]
    reader.start()
    try:
        cluster.kubectl("apply", "-f", "-", "-n", namespace, stdin=MANIFEST)
        wait_until(lambda: any(" Running " in line for line in lines))
        statuses = [line.split()[2] for line in lines]
        assert statuses[0] in ("Pending", "ContainerCreating")
        assert statuses.index("Running") > 0
    finally:
        watch.kill()
        watch.wait()
        reader.join()


def test_a_namespace_takes_its_contents_along(cluster: Cluster) -> None:
    cluster.kubectl("create", "namespace", "short-lived")
    cluster.kubectl("apply", "-f", "-", "-n", "short-lived", stdin=MANIFEST)
    wait_until(lambda: cluster.get("pods", "-n", "short-lived")["items"])
    cluster.kubectl("delete", "namespace", "short-lived", "--timeout=90s", timeout_s=120)
    assert cluster.kubectl("get", "namespace", "short-lived", check=False).returncode == 1
    assert cluster.get("pods", "-n", "short-lived")["items"] == []


def test_a_restarting_container_backs_off(cluster: Cluster, namespace: str) -> None:
    cluster.kubectl("create", "deployment", "bad", "--image=web", "-n", namespace, "--", "sh", "-c", "exit 3")

    def crashed() -> bool:
        for pod in cluster.get("pods", "-n", namespace)["items"]:
            for status in pod["status"].get("containerStatuses", []):
                last = status.get("lastState", {}).get("terminated", {}) or status["state"].get(
                    "terminated", {}
                )
                if last.get("exitCode") == 3 and status["restartCount"] >= 1:
                    return True
        return False

    wait_until(crashed)
