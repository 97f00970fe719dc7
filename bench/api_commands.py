"""The benches of the API as commands; `bench.__main__` adds them to its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import click

from bench.errors import BenchError

_VERBS: Final = ("get", "list", "create", "update", "patch", "delete")


def _shared(command: Callable[..., None]) -> Callable[..., None]:
    for option in (
        click.option("--out", default=None, help="Write the JSON report to this file."),
        click.option("--data-dir", default="out/bench", show_default=True, help="On a real disk."),
        click.option("--seed", type=int, default=None, help="Default: a random one, which is printed."),
        click.option("--repeat", type=click.IntRange(1, 100), default=3, show_default=True),
        click.option("--seconds", type=click.FloatRange(0.5, 3600), default=5.0, show_default=True),
    ):
        command = option(command)
    return command


@click.command("api-list")
@click.option("--pods", type=click.IntRange(1, 1_000_000), default=10_000, show_default=True)
@click.option("--object-bytes", type=click.IntRange(1, 1_000_000), default=4_096, show_default=True)
@click.option("--limit", "limits", type=click.IntRange(0, 1_000_000), multiple=True, default=(0, 500),
              show_default=True, help="Pods a page; 0: all in one answer.")  # fmt: skip
@click.option("--writes", type=click.FloatRange(0, 100_000), default=100.0, show_default=True,
              help="Pods changed a second meanwhile.")  # fmt: skip
@_shared
def api_list(out: str | None, seed: int | None, **options: Any) -> None:
    """MB a second of lists of pods over TLS while pods change, beside a bare TLS loop."""
    from bench.api_list import ListOptions, measure_list

    chosen = ListOptions(seed=_seed(seed), **options)
    _run("api-list", chosen, lambda: measure_list(chosen, _say), out, "mb_per_s")


@click.command("api-watch")
@click.option("--watchers", type=click.IntRange(1, 10_000), multiple=True, default=(1, 100, 1_000),
              show_default=True)  # fmt: skip
@click.option("--object-bytes", type=click.IntRange(1, 1_000_000), multiple=True, default=(1_100,),
              show_default=True)  # fmt: skip
@click.option("--form", "forms", type=click.Choice(["json", "table", "metadata"]), multiple=True,
              default=("json",), show_default=True)  # fmt: skip
@click.option("--scope", "scopes", type=click.Choice(["cluster", "namespace"]), multiple=True,
              default=("cluster",), show_default=True)  # fmt: skip
@click.option("--selector", "selectors", type=click.Choice(["none", "label", "field"]), multiple=True,
              default=("none",), show_default=True)  # fmt: skip
@click.option("--servers", type=click.IntRange(1, 9), default=1, show_default=True, help="API servers.")
@click.option("--pods", type=click.IntRange(8, 1_000_000), default=1_000, show_default=True)
@click.option("--writers", type=click.IntRange(1, 1_000), default=16, show_default=True,
              help="Patches at once.")  # fmt: skip
@click.option("--rate", type=click.FloatRange(0, 100_000), default=0.0, show_default=True,
              help="Patches a second; 0: as the slowest watcher follows.")  # fmt: skip
@click.option("--outstanding", type=click.IntRange(1, 100_000), default=100, show_default=True,
              help="Events ahead of the slowest watcher.")  # fmt: skip
@click.option("--generators", type=click.IntRange(1, 64), default=2, show_default=True,
              help="Processes that the watchers are split over.")  # fmt: skip
@_shared
def api_watch(out: str | None, seed: int | None, **options: Any) -> None:
    """Deliveries a second to watchers of pods over HTTPS; every watcher's every byte is verified."""
    from bench.api_watch import WatchOptions, measure_watch

    chosen = WatchOptions(seed=_seed(seed), **options)
    _run("api-watch", chosen, lambda: measure_watch(chosen, _say), out, "rate")


