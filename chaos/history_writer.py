"""Writing histories: one JSON object a line, times from one monotonic clock of this machine."""

from __future__ import annotations

import time
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import orjson


def now_ns() -> int:
    """CLOCK_MONOTONIC, the same for all processes of this machine."""
    return time.monotonic_ns()


class HistoryWriter:
    """Appends records to a file; use it as a context manager."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stream: BinaryIO | None = None

    def __enter__(self) -> HistoryWriter:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._stream = self._path.open("wb")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def write(self, record: dict[str, Any]) -> None:
        assert self._stream is not None, "use `with HistoryWriter(...)`"
        self._stream.write(orjson.dumps(record) + b"\n")


def merge(target: Path, header: dict[str, Any], parts: list[Path]) -> None:
    """One history from the parts of several processes: the header first, each part's lines in its order."""
    with target.open("wb") as out:
        out.write(orjson.dumps(header) + b"\n")
        for part in parts:
            if part.exists():
                out.write(part.read_bytes())
