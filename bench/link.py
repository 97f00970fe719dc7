"""A load generator as a process of its own: JSON lines in and out, and what the processes tell each other.

The runner holds a `Child`; the process itself reads its orders with `Orders` and answers with `say`.
Progress goes from process to process through a pipe, as counts of eight bytes, without the runner.
"""

from __future__ import annotations

import os
import select
import struct
import subprocess
import sys
import time
from typing import Any, Final

import orjson

from bench.errors import BenchError, Violation

_COUNT: Final = struct.Struct(">Q")
_LINE_MAX: Final = 64 * 1024 * 1024


def say(state: str, **told: Any) -> None:
    """Tell the runner."""
    sys.stdout.buffer.write(orjson.dumps({"state": state, **told}) + b"\n")
    sys.stdout.buffer.flush()


class Child:
    """A running generator. Everything it is told and tells is one line of JSON."""

    def __init__(self, module: str, job: dict[str, Any], pass_fds: list[int]) -> None:
        self.module = module
        self._process = subprocess.Popen(
            [sys.executable, "-m", module],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=pass_fds, bufsize=0,
        )  # fmt: skip
        self._lines = bytearray()
        self.tell(job)

    @property
    def pid(self) -> int:
        return self._process.pid

    def tell(self, order: dict[str, Any]) -> None:
        """Send one line; a child that is gone is found out by `hear`."""
        assert self._process.stdin is not None
        try:
            data = memoryview(orjson.dumps(order) + b"\n")
            while data:
                data = data[self._process.stdin.write(data) or 0 :]
        except BrokenPipeError:
            pass

    def hear(self, state: str, timeout_s: float) -> dict[str, Any]:
        """The next line, which must say `state`. Raises Violation: it found one; BenchError: it failed."""
        deadline = time.monotonic() + timeout_s
        while b"\n" not in self._lines:
            self._read(deadline - time.monotonic())
        end = self._lines.index(b"\n")
        told: dict[str, Any] = orjson.loads(self._lines[:end])
        del self._lines[: end + 1]
        if told["state"] == "violation":
            raise Violation(told["text"])
        if told["state"] != state:
            raise BenchError(f"{self.module} said {told['state']!r} where {state!r} was due")
        return told

    def _read(self, left_s: float) -> None:
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], max(left_s, 0.0))
        if not ready:
            raise BenchError(f"{self.module} said nothing in time")
        data = os.read(self._process.stdout.fileno(), 1_048_576)
        if not data or len(self._lines) > _LINE_MAX:
            raise BenchError(f"{self.module} failed")
        self._lines += data

    def close(self) -> None:
        """End it; returns once it is gone."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()


class Orders:
    """Standard input, as something that a loop can wait for: the runner's lines."""

    def __init__(self) -> None:
        self.fd = 0
        self.blocked: set[int] = set()
        self._buffer = bytearray()
        self._taken: list[dict[str, Any]] = []
        os.set_blocking(0, False)

    waiting = False

    def flush(self) -> None:
        """Nothing is ever sent."""

    def readable(self) -> None:
        """Raises ConnectionError: the runner is gone."""
        data = os.read(self.fd, 1_048_576)
        if not data:
            raise ConnectionError("the runner is gone")
        self._buffer += data
        *lines, rest = self._buffer.split(b"\n")
        self._buffer = rest
        self._taken += [orjson.loads(line) for line in lines]

    def take(self) -> dict[str, Any] | None:
        """The oldest order that was not taken."""
        return self._taken.pop(0) if self._taken else None

    def close(self) -> None:
        """The descriptor is the process's own."""


class ProgressIn:
    """The reading end of another process's progress; `count` is the newest."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.blocked: set[int] = set()
        self.count = 0
        self._rest = b""

    waiting = False

    def flush(self) -> None:
        """Nothing is ever sent."""

    def readable(self) -> None:
        """Raises ConnectionError: the other process is gone."""
        data = os.read(self.fd, 65_536)
        if not data:
            raise ConnectionError("a reader is gone")
        data = self._rest + data
        whole = len(data) // _COUNT.size * _COUNT.size
        self._rest = data[whole:]
        if whole:
            (self.count,) = _COUNT.unpack_from(data, whole - _COUNT.size)

    def close(self) -> None:
        os.close(self.fd)


class ProgressOut:
    """The writing end: tells a count whenever it has grown, and never waits. -1: nobody wants to know."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._told = 0
        if fd >= 0:
            os.set_blocking(fd, False)

    def tell(self, count: int) -> None:
        if count == self._told or self._fd < 0:
            return
        try:
            os.write(self._fd, _COUNT.pack(count))
            self._told = count
        except BlockingIOError:
            pass  # the other end is behind by thousands: told with the next one
        except BrokenPipeError:
            self._fd = -1  # the writer has written all