@click.command("api-idle")
@click.option("--watchers", type=click.IntRange(1, 18_000), default=2_000, show_default=True)
@click.option("--generators", type=click.IntRange(1, 64), default=2, show_default=True,
              help="Processes that the watches are split over.")  # fmt: skip
@_shared
def api_idle(out: str | None, seed: int | None, **options: Any) -> None:
    """What idle watches cost, and how soon they are served again when their API server is killed."""
    from bench.api_idle import IdleOptions, measure_idle

    chosen = IdleOptions(seed=_seed(seed), **options)
    _run("api-idle", chosen, lambda: measure_idle(chosen, _say), out, "reconnected_s")


@click.command("api-rates")
@click.option("--verb", "verbs", type=click.Choice(_VERBS), multiple=True, default=_VERBS,
              show_default=True)  # fmt: skip
@click.option("--servers", type=click.IntRange(1, 9), multiple=True, default=(1, 2, 3), show_default=True,
              help="API servers, which the clients are spread over.")  # fmt: skip
@click.option("--clients", type=click.IntRange(1, 1_000), default=32, show_default=True,
              help="Each asks one thing after another on a connection that stays.")  # fmt: skip
@click.option("--generators", type=click.IntRange(1, 64), default=2, show_default=True,
              help="Processes that the clients are split over.")  # fmt: skip
@click.option("--object-bytes", type=click.IntRange(1, 1_000_000), default=1_100, show_default=True)
@_shared
def api_rates(out: str | None, seed: int | None, **options: Any) -> None:
    """Gets, lists and writes of pods a second, and how long each took; every answer is verified."""
    from bench.api_rates import RateOptions, measure_rates

    chosen = RateOptions(seed=_seed(seed), **options)
    if (most := max(chosen.servers)) > chosen.clients:
        raise BenchError(f"--clients {chosen.clients} is less than --servers {most}: some had nothing to do")
    _run("api-rates", chosen, lambda: measure_rates(chosen, _say), out, "rate")


def _run(bench: str, options: Any, measure: Callable[[], list[dict[str, Any]]], out: str | None,
         figure: str) -> None:  # fmt: skip
    """Measure, print a line a side, and write the report."""
    from dataclasses import asdict

    import orjson

    from bench.machine import commit, describe

    data_dir = Path(options.data_dir)
    data_dir.mkdir(parents=True, exist_ok=True)
    machine = describe(data_dir)
    runs = measure()
    doubts = [doubt for run in runs for doubt in run["doubts"]]
    for run in runs:
        for line in lines_of(run, figure):
            click.echo(line)
    verdict = "unknown" if doubts else "ok"
    click.echo(f"verdict: {verdict}")
    report = {
        "bench": bench, "machine": machine, "commit": commit(), "seed": options.seed,
        "options": asdict(options), "runs": runs, "verdict": verdict,
    }  # fmt: skip
    if out:
        Path(out).parent.mkdir(parents=True, exist_ok=True)
        Path(out).write_bytes(orjson.dumps(report, option=orjson.OPT_INDENT_2))


def lines_of(run: dict[str, Any], figure: str) -> list[str]:
    """A run for people: a line a side, the ratio, and what is doubtful."""
    lines = []
    for name, side in (("raftkube", run["ours"]), ("bare TLS loop", run.get("bare"))):
        if side is not None:
            told = ", ".join(f"{key} {value:,}" for key, value in side.items())
            lines.append(f"{run['case']}, {name}: {told}")
    if run.get("ratio") is not None:
        lines.append(f"{run['case']}: {figure} {run['ratio']} times the bare loop's")
    return [*lines, *(f"  {doubt}" for doubt in run["doubts"])]


def _seed(seed: int | None) -> int:
    import secrets

    chosen = secrets.randbelow(2**31) if seed is None else seed
    _say(f"seed {chosen}")
    return chosen


def _say(text: str) -> None:
    click.echo(f"bench: {text}", err=True)


COMMANDS = (api_list, api_watch, api_idle, api_rates)
