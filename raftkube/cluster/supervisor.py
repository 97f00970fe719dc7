"""`raftkube up`: prepares a cluster's files, starts its processes, says when it is ready, keeps it.

The order: stores, API servers and balancer together; the rest once the API answers. A cluster that was
started before keeps its ports, certificates and data.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import structlog
import trio

from raftkube.clock import Clock
from raftkube.cluster.config import ClusterConfig, parse_cluster
from raftkube.cluster.control import ask, serve_control
from raftkube.cluster.first_starts import FirstStarts
from raftkube.cluster.kubeconfig import make_kubeconfig, write_kubeconfig
from raftkube.cluster.pki import Pki
from raftkube.cluster.plan import Component, Plan, make_plan
from raftkube.cluster.processes import Processes, end_leftovers, own_mark
from raftkube.cluster.readiness import Readiness
from raftkube.cluster.state import ClusterState
from raftkube.errors import ConfigError
from raftkube.files import read_file
from raftkube.net import Network
from raftkube.net.ports import free_port, is_free
from raftkube.net.unix import UnixListener
from raftkube.rng import Rng

log = structlog.get_logger(__name__)

_LEADERS_TIMEOUT_S: Final = 3.0
_SILENT_S: Final = 3.0  # a store that runs for so long should answer

Progress = Callable[[str], None]

# Stopped in this order: those that write first, those that keep last.
_STOP_ORDER: Final = ("scheduler", "controller-manager", "kubelet", "balancer", "apiserver", "store")


@dataclass(frozen=True, slots=True)
class Doors:
    """What the supervisor reaches the outside through."""

    network: Network
    clock: Clock
    rng: Rng


def prepare(config_text: bytes, source: str, state: ClusterState, doors: Doors) -> tuple[ClusterConfig, Plan]:
    """Ports, certificates and kubeconfigs of the cluster under `state`; what is there is kept.

    Raises ConfigError: a wrong file, a taken port, or other members than the data there has.
    """
    config = parse_cluster(config_text, source)
    known: dict[str, int] = {}
    if state.exists:
        before = state.read_json("cluster.json")
        known = before["ports"]
        members = [member.name for member in config.members]
        if before["members"] != members:
            raise ConfigError(
                f"cluster {state.name!r} exists with the store members {', '.join(before['members'])}; "
                f"choose another --name, or delete it: raftkube down --purge --name {state.name}"
            )
    ports = _Ports(known, doors.rng)
    plan = make_plan(config, state, ports.take)
    state.make_root()
    pki = Pki(state, doors.clock)
    pki.issue_all(plan)
    _write_kubeconfigs(state, plan, pki)
    _write_store_admin(state, plan, pki)
    state.write_json(
        "cluster.json",
        {
            "config": config_text.decode(),
            "source": source,
            "members": [member.name for member in config.members],
            "ports": ports.chosen,
        },
    )
    return config, plan


class _Ports:
    """Gives each label its port: the one asked for, else the one of last time, else a free one."""

    def __init__(self, known: dict[str, int], rng: Rng) -> None:
        self._known = known
        self._rng = rng
        self.chosen: dict[str, int] = {}

    def take(self, label: str, wanted: int) -> int:
        taken = self.chosen.values()
        if wanted:
            if not is_free(wanted) or wanted in taken:
                raise ConfigError(
                    f"port {wanted} for {label} is taken; end what listens there, or choose another port "
                    f"in the cluster file (0: any free one)"
                )
            port = wanted
        else:
            port = self._known.get(label, 0)
            if not port or port in taken or not is_free(port):
                port = free_port(self._rng, {*taken, *self._known.values()})
        self.chosen[label] = port
        return port


def _write_kubeconfigs(state: ClusterState, plan: Plan, pki: Pki) -> None:
    servers = [f"https://{address}" for address in plan.addresses("apiserver", "secure")]
    if not servers:
        return
    ca = read_file(state.pki / "ca.crt", what="CA certificate")
    front = [f"https://{address}" for address in plan.addresses("balancer", "front")]

    def write(path_of: str, user: str, urls: list[str], credential: str) -> None:
        certificate, key = (read_file(path, what="certificate") for path in pki.paths(credential))
        config = make_kubeconfig(
            name=f"raftkube-{state.name}", user=user, servers=urls, ca=ca, certificate=certificate, key=key
        )
        write_kubeconfig(state.root / path_of, config)

    write("admin.kubeconfig", "admin", [*front, *servers], "admin")
    for component in plan.components:
        if component.kind in ("scheduler", "controller-manager", "kubelet"):
            path = state.kubeconfig_of(component.name)
            write(str(path.relative_to(state.root)), component.name, servers, component.name)


def _write_store_admin(state: ClusterState, plan: Plan, pki: Pki) -> None:
    certificate, key = pki.paths("store-admin")
    state.write_json(
        "store-admin.json",
        {
            "endpoints": plan.addresses("store", "client"),
            "cacert": str(state.pki / "store-ca.crt"),
            "cert": str(certificate),
            "key": str(key),
        },
    )


class Supervisor:
    """A prepared cluster that runs: `run` until it is told to stop."""

    def __init__(self, state: ClusterState, plan: Plan, doors: Doors, progress: Progress) -> None:
        self._state = state
        self._plan = plan
        self._doors = doors
        self._progress = progress
        self._readiness = Readiness(state, plan, doors.network, doors.clock, doors.rng)
        self._stop = trio.Event()
        self.ready = False

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Start everything; `started` when kubectl can be used; return after `down` or a signal.

        Raises ConfigError: another supervisor runs this cluster.
        """
        await self._refuse_second()
        for name in end_leftovers(self._state):
            self._progress(f"ended {name}, left behind by an earlier supervisor")
        async with trio.open_nursery() as nursery:
            processes = Processes(self._state, self._doors.clock, nursery)
            self._readiness.check = lambda: self._check_refusals(processes)
            for component in self._plan.components:
                processes.add(component)
            verbs = Verbs(processes, self._readiness, self._plan, self._stop, lambda: self.ready)
            await nursery.start(serve_control, UnixListener(self._state.control_socket), verbs.handle)
            nursery.start_soon(self._until_signal)
            try:
                async with trio.open_nursery() as starting:
                    starting.start_soon(self._cancel_on_stop, starting.cancel_scope)
                    await self._start_all(processes)
                    self.ready = True
                    task_status.started()
                    await self._stop.wait()
            finally:
                with trio.CancelScope(shield=True):
                    await self._stop_all(processes)
            if not self.ready:
                task_status.started()  # told to stop before it was ready
            nursery.cancel_scope.cancel()

    async def _refuse_second(self) -> None:
        try:
            await ask(self._state, {"verb": "ping"})
        except ConfigError:
            return
        raise ConfigError(f"cluster {self._state.name!r} is already running; see: raftkube status")

    def _check_refusals(self, processes: Processes) -> None:
        """Exit code 2 is a wrong flag, file or port: another try would say the same."""
        for managed in processes.all():
            if managed.last_exit == 2 and managed.phase != "running":
                path = self._state.log_of(managed.component.name)
                lines = path.read_text(errors="replace").splitlines() or [f"see {str(path)!r}"]
                raise ConfigError(f"{managed.component.name}: {lines[-1].removeprefix('raftkube: ')}")

    async def _cancel_on_stop(self, scope: trio.CancelScope) -> None:
        await self._stop.wait()
        scope.cancel()

    async def _until_signal(self) -> None:
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async for _ in signals:
                self._stop.set()

    async def _start_all(self, processes: Processes) -> None:
        first = ("store", "apiserver", "balancer")
        for component in self._plan.components:
            if component.kind in first:
                processes.start(component.name)
        self._progress(f"starting {_count(self._plan.of_kind('store'), 'store')}")
        await self._readiness.store()
        FirstStarts(self._state).note([store.name for store in self._plan.of_kind("store")])
        if not self._plan.of_kind("apiserver"):
            return
        self._progress(f"starting {_count(self._plan.of_kind('apiserver'), 'API server')}")
        for component in self._plan.components:
            if component.kind not in first:
                processes.start(component.name)
        await self._readiness.api()
        self._progress("starting controller managers, schedulers and kubelets")
        await self._readiness.control_loops()
        await self._readiness.nodes()

    async def _stop_all(self, processes: Processes) -> None:
        for kind in _STOP_ORDER:
            async with trio.open_nursery() as nursery:
                for component in self._plan.of_kind(kind):
                    nursery.start_soon(processes.stop, component.name)
            if kind == "kubelet":
                end_pods(self._state, self._plan)


