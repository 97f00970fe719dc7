"""The command lines of the watch benches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import orjson

from bench.errors import BenchError

_SHARES_MAX = 150


class Shares(click.ParamType[tuple[int, ...]]):
    """Per cent, separated by commas."""

    name = "percentages"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[int, ...]:
        try:
            shares = tuple(int(word) for word in value.split(",")) if isinstance(value, str) and value else ()
        except ValueError:
            self.fail(f"{value!r} is not a list of whole percentages such as 25,50,75", param, ctx)
        if not all(0 < share <= _SHARES_MAX for share in shares):
            self.fail(f"each of {value!r} must be 1 to {_SHARES_MAX}", param, ctx)
        return shares


@click.command()
@click.option("--out", default=None, help="Write the JSON report to this file.")
@click.option("--plot", default=None, help="Draw the report into this SVG file.")
@click.option("--data-dir", default="out/bench", show_default=True, help="On a real disk; emptied after.")
@click.option("--seed", type=int, default=None, help="Default: a random one, which is printed.")
@click.option("--tls", type=click.Choice(["yes", "no", "both"]), default="both", show_default=True)
@click.option("--repeat", type=click.IntRange(1, 100), default=3, show_default=True)
@click.option("--seconds", type=click.FloatRange(0.5, 3600), default=5.0, show_default=True)
@click.option("--value-bytes", type=click.IntRange(12, 1_000_000), default=512, show_default=True)
@click.option("--against", type=click.Choice(["etcd"]), default=None, help="The peer.")
@click.option("--watchers", type=click.IntRange(1, 20_000), default=100, show_default=True)
@click.option("--prefixes", type=click.IntRange(1, 10_000), default=1, show_default=True,
              help="Watched and written, a share of the watchers each.")  # fmt: skip
@click.option("--per-connection", type=click.IntRange(1, 1_000), default=1, show_default=True)
@click.option("--generators", type=click.IntRange(1, 64), default=2, show_default=True,
              help="Processes of watchers; the writer is one more.")  # fmt: skip
@click.option("--outstanding", type=click.IntRange(1, 10_000), default=100, show_default=True,
              help="Puts ahead of the slowest watcher.")  # fmt: skip
@click.option("--rate", type=click.FloatRange(0, 1_000_000), default=0.0,
              help="Writes a second at fixed times; 0: as fast as they are delivered.")  # fmt: skip
@click.option("--shares", type=Shares(), default="",
              help="Then compare latencies at these per cent of etcd's highest rate.")  # fmt: skip
@click.option("--bare/--no-bare", default=True, show_default=True, help="The bare socket loop beside them.")
def watch(out: str | None, plot: str | None, seed: int | None, **given: Any) -> None:
    """Deliveries per second to watchers that are written to, and how long each took; all are verified."""
    report = measured(given | {"seed": seed})
    from bench.watch_table import table

    for line in table(report):
        click.echo(line)
    write(report, out, plot)


def measured(given: dict[str, Any]) -> dict[str, Any]:
    """The report of one command line, also of one from a workload file."""
    from bench.choices import choose_seed, say
    from bench.watch_job import WatchLoad
    from bench.watch_run import WatchOptions, run_watch

    seed = choose_seed(given["seed"])
    ours = ("against", "bare", "shares", "tls", "repeat", "data_dir")
    load = WatchLoad(seed=seed, **{name: given[name] for name in given if name not in (*ours, "seed")})
    return run_watch(WatchOptions(load, seed=seed, **{name: given[name] for name in ours}), say)


def write(report: dict[str, Any], out: str | None, plot: str | None) -> None:
    """JSON and SVG, where they are asked for. Raises BenchError: it cannot be written."""
    from bench.plot import draw_report

    written = {out: orjson.dumps(report, option=orjson.OPT_INDENT_2)} if out else {}
    for path, data in (written | ({plot: draw_report(report)} if plot else {})).items():
        try:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            Path(path).write_bytes(data)
        except OSError as error:
            raise BenchError(f"{path} cannot be written: {error.strerror}") from error
