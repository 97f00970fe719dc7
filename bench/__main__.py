"""`python -m bench`: figures of raftkube, beside a real etcd in the same run.

Exit codes: 0 measured, 1 a side did not do what is counted, 2 it cannot run as asked, 143 ended by SIGTERM.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from bench import api_commands, watch_command
from bench.choices import choose_seed, compared, print_comparison, say, write_file, write_json
from bench.ending import Ending, stop_children
from bench.errors import BenchError, Violation


@click.group()
def cli() -> None:
    """Measure; a speed claim is a ratio against the peer in one run."""


for _command in (*api_commands.COMMANDS, *watch_command.COMMANDS):
    cli.add_command(_command)


def _shared(command: Callable[..., None]) -> Callable[..., None]:
    """The options that every bench has."""
    for option in (
        click.option("--out", default=None, help="Write the JSON report to this file."),
        click.option(
            "--data-dir", default="out/bench", show_default=True, help="On a real disk; emptied after."
        ),
        click.option("--seed", type=int, default=None, help="Default: a random one, which is printed."),
        click.option("--tls", type=click.Choice(["yes", "no", "both"]), default="both", show_default=True),
        click.option("--repeat", type=click.IntRange(1, 100), default=3, show_default=True),
        click.option("--seconds", type=click.FloatRange(0.5, 3600), default=5.0, show_default=True),
        click.option("--value-bytes", type=click.IntRange(12, 1_000_000), default=512, show_default=True),
        click.option("--against", type=click.Choice(["etcd"]), default=None, help="The peer."),
    ):
        command = option(command)
    return command


@cli.command()
@click.option("--clients", type=click.IntRange(1, 1_000), default=8, show_default=True, help="Connections.")
@click.option("--outstanding", type=click.IntRange(1, 100_000), default=100, show_default=True)
@_shared
def put(clients: int, outstanding: int, **shared: Any) -> None:
    """Durable puts per second, and how long each took."""
    _measure("put", clients=clients, outstanding=outstanding, **shared)


@cli.command()
@click.option("--clients", type=click.IntRange(1, 1_000), default=8, show_default=True, help="Connections.")
@click.option("--outstanding", type=click.IntRange(1, 100_000), default=100, show_default=True)
@click.option("--keys", type=click.IntRange(1, 1_000_000), default=10_000, show_default=True)
@_shared
def get(clients: int, outstanding: int, **shared: Any) -> None:
    """Linearizable gets of single keys per second; every value found is verified."""
    _measure("get", clients=clients, outstanding=outstanding, reads=1.0, **shared)


@cli.command()
@click.option("--clients", type=click.IntRange(1, 1_000), default=8, show_default=True, help="Connections.")
@click.option("--outstanding", type=click.IntRange(1, 100_000), default=100, show_default=True)
@click.option("--keys", type=click.IntRange(1, 1_000_000), default=10_000, show_default=True)
@click.option("--reads", type=click.FloatRange(0.01, 0.99), default=0.5, show_default=True,
              help="Share of gets.")  # fmt: skip
@_shared
def mixed(clients: int, outstanding: int, **shared: Any) -> None:
    """Gets and puts together; no get may find less than what was acknowledged before it."""
    _measure("mixed", clients=clients, outstanding=outstanding, **shared)


@cli.command()
@click.option("--kills", type=click.IntRange(1, 1_000), default=50, show_default=True)
@compared
def failover(kills: int, out: str | None, **options: Any) -> None:
    """From the leader's SIGKILL to the next acknowledged write; nothing acknowledged may be lost."""
    from bench.failover import measure_failover

    seed = options["seed"] = choose_seed(options["seed"])
    print_comparison(
        "failover",
        lambda name, folder, pki: measure_failover(name, folder, pki, kills=kills, seed=seed),
        figure="p50_ms",
        out=out,
        options=options | {"kills": kills},
    )


@cli.command()
@click.option("--keys", type=click.IntRange(1, 10_000_000), default=200_000, show_default=True)
@click.option("--value-bytes", type=click.IntRange(12, 1_000_000), default=512, show_default=True)
@compared
def restart(keys: int, value_bytes: int, out: str | None, **options: Any) -> None:
    """A killed member with many keys until it serves reads again; the memory that the keys take."""
    from bench.restart import measure_restart

    seed = options["seed"] = choose_seed(options["seed"])
    print_comparison(
        "restart",
        lambda name, folder, pki: measure_restart(
            name, folder, pki, keys=keys, value_bytes=value_bytes, seed=seed
        ),
        figure="restart_s",
        out=out,
        options=options | {"keys": keys, "value_bytes": value_bytes},
    )


@cli.command()
@click.option("--minutes", type=click.FloatRange(0.1, 1_000), default=10.0, show_default=True)
@click.option(
    "--rate", type=click.IntRange(0, 1_000_000), default=0, help="Puts a second; 0: half of the top."
)
@click.option("--outstanding", type=click.IntRange(1, 100_000), default=1_000, show_default=True)
@click.option("--value-bytes", type=click.IntRange(12, 1_000_000), default=512, show_default=True)
@compared
def soak(
    minutes: float, rate: int, outstanding: int, value_bytes: int, out: str | None, **options: Any
) -> None:
    """A steady rate for long: memory and descriptors must stay flat."""
    from bench.job import Job
    from bench.loop import Endpoint
    from bench.soak import measure_soak

    seed = options["seed"] = choose_seed(options["seed"])
    nowhere = Endpoint("", 0)  # the sides' own come later
    job = Job(
        kind="mixed", protocol="", writer=nowhere, endpoints=[], outstanding=outstanding,
        value_bytes=value_bytes, warm_up_s=2.0, seconds=60 * minutes, seed=seed, rate=rate, window_s=10.0,
    )  # fmt: skip
    print_comparison(
        "soak",
        lambda name, folder, pki: measure_soak(name, folder, pki, job, say),
        figure="p99_ms",
        out=out,
        options=options
        | {"minutes": minutes, "rate": rate, "outstanding": outstanding, "value_bytes": value_bytes},
    )


