"""`python -m chaos sim` and `python -m chaos replay`.

Exit codes: 0 valid, 1 invalid, 2 unknown or a wrong command line.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import click

from chaos.checkers.verdict import EXIT_CODES
from chaos.commit import commit_of_the_code
from chaos.sim.plan import PlanError
from chaos.sim.quiet import hush
from chaos.sim.runs import SimOptions, Told, keep, read_plan, run_seeds, summary
from chaos.sim.shrink import shrink
from chaos.sim.worlds import WORLDS, run_plan

T = TypeVar("T")


@click.command()
@click.option("--world", type=click.Choice(list(WORLDS)), default="store", show_default=True)
@click.option("--seeds", default="0:100", show_default=True, help="A:B, from A up to but without B.")
@click.option(
    "--duration", type=click.FloatRange(1, 86_400), default=120.0, show_default=True,
    help="Simulated seconds of faults a seed; what follows to come together is not counted in.",
)  # fmt: skip
@click.option("--faults", default="all", show_default=True, help="Names or groups, see `list`; none: ''.")
@click.option("--mutant", default=None, help="A bug to switch on, see `list`.")
@click.option("--jobs", type=click.IntRange(1, 256), default=1, show_default=True, help="Processes.")
@click.option("--shrink/--no-shrink", "shrinks", default=True, show_default=True,
              help="Make the first seed that fails smaller.")  # fmt: skip
@click.option("--quiet", is_flag=True, help="Print nothing for a valid seed.")
@click.option("--out", required=True, type=click.Path(file_okay=False, path_type=Path),
              help="A folder for the summary and for what was not valid.")  # fmt: skip
def sim(
    world: str, seeds: str, duration: float, faults: str, mutant: str | None, jobs: int, shrinks: bool,
    quiet: bool, out: Path,
) -> None:  # fmt: skip
    """Run a whole store, or a control plane, in simulations decided by seeds, and judge their histories."""
    chosen = None if faults == "all" else _usable(lambda: WORLDS[world].choose_faults(faults))
    options = SimOptions(world, duration, chosen, mutant)
    told: list[Told] = []
    began = time.monotonic()
    out.mkdir(parents=True, exist_ok=True)
    try:
        for each in run_seeds(options, _range(seeds), jobs, out):
            told.append(each)
            if each.word != "valid" or not quiet:
                _tell(each, options)
            result = summary(options, told, time.monotonic() - began, commit_of_the_code())
            (out / "summary.json").write_text(json.dumps(result, indent=1) + "\n")
    except PlanError as error:
        raise click.ClickException(str(error)) from error
    failed = next((each for each in told if each.word == "invalid"), None)
    if failed is not None and shrinks:
        _shrink(options, failed.seed, out)
    click.echo(json.dumps({key: value for key, value in result.items() if key != "not_valid"}, indent=1))
    sys.exit(max((EXIT_CODES[each.word] for each in told), key=(0, 2, 1).index))


def _range(seeds: str) -> range:
    try:
        first, last = (int(part) for part in seeds.split(":"))
    except ValueError:
        raise click.BadParameter(f"{seeds!r} is not A:B, such as 0:100", param_hint="--seeds") from None
    if last <= first:
        raise click.BadParameter(f"{seeds!r} holds no seed: B must exceed A", param_hint="--seeds")
    return range(first, last)


def _usable(choose: Callable[[], T]) -> T:
    """Raises ClickException with what a PlanError says."""
    try:
        return choose()
    except PlanError as error:
        raise click.ClickException(str(error)) from error


def _tell(told: Told, options: SimOptions) -> None:
    click.echo(told.line)
    for invariant, sentence in told.violations:
        click.echo(f"  {invariant}: {sentence[:400]}")
    for doubt in told.unknown_because:
        click.echo(f"  unknown because: {doubt}")
    if told.word != "valid":
        click.echo(f"  again: {options.replay_line(told.seed)}")


def _shrink(options: SimOptions, seed: int, out: Path) -> None:
    hush()
    folder = out / f"seed-{seed}-shrunk"
    shrunk = shrink(run_plan(options.plan(seed)), run_plan)
    keep(shrunk.outcome, folder, f"python -m chaos replay {folder}")
    plan = shrunk.plan
    click.echo(
        f"seed {seed} shrunk in {shrunk.tries} runs to {len(plan.faults)} faults in {plan.duration_s:g} s;"
        f" again: python -m chaos replay {folder}"
    )
    for injection in plan.faults:
        click.echo(f"  at {injection.at_s:g} s {injection.fault} for {injection.lasts_s:g} s")


@click.command()
@click.argument("path", type=click.Path(exists=True, path_type=Path))
def replay(path: Path) -> None:
    """Run a kept plan again: a folder that `sim` wrote, or a file of chaos/seeds."""
    hush()
    plan, told = _usable(lambda: read_plan(path))
    outcome = _usable(lambda: run_plan(plan))
    click.echo(Told.of(outcome).line)
    for violation in outcome.verdict.first(3):
        click.echo(f"  {violation.invariant}: {violation.sentence[:400]}")
    if "trace" in told:
        same = told["trace"] == outcome.trace
        click.echo("the same trace" if same else "another trace: the code is not that of the kept run")
    sys.exit(outcome.verdict.exit_code)
