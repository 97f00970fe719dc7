"""What the commands share: options, the seed, how a comparison is printed and written."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import orjson

from bench.errors import BenchError


def choose_seed(given: int | None) -> int:
    """`given`, or a random one; either is printed, so that a run can be repeated."""
    chosen = secrets.randbelow(2**31) if given is None else given
    say(f"seed {chosen}")
    return chosen


def say(text: str) -> None:
    """A line for the terminal; data goes to standard output."""
    click.echo(f"bench: {text}", err=True)


def compared(command: Callable[..., None]) -> Callable[..., None]:
    """The options of the benches that break a cluster or load it for long."""
    for option in (
        click.option("--out", default=None, help="Write the JSON report to this file."),
        click.option("--data-dir", default="out/bench", show_default=True, help="On a real disk."),
        click.option("--seed", type=int, default=None, help="Default: a random one, which is printed."),
        click.option("--tls", type=click.Choice(["yes", "no", "both"]), default="yes", show_default=True),
        click.option("--against", type=click.Choice(["etcd"]), default=None, help="The peer."),
    ):
        command = option(command)
    return command


def print_comparison(
    bench: str, measure: Any, *, figure: str, out: str | None, options: dict[str, Any], repeat: int = 1
) -> None:
    """Measure, print and write it: see `bench.compare.compare`."""
    from bench.compare import compare

    report = compare(bench, measure, figure=figure, options=options, say=say, repeat=repeat)
    for case in report["runs"]:
        for name, side in (("raftkube", case["ours"]), ("etcd", case.get("peer"))):
            if side is not None:
                plain = {key: value for key, value in side.items() if not isinstance(value, list | str)}
                click.echo(f"{case['case']}, {name}: " + ", ".join(f"{k} {v}" for k, v in plain.items()))
        if "ratio" in case:
            click.echo(f"{case['case']}: {figure} {case['ratio']} times etcd's")
    click.echo(f"verdict: {report['verdict']}")
    write_json(report, out)


def write_json(report: dict[str, Any], out: str | None) -> None:
    """The report, if it is asked for. Raises BenchError."""
    if out:
        write_file(out, orjson.dumps(report, option=orjson.OPT_INDENT_2))


def write_file(path: str, data: bytes) -> None:
    """Raises BenchError: it cannot be written."""
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_bytes(data)
    except OSError as error:
        raise BenchError(f"{path} cannot be written: {error.strerror}") from error
