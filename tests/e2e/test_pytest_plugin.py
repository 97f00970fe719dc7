"""The fixtures that users' tests ask for: they come with the installed package, by entry point."""

from __future__ import annotations

from pathlib import Path

import kubernetes
import pytest
from conftest import wait_until

pytestmark = pytest.mark.e2e


def test_the_fixtures_give_a_working_control_plane(
    raftkube_kubeconfig: Path, raftkube_namespace: str
) -> None:
    api = kubernetes.config.new_client_from_config(str(raftkube_kubeconfig))
    core = kubernetes.client.CoreV1Api(api)
    container = {"name": "main", "image": "web", "command": ["sleep", "3600"]}
    pod = {"metadata": {"generateName": "p-"}, "spec": {"containers": [container]}}
    name = core.create_namespaced_pod(raftkube_namespace, pod).metadata.name
    wait_until(lambda: core.read_namespaced_pod(name, raftkube_namespace).status.phase == "Running")
    assert [namespace.metadata.name for namespace in core.list_namespace().items].count(
        raftkube_namespace
    ) == 1
