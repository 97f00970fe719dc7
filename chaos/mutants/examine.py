"""One mutant put to the test: a run without faults that must be valid, seeds until a checker speaks, and the
plan that showed it made smaller."""

from __future__ import annotations

import resource
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from types import FrameType
from typing import Any, Final

from chaos.mutants import MUTANTS, Mutant
from chaos.sim.outcome import Outcome
from chaos.sim.plan import Plan, PlanError, World
from chaos.sim.shrink import invariants_broken, shrink
from chaos.sim.worlds import WORLDS, run_plan

FAULTS_WANTED: Final = 5  # of a plan that was made smaller, at most
_SMALL_TRIES: Final = 6  # for a plan that is small as it was drawn
_CALM_S: Final[dict[World, float]] = {"store": 20.0, "cluster": 60.0}
_CALM_SEED: Final = 1
_DURATIONS_S: Final[dict[World, tuple[float, ...]]] = {
    "store": (15.0, 30.0),
    "cluster": (60.0, 120.0),
}  # of the seeds in turn
_RUN_CPU_S: Final = 60.0  # a run that takes longer has gone mad
_MEMORY_BYTES: Final = 6 << 30


@dataclass(frozen=True, slots=True)
class Bounds:
    """Of one mutant: CPU seconds for its search, and runs for making its plan smaller."""

    search_cpu_s: float = 300.0
    shrink_tries: int = 40


@dataclass(slots=True)
class Row:
    """What came of one mutant. `calm`: the verdict without faults. `invariants`: what seed `seed` broke,
    after `runs` runs and `cpu_s` seconds of processor; `crashed`: runs that the mutant ended without a
    verdict. `faults`: in the smaller plan."""

    name: str
    what: str
    status: str = "missed"
    calm: str = ""
    invariants: list[str] = field(default_factory=list)
    sentence: str = ""
    seed: int | None = None
    runs: int = 0
    crashed: int = 0
    simulated_s: float = 0.0
    cpu_s: float = 0.0
    faults_drawn: int = 0
    faults: int = 0
    shrink_runs: int = 0

    def to_json(self) -> dict[str, Any]:
        """As chaos/results/mutants.json has it."""
        return asdict(self)


class _TooLong(BaseException):
    """No error that a member may take for its own."""


def calm_plan(name: str | None, world: World = "store") -> Plan:
    """A moderate load and no fault."""
    if world == "cluster":
        return WORLDS[world].draw(_CALM_SEED, _CALM_S[world], (), name)
    return Plan(world, _CALM_SEED, _CALM_S[world], load={"hosts": 2, "numbered": True}, mutant=name)


def search_plan(mutant: Mutant, seed: int) -> Plan:
    """What the swarm draws for a seed from the mutant's faults, with its load and settings."""
    world, durations_s = WORLDS[mutant.world], _DURATIONS_S[mutant.world]
    faults = world.choose_faults(mutant.faults)
    plan = world.draw(seed, durations_s[seed % len(durations_s)], faults, mutant.name)
    return replace(
        plan, load=_merged(plan.load, mutant.load), settings=_merged(plan.settings, mutant.settings)
    )


def _merged(drawn: dict[str, Any], wanted: Any) -> dict[str, Any]:
    parts = {name: drawn[name] | value for name, value in wanted.items() if isinstance(value, dict)}
    return drawn | dict(wanted) | parts


def examine(name: str, bounds: Bounds) -> tuple[Row, Plan | None]:
    """What came of the mutant `name`, and the smaller plan that shows it."""
    mutant = MUTANTS[name]
    row = Row(name, mutant.what)
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, resource.getrlimit(resource.RLIMIT_AS)[1]))
    calm = _run(calm_plan(name, mutant.world))
    row.calm = "crashed" if calm is None else calm.verdict.word
    found = _search(mutant, row, bounds.search_cpu_s)
    if found is None:
        return row, None
    row.status = "caught" if row.calm == "valid" else "seen without faults"
    row.invariants = sorted(invariants_broken(found))
    row.sentence = found.verdict.violations[0].sentence[:200]
    row.faults_drawn = len(found.plan.faults)
    plan = _smaller(found, row, bounds)
    if len(plan.faults) > FAULTS_WANTED:
        plan = _sparse(mutant, row, bounds) or plan
    row.faults = len(plan.faults)
    return row, plan


def _smaller(found: Outcome, row: Row, bounds: Bounds) -> Plan:
    small = len(found.plan.faults) <= FAULTS_WANTED
    tries = min(bounds.shrink_tries, _SMALL_TRIES) if small else bounds.shrink_tries
    shrunk = shrink(found, _run_or_valid(found), tries_max=tries)
    row.shrink_runs += shrunk.tries
    return shrunk.plan


def _sparse(mutant: Mutant, row: Row, bounds: Bounds) -> Plan | None:
    """What does not become small may be drawn small: the next seeds' plans with few of their faults, and
    one that breaks the same."""
    assert row.seed is not None
    for seed in range(row.seed + 1, row.seed + 1 + 2 * bounds.shrink_tries):
        plan = search_plan(mutant, seed)
        step = max(1, len(plan.faults) // FAULTS_WANTED)
        outcome = _run(replace(plan, faults=plan.faults[::step][:FAULTS_WANTED]))
        row.shrink_runs += 1
        if outcome is not None and invariants_broken(outcome) & set(row.invariants):
            return _smaller(outcome, row, bounds)
    return None


def _search(mutant: Mutant, row: Row, cpu_s_max: float) -> Outcome | None:
    began = time.process_time()
    seed = 0
    while row.cpu_s < cpu_s_max:
        outcome = _run(search_plan(mutant, seed))
        row.runs += 1
        row.cpu_s = round(time.process_time() - began, 1)
        if outcome is None:
            row.crashed += 1
        else:
            row.simulated_s = round(row.simulated_s + outcome.simulated_s, 1)
            if outcome.verdict.word == "invalid":
                row.seed = seed
                return outcome
        seed += 1
    return None


def _run_or_valid(found: Outcome) -> Any:
    """A run that crashed shows nothing."""
    nothing = _without_violations(found)
    return lambda plan: _run(plan) or nothing


def _without_violations(outcome: Outcome) -> Outcome:
    """The same without a violation."""
    verdict = type(outcome.verdict)()
    return Outcome(outcome.plan, verdict, [], outcome.trace, outcome.simulated_s, outcome.cpu_s)


def _run(plan: Plan) -> Outcome | None:
    """None: the mutant ended the run itself, or it would not end."""
    try:
        with _bounded(_RUN_CPU_S):
            return run_plan(plan)
    except PlanError:
        raise
    except (Exception, _TooLong):  # noqa: BLE001 the boundary: whatever a mutant breaks
        return None
    except BaseExceptionGroup as group:
        if group.subgroup((KeyboardInterrupt, SystemExit)):
            raise
        return None


@contextmanager
def _bounded(cpu_s: float) -> Iterator[None]:
    def stop(number: int, frame: FrameType | None) -> None:
        raise _TooLong

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, cpu_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