def end_pods(state: ClusterState, plan: Plan) -> None:
    """End every container process that the cluster's kubelets started (kubelets leave them running)."""
    from raftkube.kubelet.runtimes.process import kill_all

    for component in plan.of_kind("kubelet"):
        root = state.root / "kubelet" / component.name
        if root.exists():
            kill_all(str(root))


def _count(components: tuple[Component, ...], what: str) -> str:
    return f"{len(components)} {what}{'' if len(components) == 1 else 's'}"


class Verbs:
    """What the commands may ask of a running cluster."""

    def __init__(
        self,
        processes: Processes,
        readiness: Readiness,
        plan: Plan,
        stop: trio.Event,
        is_ready: Callable[[], bool],
    ) -> None:
        self._processes = processes
        self._readiness = readiness
        self._plan = plan
        self._stop = stop
        self._is_ready = is_ready

    async def handle(self, request: dict[str, Any]) -> Any:
        """Raises ConfigError: an unknown verb or component, or one in the wrong state."""
        verb = request.get("verb")
        if verb == "ping":
            return "pong"
        if verb == "down":
            self._stop.set()
            return own_mark()
        if verb == "status":
            return await self._status()
        if verb in ("kill", "stop", "start", "restart", "pause", "resume"):
            name = await self._target(request)
            await self._signal(verb, name)
            return name
        raise ConfigError(f"unknown verb {verb!r}")

    async def _status(self) -> dict[str, Any]:
        rows = self._processes.describe()
        with trio.move_on_after(_LEADERS_TIMEOUT_S):
            for kind in ("store", "controller-manager", "scheduler"):
                if self._plan.of_kind(kind) and self._is_ready():
                    name = await self._readiness.leader(kind)
                    for row in rows:
                        row["leader"] = row.get("leader", False) or row["name"] == name
            said = await self._readiness.store_statuses()
            for row in rows:
                complaints = said.get(row["name"], {}).get("errors", ())
                row["reason"] = row["reason"] or "; ".join(complaints) or None
                if row["kind"] == "store" and row["name"] not in said and (row["uptime_s"] or 0) > _SILENT_S:
                    row["reason"] = (
                        f"does not answer; its log ends: {self._processes.last_words(row['name'])}"
                    )
        return {"ready": self._is_ready(), "components": rows}

    async def _target(self, request: dict[str, Any]) -> str:
        kind = request.get("leader")
        if kind:
            name = await self._readiness.leader(kind)
            if name is None:
                raise ConfigError(f"no {kind} leads at this moment; try again")
            return name
        return str(request.get("component"))

    async def _signal(self, verb: str, name: str) -> None:
        if verb == "stop":
            await self._processes.stop(name)
        elif verb == "restart":
            await self._processes.stop(name)
            self._processes.start(name)
        else:
            getattr(self._processes, verb)(name)
