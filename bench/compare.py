"""Benches that break or load a cluster for long: one measurement a side and case, with the same report."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from bench.machine import commit, describe
from bench.peers import PEER, Certificates, make_certificates

Measure = Callable[[str, Path, Certificates | None], dict[str, Any]]
CASES: Final = {"both": (True, False), "yes": (True,), "no": (False,)}


def compare(
    bench: str,
    measure: Measure,
    *,
    figure: str,
    options: dict[str, Any],
    say: Callable[[str], None],
    repeat: int = 1,
) -> dict[str, Any]:
    """The report. `options` are the command line's, with seed, tls, against and data_dir; the ratio is that
    of `figure`, ours over the peer's. With `repeat` the sides run in turn, and medians are told. Raises
    BenchError, Violation."""
    data_dir = Path(options["data_dir"])
    data_dir.mkdir(parents=True, exist_ok=True)
    machine = describe(data_dir)
    certificates = make_certificates(data_dir / "pki")
    names = ["raftkube"] + (["etcd"] if options["against"] else [])
    runs = []
    for tls in CASES[options["tls"]]:
        rounds: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
        for name in names * repeat:
            rounds[name].append(measure(name, data_dir / f"{bench}-{name}", certificates if tls else None))
            say(f"{bench}, {'mTLS' if tls else 'plain'}, {name}: {_words(rounds[name][-1])}")
        told = {name: medians(results, figure) for name, results in rounds.items()}
        case: dict[str, Any] = {"case": f"{bench}: {'mTLS' if tls else 'plain'}", "ours": told["raftkube"]}
        if repeat > 1:
            case["rounds"] = rounds
        if "etcd" in told:
            case["peer"] = told["etcd"] | {"name": PEER}
            case["ratio"] = round(told["raftkube"][figure] / told["etcd"][figure], 2)
        runs.append(case)
    steady = all(case["ours"].get("flat", True) for case in runs)
    return {
        "bench": bench,
        "machine": machine,
        "commit": commit(),
        "seed": options["seed"],
        "options": options,
        "runs": runs,
        "verdict": "ok" if steady else "unknown",
    }


def medians(results: list[dict[str, Any]], figure: str) -> dict[str, Any]:
    """Of one: itself. Of several: medians of the numbers, the spread of `figure`, flat only if all were."""
    if len(results) == 1:
        return results[0]
    keys = [key for key, value in results[0].items() if isinstance(value, int | float)]
    told: dict[str, Any] = {key: statistics.median(one[key] for one in results) for key in keys}
    values = [one[figure] for one in results]
    told |= {f"{figure}_min": min(values), f"{figure}_max": max(values)}
    return told | ({"flat": all(one["flat"] for one in results)} if "flat" in told else {})


def _words(told: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in told.items() if not isinstance(value, list))
