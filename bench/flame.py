"""`flame`: where the leader spends its time under puts, as an SVG (py-spy, https://github.com/benfred/py-spy).

py-spy reads another process's memory; where the kernel forbids that to an ordinary user
(kernel.yama.ptrace_scope), run it as root.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

from bench.errors import BenchError
from bench.job import Job
from bench.peers import running
from bench.runner import run_generator

_LEAD_S: Final = 2.0
_RATE: Final = 500  # samples a second


def draw(folder: Path, out: Path, *, outstanding: int, value_bytes: int, seconds: float, seed: int) -> None:
    """Sample the leader of a plain cluster for `seconds` of full load. Raises BenchError, Violation."""
    with running("raftkube", folder, None) as (side, leader):
        job = Job(
            kind="put", protocol="ours", writer=side.endpoint(leader), endpoints=side.endpoints(),
            outstanding=outstanding, value_bytes=value_bytes, warm_up_s=_LEAD_S, seconds=seconds + _LEAD_S,
            seed=seed,
        )  # fmt: skip
        spy = subprocess.Popen(
            [
                str(Path(sys.executable).parent / "py-spy"), "record", "--pid", str(side.pid(leader)),
                "--duration", str(int(seconds)), "--rate", str(_RATE), "--format", "flamegraph",
                "--output", str(out),
            ],
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )  # fmt: skip
        run_generator(job, side)
        _, said = spy.communicate(timeout=60)
    if spy.returncode != 0 or not out.exists():
        lines = said.decode(errors="replace").strip().splitlines()
        raise BenchError(f"py-spy drew nothing: {lines[-1] if lines else 'no word'}; try it as root")
