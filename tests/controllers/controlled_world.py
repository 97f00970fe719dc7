"""A controller manager on real API servers over TLS, with rules in place of scheduler and kubelets."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio
from api_world import World, world

from raftkube.api.status import ApiError
from raftkube.api.timestamps import rfc3339
from raftkube.client.endpoints import (
    DEPLOYMENTS,
    LEASES,
    NODES,
    PODS,
    REPLICA_SETS,
    Endpoint,
    Object,
)
from raftkube.client.errors import LeadershipEnded
from raftkube.client.kubeconfig import ClusterAccess
from raftkube.client.leader_election import ElectionSettings
from raftkube.client.rest import RestClient
from raftkube.clock import SystemClock
from raftkube.controllers.controller_manager import Choice, ControllerManagerConfig, run
from raftkube.net import Address, Connection, TlsFiles
from raftkube.net.tcp import TcpNetwork
from raftkube.rng import seeded_rng

USER = "system:kube-controller-manager"


class CuttableNetwork:
    """The real network, until it is cut: then nobody is reached any more (the process is dead)."""

    def __init__(self) -> None:
        self._real = TcpNetwork()
        self._made: list[Connection] = []
        self.dead = False
        self.listen = self._real.listen

    async def connect(self, address: Address, tls: TlsFiles | None) -> Connection:
        if self.dead:
            await trio.lowlevel.checkpoint()
            raise ConnectionRefusedError("dead")
        connection = await self._real.connect(address, tls)
        self._made.append(connection)
        return connection

    def cut(self) -> None:
        self.dead = True
        for connection in self._made:
            connection.abort()


@dataclass
class Process:
    """One controller manager."""

    name: str
    world: World
    choice: Choice
    network: CuttableNetwork = field(default_factory=CuttableNetwork)
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    over: trio.Event = field(default_factory=trio.Event)
    ended: list[str] = field(default_factory=list)

    async def run(self) -> None:
        access = ClusterAccess(tuple(self.world.addresses), self.world.tls(USER))
        election = ElectionSettings(lease_duration_s=2)
        config = ControllerManagerConfig(self.name, access, election, choice=self.choice)
        with self.scope:
            try:
                await run(config, network=self.network, clock=SystemClock(), rng=seeded_rng(self.name))
            except* LeadershipEnded as group:
                self.ended = [str(error) for error in group.exceptions]
        self.over.set()


@dataclass
class Cluster:
    """`admin` may do everything. Kubelet rules: pods become ready unless their image is `stuck…`; a pod
    that is being deleted ends at once."""

    world: World
    admin: RestClient
    nursery: trio.Nursery
    choice: Choice
    deleted_pods: list[str] = field(default_factory=list)
    active: set[str] = field(default_factory=set)
    most_active: int = 0

    def start(self, name: str = "controller-manager-1") -> Process:
        """One more controller manager."""
        process = Process(name, self.world, self.choice)
        self.nursery.start_soon(process.run)
        return process

    async def objects(self, endpoint: Endpoint, namespace: str = "default") -> list[Object]:
        return (await self.admin.list(endpoint, namespace if endpoint.namespaced else "")).items

    async def names(self, endpoint: Endpoint, namespace: str = "default") -> list[str]:
        return sorted(obj["metadata"]["name"] for obj in await self.objects(endpoint, namespace))

    async def find(self, endpoint: Endpoint, name: str, namespace: str = "default") -> Object | None:
        try:
            return await self.admin.get(endpoint, name, namespace if endpoint.namespaced else "")
        except ApiError as error:
            if error.code == 404:
                return None
            raise

    async def patch(self, endpoint: Endpoint, name: str, patch: Any, namespace: str = "default") -> Object:
        where = namespace if endpoint.namespaced else ""
        return await self.admin.patch(endpoint, name, patch, where)

    async def set_image(self, image: str, name: str = "web") -> None:
        containers = [{"name": "web", "image": image}]
        await self.patch(DEPLOYMENTS, name, {"spec": {"template": {"spec": {"containers": containers}}}})

    async def kubelets(self) -> None:
        """Follow all pods and be their scheduler and kubelet."""
        watch_from = await self.admin.list(PODS)
        for pod in watch_from.items:
            self._count("ADDED", pod)
            await self._kubelet(pod)
        async with self.admin.watch(PODS, resource_version=watch_from.resource_version) as events:
            async for event in events:
                self._count(event.type, event.object)
                if event.type in ("ADDED", "MODIFIED"):
                    await self._kubelet(event.object)
                elif event.type == "DELETED":
                    self.deleted_pods.append(event.object["metadata"]["name"])

    def _count(self, type: str, pod: Object) -> None:
        """Live replicas at every revision (they are what events are of)."""
        uid = pod["metadata"]["uid"]
        if type == "DELETED" or pod["metadata"].get("deletionTimestamp"):
            self.active.discard(uid)
        elif type != "BOOKMARK":
            self.active.add(uid)
        self.most_active = max(self.most_active, len(self.active))

    async def _kubelet(self, pod: Object) -> None:
        try:
            await self._kubelet_turn(pod)
        except ApiError as error:
            if error.code not in (404, 409):
                raise

    async def _kubelet_turn(self, pod: Object) -> None:
        metadata, node = pod["metadata"], pod["spec"].get("nodeName")
        if not node:
            await self.admin.bind(pod, "node-1")
        elif node.startswith("dead"):
            return
        elif metadata.get("deletionTimestamp"):
            await self.admin.delete(
                PODS, metadata["name"], metadata["namespace"], uid=metadata["uid"], grace_period_s=0
            )
        elif not pod["status"].get("conditions") or pod["status"]["phase"] == "Pending":
            await self.admin.update_status(PODS, pod | {"status": _running(pod)})


def _running(pod: Object) -> Object:
    stuck = pod["spec"]["containers"][0]["image"].startswith("stuck")
    condition = {
        "type": "Ready",
        "status": "False" if stuck else "True",
        "lastTransitionTime": rfc3339(SystemClock().wall()),
    }
    return {"phase": "Running", "conditions": [condition]}


@asynccontextmanager
async def cluster(
    directory: Path, *, servers: int = 1, choice: Choice | None = None
) -> AsyncIterator[Cluster]:
    """API servers and kubelet rules; controller managers are for the test to start."""
    async with world(directory, servers=servers) as w, trio.open_nursery() as nursery:
        admin = RestClient.connect(
            w.network, w.addresses, w.tls("admin", "system:masters"), user_agent="test",
            clock=SystemClock(), rng=seeded_rng(5),
        )  # fmt: skip
        made = Cluster(w, admin, nursery, choice or Choice(root_ca="PEM"))
        await add_node(admin, "node-1")
        nursery.start_soon(made.kubelets)
        yield made
        nursery.cancel_scope.cancel()


async def add_node(admin: RestClient, name: str, *, ready: str = "True") -> Object:
    node = {"metadata": {"name": name}}
    created = await admin.create(NODES, node)
    at = rfc3339(SystemClock().wall())
    condition = {
        "type": "Ready", "status": ready, "reason": "KubeletReady", "lastHeartbeatTime": at,
        "lastTransitionTime": at,
    }  # fmt: skip
    return await admin.update_status(NODES, created | {"status": {"conditions": [condition]}})


def deployment(replicas: int = 3, *, name: str = "web", image: str = "web:1", **spec: Any) -> Object:
    labels = {"app": name}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "web", "image": image}]}}
    return {
        "metadata": {"name": name, "namespace": "default", "labels": labels},
        "spec": {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template, **spec},
    }


async def until(what: str, ready: Callable[[], Awaitable[Any]], seconds: float = 40) -> None:
    """Wait until `await ready()` is true."""
    deadline = trio.current_time() + seconds
    while not await ready():
        assert trio.current_time() < deadline, f"not within {seconds} s: {what}"
        await trio.sleep(0.05)


async def rolled_out(c: Cluster, name: str = "web") -> bool:
    """What kubectl rollout status waits for."""
    found = await c.admin.get(DEPLOYMENTS, name, "default")
    spec, status = found["spec"], found.get("status") or {}
    wanted = spec["replicas"]
    counts = [status.get(key) or 0 for key in ("replicas", "updatedReplicas", "availableReplicas")]
    observed = status.get("observedGeneration") or 0
    return observed >= found["metadata"]["generation"] and counts == [wanted] * 3


async def gone(c: Cluster, *endpoints: Endpoint) -> bool:
    """Whether the namespace default has none of these."""
    return not any([await c.names(endpoint) for endpoint in endpoints])


async def holder(c: Cluster) -> str:
    lease = await c.find(LEASES, "kube-controller-manager", "kube-system")
    return str(lease["spec"]["holderIdentity"]).partition("_")[0] if lease else ""


ALL = (DEPLOYMENTS, REPLICA_SETS, PODS)
