"""One run of a simulated cluster: faults and load for a while, then peace, then the verdict; and how a seed
draws the plan of one."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from typing import Any, Final

import structlog
import trio

from chaos.checkers.control_loops import judge_control_loops
from chaos.checkers.history import FORMAT, history_of
from chaos.checkers.settled import orphans, unsettled
from chaos.mutants import planted
from chaos.recording import MemoryRecorder
from chaos.sim.clock import run_simulation
from chaos.sim.cluster_door import ApiDoor, watched_doors
from chaos.sim.cluster_faults import FAULTS, Nemesis, heal
from chaos.sim.cluster_load import Load, User
from chaos.sim.cluster_observers import LogObserver, ShownPods, bugs_only
from chaos.sim.cluster_settings import ClusterSettings, settings_from
from chaos.sim.cluster_world import ClusterWorld
from chaos.sim.outcome import Outcome
from chaos.sim.plan import Injection, Plan, PlanError
from raftkube.rng import Rng, seeded_rng

FIRST_FAULT_S: Final = 12.0  # by then everything runs
CONVERGE_S: Final = 150.0
_LOOK_S: Final = 1.0
_QUIET_S: Final = 4.0  # it has to stay at rest for so long
_TIDY_S: Final = 10.0
_COLLECT_S: Final = 30.0


def run_cluster_plan(plan: Plan) -> Outcome:
    """From start to verdict, in virtual time; one plan gives one trace. Raises PlanError: a name that is not
    known."""
    began = time.process_time()
    settings, load = settings_from(plan.settings), load_from(plan.load)
    for injection in plan.faults:
        if injection.fault not in FAULTS:
            raise PlanError(f"faults: there is no {injection.fault!r} in the world cluster")
    with planted(plan.mutant, "cluster"), _own_collector():
        recorder, run = run_simulation(plan.seed, _run, plan, settings, load)
    history = history_of(recorder.records)
    return Outcome(
        plan=plan,
        verdict=judge_control_loops(history),
        records=recorder.records,
        trace=run.world.network.trace_hash,
        simulated_s=run.ended_at_s,
        cpu_s=time.process_time() - began,
        faults=run.nemesis.effective,
    )


class _Run:
    """The parts of one run."""

    def __init__(self, plan: Plan, world: ClusterWorld, load: Load) -> None:
        self.plan, self.world = plan, world
        self.observer = LogObserver(world)
        self.nemesis = Nemesis(world, self.observer, plan.faults)
        self.ended_at_s = 0.0
        self._load = load
        self._users = [User(world, self.observer.objects, number) for number in range(1, load.users + 1)]
        self._admin = User(world, self.observer.objects, 0)

    async def run(self, lookers_on: trio.Nursery) -> None:
        """Safety, then liveness."""
        for name in self.world.everyone():
            self.world.start(name)
        lookers_on.start_soon(self.observer.run)
        for name in ("watcher-1", "watcher-2"):
            lookers_on.start_soon(ShownPods(self.world, name).run)
        with trio.move_on_after(self.plan.duration_s):
            async with trio.open_nursery() as actors:
                actors.start_soon(self.nemesis.run)
                for user in self._users:
                    actors.start_soon(user.run, self._load.pause_s)
        await self._converge()
        self.ended_at_s = trio.current_time()

    async def _converge(self) -> None:
        """Peace, and what an administrator tidies up; until everything is at rest, or for too long."""
        heal(self.world)
        peace_at = trio.current_time()
        self.world.observe("peace")
        quiet_since, tidied_at = peace_at, float("-inf")
        while trio.current_time() < peace_at + CONVERGE_S:
            now = trio.current_time()
            if now - tidied_at >= _TIDY_S:
                await self._admin.tidy()
                tidied_at = now
            if self._at_rest():
                if now - quiet_since >= _QUIET_S:
                    break
            else:
                quiet_since = now
            await trio.sleep(_LOOK_S)
        await self.observer.catch_up()
        self.world.observe("end", waited_s=round(trio.current_time() - peace_at, 3))

    def _at_rest(self) -> bool:
        objects = self.observer.objects
        return next(unsettled(objects), None) is None and next(orphans(objects), None) is None


async def _run(plan: Plan, settings: ClusterSettings, load: Load) -> tuple[MemoryRecorder, _Run]:
    recorder = MemoryRecorder(trio.current_time)
    recorder.write({"format": FORMAT, "world": "cluster", "seed": plan.seed, "options": plan.to_json()})
    door = ApiDoor(recorder)
    with watched_doors(door), _logging(recorder):
        async with trio.open_nursery() as nursery:
            run = _Run(plan, ClusterWorld(plan.seed, settings, nursery, door, recorder), load)
            nursery.start_soon(_collect)
            await run.run(nursery)
            nursery.cancel_scope.cancel()
    return recorder, run


@contextmanager
def _logging(recorder: MemoryRecorder) -> Iterator[None]:
    before = structlog.get_config()
    structlog.configure(**bugs_only(recorder))
    try:
        yield
    finally:
        structlog.configure(**before)


@contextmanager
def _own_collector() -> Iterator[None]:
    """What is garbage is collected at times of the simulation: its finalizers take steps."""
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


async def _collect() -> None:
    while True:
        await trio.sleep(_COLLECT_S)
        gc.collect()


# Plans --------------------------------------------------------------------------------------------


def load_from(given: dict[str, Any]) -> Load:
    """Raises PlanError: a name that is none of these."""
    known = {each.name for each in fields(Load)}
    if unknown := given.keys() - known:
        raise PlanError(f"load.{min(unknown)} is not known; there are {', '.join(sorted(known))}")
    return Load(**given)


def draw_cluster_plan(
    seed: int, duration_s: float, faults: Sequence[str] | None = None, mutant: str | None = None
) -> Plan:
    """What this seed does: a mix of some of the named faults (None: of all), how often, on which cluster.

    Raises PlanError: there is no fault of that name.
    """
    for name in faults or ():
        if name not in FAULTS:
            raise PlanError(f"there is no fault {name!r} in the world cluster; there are {', '.join(FAULTS)}")
    rng = seeded_rng(f"cluster-plan-{seed}")
    names = list(FAULTS) if faults is None else list(faults)
    mix = _mix(names, rng)
    mean_s = rng.choice((5.0, 8.0, 12.0, 20.0))
    return Plan(
        world="cluster",
        seed=seed,
        duration_s=duration_s,
        settings={
            "history_events": rng.choice((8, 64, 512)),
            "lease_s": rng.choice((4, 6, 8)),
            "delay_s": rng.choice([[0.0005, 0.003], [0.001, 0.02], [0.005, 0.06]]),
        },
        load={"pause_s": rng.choice((3.0, 5.0, 8.0))},
        faults=_schedule(mix, duration_s, mean_s, rng),
        mutant=mutant,
    )


def _mix(names: list[str], rng: Rng) -> list[str]:
    """Some of them, each as often as its weight says: every seed has another mixture."""
    if not names:
        return []
    few = rng.randint(min(3, len(names)), min(9, len(names)))
    weighted = sorted(names, key=lambda name: rng.random() ** (1.0 / FAULTS[name].weight), reverse=True)
    return weighted[:few]


def _schedule(mix: list[str], duration_s: float, mean_s: float, rng: Rng) -> tuple[Injection, ...]:
    schedule: list[Injection] = []
    at_s = FIRST_FAULT_S + rng.uniform(0.0, mean_s)
    while mix and at_s < duration_s:
        name = rng.choice(mix)
        shortest, longest = FAULTS[name].lasts_s
        lasts_s = shortest + (longest - shortest) * rng.random() ** 2
        schedule.append(
            Injection(round(at_s, 3), name, rng.randrange(1 << 16), round(lasts_s, 3), round(rng.random(), 3))
        )
        at_s += rng.expovariate(1.0 / mean_s)
    return tuple(schedule)
