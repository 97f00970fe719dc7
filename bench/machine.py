"""What a figure was measured on: processor, kernel, file system, the price of one fdatasync."""

from __future__ import annotations

import os
import platform
import resource
import subprocess
import time
from pathlib import Path
from typing import Any, Final

from bench.errors import BenchError

_SYNCS: Final = 200
_DESCRIPTORS_BESIDE: Final = 200  # what a process has open beside its watchers or clients
_NOT_DISKS: Final = frozenset(("tmpfs", "ramfs", "devtmpfs"))


def describe(data_dir: Path) -> dict[str, Any]:
    """Raises BenchError: `data_dir` is not on a real disk, so durability would cost nothing."""
    filesystem = _filesystem(data_dir)
    if filesystem in _NOT_DISKS:
        raise BenchError(
            f"{str(data_dir)!r} is on {filesystem}: a durable store needs a disk; choose --data-dir"
        )
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "filesystem": filesystem,
        "fdatasync_ms": fdatasync_ms(data_dir),
    }


def check_descriptors(connections: int, servers: int, generators: int) -> None:
    """Raise the soft limit, which the processes inherit, to what the fullest of them needs: generators and
    servers share the connections. Raises BenchError: more than the hard limit."""
    needed = -(-connections // min(servers, generators)) + _DESCRIPTORS_BESIDE
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < needed:
        raise BenchError(f"{needed} file descriptors are needed, {hard} are allowed; raise ulimit -n")
    if soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def fdatasync_ms(data_dir: Path) -> dict[str, float]:
    """p50 and p99 of appending 1 KB and syncing it."""
    path = data_dir / "fdatasync.probe"
    took = []
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
    try:
        for _ in range(_SYNCS):
            start = time.perf_counter()
            os.write(descriptor, b"x" * 1024)
            os.fdatasync(descriptor)
            took.append((time.perf_counter() - start) * 1e3)
    finally:
        os.close(descriptor)
        path.unlink()
    took.sort()
    return {"p50": round(took[len(took) // 2], 3), "p99": round(took[int(len(took) * 0.99)], 3)}


def commit() -> str:
    """The commit of the code measured, with + where it was changed."""
    here = Path(__file__).parent
    command = ["git", "describe", "--always", "--dirty=+", "--abbrev=12"]
    try:
        return subprocess.run(command, cwd=here, capture_output=True, check=True).stdout.decode().strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or "unknown"


def _filesystem(path: Path) -> str:
    """The type of the mount that holds `path`."""
    resolved = path.resolve()
    best = ("", "unknown")
    for line in Path("/proc/mounts").read_text().splitlines():
        _, mount, kind = line.split()[:3]
        if resolved.is_relative_to(mount) and len(mount) > len(best[0]):
            best = (mount, kind)
    return best[1]
