"""Where histories are written to: a file of a live run, or the memory of a simulation.

One JSON object a line; times are one monotonic clock, the machine's or the simulation's.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Protocol

import orjson

Record = dict[str, Any]


class Recorder(Protocol):
    """What workloads and observers write to."""

    def now_ns(self) -> int:
        """The clock of all times in this history."""
        ...

    def write(self, record: Record) -> None:
        """Add one record; it is not changed afterwards."""
        ...


class FileRecorder:
    """Appends records to a file; use it as a context manager. Its clock is CLOCK_MONOTONIC, the same for all
    processes of this machine."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stream: BinaryIO | None = None

    def __enter__(self) -> FileRecorder:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._stream = self._path.open("wb")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def now_ns(self) -> int:
        return time.monotonic_ns()

    def write(self, record: Record) -> None:
        assert self._stream is not None, "use `with FileRecorder(...)`"
        self._stream.write(orjson.dumps(record) + b"\n")


class MemoryRecorder:
    """Keeps records in `records`, timed by `clock` (seconds)."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.records: list[Record] = []

    def now_ns(self) -> int:
        return round(self._clock() * 1e9)

    def write(self, record: Record) -> None:
        self.records.append(record)


def merge(target: Path, header: Record, parts: list[Path]) -> None:
    """One history from the parts of several processes: the header first, each part's lines in its order."""
    with target.open("wb") as out:
        out.write(orjson.dumps(header) + b"\n")
        for part in parts:
            if part.exists():
                out.write(part.read_bytes())
