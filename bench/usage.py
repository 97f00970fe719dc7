"""What processes have used, read from /proc: processor time, memory now and at its peak."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
_IDLE_FIELDS: Final = (3, 4)  # idle, iowait


class Usage(NamedTuple):
    """Of one process or several. `peak_mb` is the sum of each one's own peak."""

    cpu_s: float = 0.0
    rss_mb: float = 0.0
    peak_mb: float = 0.0


def usage(pids: Iterable[int]) -> Usage:
    """Together; a process that is gone counts nothing."""
    told = [_usage(pid) for pid in pids]
    return Usage(
        sum(one.cpu_s for one in told),
        round(sum(one.rss_mb for one in told), 1),
        round(sum(one.peak_mb for one in told), 1),
    )


def machine_cpu_s() -> float:
    """Processor time that everything on this machine has used, all processors together, stolen time too."""
    fields = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return sum(ticks for at, ticks in enumerate(fields) if at not in _IDLE_FIELDS) / _TICKS_PER_S


def _usage(pid: int) -> Usage:
    folder = Path("/proc") / str(pid)
    try:
        words = (folder / "stat").read_text().rsplit(")", 1)[1].split()
        status = (folder / "status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return Usage()
    return Usage((int(words[11]) + int(words[12])) / _TICKS_PER_S, _mb(status, "VmRSS"), _mb(status, "VmHWM"))


def _mb(status: str, name: str) -> float:
    for line in status.splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024 / 1e6
    return 0.0  # a zombie has none
