"""What can be done to a simulated store: each fault by the name that plans and reports use.

A fault is an async function of the world's store and one `Injection`; it lasts as long as that says, undoes
what it did, and returns whether it found somebody to hit. Connections are ordered byte streams, as TCP's
are: they are delayed, held back and broken; no message is taken out of the middle of one. What a client or
a member sends again over a new connection, while the old one's bytes still arrive, is what duplicates and
reorders.
"""

from __future__ import annotations

import errno
import itertools
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

import trio

from chaos.sim.disk import SECTOR, SimDisk
from chaos.sim.plan import Injection
from chaos.sim.simulated_store import SimulatedStore
from chaos.sim.surgery import Surgery
from raftkube.rng import seeded_rng

INJECTED: Final = "the harness ended it"
_STEPS_MAX: Final = 400  # of a process' tasks, for a death at one of them
_WRITES_MAX: Final = 12  # of a disk, for a death in the middle of writing
_WAIT_S: Final = 1.0


@dataclass(slots=True)
class Target:
    """What a fault may reach: the store, whoever repairs it, and the hosts of the clients. `hit`: whom it
    chose, for reports."""

    store: SimulatedStore
    surgery: Surgery
    client_hosts: tuple[str, ...]
    hit: list[str] = field(default_factory=list)

    def member(self, choice: int) -> str | None:
        """A running member: every second choice is the leader, if there is one."""
        return self._choose(self.store.up(), choice)

    def machine(self, choice: int) -> str:
        """A member, running or not: every second choice is the leader, if there is one."""
        name = self._choose(list(self.store.names), choice)
        assert name is not None, "a store has members"
        return name

    def _choose(self, names: list[str], choice: int) -> str | None:
        leaders = self.store.leaders()
        found = leaders[:1] if choice % 2 == 0 else []
        found = found or names[choice // 2 % len(names) :][:1] if names else []
        self.hit += found
        return found[0] if found else None

    def pair(self, choice: int) -> tuple[str, str]:
        """Two members."""
        pairs = list(itertools.permutations(self.store.names, 2))
        self.hit += pairs[choice % len(pairs)]
        return pairs[choice % len(pairs)]

    def others(self, *names: str) -> list[str]:
        return [name for name in self.store.names if name not in names]


Fault = Callable[[Target, Injection], Awaitable[bool]]
FAULTS: dict[str, Fault] = {}


def fault(function: Fault) -> Fault:
    """Enter it into the table, by its name with dashes."""
    FAULTS[getattr(function, "__name__").replace("_", "-")] = function  # noqa: B009 a Callable has no name
    return function


Cut = tuple[str, str]


async def _hold(target: Target, cuts: Iterable[Cut], lasts_s: float) -> bool:
    """Nothing passes along `cuts` for so long."""
    network = target.store.network
    made = [cut for cut in cuts if not network.is_cut(*cut)]
    for cut in made:
        network.cut(*cut)
    try:
        await trio.sleep(lasts_s)
    finally:
        for cut in made:
            network.heal(*cut)
    return bool(made)


def _between(left: Iterable[str], right: Iterable[str]) -> list[Cut]:
    return [cut for a in left for b in right for cut in ((a, b), (b, a))]


# The network.


@fault
async def isolate(target: Target, injection: Injection) -> bool:
    """No byte to or from one member, clients included when `amount` is high; nobody is told."""
    name = target.machine(injection.choice)
    others = [*target.others(name), *(target.client_hosts if injection.amount > 0.5 else ())]
    return await _hold(target, _between([name], others), injection.lasts_s)


@fault
async def depose(target: Target, injection: Injection) -> bool:
    """The leader's connections to the others break and it is cut off from them, not from its clients: the
    others elect at once while it still believes that it leads."""
    leaders = target.store.leaders()
    if not leaders:
        return False
    for other in target.others(leaders[0]):
        target.store.network.reset(leaders[0], other)
    return await _hold(target, _between(leaders[:1], target.others(leaders[0])), injection.lasts_s)


@fault
async def one_way(target: Target, injection: Injection) -> bool:
    """One member hears another and is not heard by it."""
    return await _hold(target, [target.pair(injection.choice)], injection.lasts_s)


@fault
async def deaf(target: Target, injection: Injection) -> bool:
    """A member is heard by all and hears nobody."""
    name = target.machine(injection.choice)
    return await _hold(target, [(other, name) for other in target.others(name)], injection.lasts_s)


@fault
async def bridge(target: Target, injection: Injection) -> bool:
    """Two halves that only meet at one member in between, which hears both."""
    names = list(target.store.names)
    middle = names.pop(injection.choice % len(names))
    half = len(names) // 2
    assert middle not in names
    return await _hold(target, _between(names[:half], names[half:]), injection.lasts_s)


@fault
async def majority_ring(target: Target, injection: Injection) -> bool:
    """Each member sees a majority, and no two the same one (with three: a chain)."""
    names = list(target.store.names)
    size = len(names)
    start = injection.choice % size
    reach = (size // 2 + 1) // 2  # neighbours on either side that it still sees
    cuts = [
        (names[a], names[b])
        for a in range(size)
        for b in range(size)
        if a != b and min((a - b) % size, (b - a) % size) > max(1, reach)
    ]
    if size == 3:
        cuts = _between([names[start]], [names[(start + 1) % 3]])
    return await _hold(target, cuts, injection.lasts_s)


@fault
async def swizzle(target: Target, injection: Injection) -> bool:
    """Members are cut off one after the other, in one order, and come back in another."""
    rng = seeded_rng(f"swizzle-{injection.choice}")
    names = rng.sample(target.store.names, max(2, len(target.store.names) // 2 + 1))
    pause_s = injection.lasts_s / (2 * len(names))
    cuts = {name: _between([name], target.others(name)) for name in names}
    for name in names:
        for cut in cuts[name]:
            target.store.network.cut(*cut)
        await trio.sleep(pause_s)
    for name in rng.sample(names, len(names)):
        for cut in cuts[name]:
            target.store.network.heal(*cut)
        await trio.sleep(pause_s)
    return True


@fault
async def cut_client(target: Target, injection: Injection) -> bool:
    """One client reaches no member, or is not answered by them, and nobody is told."""
    host = target.client_hosts[injection.choice % len(target.client_hosts)]
    names = target.store.names
    cuts = _between([host], names) if injection.amount > 0.5 else [(name, host) for name in names]
    return await _hold(target, cuts, injection.lasts_s)


@fault
async def lost_replies(target: Target, injection: Injection) -> bool:
    """A member carries out what one client asks, and its answers are lost with the connections."""
    name = target.machine(injection.choice)
    host = target.client_hosts[injection.choice % len(target.client_hosts)]
    found = await _hold(target, [(name, host)], min(injection.lasts_s, 1.0))
    target.store.network.reset(name, host)
    return found


@fault
async def reset(target: Target, injection: Injection) -> bool:
    """The connections of a pair break; both ends are told, and what was under way is lost."""
    target.store.network.reset(*target.pair(injection.choice))
    await trio.lowlevel.checkpoint()
    return True


@fault
async def flap(target: Target, injection: Injection) -> bool:
    """`reset` again and again while messages are under way."""
    pair = target.pair(injection.choice)
    times = 2 + int(injection.amount * 6)
    for _ in range(times):
        target.store.network.reset(*pair)
        await trio.sleep(injection.lasts_s / times)
    return True


@fault
async def half_open(target: Target, injection: Injection) -> bool:
    """The connections of a pair carry nothing more and nobody is told; new ones pass."""
    a, b = target.pair(injection.choice)
    network = target.store.network
    network.stall(a, b)
    network.stall(b, a)
    if injection.amount > 0.5:
        network.break_end(a, b)
    await trio.sleep(injection.lasts_s)
    network.unstall(a, b)
    network.unstall(b, a)
    return True


@fault
async def late(target: Target, injection: Injection) -> bool:
    """What a leader said, or was told, is held in a connection whose dialling end is gone, and is read after
    what newer connections brought, perhaps in a later term."""
    leaders = target.store.leaders()
    if not leaders:
        return False
    others = target.others(leaders[0])
    source, sink = leaders[0], others[injection.choice % len(others)]
    if injection.amount > 0.7:
        source, sink = sink, source
    network = target.store.network
    network.stall(source, sink)
    await trio.sleep(min(0.2, injection.lasts_s / 4))
    network.break_end(source, sink)
    await trio.sleep(injection.lasts_s)
    network.unstall(source, sink)
    return True


@fault
async def slow_link(target: Target, injection: Injection) -> bool:
    """One way between a pair takes up to half a second longer."""
    pair = target.pair(injection.choice)
    target.store.network.slow(*pair, 0.02 + injection.amount / 2)
    await trio.sleep(injection.lasts_s)
    target.store.network.slow(*pair, 0.0)
    return True


# Processes.


async def _down(target: Target, names: list[str], lasts_s: float) -> bool:
    """They have ended; after a while they are started."""
    await trio.sleep(lasts_s)
    for name in names:
        await target.surgery.start(name)
    return bool(names)


@fault
async def kill(target: Target, injection: Injection) -> bool:
    """SIGKILL: what was written stays, synced or not."""
    name = target.member(injection.choice)
    if name is None:
        return False
    await target.store.kill(name)
    return await _down(target, [name], injection.lasts_s)


@fault
async def kill_all(target: Target, injection: Injection) -> bool:
    """SIGKILL of all members at once."""
    names = target.store.up()
    for name in names:
        await target.store.kill(name)
    return await _down(target, names, injection.lasts_s)


@fault
async def stop(target: Target, injection: Injection) -> bool:
    """SIGTERM: leadership and clients are handed over first."""
    name = target.member(injection.choice)
    if name is None:
        return False
    target.store.resume(name)
    with trio.move_on_after(20):
        await target.store.stop(name)
    return await _down(target, [name], injection.lasts_s)


@fault
async def pause(target: Target, injection: Injection) -> bool:
    """SIGSTOP, and SIGCONT after a while, beyond the election timeout as a rule."""
    name = target.member(injection.choice)
    if name is None:
        return False
    target.store.pause(name)
    try:
        await trio.sleep(injection.lasts_s)
    finally:
        target.store.resume(name)
    return True


@fault
async def die_at_step(target: Target, injection: Injection) -> bool:
    """SIGKILL at one of the next steps of the process' tasks: at any await."""
    name = target.member(injection.choice)
    if name is None:
        return False
    steps = 1 + int(injection.amount * _STEPS_MAX)
    if not await target.store.kill_at_step(name, steps, within_s=_WAIT_S):
        await target.store.kill(name)
    return await _down(target, [name], injection.lasts_s)


# Power.


@fault
async def power_loss(target: Target, injection: Injection) -> bool:
    """One machine: of what was not synced nothing, or what chance leaves, is there afterwards."""
    name = target.machine(injection.choice)
    await target.store.crash(name, lose_all=injection.amount > 0.5)
    return await _down(target, [name], injection.lasts_s)


@fault
async def power_loss_majority(target: Target, injection: Injection) -> bool:
    """A majority of the machines at once."""
    names = list(target.store.names)
    first = injection.choice % len(names)
    hit = [names[(first + offset) % len(names)] for offset in range(len(names) // 2 + 1)]
    for name in hit:
        await target.store.crash(name, lose_all=injection.amount > 0.5)
    return await _down(target, hit, injection.lasts_s)


@fault
async def power_loss_all(target: Target, injection: Injection) -> bool:
    """All machines at once."""
    names = list(target.store.names)
    for name in names:
        await target.store.crash(name, lose_all=injection.amount > 0.5)
    return await _down(target, names, injection.lasts_s)


@fault
async def power_loss_mid_write(target: Target, injection: Injection) -> bool:
    """One machine, right before one of the next steps of its disk."""
    name = target.member(injection.choice)
    if name is None:
        return False
    await _end_mid_write(target.store, name, 1 + int(injection.amount * _WRITES_MAX))
    await target.store.crash(name, lose_all=injection.choice % 4 < 2)
    return await _down(target, [name], injection.lasts_s)


@fault
async def kill_mid_write(target: Target, injection: Injection) -> bool:
    """SIGKILL right before one of the next steps of its disk: pages written so far stay."""
    name = target.member(injection.choice)
    if name is None:
        return False
    await _end_mid_write(target.store, name, 1 + int(injection.amount * _WRITES_MAX))
    return await _down(target, [name], injection.lasts_s)


async def _end_mid_write(store: SimulatedStore, name: str, steps: int) -> None:
    """End the process before the disk's step number `steps` from now is taken, or after a while."""
    disk, reached = store.disks[name], trio.Event()

    def count(step: str) -> None:
        nonlocal steps
        steps -= 1
        if steps <= 0:
            store.network.crash(name, keep_in_flight=True)  # what it sent before is under way
            store.pause(name)
            reached.set()
            raise OSError(errno.EIO, f"{INJECTED} before {step}")

    disk.before = count
    with trio.move_on_after(_WAIT_S):
        await reached.wait()
    disk.before = lambda step: None
    await store.kill(name)


def rot(disk: SimDisk, choice: int) -> bool:
    """Change one sector in the older half of what a file of the disk holds. False: there is nothing to hit.

    The newest batch of a journal is spared: docs/GUARANTEES.md says what cannot be told there.
    """
    rng = seeded_rng(f"rot-{choice}")
    names = [name for name in disk.names() if len(disk.read_all(name).rstrip(b"\0")) > 4 * SECTOR]
    if not names:
        return False
    name = rng.choice(names)
    used = len(disk.read_all(name).rstrip(b"\0"))
    at = rng.randrange(0, used // 2)

    def change(data: bytearray) -> None:
        if choice % 2:
            data[at] ^= 1 << rng.randrange(8)
        else:
            sector = at // SECTOR * SECTOR
            data[sector : sector + SECTOR] = bytes(SECTOR)

    before = disk.read_all(name)
    disk.damage(name, change)
    return disk.read_all(name) != before
