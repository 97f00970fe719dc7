"""Processes as /proc shows them: who they are for certain, and signals that never hit a stranger.

A pid alone names nobody: it is used again. A process here is (pid, start time), checked through a pidfd
before every signal. Source: proc(5), pidfd_open(2).
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")


class Process(NamedTuple):
    """start_ticks: clock ticks since boot at which it began; with the pid, it names one process."""

    pid: int
    state: str
    session: int
    cpu_s: float
    start_ticks: int
    rss_bytes: int


def find(pid: int) -> Process | None:
    """The process of this pid; None if there is none, or only its zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    fields = stat[stat.rindex(b")") + 2 :].split()  # the name before it may hold anything
    if fields[0] in (b"Z", b"X"):
        return None
    cpu_s = (int(fields[11]) + int(fields[12])) / _TICKS_PER_S
    rss_bytes = int(fields[21]) * _PAGE_BYTES
    return Process(pid, fields[0].decode(), int(fields[3]), cpu_s, int(fields[19]), rss_bytes)


def everything() -> Iterator[Process]:
    """Every living process that this user may see."""
    for name in os.listdir("/proc"):
        if name.isdigit() and (process := find(int(name))) is not None:
            yield process


def command_line(pid: int) -> list[str]:
    """Its arguments; empty if it is gone or not ours."""
    with contextlib.suppress(OSError):
        raw = Path(f"/proc/{pid}/cmdline").read_bytes()
        return [os.fsdecode(word) for word in raw.split(b"\0")[:-1]]
    return []


def environment(pid: int) -> dict[str, str]:
    """The variables that it was started with; empty if it is gone or not ours."""
    with contextlib.suppress(OSError):
        raw = Path(f"/proc/{pid}/environ").read_bytes()
        pairs = (os.fsdecode(word).partition("=") for word in raw.split(b"\0") if word)
        return {name: value for name, _, value in pairs}
    return {}


def open_handle(process: Process) -> int | None:
    """A pidfd of exactly this process, to be closed by the caller; None if it is gone."""
    try:
        handle = os.pidfd_open(process.pid)
    except OSError:
        return None
    now = find(process.pid)
    if now is None or now.start_ticks != process.start_ticks:
        os.close(handle)
        return None
    return handle


def send_signal(process: Process, number: signal.Signals) -> None:
    """Send a signal to exactly this process, if it still lives and is ours."""
    handle = open_handle(process)
    if handle is not None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            signal.pidfd_send_signal(handle, number)
        os.close(handle)


def reap(pid: int) -> None:
    """Take a dead child's entry out of the process table; no effect if it is nobody's or another's child."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
