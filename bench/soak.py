"""`soak`: a steady rate for a long time; memory and file descriptors must stay flat.

Without a rate given, the top rate is measured first for a few seconds, and half of it is kept.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from bench.job import Job
from bench.peers import Certificates, running
from bench.runner import run_generator

_PROBE_S: Final = 8.0
GROWTH_MAX: Final = 1.05  # of the resident memory, from the second quarter to the last
DESCRIPTORS_MAX: Final = 10


def measure_soak(
    name: str,
    folder: Path,
    certificates: Certificates | None,
    job: Job,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """`job` without endpoints; its rate 0 means half of the top rate. Raises Violation, BenchError."""
    windows: list[dict[str, Any]] = []
    with running(name, folder, certificates) as (side, leader):
        job = replace(job, protocol=side.protocol, writer=side.endpoint(leader), endpoints=side.endpoints())
        if not job.rate:
            top = run_generator(replace(job, seconds=_PROBE_S, window_s=0.0), side)["rate"]
            job = replace(job, rate=round(top / 2))
            say(f"{name}: top rate {top:,.0f}/s; {job.rate:,.0f}/s are kept for {job.seconds:g} s")

        def on_window(told: dict[str, Any]) -> None:
            windows.append(told | {"rss_mb": side.usage()["rss_mb"], "descriptors": side.descriptors()})
            last = windows[-1]
            say(f"{name}: {last['rate']:,.0f}/s, p99 {last['p99_ms']} ms, {last['rss_mb']:.0f} MB, "
                f"{last['descriptors']} descriptors")  # fmt: skip

        told = run_generator(job, side, on_window)
    return told | {"asked_rate": job.rate, "windows": windows, **steadiness(windows)}


def steadiness(windows: list[dict[str, Any]]) -> dict[str, Any]:
    """How memory and descriptors went from the second quarter of the time to the last."""
    quarter = max(1, len(windows) // 4)
    early, late = windows[quarter : 2 * quarter] or windows[:1], windows[-quarter:]
    growth = statistics.mean(w["rss_mb"] for w in late) / statistics.mean(w["rss_mb"] for w in early)
    more = late[-1]["descriptors"] - early[0]["descriptors"]
    flat = growth <= GROWTH_MAX and more <= DESCRIPTORS_MAX
    return {"memory_growth": round(growth, 3), "more_descriptors": more, "flat": flat}
