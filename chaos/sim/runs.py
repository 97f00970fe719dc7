"""Many seeds of a world: run, told, counted; what fails is kept in a folder from which it is replayed."""

from __future__ import annotations

import json
import resource
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final

import orjson

from chaos.checkers.history import read_history
from chaos.report import write_report
from chaos.sim.outcome import Outcome
from chaos.sim.plan import Plan, PlanError, plan_from_json
from chaos.sim.quiet import hush
from chaos.sim.worlds import WORLDS, run_plan

_MEMORY_BYTES: Final = 6 << 30  # a seed that wants more has gone mad; the machine is not its own
PLAN, RESULT, HISTORY = "plan.json", "result.json", "history.jsonl"


@dataclass(frozen=True, slots=True)
class SimOptions:
    """What the command line asks for. `faults`: names; None: all of the world."""

    world: str
    duration_s: float
    faults: tuple[str, ...] | None = None
    mutant: str | None = None

    def plan(self, seed: int) -> Plan:
        return WORLDS[self.world].draw(seed, self.duration_s, self.faults, self.mutant)

    def replay_line(self, seed: int) -> str:
        """The command that shows the same again."""
        faults = f" --faults {','.join(self.faults)}" if self.faults is not None else ""
        mutant = f" --mutant {self.mutant}" if self.mutant else ""
        return (
            f"python -m chaos sim --world {self.world} --seeds {seed}:{seed + 1}"
            f" --duration {self.duration_s:g}{faults}{mutant} --out out/sim"
        )


@dataclass(slots=True)
class Told:
    """What one seed showed, small enough to travel between processes."""

    seed: int
    word: str
    operations: int
    checked: dict[str, int]
    faults: dict[str, int]
    faults_planned: int
    simulated_s: float
    cpu_s: float
    trace: str
    violations: list[tuple[str, str]] = field(default_factory=list)
    unknown_because: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, outcome: Outcome) -> Told:
        verdict = outcome.verdict
        first: dict[str, str] = {}
        for violation in verdict.violations:
            first.setdefault(violation.invariant, violation.sentence)
        return cls(
            outcome.plan.seed, verdict.word,
            sum(record.get("type") == "op" for record in outcome.records),
            dict(verdict.checked), dict(outcome.faults), len(outcome.plan.faults),
            outcome.simulated_s, outcome.cpu_s, outcome.trace,
            list(first.items()), list(verdict.unknown_because),
        )  # fmt: skip

    @property
    def line(self) -> str:
        """For the terminal."""
        hit = sum(self.faults.values())
        return (
            f"seed {self.seed}: {self.word}, {self.operations} operations,"
            f" {hit} of {self.faults_planned} faults hit, {self.simulated_s:.0f} s in {self.cpu_s:.1f} s,"
            f" trace {self.trace[:16]}"
        )


def run_seeds(options: SimOptions, seeds: range, jobs: int, out: Path) -> Iterator[Told]:
    """In the order of the seeds. What is not valid is kept in OUT/seed-N. Raises PlanError."""
    one = partial(_one, options=options, out=out)
    if jobs == 1:
        yield from map(one, seeds)
        return
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        yield from pool.map(one, seeds)


def _one(seed: int, *, options: SimOptions, out: Path) -> Told:
    hush()
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, resource.getrlimit(resource.RLIMIT_AS)[1]))
    outcome = run_plan(options.plan(seed))
    if outcome.verdict.word != "valid":
        keep(outcome, out / f"seed-{seed}", options.replay_line(seed))
    return Told.of(outcome)


def keep(outcome: Outcome, folder: Path, replay_line: str) -> None:
    """Everything of a run: its plan, its history, its verdict, a report."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [orjson.dumps(record) for record in outcome.records]
    (folder / HISTORY).write_bytes(b"".join(line + b"\n" for line in lines))
    (folder / PLAN).write_text(json.dumps(outcome.plan.to_json(), indent=1) + "\n")
    result = {"trace": outcome.trace, "verdict": outcome.verdict.word, "again": replay_line}
    (folder / RESULT).write_text(json.dumps(result, indent=1) + "\n")
    history = read_history(lines)
    write_report(folder, history, outcome.verdict, history.faults, replay_line)


def read_plan(path: Path) -> tuple[Plan, dict[str, Any]]:
    """The plan of a kept run (a folder) or of a seed that is kept as a file, and what was told of it.

    Raises PlanError: there is none, or it cannot be run by this version.
    """
    file = path / PLAN if path.is_dir() else path
    try:
        document = json.loads(file.read_text())
        told = json.loads((path / RESULT).read_text()) if path.is_dir() else document
        return plan_from_json(document.get("plan", document)), told
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise PlanError(f"{str(file)!r} is no plan: {error}") from error


def summary(options: SimOptions, told: list[Told], wall_s: float, commit: str) -> dict[str, Any]:
    """Counts over all seeds, and each seed that was not valid with its first violation of each kind."""
    faults: Counter[str] = Counter()
    checked: Counter[str] = Counter()
    for each in told:
        faults.update(each.faults)
        checked.update(each.checked)
    simulated_s, cpu_s = sum(each.simulated_s for each in told), sum(each.cpu_s for each in told)
    return {
        "world": options.world,
        "commit": commit,
        "duration_s": options.duration_s,
        "faults": list(options.faults) if options.faults is not None else "all",
        "mutant": options.mutant,
        "seeds": [told[0].seed, told[-1].seed + 1],
        "verdicts": dict(Counter(each.word for each in told)),
        "simulated_hours": round(simulated_s / 3600, 2),
        "wall_s": round(wall_s, 1),
        "simulated_s_per_cpu_s": round(simulated_s / max(cpu_s, 1e-9), 1),
        "checked": dict(sorted(checked.items())),
        "faults_hit": dict(sorted(faults.items())),
        "not_valid": [
            {
                "seed": each.seed, "verdict": each.word, "violations": dict(each.violations),
                "unknown_because": each.unknown_because, "again": options.replay_line(each.seed),
            }
            for each in told
            if each.word != "valid"
        ],
    }  # fmt: skip
