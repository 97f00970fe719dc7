"""A whole control plane in one process: store members, API servers, controller managers, schedulers and
kubelets with fake nodes, each on a simulated host of its own.

Every component is the product's own code. What it would get from the machine it gets from the simulation:
time, chance, network, disks; TLS is not simulated, the identities that certificates would give are.
A process that ends by itself is started again, as `raftkube up` does.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final

import trio

from chaos.recording import MemoryRecorder
from chaos.sim.clock import SimClock
from chaos.sim.cluster_door import ApiDoor
from chaos.sim.cluster_settings import ClusterSettings
from chaos.sim.cluster_storage import RecordedStorage
from chaos.sim.disk import MountedDisk, SimDisk
from chaos.sim.network import SimHost, SimNetwork
from chaos.sim.trio_private import HOST, go_on, stand_still
from raftkube.apiserver.server import ApiServerConfig
from raftkube.apiserver.server import run as run_apiserver
from raftkube.apiserver.store_storage import StoreStorage
from raftkube.client.kubeconfig import ClusterAccess
from raftkube.client.rest import RestClient
from raftkube.clock import Clock
from raftkube.controllers.controller_manager import Choice, ControllerManagerConfig
from raftkube.controllers.controller_manager import run as run_controller_manager
from raftkube.errors import RaftkubeError
from raftkube.kubelet.service import KubeletConfig
from raftkube.kubelet.service import run as run_kubelet
from raftkube.net import Address, PeerIdentity
from raftkube.rng import Rng, seeded_rng
from raftkube.scheduler.service import SchedulerConfig
from raftkube.scheduler.service import run as run_scheduler
from raftkube.store.server.member import MemberConfig, run_member

KINDS: Final = ("store", "apiserver", "controller-manager", "scheduler", "kubelet")
ADMIN: Final = PeerIdentity("kubernetes-admin", ("system:masters",))
_RESTART_S: Final = 1.0


def identity_of(kind: str, name: str) -> PeerIdentity:
    """What the certificates of `raftkube.cluster.pki` say of a component."""
    if kind == "apiserver":
        return PeerIdentity("kube-apiserver")
    if kind == "kubelet":
        return PeerIdentity(f"system:node:{name}", ("system:nodes",))
    return PeerIdentity(name if kind == "store" else f"system:kube-{kind}", names=(name,))


@dataclass(slots=True)
class Host:
    """One simulated machine with one process. `wanted`: it is to run; `lives`: how often it was started."""

    name: str
    kind: str
    number: int
    wanted: bool = False
    lives: int = 0
    standing: bool = False
    scope: trio.CancelScope | None = None
    ended: trio.Event = field(default_factory=trio.Event)

    @property
    def running(self) -> bool:
        return self.scope is not None


@dataclass(frozen=True, slots=True)
class _Machine:
    """What one life of a process gets from outside."""

    network: SimHost
    clock: Clock
    rng: Rng


class ClusterWorld:
    """All hosts. Nothing runs before `start`."""

    def __init__(
        self,
        seed: int,
        settings: ClusterSettings,
        nursery: trio.Nursery,
        door: ApiDoor,
        recorder: MemoryRecorder,
    ) -> None:
        self.seed, self.settings, self.door, self.recorder = seed, settings, door, recorder
        self.network = SimNetwork(seeded_rng(f"network-{seed}"), delay_s=settings.delay_s)
        self.hosts: dict[str, Host] = {}
        for kind in KINDS:
            for number in range(settings.count(kind)):
                name = f"{kind}-{number + 1}"
                self.hosts[name] = Host(name, kind, number)
        self.disks = {name: SimDisk(seeded_rng(f"{name}-{seed}")) for name in self.names("store")}
        self.store_clients = {name: Address(name, 2379) for name in self.names("store")}
        self.api_servers = {name: Address(name, 6443) for name in self.names("apiserver")}
        self.storages: dict[str, RecordedStorage] = {}
        self.users: list[str] = []  # hosts of clients
        self._nursery = nursery
        self._run_kind: dict[str, Callable[[Host, _Machine], Awaitable[Any]]] = {
            "store": self._store,
            "apiserver": self._apiserver,
            "controller-manager": self._controller_manager,
            "scheduler": self._scheduler,
            "kubelet": self._kubelet,
        }

    def names(self, kind: str) -> list[str]:
        """All hosts of a kind, whether they run or not."""
        return [host.name for host in self.hosts.values() if host.kind == kind]

    def everyone(self) -> list[str]:
        """All hosts of components."""
        return list(self.hosts)

    # Lives ----------------------------------------------------------------------------------

    def start(self, name: str) -> None:
        """Have it run; no effect if it does."""
        host = self.hosts[name]
        host.wanted = True
        if not host.running:
            host.scope, host.ended = trio.CancelScope(), trio.Event()
            host.lives += 1
            self._nursery.start_soon(self._live, host, host.scope)

    def strike(self, name: str) -> None:
        """SIGKILL, without waiting: from this moment on nothing that it does reaches anybody."""
        host = self.hosts[name]
        host.wanted = False
        self.network.crash(name)
        if host.kind == "store":
            self.disks[name].sever()
        if host.scope is not None:
            host.scope.cancel()
        self.resume(name)

    async def kill(self, name: str) -> None:
        """SIGKILL; returns when its tasks are gone."""
        self.strike(name)
        if self.hosts[name].running:
            await self.hosts[name].ended.wait()

    async def crash(self, name: str) -> None:
        """A power loss: what a store member's disk did not sync is forgotten."""
        await self.kill(name)
        if name in self.disks:
            self.disks[name].crash()

    def pause(self, name: str) -> None:
        """SIGSTOP."""
        if self.hosts[name].running:
            self.hosts[name].standing = True
            stand_still(name)

    def resume(self, name: str) -> None:
        """SIGCONT."""
        if self.hosts[name].standing:
            self.hosts[name].standing = False
            go_on(name)

    async def _live(self, host: Host, scope: trio.CancelScope) -> None:
        HOST.set(host.name)
        machine = _Machine(
            self.network.host(host.name, identity_of(host.kind, host.name)),
            SimClock(monotonic_offset_s=1000.0 * (host.number + 1), wall_offset_s=0.1 * host.number),
            seeded_rng(f"{host.name}-{self.seed}-{host.lives}"),
        )
        try:
            with scope:
                await self._run_kind[host.kind](host, machine)
        except* RaftkubeError as errors:
            self._note_end(host, errors)
        finally:
            if not scope.cancel_called:
                self.network.crash(host.name)
            host.scope = None
            host.ended.set()
        if host.wanted:
            self._nursery.start_soon(self._restart, host)

    def _note_end(self, host: Host, errors: BaseExceptionGroup[RaftkubeError]) -> None:
        for error in _leaves(errors):
            self.observe("process_ended", host=host.name, error=type(error).__name__, text=str(error))

    async def _restart(self, host: Host) -> None:
        HOST.set("")
        await trio.sleep(_RESTART_S)
        if host.wanted:
            self.start(host.name)

    def observe(self, kind: str, **facts: Any) -> None:
        """Write down something that is no operation."""
        self.recorder.write({"type": "observe", "kind": kind, "time_ns": self.recorder.now_ns(), **facts})

    # What runs on a host --------------------------------------------------------------------

    async def _store(self, host: Host, machine: _Machine) -> None:
        config = MemberConfig(
            name=host.name,
            members={name: Address(name, 2380) for name in self.names("store")},
            listen_client=self.store_clients[host.name],
            listen_peer=Address(host.name, 2380),
            raft=self.settings.raft,
        )
        await run_member(
            config,
            network=machine.network,
            clock=machine.clock,
            rng=machine.rng,
            disk=MountedDisk(self.disks[host.name]),
        )

    async def _apiserver(self, host: Host, machine: _Machine) -> None:
        config = ApiServerConfig(
            name=host.name,
            bind=self.api_servers[host.name],
            tls=None,
            history_events=self.settings.history_events,
        )
        network, clock, rng = machine.network, machine.clock, machine.rng
        addresses = list(self.store_clients.values())
        async with StoreStorage.open(network, addresses, None, name=host.name, clock=clock, rng=rng) as store:
            storage = self.storages[host.name] = RecordedStorage(store, self.recorder)
            await run_apiserver(config, network=network, clock=clock, rng=rng, storage=storage)

    async def _controller_manager(self, host: Host, machine: _Machine) -> None:
        choice = Choice(
            workers=self.settings.workers,
            node_times=self.settings.node_times,
            vanished_node_quarantine_s=self.settings.vanished_node_quarantine_s,
        )
        config = ControllerManagerConfig(host.name, self.access(), self.settings.election, choice=choice)
        await run_controller_manager(config, network=machine.network, clock=machine.clock, rng=machine.rng)

    async def _scheduler(self, host: Host, machine: _Machine) -> None:
        config = SchedulerConfig(host.name, self.access(), self.settings.election)
        await run_scheduler(config, network=machine.network, clock=machine.clock, rng=machine.rng)

    async def _kubelet(self, host: Host, machine: _Machine) -> None:
        settings = self.settings
        config = KubeletConfig(
            name=host.name,
            root_dir="",
            listen=Address(host.name, 10250),
            tls=None,
            runtime="fake",
            fake_nodes=settings.nodes_per_kubelet,
            pods_max=settings.pods_per_node,
            times=settings.kubelet_times,
            machine=settings.machine,
        )
        client = self.access().client(
            machine.network, user_agent="raftkube-kubelet", clock=machine.clock, rng=machine.rng
        )
        await run_kubelet(config, client, network=machine.network, clock=machine.clock, rng=machine.rng)

    # Clients --------------------------------------------------------------------------------

    def access(self) -> ClusterAccess:
        """What a kubeconfig would say."""
        return ClusterAccess(tuple(self.api_servers.values()), None)

    def user(self, name: str) -> RestClient:
        """An administrator's client on the host `name`."""
        self.users.append(name)
        network = self.network.host(name, ADMIN)
        return self.access().client(
            network, user_agent=name, clock=SimClock(), rng=seeded_rng(f"{name}-{self.seed}")
        )


def _leaves(group: BaseExceptionGroup[Any]) -> list[BaseException]:
    found: list[BaseException] = []
    for error in group.exceptions:
        found += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found
