"""The fuzz as a tool: `python -m chaos.sim.fuzz --group raftkube --seeds 0:500 --duration 60`.

Exit codes: 0 nothing found, 1 a seed shows a violation, 2 a wrong command line.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import click

from chaos.commit import commit_of_the_code
from chaos.sim.fuzz_faults import Level
from chaos.sim.fuzz_run import Outcome, run_seed
from chaos.sim.groups import Kind
from chaos.sim.quiet import hush

_MEMORY_BYTES = 4 << 30  # a seed that wants more has gone mad; the machine is not its own
_WRITE_EVERY = 10  # seeds
_SUMMED = ("proposed", "acknowledged", "refused", "unknown", "unanswered", "died", "reads", "lost")


@click.command()
@click.option(
    "--group", "kind", type=click.Choice(["stock", "raftkube"]), default="raftkube", show_default=True
)
@click.option("--seeds", default="0:100", show_default=True, help="A:B, from A up to but without B.")
@click.option(
    "--duration",
    type=click.FloatRange(1, 86_400),
    default=60.0,
    show_default=True,
    help="Simulated seconds of faults a seed; what follows to converge is not counted in.",
)
@click.option(
    "--faults",
    "level",
    type=click.Choice(["network", "process", "power"]),
    default="power",
    show_default=True,
    help="Each level holds the one before it.",
)
@click.option("--jobs", type=click.IntRange(1, 256), default=1, show_default=True, help="Processes.")
@click.option("--out", type=click.Path(dir_okay=False), default=None, help="Write the result here, as JSON.")
@click.option("--quiet", is_flag=True, help="Print nothing for a seed without violations.")
def main(
    kind: Kind, seeds: str, duration: float, level: Level, jobs: int, out: str | None, quiet: bool
) -> None:  # fmt: skip
    """Break a group of Raft members in every way that a seed thinks of, and judge what they said."""
    try:
        first, last = (int(part) for part in seeds.split(":"))
    except ValueError:
        raise click.BadParameter(f"{seeds!r} is not A:B, such as 0:100", param_hint="--seeds") from None
    if last <= first:
        raise click.BadParameter(f"{seeds!r} holds no seed: B must exceed A", param_hint="--seeds")
    outcomes: list[Outcome] = []
    result: dict[str, Any] = {}
    started = time.perf_counter()
    for outcome in _outcomes(range(first, last), kind, duration, level, jobs):
        outcomes.append(outcome)
        if outcome.violations or not quiet:
            _report(outcome, kind, duration, level)
        if len(outcomes) % _WRITE_EVERY == 0 or len(outcomes) == last - first:
            result = summary(outcomes, kind, duration, level)
            result |= _speed(result["simulated_s"], time.perf_counter() - started, jobs)
            _write(result, out)
    click.echo(json.dumps({key: value for key, value in result.items() if key != "failing"}, indent=1))
    sys.exit(1 if result["seeds_with_a_violation"] else 0)


def _speed(simulated_s: float, wall_s: float, jobs: int) -> dict[str, Any]:
    return {
        "wall_s": round(wall_s, 1),
        "cpu_s": round(time.process_time(), 1) if jobs == 1 else None,
        "simulated_s_per_wall_s": round(simulated_s / wall_s, 1),
        "simulated_s_per_cpu_s": round(simulated_s / time.process_time(), 1) if jobs == 1 else None,
        "jobs": jobs,
    }


def _write(result: dict[str, Any], out: str | None) -> None:
    """What is known so far, so that a run that is ended early was not for nothing."""
    if out is not None:
        Path(out).parent.mkdir(parents=True, exist_ok=True)
        Path(out).write_text(json.dumps(result, indent=1) + "\n")


def _outcomes(seeds: range, kind: Kind, duration_s: float, level: Level, jobs: int) -> Iterator[Outcome]:
    """In the order of the seeds."""
    one = partial(_one, kind=kind, duration_s=duration_s, level=level)
    if jobs == 1:
        yield from map(one, seeds)
        return
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        yield from pool.map(one, seeds)


def _one(seed: int, *, kind: Kind, duration_s: float, level: Level) -> Outcome:
    hush()
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, resource.getrlimit(resource.RLIMIT_AS)[1]))
    return run_seed(seed, kind, duration_s=duration_s, level=level)


def replay_line(seed: int, kind: Kind, duration_s: float, level: Level) -> str:
    """The command that shows the same again."""
    what = f"--group {kind} --seeds {seed}:{seed + 1} --duration {duration_s:g} --faults {level}"
    return f"python -m chaos.sim.fuzz {what}"


def _report(outcome: Outcome, kind: Kind, duration_s: float, level: Level) -> None:
    print(
        f"seed {outcome.seed}: {outcome.acknowledged} of {outcome.proposed} acknowledged,"
        f" {outcome.lost} lost, {outcome.unanswered} unanswered, trace {outcome.trace[:16]}"
    )
    for what, sentence in outcome.violations.items():
        print(f"  {what}: {sentence}")
    if outcome.violations:
        print(f"  again: {replay_line(outcome.seed, kind, duration_s, level)}")
    sys.stdout.flush()


def summary(outcomes: list[Outcome], kind: Kind, duration_s: float, level: Level) -> dict[str, Any]:
    """Counts over all seeds, and each seed that failed with its first violation of each kind."""
    seeds_with = Counter(what for outcome in outcomes for what in outcome.violations)
    totals = {name: sum(getattr(outcome, name) for outcome in outcomes) for name in _SUMMED}
    faults: Counter[str] = Counter()
    for outcome in outcomes:
        faults.update(outcome.faults)
    return {
        "group": kind,
        "faults": level,
        "commit": commit_of_the_code(),
        "seeds": [outcomes[0].seed, outcomes[-1].seed + 1],
        "seeds_count": len(outcomes),
        "duration_s": duration_s,
        "simulated_s": round(sum(outcome.simulated_s for outcome in outcomes), 1),
        **totals,
        "unanswered_percent": round(100 * totals["unanswered"] / max(1, totals["proposed"]), 3),
        "converged": sum(outcome.converged for outcome in outcomes),
        "seeds_with_a_violation": sum(bool(outcome.violations) for outcome in outcomes),
        "seeds_with": dict(sorted(seeds_with.items())),
        "faults_count": dict(sorted(faults.items())),
        "failing": [
            {
                "seed": outcome.seed,
                "violations": outcome.violations,
                "again": replay_line(outcome.seed, kind, duration_s, level),
            }
            for outcome in outcomes
            if outcome.violations
        ],
    }


if __name__ == "__main__":
    main()
