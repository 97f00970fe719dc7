"""The tables of docs/BENCH.md from bench/results: `python scripts/bench_table.py`; a test compares them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parents[1] / "bench" / "results"
RATES = (
    "put-512-1",
    "put-512-100",
    "put-512-1000",
    "put-4096-1",
    "put-4096-100",
    "put-4096-1000",
    "get-512-1",
    "get-512-100",
    "get-512-1000",
    "mixed-512-100",
    "mixed-512-1000",
)
WATCHES = ("watch-100", "watch-1000")
# What the API benches are judged by: report -> (figure, its processor time, further figures of ours).
API = {
    "api-list": ("mb_per_s", "cpu_s_per_gb", ()),
    "api-watch-1000": ("rate", "cpu_s_per_million", ()),
    "api-idle-10000": ("reconnected_s", "reconnect_cpu_s", ("kb_each", "idle_cpu_s", "lease_max_ms")),
}
FIGURES = {
    "failover": ("kills", "p50_ms", "p95_ms", "max_ms"),
    "restart": ("restart_s", "mb_per_100k_keys"),
    "soak": ("asked_rate", "p50_ms", "p99_ms", "p999_ms", "rss_mb", "memory_growth", "more_descriptors"),
}


def rates() -> list[str]:
    """A row a case: both medians, the ratio, p99, and whether the run itself calls it doubtful."""
    lines = [
        "| case | raftkube /s | etcd /s | ratio | p99 ms, raftkube / etcd | doubts |",
        "|---|---|---|---|---|---|",
    ]
    return lines + [_rate_row(run) for name in RATES for run in _read(name)["runs"]]


def watches() -> list[str]:
    """A row a case, and one for each share of etcd's highest rate: rates, p99, the processor's seconds for a
    million deliveries."""
    lines = [
        "| case | raftkube /s | etcd /s | ratio | bare loop /s | p99 ms, raftkube / etcd / bare |"
        " CPU s a million |",
        "|---|---|---|---|---|---|---|",
    ]
    for run in (run for name in WATCHES for run in _read(name)["runs"]):
        lines.append(_watch_row(run["case"] + _suspect(run), run, f"{run['ratio']:g}"))
        lines += [
            _watch_row(f"at {step['share']:g} % of etcd's highest rate", step, "")
            for step in run.get("steps", [])
        ]
    return lines


def _suspect(run: dict[str, Any]) -> str:
    suspect = any(doubt.startswith("suspect") for doubt in run["doubts"])
    return " (etcd below half of what is known of it)" if suspect else ""


def _watch_row(case: str, run: dict[str, Any], ratio: str) -> str:
    sides = [run["ours"], run["peer"], run["bare"]]
    rate = [f"{side['rate']:,.0f}" for side in sides]
    p99 = " / ".join(f"{side['p99_ms']:.1f}" for side in sides)
    cpu = " / ".join(f"{side['cpu_s_per_million']:.2f}" for side in sides)
    return _row((case, rate[0], rate[1], ratio, rate[2], p99, cpu))


def api() -> list[str]:
    """A row a case beside the bare TLS loop, and what else is judged of it."""
    lines = ["| case | figure | raftkube | bare TLS loop | ratio | CPU s |", "|---|---|---|---|---|---|"]
    for name, (figure, cpu, more) in API.items():
        for run in _read(name)["runs"]:
            ours, bare = run["ours"], run["bare"]
            told = (f"{ours[figure]:,.1f}", f"{bare[figure]:,.1f}", f"{run['ratio']:g}", f"{ours[cpu]:,.2f}")
            lines.append(_row((run["case"], figure, *told)))
            lines += [_row((run["case"], each, f"{ours[each]:,.2f}", "-", "-", "-")) for each in more]
    return lines


def figures() -> list[str]:
    """A row a figure of the benches that break a cluster or load it for long."""
    lines = ["| bench | figure | raftkube | etcd |", "|---|---|---|---|"]
    for name, keys in FIGURES.items():
        for run in _read(name)["runs"]:
            peer = run.get("peer", {})
            lines += [
                _row((run["case"], key, f"{run['ours'][key]}", f"{peer.get(key, '-')}")) for key in keys
            ]
    return lines


def commits() -> list[str]:
    """The commits that the figures were measured at."""
    return sorted({_read(name)["commit"] for name in (*RATES, *WATCHES, *API, *FIGURES)})


def _read(name: str) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text())
    return report


def _rate_row(run: dict[str, Any]) -> str:
    ours, peer = run["ours"], run["peer"]
    p99 = f"{ours['p99_ms']:.1f} / {peer['p99_ms']:.1f}"
    doubts = "; ".join(_short(doubt) for doubt in run["doubts"]) or "none"
    rates_told = (f"{ours['rate']:,.0f}", f"{peer['rate']:,.0f}", f"{run['ratio']:g}")
    return _row((run["case"], *rates_told, p99, doubts))


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _short(doubt: str) -> str:
    if doubt.startswith("suspect"):
        return "etcd below half of what is known of it"
    return f"generator for {'etcd' if 'for etcd' in doubt else 'raftkube'} below twice"


if __name__ == "__main__":
    tables = [*rates(), "", *watches(), "", *api(), "", *figures()]
    print("\n".join([*tables, "", "commits: " + ", ".join(commits())]))
