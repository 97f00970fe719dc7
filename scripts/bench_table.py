"""The table of docs/BENCH.md from bench/results: `python scripts/bench_table.py`; a test holds it equal."""

from __future__ import annotations

import json
from pathlib import Path

RESULTS = Path(__file__).parents[1] / "bench" / "results"
ORDER = ("put-1", "put-100", "put-1000", "watch-100", "watch-1000")


def table() -> list[str]:
    """A row a case: both medians, the ratio, p99, and whether the run itself calls it doubtful."""
    lines = [
        "| case | raftkube /s | etcd /s | ratio | p99 ms, raftkube / etcd | doubts |",
        "|---|---|---|---|---|---|",
    ]
    for name in ORDER:
        for run in json.loads((RESULTS / f"{name}.json").read_text())["runs"]:
            ours, peer = run["ours"], run["peer"]
            p99 = f"{ours['p99_ms']:.1f} / {peer['p99_ms']:.1f}"
            doubts = "; ".join(_short(doubt) for doubt in run["doubts"]) or "none"
            row = (
                run["case"],
                f"{ours['rate']:,.0f}",
                f"{peer['rate']:,.0f}",
                f"{run['ratio']:g}",
                p99,
                doubts,
            )
            lines.append("| " + " | ".join(row) + " |")
    return lines


def _short(doubt: str) -> str:
    return (
        "etcd below half of what is known of it" if doubt.startswith("suspect") else "generator below twice"
    )


if __name__ == "__main__":
    print("\n".join(table()))
