"""`restart`: how long a killed member with many keys takes until it serves linearizable reads again, and how
much memory the keys take.

All keys are put once over the leader; a follower is then killed (SIGKILL) and started; the time runs from
the start of its process to its first answer to a linearizable get of the last key, over its own port.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Final

from bench.errors import Violation
from bench.job import Job
from bench.peers import MEMBERS, Certificates, running
from bench.probe import first_answer
from bench.runner import run_generator

_TIMEOUT_S: Final = 120.0


def measure_restart(
    name: str, folder: Path, certificates: Certificates | None, *, keys: int, value_bytes: int, seed: int
) -> dict[str, Any]:
    """Load, weigh, kill, start. Raises Violation, BenchError."""
    with running(name, folder, certificates) as (side, leader):
        before = side.usage()["rss_mb"]
        job = Job(
            kind="load", protocol=side.protocol, writer=side.endpoint(leader), endpoints=side.endpoints(),
            outstanding=8, value_bytes=value_bytes, warm_up_s=0.0, seconds=0.0, seed=seed, keys=keys,
        )  # fmt: skip
        loaded = run_generator(job, side)
        after = side.usage()["rss_mb"]
        victim, last = (leader + 1) % MEMBERS, b"/bench/%08d" % (keys - 1)
        first_answer(side.protocol, side.endpoint(victim), last, timeout_s=_TIMEOUT_S)
        side.kill(victim)
        started = time.perf_counter()
        side.restart(victim)
        answer = first_answer(side.protocol, side.endpoint(victim), last, timeout_s=_TIMEOUT_S)
        took_s = time.perf_counter() - started
        if len(answer.value or b"") != value_bytes:
            raise Violation(f"{name}: the restarted member does not have the last key as it was written")
    return {
        "restart_s": round(took_s, 2),
        "rate": loaded["rate"],
        "rss_mb": after,
        "mb_per_100k_keys": round((after - before) / MEMBERS / keys * 100_000, 1),
    }
