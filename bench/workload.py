"""A frozen list of command lines, so that others can repeat a set of measurements as it was made.

A workload file is JSON: {"name", "version", "seed", "cases": [{"name", "command": [words]}]}; each command is
one of `python -m bench`, without `--out` and `--seed`. A file is not changed once figures were published: a
change is a new version. What was run is known by the file's SHA-256, which stands beside the results.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson

from bench.errors import BenchError, Violation
from bench.plot import PANELS

_OWN: Final = ("--out", "--seed", "--plot", "--data-dir")


@dataclass(frozen=True, slots=True)
class Workload:
    """A file that was read. `cases`: (name, words)."""

    name: str
    version: int
    seed: int
    cases: list[tuple[str, list[str]]]
    sha256: str


def read_workload(path: Path) -> Workload:
    """Raises BenchError naming what is wrong."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BenchError(f"{path} cannot be read: {error.strerror}") from error
    try:
        told = orjson.loads(data)
        cases = [(str(case["name"]), [str(word) for word in case["command"]]) for case in told["cases"]]
        sha256 = hashlib.sha256(data).hexdigest()
        workload = Workload(str(told["name"]), int(told["version"]), int(told["seed"]), cases, sha256)
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise BenchError(f"{path} is no workload: {type(error).__name__} {error}") from error
    _check(path, cases)
    return workload


def _check(path: Path, cases: list[tuple[str, list[str]]]) -> None:
    names = [name for name, _ in cases]
    if len(set(names)) < len(names) or any("/" in name or not name for name in names):
        raise BenchError(f"{path}: the names of cases must be file names, each once")
    for name, words in cases:
        if own := [word for word in words if word.split("=")[0] in _OWN]:
            raise BenchError(f"{path}: case {name} must not say {own[0]}; the workload does")


def run_workload(
    workload: Workload,
    out: Path,
    run_command: Callable[[list[str]], Any],
    say: Callable[[str], None],
    *,
    only: tuple[str, ...] = (),
    extra: tuple[str, ...] = (),
) -> dict[str, Any]:
    """Run the cases in order, each with its report in `out`; what became of them. A case that fails is told
    and does not stop the others. `extra` words are added to every command, and make it another workload."""
    if unknown := set(only) - {name for name, _ in workload.cases}:
        raise BenchError(f"the workload has no case {sorted(unknown)[0]!r}")
    told: dict[str, str] = {}
    for name, words in workload.cases:
        if only and name not in only:
            continue
        say(f"{workload.name}: {name}")
        command = [*words, *extra, "--seed", str(workload.seed), "--out", str(out / f"{name}.json")]
        try:
            run_command(command)
            told[name] = "measured"
        except (Violation, BenchError) as error:
            told[name] = f"{type(error).__name__}: {error}"
            say(f"{name}: {told[name]}")
    return {
        "workload": workload.name, "version": workload.version, "sha256": workload.sha256,
        "seed": workload.seed, "extra": list(extra), "cases": told,
    }  # fmt: skip


def put_together(out: Path, names: list[str]) -> dict[str, Any]:
    """One report of all that was measured and can be drawn, for one picture."""
    reports = [orjson.loads((out / f"{name}.json").read_bytes()) for name in names]
    drawn = [report for report in reports if report["bench"] in PANELS]
    verdicts = {report["verdict"] for report in drawn}
    return {
        "runs": [case | {"bench": report["bench"]} for report in drawn for case in report["runs"]],
        "commit": ", ".join(sorted({report["commit"] for report in drawn})),
        "verdict": "ok" if verdicts == {"ok"} else "unknown",
    }
