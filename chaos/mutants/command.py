"""`python -m chaos mutants`: every mutant examined, and the table written.

Exit codes: 0 each was caught or is told why not, 1 one was missed without a reason, 2 a wrong command line.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import click

from chaos.commit import commit_of_the_code
from chaos.mutants import MUTANTS
from chaos.mutants.examine import Bounds, Row, examine
from chaos.mutants.tables import with_tables
from chaos.sim.plan import Plan
from chaos.sim.quiet import hush

Examined = tuple[Row, Plan | None]


@click.command()
@click.option("--out", required=True, type=click.Path(dir_okay=False, path_type=Path),
              help="The table, as JSON; rows of other mutants in it stay.")  # fmt: skip
@click.option("--plans", type=click.Path(file_okay=False, path_type=Path), default=None,
              help="A folder for the smallest plan that shows each.")  # fmt: skip
@click.option("--page", type=click.Path(exists=True, dir_okay=False, path_type=Path), default=None,
              help="A page whose tables are written anew.")  # fmt: skip
@click.option("--only", default="", help="Names, with commas. Default: all.")
@click.option("--jobs", type=click.IntRange(1, 256), default=1, show_default=True, help="Processes.")
@click.option("--cpu", type=click.FloatRange(1, 86_400), default=300.0, show_default=True,
              help="Seconds of processor for the search of one.")  # fmt: skip
@click.option("--shrink-runs", type=click.IntRange(0, 1_000), default=40, show_default=True,
              help="Runs to make the plan of one smaller.")  # fmt: skip
def mutants(
    out: Path, plans: Path | None, page: Path | None, only: str, jobs: int, cpu: float, shrink_runs: int
) -> None:
    """Plant each mutant in simulated stores until a checker finds it."""
    names = [name for name in only.split(",") if name] or list(MUTANTS)
    for name in names:
        if name not in MUTANTS:
            raise click.BadParameter(f"there is no {name!r}; see `list`", param_hint="--only")
    rows = _kept(out)
    for row, plan in _examined(names, Bounds(cpu, shrink_runs), jobs):
        rows[row.name] = row.to_json() | {"commit": commit_of_the_code()}
        click.echo(line(row))
        _write(out, rows)
        if plan is not None and plans is not None and row.status == "caught":
            keep_plan(plans, row, plan)
    if page is not None:
        page.write_text(with_tables(page.read_text(), list(rows.values())))
    missed = [name for name in names if rows[name]["status"] == "missed" and not MUTANTS[name].doubt]
    sys.exit(bool(missed))


def _kept(out: Path) -> dict[str, Any]:
    """The rows that `out` has already, by name; those of mutants that are gone are left out."""
    if not out.exists():
        return {}
    found = json.loads(out.read_text())["mutants"]
    return {row["name"]: row for row in found if row["name"] in MUTANTS}


def _examined(names: list[str], bounds: Bounds, jobs: int) -> Iterator[Examined]:
    with ProcessPoolExecutor(
        jobs, mp_context=get_context("spawn"), initializer=hush, max_tasks_per_child=1
    ) as pool:
        for done in as_completed([pool.submit(examine, name, bounds) for name in names]):
            yield done.result()


def _write(out: Path, rows: dict[str, Any]) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    ordered = [rows[name] for name in MUTANTS if name in rows]
    out.write_text(json.dumps({"mutants": ordered}, indent=1) + "\n")


def keep_plan(folder: Path, row: Row, plan: Plan) -> None:
    """As `python -m chaos replay` reads it."""
    folder.mkdir(parents=True, exist_ok=True)
    document = {"what": row.what, "invariants": row.invariants, "plan": plan.to_json()}
    (folder / f"{row.name}.json").write_text(json.dumps(document, indent=1) + "\n")


def line(row: Row) -> str:
    """For the terminal."""
    told = f"{row.name}: {row.status}, without faults {row.calm}, {row.runs} runs, {row.cpu_s:.0f} s"
    if row.crashed:
        told += f", {row.crashed} crashed"
    if row.seed is None:
        return told
    return (
        f"{told}; seed {row.seed} breaks {', '.join(row.invariants)}: {row.sentence};"
        f" {row.faults_drawn} faults, {row.faults} after {row.shrink_runs} runs"
    )
