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
    "watch-100",
    "watch-1000",
)
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
    return sorted({_read(name)["commit"] for name in (*RATES, *FIGURES)})


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
    print("\n".join([*rates(), "", *figures(), "", "commits: " + ", ".join(commits())]))
