"""`watch-soak`: watchers fed at half of the highest rate for long; memory and descriptors must stay flat, and
every event must reach every watcher, once and in order."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from bench.catch_up import counted
from bench.latency import Latencies
from bench.peers import Certificates, running
from bench.soak import steadiness
from bench.usage import usage
from bench.watch_job import WatchLoad
from bench.watch_measure import Crew, Server, at_rate, measure, sleep_until

_PROBE_S: Final = 8.0


def measure_watch_soak(
    name: str, folder: Path, certificates: Certificates | None, load: WatchLoad, *, window_s: float,
    say: Callable[[str], None],
) -> dict[str, Any]:  # fmt: skip
    """`load.rate` 0: half of what a closed loop reaches first. Raises Violation, BenchError."""
    windows: list[dict[str, Any]] = []
    everything = Latencies()
    with running(name, folder, certificates) as (side, leader):
        server = Server(side, leader, certificates)
        if not load.rate:
            top = measure(server, replace(load, seconds=min(_PROBE_S, load.seconds)))
            load = at_rate(load, round(top["puts_per_s"] / 2, 1))
            say(f"{name}: {top['puts_per_s']:,.0f} writes/s at most; {load.rate:,.0f}/s are kept")

        def watch_windows(made: Crew) -> None:
            end_s = time.monotonic() + load.seconds
            while (now := time.monotonic()) < end_s:
                sleep_until(min(now + window_s, end_s))
                told, count = counted(made)
                everything.merge(told.pairs)
                windows.append({
                    "rate": round(count / window_s), "p99_ms": told.percentile_ms(0.99),
                    "rss_mb": usage(side.pids()).rss_mb, "descriptors": side.descriptors(),
                })  # fmt: skip
                say(f"{name}: {windows[-1]}")

        told = measure(server, load, meanwhile=watch_windows)
    rate = sum(window["rate"] for window in windows) / len(windows)
    millions = max(rate * load.seconds, 1.0) / 1e6
    spread = everything.told() | {"rate": round(rate)}
    spread |= {f"{key}_per_million": round(told[key] / millions, 3) for key in ("cpu_s", "generator_cpu_s")}
    return told | spread | {"asked_rate": load.rate, "windows": windows, **steadiness(windows)}
