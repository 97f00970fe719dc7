"""Benches that break or load a cluster for long: one measurement a side and case, with the same report."""

from __future__ import annotations

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
) -> dict[str, Any]:
    """The report. `options` are the command line's, with seed, tls, against and data_dir; the ratio is that
    of `figure`, ours over the peer's. Raises BenchError, Violation."""
    data_dir = Path(options["data_dir"])
    data_dir.mkdir(parents=True, exist_ok=True)
    machine = describe(data_dir)
    certificates = make_certificates(data_dir / "pki")
    names = ["raftkube"] + (["etcd"] if options["against"] else [])
    runs = []
    for tls in CASES[options["tls"]]:
        told: dict[str, dict[str, Any]] = {}
        for name in names:
            told[name] = measure(name, data_dir / f"{bench}-{name}", certificates if tls else None)
            say(f"{bench}, {'mTLS' if tls else 'plain'}, {name}: {_words(told[name])}")
        case: dict[str, Any] = {"case": f"{bench}: {'mTLS' if tls else 'plain'}", "ours": told["raftkube"]}
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


def _words(told: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in told.items() if not isinstance(value, list))
