"""`slow-readers`: some watchers stop reading while the others are fed as fast as they take it.

raftkube ends a watch that has fallen too far behind, saying the last revision that it has completely: it must
be true of each. etcd keeps them. Either way the others must go on unharmed, which is what is measured: their
rate and latencies before the slow ones stop, and after.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Final

from bench.catch_up import counted
from bench.errors import Violation
from bench.peers import Certificates, running
from bench.watch_job import WatchLoad
from bench.watch_measure import Crew, Meter, Server, crew, sleep_until
from raftkube.store.server.settings import ServerSettings

_LEAD_S: Final = 0.5
_READ_S: Final = 300.0
# What sockets and kernel buffers may hold besides, so that a watcher this far behind must have been ended.
_BUFFERS_BYTES: Final = 32 * 1024 * 1024


def measure_slow_readers(
    name: str, folder: Path, certificates: Certificates | None, load: WatchLoad, *, slow: int
) -> dict[str, Any]:
    """`load` is that of the fast watchers, in a closed loop; a third of it is before the slow ones stop.

    Raises Violation: a slow watcher was not ended, though far behind, or lost events; BenchError.
    """
    with running(name, folder, certificates) as (side, leader):
        server = Server(side, leader, certificates)
        with crew(server, load) as made:
            made.open()
            return _run(made, slow)


def _run(made: Crew, slow: int) -> dict[str, Any]:
    load = made.load
    stalled = made.join(slow, made.revision + 1, may_end=True)
    made.hear_ready(stalled)
    begin_s = time.monotonic() + _LEAD_S
    end_s, calm_s = begin_s + load.seconds, load.seconds / 3
    made.tell({"begin_s": begin_s, "end_s": end_s})
    sleep_until(begin_s + calm_s)
    before, count_before = counted(made)
    stalled.tell({"stall": True})
    meter = Meter(made)
    sleep_until(end_s)
    told = meter.told()
    after, count_after = counted(made)
    stalled.tell({"resume": True})
    written, _ = made.finish()
    stalled.tell({"written": written["written"][-1]})
    lagged = stalled.hear("result", _READ_S)
    behind_bytes = count_after / load.watchers * load.value_bytes
    if made.server.name == "raftkube":
        check_ended(lagged["ended"], slow, behind_bytes)
    rate_before, rate_after = count_before / calm_s, count_after / (load.seconds - calm_s)
    return told | {
        "slow_watchers": slow, "ended": lagged["ended"], "behind_mb": round(behind_bytes / 1e6, 1),
        "rate_before": round(rate_before), "rate_meanwhile": round(rate_after),
        "kept": round(rate_after / max(rate_before, 1.0), 3),
        "p99_ms_before": before.percentile_ms(0.99), "p99_ms_meanwhile": after.percentile_ms(0.99),
        "slow_verified": lagged["verified"],
    }  # fmt: skip


def check_ended(ended: int, slow: int, behind_bytes: float) -> None:
    """Raises Violation: watchers that were surely too far behind were not ended."""
    surely = behind_bytes > ServerSettings().watch_lag_bytes_max + _BUFFERS_BYTES
    if surely and ended < slow:
        raise Violation(
            f"{slow - ended} of {slow} watchers that read nothing while {behind_bytes / 1e6:.0f} MB "
            "were written were not ended"
        )
