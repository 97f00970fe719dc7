"""Faults of the machine: wall clocks that jump, processors that are taken away."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from typing import Final

import trio

from chaos.live import fault as of
from chaos.live.fault import Fault, Record, Site
from chaos.live.fault_file import NO_FAULTS, DoorFaults

_HOUR_S: Final = 3600
_YEAR_S: Final = 365 * 24 * _HOUR_S
_SEEN_S: Final = 60.0  # a date is off by at least that
_STARVED_S: Final = (3.0, 5.0)
_BUSY_PROCESSES: Final = 2
_PERIOD_S: Final = 0.25
_RUNS_S: Final = (0.03, 0.06)  # of each period
_SPIN: Final = (
    "import sys, time\nend = time.monotonic() + float(sys.argv[1])\nwhile time.monotonic() < end: pass"
)
_SLOWER: Final = 2.0


async def _clock_jump(site: Site, targets: list[str]) -> Record | None:
    """The wall clock of a member jumps by hours or a year, either way, and back."""
    shift_s = site.rng.choice((-1, 1)) * site.rng.choice((_HOUR_S, 30 * _HOUR_S, _YEAR_S))
    before_s = await _date(site, targets[0])
    site.ask_doors(targets[0], DoorFaults(wall_shift_s=shift_s))
    try:
        await site.for_a_while(2, 3)
        ahead_s = await _date(site, targets[0]) - before_s
    finally:
        site.ask_doors(targets[0], NO_FAULTS)
    if abs(ahead_s - shift_s) < _SEEN_S:
        site.observers.see("date", component=targets[0], ahead_s=round(ahead_s))
    return {"shift_s": shift_s}


async def _date(site: Site, member: str) -> float:
    """Which time a member's metrics port believes it is, in seconds since 1970."""
    response = await site.cluster.metrics(member)
    return parsedate_to_datetime(response.headers["date"]).timestamp()


async def _starve(site: Site, targets: list[str]) -> Record | None:
    """All members share one processor with busy processes, and run for a part of each period only, as under
    a quota. The busy ones end by themselves."""
    observers, everywhere = site.observers, os.sched_getaffinity(0)
    before_ms = observers.write_ms(observers.now_ns() - 2_000_000_000, observers.now_ns())
    started_ns, took_s = observers.now_ns(), site.rng.uniform(*_STARVED_S)
    pids = await site.cluster.pids(targets)
    busy = [_spin(took_s) for _ in range(_BUSY_PROCESSES)]
    try:
        _each(lambda pid: os.sched_setaffinity(pid, {min(everywhere)}), [*pids, *(one.pid for one in busy)])
        with trio.move_on_after(took_s):
            while True:
                _each(lambda pid: os.kill(pid, signal.SIGSTOP), pids)
                await trio.sleep(_PERIOD_S - site.rng.uniform(*_RUNS_S))
                _each(lambda pid: os.kill(pid, signal.SIGCONT), pids)
                await trio.sleep(site.rng.uniform(*_RUNS_S))
    finally:
        _each(lambda pid: os.kill(pid, signal.SIGCONT), pids)
        _each(lambda pid: os.sched_setaffinity(pid, everywhere), pids)
        for process in busy:
            process.kill()
            process.wait()
    during_ms = observers.write_ms(started_ns, observers.now_ns())
    if during_ms >= _SLOWER * before_ms > 0:
        observers.see("slow", ms=round(during_ms), before_ms=round(before_ms))
    return {"before_ms": round(before_ms, 1), "during_ms": round(during_ms, 1)}


def _spin(for_s: float) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", _SPIN, str(for_s)], start_new_session=True)


def _each(step: Callable[[int], None], pids: list[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):  # it has ended
            step(pid)


HOST_FAULTS: Final = (
    Fault(
        name="clock-jump-store",
        group="clock",
        kind="store",
        role="any",
        done=("the wall clock of a member jumps by an hour to a year, forth or back, for 2 to 3 s"),
        consequence="its metrics port gives the other date",
        spares="no election, no lease that ends early, no error",
        act=_clock_jump,
        effect=of.seen_of_it("date"),
        needs=("launcher",),
    ),
    Fault(
        name="cpu-starve",
        group="cpu",
        kind="store",
        role="all",
        done=(
            f"for 3 to 5 s all members share one processor with {_BUSY_PROCESSES} busy processes, and run "
            f"for {_RUNS_S[0] * 1000:g} to {_RUNS_S[1] * 1000:g} ms of each {_PERIOD_S * 1000:g}"
        ),
        consequence="writes take twice as long, or none is acknowledged for 1 s, or there is an election",
        spares="nothing acknowledged is lost",
        act=_starve,
        effect=of.seen("slow", "stall", "term"),
    ),
)
