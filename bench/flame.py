"""`flame`: where the leader spends its time under puts, or feeding watchers, as an SVG (py-spy, https://github.com/benfred/py-spy).

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
from bench.peers import make_certificates, running
from bench.runner import run_generator
from bench.watch_job import WatchLoad
from bench.watch_measure import Server, measure

_LEAD_S: Final = 2.0
_RATE: Final = 500  # samples a second


def draw(
    folder: Path, out: Path, *, outstanding: int, value_bytes: int, seconds: float, seed: int, watchers: int,
    tls: bool,
) -> None:  # fmt: skip
    """Sample the leader of a cluster for `seconds` of full load. Raises BenchError, Violation."""
    certificates = make_certificates(folder.parent / "pki") if tls else None
    with running("raftkube", folder, certificates) as (side, leader):
        if watchers:
            load = WatchLoad(
                watchers, outstanding=outstanding, value_bytes=value_bytes, warm_up_s=_LEAD_S,
                seconds=seconds + _LEAD_S, seed=seed, sample=watchers,
            )  # fmt: skip
            server = Server(side, leader, certificates)
            spies: list[subprocess.Popen[bytes]] = []
            measure(server, load, meanwhile=lambda _: spies.append(_spy(side.pid(leader), out, seconds)))
            _check(spies[0], out)
            return
        job = Job(
            kind="put", protocol="ours", writer=side.endpoint(leader), endpoints=side.endpoints(),
            outstanding=outstanding, value_bytes=value_bytes, warm_up_s=_LEAD_S, seconds=seconds + _LEAD_S,
            seed=seed,
        )  # fmt: skip
        spy = _spy(side.pid(leader), out, seconds)
        run_generator(job, side)
        _check(spy, out)


def _spy(pid: int, out: Path, seconds: float) -> subprocess.Popen[bytes]:
    kind = "flamegraph" if out.suffix == ".svg" else "raw"
    return subprocess.Popen(
        [
            str(Path(sys.executable).parent / "py-spy"), "record", "--pid", str(pid),
            "--duration", str(int(seconds)), "--rate", str(_RATE), "--format", kind, "--output", str(out),
        ],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip


def _check(spy: subprocess.Popen[bytes], out: Path) -> None:
    _, said = spy.communicate(timeout=60)
    if spy.returncode != 0 or not out.exists():
        lines = said.decode(errors="replace").strip().splitlines()
        raise BenchError(f"py-spy drew nothing: {lines[-1] if lines else 'no word'}; try it as root")
