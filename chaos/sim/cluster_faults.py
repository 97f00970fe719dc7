"""What breaks in a simulated cluster: hosts, links, the store's disks, and Sieve's three perturbations.

A fault is carried out at its time and undone after its duration; it counts once it was effective, which each
says for itself. Whatever is left is undone at the end of the safety phase.
Source: X. Sun et al., Automatic Reliability Testing for Cluster Management Controllers (Sieve), OSDI 2022.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, NamedTuple

import trio

from chaos.sim.cluster_observers import LogObserver
from chaos.sim.cluster_world import ClusterWorld, identity_of
from chaos.sim.plan import Injection
from chaos.sim.trio_private import HOST
from raftkube.api.status import ApiError
from raftkube.net.http import Request
from raftkube.rng import Rng, seeded_rng

_LEASES: Final = "/registry/coordination.k8s.io/leases/kube-system/kube-"
_CONTROLS: Final = ("controller-manager", "scheduler")
_LOOK_S: Final = 0.1
_READERS: Final = ("controller-manager", "scheduler", "kubelet")
_FIRED_WITHIN_S: Final = 20.0  # an armed fault that nothing sets off goes away


@dataclass(slots=True)
class Scene:
    """What faults act on."""

    world: ClusterWorld
    observer: LogObserver
    nursery: trio.Nursery

    def leader(self, kind: str) -> str | None:
        """The host whose process holds the Lease, as far as the log tells."""
        lease = self.observer.objects.by_key.get(_LEASES + kind)
        holder = str(lease["spec"].get("holderIdentity") or "") if lease is not None else ""
        name = holder.partition("_")[0]
        return name if name in self.world.hosts and self.world.hosts[name].running else None

    def running(self, kind: str) -> list[str]:
        return [name for name in self.world.names(kind) if self.world.hosts[name].running]

    def target(self, kind: str, choice: int) -> str | None:
        """A running host of a kind; of the elected ones mostly the leader."""
        leader = self.leader(kind) if kind in _CONTROLS and choice % 4 else None
        running = self.running(kind)
        return leader or (running[choice % len(running)] if running else None)

    def one_of(self, kinds: tuple[str, ...], choice: int) -> str | None:
        return self.target(kinds[choice % len(kinds)], choice // len(kinds))


Apply = Callable[[Scene, Injection], Awaitable[bool]]


class Fault(NamedTuple):
    """`lasts_s`: how long, at least and at most. `weight`: how often a swarm picks it."""

    what: str
    apply: Apply
    lasts_s: tuple[float, float] = (0.0, 0.0)
    weight: int = 1


# Hosts --------------------------------------------------------------------------------------------


def _kill(kind: str) -> Apply:
    async def apply(scene: Scene, injection: Injection) -> bool:
        if (name := scene.target(kind, injection.choice)) is None:
            return False
        await scene.world.kill(name)
        await trio.sleep(injection.lasts_s)
        scene.world.start(name)
        return True

    return apply


async def _lose_power(scene: Scene, injection: Injection) -> bool:
    """A store member; or all of them at once."""
    names = scene.running("store")
    if injection.amount < 0.75 and names:
        names = [names[injection.choice % len(names)]]
    for name in names:
        scene.world.strike(name)
    for name in names:
        await scene.world.crash(name)
    await trio.sleep(injection.lasts_s)
    for name in names:
        scene.world.start(name)
    return bool(names)


def _pause(kind: str) -> Apply:
    async def apply(scene: Scene, injection: Injection) -> bool:
        if (name := scene.target(kind, injection.choice)) is None:
            return False
        life = scene.world.hosts[name].lives
        scene.world.pause(name)
        await trio.sleep(injection.lasts_s)
        if scene.world.hosts[name].lives == life:
            scene.world.resume(name)
        return True

    return apply


async def _two_leaders(scene: Scene, injection: Injection) -> bool:
    """The leader stands still until another one leads, and then goes on as if it led."""
    kind = _CONTROLS[injection.choice % 2]
    if (name := scene.leader(kind)) is None:
        return False
    another = False
    scene.world.pause(name)
    for _ in range(int(injection.lasts_s / _LOOK_S)):
        await trio.sleep(_LOOK_S)
        if another := scene.leader(kind) not in (None, name):
            break
    await trio.sleep(injection.amount)
    scene.world.resume(name)
    return another


# Links --------------------------------------------------------------------------------------------


def _partition(kind: str) -> Apply:
    """Cut off from all or, by `amount`, in one direction only, or from one other host."""

    async def apply(scene: Scene, injection: Injection) -> bool:
        world = scene.world
        if (name := scene.target(kind, injection.choice)) is None:
            return False
        others = [other for other in (*world.everyone(), "observer") if other != name]
        if injection.amount < 0.3:
            others = [others[injection.choice % len(others)]]
        cuts = [(name, other) for other in others]
        if not 0.3 <= injection.amount < 0.5:
            cuts += [(other, name) for other in others]
        for source, target in cuts:
            world.network.cut(source, target)
        await trio.sleep(injection.lasts_s)
        for source, target in cuts:
            world.network.heal(source, target)
        return True

    return apply


async def _reset(scene: Scene, injection: Injection) -> bool:
    """All connections of one host break."""
    names = [name for name, host in scene.world.hosts.items() if host.running]
    if not names:
        return False
    name = names[injection.choice % len(names)]
    for other in scene.world.everyone():
        scene.world.network.reset(name, other)
    return True


async def _slow(scene: Scene, injection: Injection) -> bool:
    """What one host sends takes long."""
    names = scene.world.everyone()
    name = names[injection.choice % len(names)]
    for other in names:
        scene.world.network.slow(name, other, 0.05 + injection.amount)
    await trio.sleep(injection.lasts_s)
    for other in names:
        scene.world.network.slow(name, other, 0.0)
    return True


# Sieve --------------------------------------------------------------------------------------------


async def _stale_apiserver(scene: Scene, injection: Injection) -> bool:
    """An API server's feed stands still; then a component is restarted that can reach this server only, and
    no other of its kind acts."""
    world = scene.world
    server = scene.target("apiserver", injection.choice)
    name = scene.one_of(_READERS, injection.choice)
    if server is None or name is None or server not in world.storages:
        return False
    storage = world.storages[server]
    storage.hold_feed()
    await trio.sleep(injection.lasts_s * injection.amount / 2)
    kind = world.hosts[name].kind
    same = [other for other in world.names(kind) if kind in _CONTROLS or other == name]
    others = [other for other in world.names("apiserver") if other != server]
    for other in others:
        world.network.partition({name}, {other})
    for each in same:
        await world.kill(each)
    if kind in _CONTROLS:  # it would wait for the Lease's end, which this server does not show
        await trio.sleep(world.settings.lease_s + 1.0)
    world.start(name)
    await trio.sleep(injection.lasts_s * (1.0 - injection.amount / 2))
    storage.release_feed()
    for other in others:
        world.network.heal(name, other)
        world.network.heal(other, name)
    for each in same:
        world.start(each)
    return True


async def _intermediate_crash(scene: Scene, injection: Injection) -> bool:
    """The leading controller manager is killed right after its k-th write; it never hears the answer."""
    left = 1 + int(injection.amount * 8)
    fired = trio.Event()
    user = "system:kube-controller-manager"

    def after(_: str, request: Request) -> None:
        nonlocal left
        if request.peer is None or request.peer.common_name != user or request.path.endswith("/events"):
            return
        left -= 1
        if left == 0 and (name := scene.leader("controller-manager")) is not None:
            scene.world.strike(name)
            scene.nursery.start_soon(_start_again, scene, name, injection.lasts_s)
            fired.set()

    return await _armed(scene.world.door.after, after, fired)


async def _unobserved_event(scene: Scene, injection: Injection) -> bool:
    """A component sees nothing for a while; then the API servers are new and have no history, so that it
    lists again and what happened between is never seen."""
    world = scene.world
    if (name := scene.one_of(_READERS, injection.choice)) is None:
        return False
    servers = scene.running("apiserver")
    for server in servers:
        world.network.stall(server, name)
    await trio.sleep(injection.lasts_s)
    for server in servers:
        await world.kill(server)
        world.network.unstall(server, name)
    for server in servers:
        world.start(server)
    return bool(servers)


# Requests -----------------------------------------------------------------------------------------


async def _crash_at_bind(scene: Scene, injection: Injection) -> bool:
    """The scheduler is killed between assuming a pod on a node and binding it, or right after."""
    fired = trio.Event()

    def strike(server: str, request: Request) -> None:
        if fired.is_set() or not request.path.endswith("/binding"):
            return
        if (name := scene.leader("scheduler")) is not None:
            scene.world.strike(name)
            scene.nursery.start_soon(_start_again, scene, name, injection.lasts_s)
            fired.set()
            if injection.amount < 0.5:
                raise ApiError(503, "ServiceUnavailable", "the request was lost")

    hooks = scene.world.door.before if injection.amount < 0.5 else scene.world.door.after
    return await _armed(hooks, strike, fired)


async def _start_again(scene: Scene, name: str, after_s: float) -> None:
    HOST.set("")
    await scene.world.kill(name)
    await trio.sleep(after_s)
    scene.world.start(name)


async def _lost_answers(scene: Scene, injection: Injection) -> bool:
    """Writes are carried out, and their answers lost: the connection breaks, or it is a 504."""
    rng, fired = _rng(injection), trio.Event()

    def after(server: str, request: Request) -> None:
        if rng.random() > 0.2 + 0.6 * injection.amount:
            return
        fired.set()
        if rng.random() < 0.5:
            raise ApiError(504, "Timeout", "the store did not answer in time; it may have happened")
        for host in _hosts_of(scene, request):
            scene.world.network.reset(host, server)

    return await _armed(scene.world.door.after, after, fired, lasts_s=injection.lasts_s)


def _hosts_of(scene: Scene, request: Request) -> list[str]:
    """Where a request may come from, by who asks."""
    user = request.peer.common_name if request.peer is not None else ""
    hosts = [host for host in scene.world.hosts.values() if host.kind not in ("store", "apiserver")]
    found = [host.name for host in hosts if identity_of(host.kind, host.name).common_name == user]
    return found or scene.world.users


async def _refusals(scene: Scene, injection: Injection) -> bool:
    """Writes are answered with 429, 500 or 503, and not carried out."""
    rng, fired = _rng(injection), trio.Event()

    def before(server: str, request: Request) -> None:
        if rng.random() < 0.2 + 0.6 * injection.amount:
            fired.set()
            raise rng.choice(_REFUSALS)()

    return await _armed(scene.world.door.before, before, fired, lasts_s=injection.lasts_s)


_REFUSALS: Final = (
    lambda: ApiError(429, "TooManyRequests", "too many requests", retry_after_s=1),
    lambda: ApiError(500, "InternalError", "the server failed on this request"),
    lambda: ApiError(503, "ServiceUnavailable", "the store is not available"),
)


async def _armed(
    hooks: list[Callable[[str, Request], None]],
    hook: Callable[[str, Request], None],
    fired: trio.Event,
    *,
    lasts_s: float | None = None,
) -> bool:
    """Keep `hook` in place for so long, or until it has fired; whether it has."""
    hooks.append(hook)
    try:
        if lasts_s is None:
            with trio.move_on_after(_FIRED_WITHIN_S):
                await fired.wait()
        else:
            await trio.sleep(lasts_s)
    finally:
        hooks.remove(hook)
    return fired.is_set()


def _rng(injection: Injection) -> Rng:
    return seeded_rng(f"{injection.at_s}-{injection.choice}")


async def _compact(scene: Scene, injection: Injection) -> bool:
    """The store forgets its history while an API server is cut off: that one loads everything anew."""
    network, stores = scene.world.network, set(scene.world.names("store"))
    if (server := scene.target("apiserver", injection.choice)) is None:
        return False
    network.partition({server}, stores)
    await trio.sleep(injection.lasts_s)
    done = await scene.observer.compact()
    for store in sorted(stores):
        network.reset(server, store)
        network.heal(server, store)
        network.heal(store, server)
    return done


FAULTS: Final[dict[str, Fault]] = {
    "kill-store": Fault("SIGKILL of a store member", _kill("store"), (0.5, 12)),
    "crash-store": Fault("power loss of one store member, or of all", _lose_power, (0.5, 8)),
    "pause-store": Fault("SIGSTOP of a store member", _pause("store"), (1, 10)),
    "partition-store": Fault("a store member is cut off", _partition("store"), (1, 12)),
    "kill-apiserver": Fault("SIGKILL of an API server", _kill("apiserver"), (0.2, 10)),
    "pause-apiserver": Fault("SIGSTOP of an API server", _pause("apiserver"), (1, 15)),
    "partition-apiserver": Fault("an API server is cut off", _partition("apiserver"), (1, 15)),
    "kill-controller-manager": Fault("SIGKILL, mostly of the leader", _kill("controller-manager"), (0.2, 10)),
    "pause-controller-manager": Fault("SIGSTOP, mostly of the leader", _pause("controller-manager"), (1, 15)),
    "partition-controller-manager": Fault("it is cut off", _partition("controller-manager"), (1, 15)),
    "kill-scheduler": Fault("SIGKILL, mostly of the leader", _kill("scheduler"), (0.2, 10)),
    "pause-scheduler": Fault("SIGSTOP, mostly of the leader", _pause("scheduler"), (1, 15)),
    "partition-scheduler": Fault("it is cut off", _partition("scheduler"), (1, 15)),
    "kill-kubelet": Fault("SIGKILL of a kubelet; later its nodes are lost", _kill("kubelet"), (0.5, 45)),
    "pause-kubelet": Fault("SIGSTOP of a kubelet", _pause("kubelet"), (1, 30)),
    "partition-kubelet": Fault("a kubelet is cut off", _partition("kubelet"), (1, 30)),
    "reset": Fault("all connections of one host break", _reset),
    "slow": Fault("what one host sends takes up to a second longer", _slow, (2, 15)),
    "two-leaders": Fault("a leader is stopped until another leads, then goes on", _two_leaders, (12, 20), 2),
    "stale-apiserver": Fault(
        "an API server's feed stands still, a component restarts against it", _stale_apiserver, (8, 30), 2
    ),
    "intermediate-crash": Fault(
        "the controller manager is killed right after its k-th write", _intermediate_crash, (0.2, 6), 3
    ),
    "unobserved-event": Fault(
        "a component sees nothing for a while, then only the outcome", _unobserved_event, (2, 15), 2
    ),
    "crash-at-bind": Fault("the scheduler is killed between assume and bind", _crash_at_bind, (0.2, 6), 3),
    "lost-answers": Fault("writes are carried out, their answers lost", _lost_answers, (2, 12), 4),
    "refusals": Fault("writes are answered with 429, 500 or 503", _refusals, (2, 12), 1),
    "compact": Fault("the store forgets what an API server has yet to see", _compact, (1, 12)),
}  # fmt: skip


class Nemesis:
    """Carries out a schedule. `effective`: by name, how many had their effect."""

    def __init__(self, world: ClusterWorld, observer: LogObserver, schedule: tuple[Injection, ...]) -> None:
        self._world, self._observer = world, observer
        self._schedule = sorted(schedule, key=lambda injection: injection.at_s)
        self.effective: dict[str, int] = {}

    async def run(self) -> None:
        """Until all is over, or cancelled."""
        async with trio.open_nursery() as nursery:
            scene = Scene(self._world, self._observer, nursery)
            for injection in self._schedule:
                await trio.sleep_until(injection.at_s)
                nursery.start_soon(self._inject, scene, injection)

    async def _inject(self, scene: Scene, injection: Injection) -> None:
        recorder = self._world.recorder
        start_ns, effective = recorder.now_ns(), False
        try:
            effective = await FAULTS[injection.fault].apply(scene, injection)
        except trio.Cancelled:
            effective = True  # it was under way when faults stopped
            raise
        finally:
            if effective:
                self.effective[injection.fault] = self.effective.get(injection.fault, 0) + 1
            recorder.write(
                {
                    "type": "fault", "name": injection.fault, "target": str(injection.choice),
                    "start_ns": start_ns, "end_ns": recorder.now_ns(), "effective": effective,
                }
            )  # fmt: skip


def heal(world: ClusterWorld) -> None:
    """Undo all that faults have left: nothing is cut, stopped, held back or refused any more, all run."""
    world.door.before.clear()
    world.door.after.clear()
    world.network.heal()
    for storage in world.storages.values():
        storage.release_feed()
    names = world.everyone()
    for name in (*names, "observer"):
        for other in (*names, "observer"):
            world.network.slow(name, other, 0.0)
            world.network.unstall(name, other)
    for name in names:
        world.resume(name)
        world.start(name)
