"""Whole clusters of real processes, driven by the real commands: `raftkube` and PyPI's kubectl."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

KUBECTL = str(Path(sys.executable).with_name("kubectl"))

FULL = """
apiVersion: raftkube.dev/v1alpha1
kind: Cluster
spec:
  testing: true
  balancer: {port: 0}
  store: {replicas: 3}
  apiserver: {replicas: 2}
  controllerManager: {replicas: 2}
  scheduler: {replicas: 2}
  kubelet: {replicas: 2, runtime: process}
"""


class Cluster:
    """A cluster in a state folder of its own; every command is bounded and its output kept."""

    def __init__(self, folder: Path, config: str) -> None:
        self.state = folder / "state"
        self.kubeconfig = folder / "kubeconfig"
        self.environment = os.environ | {
            "RAFTKUBE_STATE_DIR": str(self.state),
            "KUBECONFIG": str(self.kubeconfig),
        }
        self.config = config

    def up(self) -> subprocess.CompletedProcess[str]:
        return self.raftkube("up", "--config", "-", "--detach", stdin=self.config, timeout_s=180)

    def raftkube(
        self, *arguments: str, stdin: str = "", timeout_s: float = 60, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        return self._run([sys.executable, "-m", "raftkube", *arguments], stdin, timeout_s, check)

    def kubectl(
        self, *arguments: str, stdin: str = "", timeout_s: float = 60, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        return self._run([KUBECTL, *arguments], stdin, timeout_s, check)

    def _run(
        self, command: list[str], stdin: str, timeout_s: float, check: bool
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            command,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            env=self.environment,
            check=False,
        )
        assert not check or done.returncode == 0, f"{' '.join(command)}: {done.stdout}{done.stderr}"
        return done

    def get(self, *arguments: str) -> dict[str, Any]:
        """`kubectl get … -o json`."""
        loaded: dict[str, Any] = json.loads(self.kubectl("get", *arguments, "-o", "json").stdout)
        return loaded

    def status(self) -> dict[str, dict[str, Any]]:
        """Component name -> its row of `raftkube status`."""
        rows = json.loads(self.raftkube("status", "-o", "json").stdout)["components"]
        return {row["name"]: row for row in rows}

    def leader(self, kind: str) -> str | None:
        return next(
            (n for n, row in self.status().items() if row["kind"] == kind and row.get("leader")), None
        )

    def log(self, component: str) -> str:
        return self.raftkube("logs", component).stdout

    def processes(self) -> list[psutil.Process]:
        """Every process that carries this state folder on its command line or lives below it."""
        found = []
        for process in psutil.process_iter():
            try:
                if str(self.state) in " ".join(process.cmdline()) or process.cwd().startswith(
                    str(self.state)
                ):
                    found.append(process)
            except psutil.Error:
                continue
        return found


def wait_until(holds: Callable[[], Any], timeout_s: float = 60) -> Any:
    """Poll until `holds()` is true; its value. Fails the test after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while not (value := holds()):
        assert time.monotonic() < deadline, f"did not come to hold within {timeout_s} s"
        time.sleep(0.1)
    return value


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One full cluster for the whole session; a test leaves it whole."""
    made = Cluster(tmp_path_factory.mktemp("cluster"), FULL)
    made.up()
    try:
        yield made
    finally:
        made.raftkube("down", "--purge", check=False)
    assert made.processes() == [], "down leaves nothing behind"


@pytest.fixture
def namespace(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[str]:
    """A namespace of the test's own, deleted after it."""
    name = request.node.name.replace("_", "-").replace("[", "-").replace("]", "")[:60].strip("-").lower()
    cluster.kubectl("create", "namespace", name)
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=false", check=False)
