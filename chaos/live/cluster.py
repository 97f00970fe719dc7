"""The cluster under test: started by the product's own command, in a state folder of its own."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import trio
import yaml

from raftkube.cluster.config import ClusterConfig
from raftkube.cluster.control import ask
from raftkube.cluster.state import ClusterState
from raftkube.errors import ConfigError
from raftkube.net import Address, TlsFiles, parse_address
from raftkube.net.http_client import ClientResponse, HttpClient
from raftkube.net.ports import free_port
from raftkube.net.tcp import TcpNetwork

_NAME = "chaos"


@dataclass(slots=True)
class LiveCluster:
    """A running cluster. `components` are rows of `raftkube status`."""

    state: ClusterState
    components: list[dict[str, Any]] = field(default_factory=list)

    @property
    def store_tls(self) -> TlsFiles:
        """The operator's certificate for the store."""
        admin = self.state.read_json("store-admin.json")
        return TlsFiles(admin["cacert"], admin["cert"], admin["key"])

    @property
    def api_tls(self) -> TlsFiles:
        """The operator's certificate for the API."""
        pki = self.state.pki
        return TlsFiles(str(pki / "ca.crt"), str(pki / "admin.crt"), str(pki / "admin.key"))

    def named(self, kind: str) -> list[str]:
        """The components of a kind."""
        return [row["name"] for row in self.components if row["kind"] == kind]

    def address(self, component: str) -> Address:
        """Where clients reach a store member or an API server."""
        row = next(row for row in self.components if row["name"] == component)
        port = row["ports"]["client" if row["kind"] == "store" else "secure"]
        return parse_address(f"127.0.0.1:{port}")

    async def pids(self, components: list[str]) -> list[int]:
        """Of those that run."""
        rows = (await self.ask("status"))["components"]
        return [row["pid"] for row in rows if row["name"] in components and row["pid"]]

    async def metrics(self, member: str) -> ClientResponse:
        """What a store member's metrics port answers. Raises HttpClientError."""
        row = next(row for row in self.components if row["name"] == member)
        address = parse_address(f"127.0.0.1:{row['ports']['metrics']}")
        client = HttpClient(TcpNetwork(), address, self.store_tls)
        try:
            return await client.request("GET", "/metrics")
        finally:
            await client.aclose()

    async def ask(self, verb: str, component: str | None = None, leader: str | None = None) -> Any:
        """One verb of the supervisor. Raises ConfigError: its sentence."""
        return await ask(self.state, {"verb": verb, "component": component, "leader": leader})


def with_mutant(text: bytes, mutant: str | None) -> bytes:
    """The cluster file with a mutant switched on. Raises ConfigError: the file does not allow it."""
    if mutant is None:
        return text
    document = yaml.safe_load(text)
    if document.get("spec", {}).get("testing") is not True:
        raise ConfigError(f"mutant {mutant!r} is refused: the cluster file must say spec.testing: true")
    document["spec"].setdefault("store", {})["mutant"] = mutant
    return yaml.safe_dump(document).encode()


def with_peer_ports(
    text: bytes, config: ClusterConfig, rng: random.Random
) -> tuple[bytes, dict[str, Address]]:
    """The cluster file with a peer port for each store member, and the members' peer addresses: proxies are
    there before the members are."""
    ports: dict[str, int] = {}
    for member in config.members:
        ports[member.name] = member.peer_port or free_port(rng, [*ports.values()])
    document = yaml.safe_load(text)
    document["spec"]["store"].pop("replicas", None)
    document["spec"]["store"]["members"] = [
        {"name": member.name, "clientPort": member.client_port, "peerPort": ports[member.name]}
        for member in config.members
    ]
    addresses = {name: Address("127.0.0.1", port) for name, port in ports.items()}
    return yaml.safe_dump(document).encode(), addresses


def cluster_root(out: Path) -> Path:
    """The state folder of the cluster of a run."""
    return Path.cwd() / out / "cluster" / _NAME


async def start_cluster(text: bytes, out: Path, timeout_s: float) -> LiveCluster:
    """`raftkube up --detach` under OUT/cluster. Raises ConfigError with its sentence."""
    os.environ["RAFTKUBE_STATE_DIR"] = str(cluster_root(out).parent)
    command = [sys.executable, "-m", "raftkube", "up", "--config", "-", "--name", _NAME, "--detach"]
    done = await trio.run_process(
        [*command, "--no-context", "--timeout", str(timeout_s)],
        stdin=text,
        capture_stdout=True,
        capture_stderr=True,
        check=False,
    )
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip().splitlines() or ["raftkube up failed"]
        raise ConfigError(said[-1].removeprefix("raftkube: "))
    cluster = LiveCluster(ClusterState.of(_NAME))
    cluster.components = (await cluster.ask("status"))["components"]
    return cluster


async def stop_cluster(cluster: LiveCluster) -> None:
    """`raftkube down`; the logs and data stay under OUT for whoever looks."""
    await trio.run_process(
        [sys.executable, "-m", "raftkube", "down", "--name", cluster.state.name],
        check=False,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def client_options(cluster: LiveCluster, out: Path, workload: dict[str, Any]) -> bytes:
    """The line that `chaos.live.client_process` reads."""
    admin = cluster.state.read_json("store-admin.json")
    return orjson.dumps({**admin, "out": str(out), "workload": workload}) + b"\n"
