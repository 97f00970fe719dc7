"""A watch report for people: a row a side and case."""

from __future__ import annotations

from typing import Any, Final

NAMES: Final = {"peer": "etcd", "ours": "raftkube", "bare": "bare loop"}
_COLUMNS: Final = (
    "case", "side", "deliveries/s", "min..max", "puts/s", "p50 ms", "p99 ms", "p99.9 ms",
    "CPU s a million", "peak MB", "KB a watcher", "generator s a million", "busiest", "others",
)  # fmt: skip


def table(report: dict[str, Any]) -> list[str]:
    """Columns as in docs/BENCH.md, then ratios, then what is doubtful."""
    rows: list[tuple[str, ...]] = [_COLUMNS]
    for case in report["runs"]:
        rows += _rows(case["case"], case)
        for step in case["steps"]:
            rows += _rows(f"  at {step['share']} % of etcd's highest rate", step)
    widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    for case in report["runs"]:
        lines += _ratios(case)
        lines += [f"  {doubt}" for doubt in case["doubts"]]
    return [*lines, f"verdict: {report['verdict']}"]


def _rows(name: str, place: dict[str, Any]) -> list[tuple[str, ...]]:
    return [_row(name, NAMES[side], place[side]) for side in ("ours", "peer", "bare") if side in place]


def _row(case: str, name: str, side: dict[str, Any]) -> tuple[str, ...]:
    return (
        case, name, f"{side['rate']:,.0f}", f"{side['rate_min']:,.0f}..{side['rate_max']:,.0f}",
        f"{side['puts_per_s']:,.0f}", f"{side['p50_ms']:.2f}", f"{side['p99_ms']:.2f}",
        f"{side['p999_ms']:.2f}",
        f"{side['cpu_s_per_million']:.2f}", f"{side['peak_mb']:.0f}", f"{side['kb_per_watcher']:.1f}",
        f"{side['generator_cpu_s_per_million']:.2f}", f"{side['generator_busy']:.0%}",
        f"{side['others_busy']:.0%}",
    )  # fmt: skip


def _ratios(case: dict[str, Any]) -> list[str]:
    lines = []
    if "ratio" in case:
        lines.append(f"{case['case']}: {case['ratio']} times etcd, p99 {case['p99_ratio']} times etcd's")
    if "of_bare" in case:
        lines.append(f"{case['case']}: {case['of_bare']} times the bare loop")
    lines += [
        f"{case['case']}: at {step['share']} % p99 {step['ours']['p99_ms']} ms, "
        f"etcd's {step['peer']['p99_ms']} ms"
        for step in case["steps"]
    ]
    return lines