@cli.command()
@click.option("--out", default="out/bench/flame.svg", show_default=True)
@click.option("--data-dir", default="out/bench", show_default=True, help="On a real disk.")
@click.option("--outstanding", type=click.IntRange(1, 100_000), default=1_000, show_default=True)
@click.option("--value-bytes", type=click.IntRange(12, 1_000_000), default=512, show_default=True)
@click.option("--seconds", type=click.IntRange(1, 600), default=10, show_default=True)
@click.option("--watchers", type=click.IntRange(0, 20_000), default=0, help="0: puts alone.")
@click.option("--tls/--no-tls", default=False, show_default=True)
@click.option("--seed", type=int, default=None, help="Default: a random one, which is printed.")
def flame(out: str, data_dir: str, seed: int | None, **options: Any) -> None:
    """Where the leader spends its time: a flame graph (or raw stacks, for another suffix than .svg)."""
    from bench.flame import draw

    Path(out).parent.mkdir(parents=True, exist_ok=True)
    draw(Path(data_dir) / "flame", Path(out), seed=choose_seed(seed), **options)
    click.echo(out)


@cli.command()
@click.argument("file", type=click.Path(dir_okay=False))
@click.option("--out", default="out/workload", show_default=True, help="The folder of the reports.")
@click.option("--only", multiple=True, help="Only the case of this name; may be given often.")
@click.option("--repeat", type=click.IntRange(1, 100), default=None, help="Rounds, other than the file says.")
def workload(file: str, out: str, only: tuple[str, ...], repeat: int | None) -> None:
    """Run a frozen list of benches from a file; a report each, and one picture."""
    from bench.plot import draw_report
    from bench.workload import put_together, read_workload, run_workload

    def run_command(words: list[str]) -> None:
        cli.main(words, prog_name="python -m bench", standalone_mode=False)

    folder, read = Path(out), read_workload(Path(file))
    extra = () if repeat is None else ("--repeat", str(repeat))
    told = run_workload(read, folder, run_command, say, only=only, extra=extra)
    write_json(told, str(folder / "workload.json"))
    measured = [name for name, state in told["cases"].items() if state == "measured"]
    together = put_together(folder, measured)
    if together["runs"]:
        write_file(str(folder / f"{read.name}.svg"), draw_report(together))
    for name, state in told["cases"].items():
        click.echo(f"{name}: {state}")
    if len(measured) < len(told["cases"]):
        sys.exit(1)


def _measure(bench: str, *, seed: int | None, out: str | None, **options: Any) -> None:
    from bench.runner import Options, run

    report = run(Options(bench=bench, seed=choose_seed(seed), **options), say)
    for line in table(report):
        click.echo(line)
    write_json(report, out)


def table(report: dict[str, Any]) -> list[str]:
    """The report for people: a row a side, the ratio, and what is doubtful."""
    rows: list[tuple[str, ...]] = [
        ("case", "side", "rate/s", "min..max", "p50 ms", "p99 ms", "CPU s", "MB", "generator can")
    ]
    for case in report["runs"]:
        for name, side in (("raftkube", case["ours"]), ("etcd", case.get("peer"))):
            if side is not None:
                rows.append(_row(case["case"], name, side))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    for case in report["runs"]:
        if case.get("ratio") is not None:
            lines.append(f"{case['case']}: {case['ratio']} times etcd")
        lines += [f"  {doubt}" for doubt in case["doubts"]]
    return [*lines, f"verdict: {report['verdict']}"]


def _row(case: str, name: str, side: dict[str, Any]) -> tuple[str, ...]:
    spread = f"{side['rate_min']:,.0f}..{side['rate_max']:,.0f}"
    return (
        case, name, f"{side['rate']:,.0f}", spread, f"{side['p50_ms']:.2f}", f"{side['p99_ms']:.2f}",
        f"{side['cpu_s']:.2f}", f"{side['rss_mb']:.0f}", f"{side['generator_limit']:,.0f}",
    )  # fmt: skip


def main() -> None:
    """The command; whatever ends it, a signal too, nothing that it started outlives it."""
    ending = Ending()
    ending.install()
    try:
        _run_command()
    finally:
        stop_children()
        if ending.told:  # not what it became on its way, say in trio
            sys.exit(ending.exit_code)


def _run_command() -> None:
    """Every wrong input is one sentence and exit code 2."""
    try:
        cli.main(prog_name="python -m bench", standalone_mode=False)
    except click.ClickException as error:
        say(error.format_message())
        sys.exit(2)
    except click.Abort:
        sys.exit(130)
    except Violation as error:
        say(str(error))
        sys.exit(1)
    except BenchError as error:
        say(str(error))
        sys.exit(2)


if __name__ == "__main__":
    main()
