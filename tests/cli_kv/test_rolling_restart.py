"""SIGTERM to each member in turn while clients write without a pause: no request fails, none is in doubt."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import trio
from store_processes import NAMES, RAFTKUBE, StoreProcesses, store_processes, wait_until

from raftkube.errors import StoreError
from raftkube.net import Address, TlsFiles
from raftkube.net.tcp import TcpNetwork
from raftkube.store.client import StoreClient
from raftkube.wire.store import Range

WRITERS = 6


def open_client(stores: StoreProcesses) -> object:
    addresses = [Address("127.0.0.1", port) for port in stores.client_ports.values()]
    tls = None
    if stores.tls:
        files = (str(stores.directory / name) for name in ("ca.crt", "admin.crt", "admin.key"))
        tls = TlsFiles(*files)
    return StoreClient.open(TcpNetwork(), addresses, tls)


@pytest.mark.long
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
async def test_a_rolling_restart_under_load(tmp_path: Path, tls: bool) -> None:
    """The client retries only what certainly did not happen, so that anything else would be raised here."""
    with store_processes(tmp_path, tls=tls) as stores, trio.fail_after(150):
        written = dict.fromkeys(range(WRITERS), 0)
        over = trio.Event()

        async def write(number: int) -> None:
            async with open_client(stores) as client:  # type: ignore[attr-defined]
                while not over.is_set():
                    await client.put(b"w/%d" % number, b"%d" % (written[number] + 1))
                    written[number] += 1

        async with open_client(stores) as client:  # type: ignore[attr-defined]
            await client.put(b"ready", b"")
            async with trio.open_nursery() as nursery:
                for number in range(WRITERS):
                    nursery.start_soon(write, number)
                for name in NAMES:
                    if name == NAMES[-1]:
                        await client.move_leader(name)  # at least one of the three leads when it is stopped
                    before = sum(written.values())
                    assert await trio.to_thread.run_sync(stores.stop, name) == 0
                    while sum(written.values()) < before + 50:  # noqa: ASYNC110 the others go on
                        await trio.sleep(0.01)
                    stores.start(name)
                    while (await served_revision(client, name)) < 1:  # noqa: ASYNC110
                        await trio.sleep(0.05)
                over.set()
            found = await client.range(Range(b"w/", b"w0"))
            assert {kv.key: int(kv.value) for kv in found.kvs} == {
                b"w/%d" % number: count for number, count in written.items()
            }
            assert [kv.version for kv in found.kvs] == [int(kv.value) for kv in found.kvs]  # each put once


async def served_revision(client: StoreClient, name: str) -> int:
    """The revision of a member that answers and knows its leader; 0 otherwise."""
    try:
        status = await client.status(member=name)
    except StoreError:
        return 0
    return int(status["revision"]) if status["leader"] else 0


def test_a_member_that_does_not_serve_yet_stops_at_once(tmp_path: Path) -> None:
    """It looks for the cluster that it shall join, and there is none; SIGTERM ends it all the same."""
    stores = StoreProcesses(tmp_path, tls=False)
    log = tmp_path / "store-1.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            [*RAFTKUBE, *stores.flags("store-1"), "--initial-cluster-state", "existing", *clients(stores)],
            stdout=output,
            stderr=output,
        )
    try:
        wait_until(lambda: log.read_text() != "")
        assert process.poll() is None, log.read_text()
        process.terminate()
        assert process.wait(timeout=5) == 0
    finally:
        process.kill()
        process.wait()


def clients(stores: StoreProcesses) -> list[str]:
    addresses = ",".join(f"{name}=127.0.0.1:{port}" for name, port in stores.client_ports.items())
    return ["--initial-client-urls", addresses]
