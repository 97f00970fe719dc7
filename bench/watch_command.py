"""The command lines of the watch benches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import click

from bench.choices import choose_seed, compared, print_comparison, say, write_file, write_json

_SHARES_MAX: Final = 150


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
    from bench.watch_job import WatchLoad
    from bench.watch_run import WatchOptions, run_watch

    seed = choose_seed(given["seed"])
    ours = ("against", "bare", "shares", "tls", "repeat", "data_dir")
    load = WatchLoad(seed=seed, **{name: given[name] for name in given if name not in (*ours, "seed")})
    return run_watch(WatchOptions(load, seed=seed, **{name: given[name] for name in ours}), say)


def write(report: dict[str, Any], out: str | None, plot: str | None) -> None:
    """JSON and SVG, where they are asked for. Raises BenchError."""
    from bench.plot import draw_report

    write_json(report, out)
    if plot:
        write_file(plot, draw_report(report))


def _live(command: Callable[..., None]) -> Callable[..., None]:
    """The options of the benches that watch while something else happens."""
    for option in (
        click.option("--generators", type=click.IntRange(1, 64), default=2, show_default=True,
                     help="Processes of watchers; the writer is one more."),
        click.option("--watchers", type=click.IntRange(1, 20_000), default=100, show_default=True,
                     help="Those that read all the time."),
        click.option("--repeat", type=click.IntRange(1, 100), default=3, show_default=True),
    ):  # fmt: skip
        command = option(command)
    return compared(command)


@click.command("catch-up")
@click.option("--late", type=click.IntRange(1, 20_000), default=100, show_default=True,
              help="Watchers from an old revision.")  # fmt: skip
@click.option("--history", type=click.IntRange(1, 90_000), default=20_000, show_default=True,
              help="Events that they are behind.")  # fmt: skip
@click.option("--rate", type=click.FloatRange(1, 1_000_000), default=100.0, show_default=True,
              help="Writes a second meanwhile.")  # fmt: skip
@click.option("--seconds", type=click.FloatRange(1, 3600), default=10.0, show_default=True)
@click.option("--value-bytes", type=click.IntRange(12, 1_000_000), default=512, show_default=True)
@_live
def catch_up(out: str | None, late: int, history: int, repeat: int, **given: Any) -> None:
    """Watchers from an old revision while writes go on and others watch; all are verified."""
    from bench.catch_up import measure_catch_up
    from bench.machine import check_descriptors
    from bench.peers import MEMBERS

    load, options = _load(given)
    check_descriptors(load.watchers + late, MEMBERS, 1)
    print_comparison(
        "catch-up",
        lambda name, folder, pki: measure_catch_up(name, folder, pki, load, late=late, history=history),
        figure="catch_up_rate",
        out=out,
        options=options | {"late": late, "history": history},
        repeat=repeat,
    )


@click.command("slow-readers")
@click.option("--slow", type=click.IntRange(1, 1_000), default=10, show_default=True,
              help="Watchers that stop reading.")  # fmt: skip
@click.option("--outstanding", type=click.IntRange(1, 10_000), default=100, show_default=True)
@click.option("--seconds", type=click.FloatRange(3, 3600), default=20.0, show_default=True)
@click.option("--value-bytes", type=click.IntRange(12, 1_000_000), default=4096, show_default=True)
@_live
def slow_readers(out: str | None, slow: int, repeat: int, **given: Any) -> None:
    """What watchers that stop reading do to the others; the slow ones' events are verified too."""
    from bench.slow_readers import measure_slow_readers

    load, options = _load(given)
    print_comparison(
        "slow-readers",
        lambda name, folder, pki: measure_slow_readers(name, folder, pki, load, slow=slow),
        figure="kept",
        out=out,
        options=options | {"slow": slow},
        repeat=repeat,
    )


@click.command("watch-soak")
@click.option("--minutes", type=click.FloatRange(0.1, 1_000), default=30.0, show_default=True)
@click.option("--rate", type=click.FloatRange(0, 1_000_000), default=0.0,
              help="Writes a second; 0: half of the top.")  # fmt: skip
@click.option("--window-seconds", type=click.FloatRange(1, 600), default=10.0, show_default=True)
@click.option("--value-bytes", type=click.IntRange(12, 1_000_000), default=512, show_default=True)
@_live
def watch_soak(out: str | None, minutes: float, window_seconds: float, repeat: int, **given: Any) -> None:
    """Watchers at a steady rate for long: flat memory, and no event lost."""
    from bench.watch_soak import measure_watch_soak

    load, options = _load(given | {"seconds": 60 * minutes})
    print_comparison(
        "watch-soak",
        lambda name, folder, pki: measure_watch_soak(
            name, folder, pki, load, window_s=window_seconds, say=say
        ),
        figure="p99_ms",
        out=out,
        options=options | {"minutes": minutes, "window_s": window_seconds},
        repeat=repeat,
    )


def _load(given: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The load of a command line, and what of it the report keeps."""
    from bench.watch_job import WatchLoad

    seed = choose_seed(given["seed"])
    ours = ("seed", "data_dir", "tls", "against")
    load = WatchLoad(seed=seed, **{name: value for name, value in given.items() if name not in ours})
    load.check()
    return load, given | {"seed": seed}


COMMANDS: Final = (watch, catch_up, slow_readers, watch_soak)
