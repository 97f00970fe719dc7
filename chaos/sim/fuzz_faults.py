"""What the fuzz does to a group: each fault is a method of `Nemesis` with a name that reports use.

Connections are ordered byte streams, as TCP's are: a fault delays, holds or breaks them, and never takes a
message out of the middle.
"""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable
from typing import Final, Literal

import trio

from chaos.sim.groups import Group
from raftkube.rng import Rng

Level = Literal["network", "process", "power"]

_NETWORK: Final = ("isolate", "one_way", "reset", "silence", "depose", "flap")
_PROCESS: Final = ("kill", "stop", "kill_mid_write")
_POWER: Final = ("crash", "crash_all", "crash", "crash_mid_write")
FAULTS: Final[dict[Level, tuple[str, ...]]] = {
    "network": _NETWORK,
    "process": _NETWORK + _PROCESS,
    "power": _NETWORK + _PROCESS + _POWER,
}
INJECTED: Final = "the process ended before"  # what a member's errors say that the fuzz made
_CALM: Final = 0.15  # so often, after a fault, all is well for a while: what broke has to come back
_WRITEBACK_S: Final = 5.0  # the kernel writes dirty pages out by itself (Linux: dirty_expire, and more)


class Nemesis:
    """Faults in random order from `rng`; `probe(name)` reads at a member that has just lost its power."""

    def __init__(self, group: Group, rng: Rng, level: Level, probe: Callable[[str], Awaitable[None]]) -> None:
        self.group, self.rng, self.probe = group, rng, probe
        self.faults: dict[str, int] = {}
        self.cannot_start: list[str] = []
        self._choices = [*FAULTS[level], *(["heal", "restart"] * (len(FAULTS[level]) // 2))]

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await trio.sleep(self.rng.uniform(0.05, 0.6))
            await self.act(self.rng.choice(self._choices))
            if self.rng.random() < _CALM:
                await self.heal()
                await self.restart()
                await trio.sleep(self.rng.uniform(0.5, 4.0))

    async def pauses(self) -> None:
        """Members, leaders above all, stop as by SIGSTOP. Until cancelled."""
        while True:
            await trio.sleep(self.rng.uniform(0.1, 6.0))
            name = self._victim(leader=0.6)
            if name is not None:
                self._count("pause")
                self.group.pause(name)
                await trio.sleep(self.rng.choice([0.1, 0.4, 0.8, 1.5, 4.0]))
                self._resume(name)

    async def breaks(self) -> None:
        """Some seeds have links that break all the time. Until cancelled."""
        mean_s = self.rng.choice([None, 0.3, 1.0])
        while mean_s is not None:
            await trio.sleep(self.rng.expovariate(1 / mean_s))
            await self.act("reset")

    async def stragglers(self) -> None:
        """Bytes of connections that were replaced arrive all the time. Until cancelled."""
        while True:
            await trio.sleep(self.rng.uniform(0.2, 3.0))
            await self.act("late")

    async def compactions(self) -> None:
        """Stock compacts on request; raftkube after so many entries. Until cancelled."""
        while True:
            await trio.sleep(self.rng.uniform(0.1, 3.0))
            await self.act("compact")

    async def writeback(self) -> None:
        """What was written long ago reaches the disk without anybody asking. Until cancelled."""
        while True:
            await trio.sleep(_WRITEBACK_S)
            for name in self.group.names:
                self.group.disk(name).write_back()

    async def act(self, fault: str) -> None:
        """Do one by its name."""
        self._count(fault)
        await getattr(self, fault)()

    def _count(self, fault: str) -> None:
        self.faults[fault] = self.faults.get(fault, 0) + 1

    def _victim(self, *, leader: float) -> str | None:
        """Some running member; with that probability one that leads."""
        running, leaders = self.group.up(), self.group.leaders()
        if leaders and self.rng.random() < leader:
            return leaders[0]
        return self.rng.choice(running) if running else None

    def _resume(self, name: str) -> None:
        if name in self.group.up():
            self.group.resume(name)

    def _others(self, name: str) -> list[str]:
        return [other for other in self.group.names if other != name]

    # The network.

    async def isolate(self) -> None:
        """No byte to or from a member; nobody is told."""
        name = self.rng.choice(self.group.names)
        self.group.network.partition({name}, set(self._others(name)))

    async def one_way(self) -> None:
        """One hears the other and is not heard."""
        self.group.network.cut(*self.rng.sample(self.group.names, 2))

    async def reset(self) -> None:
        """The connections of a pair break, both ends are told, what was under way is lost."""
        self.group.network.reset(*self.rng.sample(self.group.names, 2))

    async def flap(self) -> None:
        """As `reset`, several times while messages are under way."""
        pair = self.rng.sample(self.group.names, 2)
        for _ in range(self.rng.randint(2, 6)):
            self.group.network.reset(*pair)
            await trio.sleep(self.rng.uniform(0.01, 0.3))

    async def silence(self) -> None:
        """The connections of a pair carry nothing more and nobody is told; new ones pass."""
        a, b = self.rng.sample(self.group.names, 2)
        self.group.network.stall(a, b)
        self.group.network.stall(b, a)
        if self.rng.random() < 0.5:  # the dialling end notices, dials again, and the old bytes still come
            self.group.network.break_end(max(a, b), min(a, b))
            await trio.sleep(self.rng.uniform(0.05, 2.0))
            self.group.network.unstall(max(a, b), min(a, b))

    async def late(self) -> None:
        """What a leader said, or was told, waits in a connection whose dialling end is gone; it is read after
        what the newer connection brought, sometimes in a later term, and then the pair may part."""
        leaders = self.group.leaders()
        if not leaders:
            return
        leader, other = leaders[0], self.rng.choice(self._others(leaders[0]))
        source, target = (leader, other) if self.rng.random() < 0.7 else (other, leader)
        self.group.network.stall(source, target)
        await trio.sleep(self.rng.uniform(0.02, 0.2))
        self.group.network.break_end(source, target)
        await trio.sleep(self.rng.choice([0.1, 0.2, 0.4, 2.0]))
        self.group.network.unstall(source, target)
        if self.rng.random() < 0.3:
            await trio.sleep(self.rng.uniform(0.0, 0.05))
            self.group.network.reset(leader, other)

    async def depose(self) -> None:
        """A leader's connections break and it is cut off, so that the others elect at once while it still
        believes that it leads; clients go on reading from it and writing on the other side."""
        leaders = self.group.leaders()
        if not leaders:
            return
        leader = leaders[0]
        for other in self._others(leader):
            self.group.network.reset(leader, other)
        self.group.network.partition({leader}, set(self._others(leader)))
        for _ in range(40):
            await self.probe(leader)
            await trio.sleep(0.03)

    async def heal(self) -> None:
        """Cuts end."""
        self.group.network.heal()

    # Processes.

    async def kill(self) -> None:
        """SIGKILL: what was written stays, synced or not."""
        name = self._victim(leader=0.4)
        if name is not None:
            await self.group.kill(name)

    async def kill_mid_write(self) -> None:
        await self._end_mid_write(power=False)

    async def stop(self) -> None:
        """Graceful."""
        name = self._victim(leader=0.4)
        if name is not None:
            self._resume(name)
            await self.group.stop(name)

    async def restart(self) -> None:
        """Start whatever does not run."""
        for name in self.group.names:
            if name not in self.group.up():
                await self.start(name)

    async def start(self, name: str) -> None:
        """Start it, whole: a start given up half way is no process's end, and would leave its port taken."""
        try:
            with trio.move_on_after(10.0, shield=True):
                await self.group.start(name)
        except Exception as error:  # noqa: BLE001 whatever keeps a member down is the run's result
            self.cannot_start.append(f"{name}: {type(error).__name__}: {error}"[:200])

    async def compact(self) -> None:
        running = self.group.up()
        if running:
            self.group.compact(self.rng.choice(running))

    # Power.

    async def crash(self) -> None:
        """Power loss of one: of what was not synced all, or what chance leaves, is gone."""
        name = self._victim(leader=0.4)
        if name is not None:
            await self.group.crash(name, lose_all=self.rng.random() < 0.5)

    async def crash_all(self) -> None:
        """Power loss of all at once, sometimes; they come back together."""
        if self.rng.random() < 0.5:
            for name in self.group.names:
                await self.group.crash(name, lose_all=self.rng.random() < 0.5)
            await self.restart()

    async def crash_mid_write(self) -> None:
        await self._end_mid_write(power=True)

    async def _end_mid_write(self, *, power: bool) -> None:
        """The process or the power ends at one of the disk's next steps, before it is taken."""
        name = self._victim(leader=0.5)
        if name is None:
            return
        lose_all = self.rng.random() < 0.5 if power else None
        await end_mid_write(self.group, name, steps=self.rng.randint(1, 12), lose_all=lose_all)


async def end_mid_write(
    group: Group, name: str, *, steps: int, lose_all: bool | None, wait_s: float = 0.5
) -> bool:
    """End `name` at the disk's step number `steps` from now, before it is taken, or after `wait_s`.

    A SIGKILL if `lose_all` is None, else a power loss. True if the step was reached.
    """
    disk, reached = group.disk(name), trio.Event()

    def count(step: str) -> None:
        nonlocal steps
        steps -= 1
        if steps <= 0:
            group.network.crash(name, keep_in_flight=True)  # nothing leaves any more
            group.pause(name)
            reached.set()
            raise OSError(errno.EIO, f"{INJECTED} {step}")

    disk.before = count
    with trio.move_on_after(wait_s):
        await reached.wait()
    disk.before = lambda step: None
    if lose_all is None:
        await group.kill(name)
    else:
        await group.crash(name, lose_all=lose_all)
    return reached.is_set()
