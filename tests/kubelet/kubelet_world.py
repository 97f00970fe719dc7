"""An API server over memory storage and kubelets with real clients, all in this process."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from raftkube.apiserver.memory_storage import MemoryStorage
from raftkube.apiserver.server import ApiServerConfig
from raftkube.apiserver.server import run as run_api_server
from raftkube.client.endpoints import PODS, Endpoint, Object
from raftkube.client.informer import Informer
from raftkube.client.rest import RestClient
from raftkube.clock import SystemClock
from raftkube.cluster.certificates import Authority
from raftkube.kubelet.core.backoff import BackoffPolicy
from raftkube.kubelet.runtimes.process import kill_all
from raftkube.kubelet.service import KubeletConfig, run
from raftkube.net import Address, TlsFiles
from raftkube.net.http_client import HttpClient
from raftkube.net.tcp import TcpNetwork
from raftkube.rng import seeded_rng, system_rng

CLOCK = SystemClock()
QUICK = BackoffPolicy(base_s=0.05, max_s=0.2)


class KubeletWorld:
    """One API server, its clients, and kubelets that can be stopped and started again."""

    def __init__(self, directory: Path, nursery: trio.Nursery) -> None:
        self.directory = directory
        self.network = TcpNetwork()
        self.nursery = nursery
        self._authority = Authority.create("test-ca", CLOCK)
        self.ca = self._authority.write(directory, "ca")
        self.api = Address("127.0.0.1", 0)
        self.kubelets: dict[str, trio.CancelScope] = {}
        self.addresses: dict[str, Address] = {}
        self._changed = trio.Event()

    def tls(self, name: str, *groups: str, server: bool = False) -> TlsFiles:
        issued = self._authority.issue(
            name, organizations=groups, hosts=("127.0.0.1",) if server else (), server=server
        )
        paths = issued.write(self.directory, name.replace(":", "_"))
        return TlsFiles(self.ca, *paths, require_peer=name != "kube-apiserver")

    async def start_api(self) -> None:
        storage = MemoryStorage(seeded_rng(1))
        await self.nursery.start(storage.run)
        config = ApiServerConfig(
            name="apiserver-1",
            bind=Address("127.0.0.1", 0),
            tls=self.tls("kube-apiserver", server=True),
            kubelet_tls=self.tls("kube-apiserver-kubelet-client", "system:masters"),
        )

        async def serve(*, task_status: trio.TaskStatus[Address]) -> None:
            await run_api_server(
                config, network=self.network, clock=CLOCK, rng=seeded_rng(2), storage=storage,
                task_status=task_status,
            )  # fmt: skip

        self.api = await self.nursery.start(serve)
        self.admin = self.client("admin", "system:masters")
        self.pods = Informer(self.admin, PODS, rng=seeded_rng(3))
        self.pods.on_change(lambda old, new: self._wake())
        await self.nursery.start(self.pods.run)

    def client(self, user: str, *groups: str) -> RestClient:
        return RestClient.connect(
            self.network, [self.api], self.tls(user, *groups), user_agent="t", clock=CLOCK, rng=seeded_rng(4)
        )  # fmt: skip

    def root(self, name: str) -> str:
        return str(self.directory / "roots" / name)

    async def start_kubelet(self, name: str = "node-1", **more: Any) -> Address:
        config = KubeletConfig(
            name=name,
            root_dir=self.root(name),
            listen=Address("127.0.0.1", 0),
            tls=self.tls(f"{name}-server", server=True),
            **({"backoff": QUICK} | more),
        )
        node = (f"system:node:{name}", "system:nodes")
        client = self.admin if config.fake_nodes else self.client(*node)

        async def serve(*, task_status: trio.TaskStatus[Address]) -> None:
            with trio.CancelScope() as self.kubelets[name]:
                await run(
                    config, client, network=self.network, clock=CLOCK, rng=system_rng(),
                    task_status=task_status,
                )  # fmt: skip

        with trio.fail_after(20):
            self.addresses[name] = address = await self.nursery.start(serve)
        return address

    async def stop_kubelet(self, name: str = "node-1") -> None:
        self.kubelets[name].cancel()
        await trio.testing.wait_all_tasks_blocked(0.01)

    def kubelet_http(
        self, name: str = "node-1", *, user: str = "k", group: str = "system:masters"
    ) -> HttpClient:
        return HttpClient(self.network, self.addresses[name], self.tls(user, group))

    async def create(self, endpoint: Endpoint, obj: Object) -> Object:
        obj["metadata"].setdefault("namespace", "default")
        return await self.admin.create(endpoint, obj)

    def pod(self, name: str) -> Object | None:
        return self.pods.get(name, "default")

    async def until(self, name: str, condition: Callable[[Object], bool]) -> Object:
        """Wait until the pod is there and `condition` holds for it."""
        with trio.fail_after(20):
            while (pod := self.pod(name)) is None or not condition(pod):
                await self._changed.wait()
        return pod

    async def until_gone(self, name: str) -> None:
        with trio.fail_after(20):
            while self.pod(name) is not None:
                await self._changed.wait()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()


@asynccontextmanager
async def kubelet_world(directory: Path) -> AsyncIterator[KubeletWorld]:
    """Leaving ends everything, containers included."""
    async with trio.open_nursery() as nursery:
        world = KubeletWorld(directory, nursery)
        await world.start_api()
        try:
            yield world
        finally:
            nursery.cancel_scope.cancel()
    roots = directory / "roots"
    for root in roots.iterdir() if roots.exists() else ():
        kill_all(str(root), grace_s=0)


def make_pod(name: str, *command: str, node: str = "node-1", **spec: Any) -> Object:
    container: dict[str, Any] = {"name": "main", "image": "web"}
    if command:
        container["command"] = list(command)
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"nodeName": node, "containers": [container | spec.pop("container", {})], **spec},
    }


def main_status(pod: Object) -> Object:
    """The status of the container "main"; an empty one before there is any."""
    told = pod.get("status", {}).get("containerStatuses") or [{}]
    return dict(told[0])


def phase(pod: Object) -> str:
    return str(pod.get("status", {}).get("phase"))
