"""Only API servers speak to the store, and only they hold its certificates."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import psutil
import pytest
import yaml
from conftest import Cluster

pytestmark = pytest.mark.e2e

OUTSIDERS = ("scheduler", "controller-manager", "kubelet", "balancer")


def store_ports(cluster: Cluster) -> set[int]:
    return {p for row in cluster.status().values() if row["kind"] == "store" for p in row["ports"].values()}


def connected_ports(pid: int) -> set[int]:
    """Remote ports of a process's TCP sockets, from /proc."""
    inodes = {link.readlink().name for link in Path(f"/proc/{pid}/fd").iterdir() if link.is_symlink()}
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if f"socket:[{fields[9]}]" in inodes:
                found.add(int(fields[2].rsplit(":", 1)[1], 16))
    return found


def test_only_api_servers_hold_a_socket_to_the_store(cluster: Cluster) -> None:
    ports = store_ports(cluster)
    rows = cluster.status().values()
    for row in rows:
        touched = connected_ports(row["pid"]) & ports
        if row["kind"] in OUTSIDERS:
            assert not touched, f"{row['name']} is connected to the store"
        if row["kind"] == "apiserver":
            assert touched, "the check sees a socket where there is one"


def test_only_api_servers_are_given_a_store_certificate(cluster: Cluster) -> None:
    pki = cluster.state / "default" / "pki"
    for row in cluster.status().values():
        command = " ".join(psutil.Process(row["pid"]).cmdline())
        named = "store-client" in command or "store-ca" in command or "store-admin" in command
        assert named == (row["kind"] in ("apiserver", "store")), row["name"]
    for kubeconfig in (cluster.state / "default" / "kubeconfigs").glob("*.kubeconfig"):
        user = yaml.safe_load(kubeconfig.read_text())["users"][0]["user"]
        held = base64.b64decode(user["client-certificate-data"])
        theirs = [path.read_bytes() for path in pki.glob("*store*.crt")]
        assert held not in theirs


def test_the_operators_store_certificate_is_private(cluster: Cluster) -> None:
    admin = json.loads((cluster.state / "default" / "store-admin.json").read_text())
    assert Path(admin["key"]).stat().st_mode & 0o777 == 0o600
    assert (cluster.state / "default" / "store-admin.json").stat().st_mode & 0o777 == 0o600
    assert cluster.raftkube("kv", "get", "/registry/core/nodes/node-1", "--keys-only").stdout
