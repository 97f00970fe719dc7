"""Whether a run of real processes proves anything: it was fast enough, and its faults had effects."""

from __future__ import annotations

from collections.abc import Sequence

from chaos.checkers.verdict import Verdict
from chaos.recording import Record


def check_worth(
    verdict: Verdict,
    operations: Sequence[Record],
    faults: Sequence[Record],
    *,
    started_ns: int,
    ended_ns: int,
    min_rate: float,
    wanted: bool,
) -> None:
    """Count, and make a verdict unknown if fewer than `min_rate` operations/s succeeded before the first
    fault, or if faults were `wanted` and none had an effect."""
    first_fault_ns = min((record["start_ns"] for record in faults), default=ended_ns)
    before = [op for op in operations if op["outcome"] == "ok" and op["return_ns"] < first_fault_ns]
    rate = len(before) / max((first_fault_ns - started_ns) / 1e9, 1e-9)
    verdict.count("rate before the first fault (1/s)", round(rate))
    if rate < min_rate:
        verdict.unknown_because.append(
            f"{rate:.0f} operations/s before the first fault, below --min-rate {min_rate:g}"
        )
    effective = [record["name"] for record in faults if record.get("effect") is not None]
    verdict.count("effective faults", len(effective))
    verdict.count("kinds of effective faults", len(set(effective)))
    if wanted and not effective:
        verdict.unknown_because.append("no fault had an effect")
