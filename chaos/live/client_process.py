"""One process of clients: `python -m chaos.live.client_process`, options as JSON on standard input.

It works until its standard input is closed, finishes what is in flight, and exits with 0.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import orjson
import trio

from chaos.recording import FileRecorder
from chaos.workload import Workload, WorkloadOptions
from raftkube.net import TlsFiles, parse_address
from raftkube.net.tcp import TcpNetwork
from raftkube.store.client import StoreClient


async def main(options: dict[str, Any]) -> None:
    """Run the workload of `options` (see `start_clients`)."""
    tls = TlsFiles(options["cacert"], options["cert"], options["key"])
    addresses = [parse_address(endpoint) for endpoint in options["endpoints"]]
    with FileRecorder(Path(options["out"])) as recorder:
        network = TcpNetwork()
        async with (
            StoreClient.open(network, addresses, tls, name="chaos") as store,
            StoreClient.open(network, addresses, tls, name="chaos-once", exactly_once=True) as numbered,
        ):
            workload = Workload(store, recorder, WorkloadOptions(**options["workload"]), numbered)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_until_closed, workload.stopping, nursery.cancel_scope)
                await workload.run()
                nursery.cancel_scope.cancel()


async def _until_closed(stopping: trio.Event, scope: trio.CancelScope) -> None:
    """Standard input ends: finish within a bound."""
    await trio.to_thread.run_sync(sys.stdin.buffer.read, abandon_on_cancel=True)
    stopping.set()
    await trio.sleep(30)
    scope.cancel()


if __name__ == "__main__":
    trio.run(main, orjson.loads(sys.stdin.buffer.readline()))
