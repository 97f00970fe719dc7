"""`catch-up`: watchers from an old revision while writes go on and others watch live.

The history is written first. Then live watchers are fed at a fixed rate of writes; after half of the time the
late ones open their watches from the first revision on, and the live ones' latencies before and meanwhile are
told apart. Everybody's events are verified as in `watch`, the late ones' from the first of the history on.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Final

from bench.errors import BenchError
from bench.latency import Latencies
from bench.peers import Certificates, running
from bench.watch_job import WatchLoad
from bench.watch_measure import Crew, Meter, Server, crew, sleep_until

_LEAD_S: Final = 0.5
_ANSWER_S: Final = 60.0
_CATCH_UP_S: Final = 300.0


def measure_catch_up(
    name: str, folder: Path, certificates: Certificates | None, load: WatchLoad, *, late: int, history: int
) -> dict[str, Any]:
    """`load` is that of the live watchers. Raises Violation, BenchError."""
    if not load.rate:
        raise BenchError("--rate must be above 0: late watchers shall catch up with writes that go on")
    with running(name, folder, certificates) as (side, leader):
        server = Server(side, leader, certificates)
        with crew(server, load, preload=history) as made:
            made.open()
            return _run(made, late, history)


def _run(made: Crew, late: int, history: int) -> dict[str, Any]:
    load = made.load
    begin_s = time.monotonic() + _LEAD_S
    made.tell({"begin_s": begin_s, "end_s": begin_s + load.seconds})
    sleep_until(begin_s + load.seconds / 2)
    calm = windows(made)
    meter = Meter(made)
    joined = made.join(late, made.first + 1, target=made.revision)
    ready = joined.hear("ready", _CATCH_UP_S)
    told = meter.told()
    written, read = made.finish()
    joined.tell({"written": written["written"][0]})
    caught = joined.hear("result", _CATCH_UP_S)
    busy = Latencies()
    for one in read:
        busy.merge(one["latencies"])
    behind_s = ready["took_s"] - ready["opened_s"]
    return told | {
        "late_watchers": late, "history": history,
        "opened_s": ready["opened_s"], "caught_up_s": ready["took_s"],
        "catch_up_rate": round(late * history / ready["took_s"]), "after_open_s": round(behind_s, 3),
        "live_p50_ms_before": calm.percentile_ms(0.5), "live_p99_ms_before": calm.percentile_ms(0.99),
        "live_p50_ms_meanwhile": busy.percentile_ms(0.5), "live_p99_ms_meanwhile": busy.percentile_ms(0.99),
        "verified": caught["verified"] + sum(one["verified"] for one in read),
    }  # fmt: skip


def windows(made: Crew) -> Latencies:
    """The live watchers' latencies since the last call."""
    return counted(made)[0]


def counted(made: Crew) -> tuple[Latencies, int]:
    """The same, with how many deliveries there were."""
    merged, count = Latencies(), 0
    for child in made.readers:
        child.tell({"window": True})
    for child in made.readers:
        told = child.hear("window", _ANSWER_S)
        merged.merge(told["latencies"])
        count += told["counted"]
    return merged, count
