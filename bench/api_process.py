"""Load generators of the API benches: processes that are told a job, and more on the way, and report back.

`python -m bench.api_process KIND`: the job as a line of JSON on standard input, reports as lines on standard
output. KIND is a key of `KINDS`.
"""

from __future__ import annotations

import importlib
import os
import select
import subprocess
import sys
import time
from typing import Any, Final

import orjson

from bench.errors import BenchError, Violation

KINDS: Final = {
    "list": "bench.api_lister", "watch": "bench.api_watchers", "write": "bench.api_writer",
    "bare": "bench.api_bare", "idle": "bench.api_sleepers", "lease": "bench.api_lease",
    "rates": "bench.api_rater",
}  # fmt: skip


class Worker:
    """A generator's process, as the runner sees it."""

    def __init__(self, kind: str, **job: Any) -> None:
        self._kind = kind
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.api_process", kind], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self.tell(**job)

    @property
    def pid(self) -> int:
        return self._process.pid

    def tell(self, **told: Any) -> None:
        """A line to the process. Raises as `hear` when it has ended."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(orjson.dumps(told) + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError as error:
            self.hear(1.0)  # its last word says why
            raise BenchError(f"the generator {self._kind!r} has ended") from error

    def hear(self, timeout_s: float) -> dict[str, Any]:
        """Its next report. Raises Violation: what it saw is not what is counted; BenchError: it failed."""
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], timeout_s)[0]:
            raise BenchError(f"the generator {self._kind!r} said nothing for {timeout_s:g} s")
        line = self._process.stdout.readline()
        if not line:
            raise BenchError(f"the generator {self._kind!r} failed")
        told: dict[str, Any] = orjson.loads(line)
        if "violation" in told:
            raise Violation(told["violation"])
        if "failed" in told:
            raise BenchError(told["failed"])
        return told

    def stop(self) -> None:
        """SIGKILL; a bench needs no farewell."""
        self._process.kill()
        self._process.wait()


class Orders:
    """Standard input, as the process sees it: lines of JSON, without waiting for them."""

    def __init__(self) -> None:
        self.fd = sys.stdin.fileno()
        self._buffer = b""

    def wait(self) -> dict[str, Any]:
        """The next line. Raises Violation: the runner is gone."""
        while b"\n" not in self._buffer:
            self._read()
        line, _, self._buffer = self._buffer.partition(b"\n")
        told: dict[str, Any] = orjson.loads(line)
        return told

    def poll(self) -> dict[str, Any] | None:
        """The next line if one has come."""
        if b"\n" not in self._buffer and select.select([self.fd], [], [], 0)[0]:
            self._read()
        return self.wait() if b"\n" in self._buffer else None

    def _read(self) -> None:
        data = os.read(self.fd, 1 << 20)
        if not data:
            raise Violation("the runner is gone")
        self._buffer += data


def report(**told: Any) -> None:
    """A line to the runner."""
    sys.stdout.buffer.write(orjson.dumps(told) + b"\n")
    sys.stdout.buffer.flush()


def cpu_s() -> float:
    """Of this process so far."""
    return time.process_time()


def main() -> int:
    orders = Orders()
    module = importlib.import_module(KINDS[sys.argv[1]])
    try:
        module.run(orders.wait(), orders)
    except BenchError as error:
        report(failed=str(error))
        return 1
    except (Violation, OSError) as error:
        report(violation=f"{type(error).__name__}: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
