"""The processes of clients that load the cluster under test."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

import trio

from chaos.live.cluster import LiveCluster, client_options

PROCESSES: Final = 2
CLIENTS_PER_PROCESS: Final = 8
KEYS: Final = 40
_WATCHES_PER_PROCESS: Final = 3
_STOP_S: Final = 40.0


class Load:
    """Each process writes its part of the history under OUT/parts."""

    def __init__(self, cluster: LiveCluster, out: Path, seed: int) -> None:
        self._cluster, self._out, self._seed = cluster, out, seed
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        """All clients."""
        for number in range(PROCESSES):
            workload = {
                "clients": CLIENTS_PER_PROCESS, "first_client": 1 + number * 100, "keys": KEYS,
                "watches": _WATCHES_PER_PROCESS, "seed": self._seed,
            }  # fmt: skip
            part = self._out / "parts" / f"clients-{number}.jsonl"
            process = subprocess.Popen(
                [sys.executable, "-m", "chaos.live.client_process"],
                stdin=subprocess.PIPE,
                stderr=(self._out / f"clients-{number}.log").open("wb"),
                start_new_session=True,
            )
            assert process.stdin is not None
            process.stdin.write(client_options(self._cluster, part, workload))
            process.stdin.flush()
            self._processes.append(process)

    async def stop(self) -> list[str]:
        """Close their standard input; each finishes what is in flight. Doubts about those that did not."""
        doubts = []
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.close()
        for number, process in enumerate(self._processes):
            with trio.move_on_after(_STOP_S) as patience:
                await trio.to_thread.run_sync(process.wait, abandon_on_cancel=True)
            if patience.cancelled_caught or process.returncode != 0:
                process.kill()
                doubts.append(f"client process {number} ended with {process.returncode}; see its log")
        return doubts
