"""A store with a damaged or lost disk, in a real cluster of three: refused, told, repaired by one command."""

from __future__ import annotations

import json
import shutil
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import trio
from conftest import Cluster, wait_until

from raftkube.net import TlsFiles, parse_address
from raftkube.net.tcp import TcpNetwork
from raftkube.store.client import StoreClient

pytestmark = pytest.mark.e2e

STORES = """
apiVersion: raftkube.dev/v1alpha1
kind: Cluster
spec:
  store: {replicas: 3}
  apiserver: {replicas: 0}
  controllerManager: {replicas: 0}
  scheduler: {replicas: 0}
  kubelet: {replicas: 0}
"""
NAMES = {"store-1", "store-2", "store-3"}


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    made = Cluster(tmp_path_factory.mktemp("stores"), STORES)
    made.up()
    try:
        yield made
    finally:
        made.raftkube("down", "--purge", check=False)
    assert made.processes() == []


def data(stores: Cluster, name: str) -> Path:
    return stores.state / "default" / "data" / name


def call(stores: Cluster, ask: Callable[[StoreClient], Awaitable[Any]]) -> Any:
    """`ask` with an operator's client of the cluster."""
    known = json.loads((stores.state / "default" / "store-admin.json").read_text())
    tls = TlsFiles(known["cacert"], known["cert"], known["key"])

    async def run() -> Any:
        addresses = [parse_address(endpoint) for endpoint in known["endpoints"]]
        with trio.fail_after(30):
            async with StoreClient.open(TcpNetwork(), addresses, tls, name="test") as client:
                return await ask(client)

    return trio.run(run)


def put(stores: Cluster, prefix: str, count: int) -> None:
    async def ask(client: StoreClient) -> None:
        for number in range(count):
            await client.put(f"{prefix}-{number}".encode(), b"v" * 200)

    call(stores, ask)


def members(stores: Cluster) -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = call(stores, lambda client: client.member_list())
    return listed


def follower(stores: Cluster) -> str:
    leader = wait_until(lambda: stores.leader("store"))
    return sorted(NAMES - {leader})[0]


def whole(stores: Cluster) -> bool:
    """Three voters, all running, nothing to complain of."""
    rows = stores.status()
    voters = {member["name"] for member in members(stores) if member["voter"]}
    return voters == NAMES and all(row["phase"] == "running" and not row["reason"] for row in rows.values())


def hashes(stores: Cluster) -> set[Any]:
    async def ask(client: StoreClient) -> set[Any]:
        return {(await client.hash(name))["hash"] for name in NAMES}

    found: set[Any] = call(stores, ask)
    return found


def test_a_flipped_byte_is_refused_told_and_repaired(stores: Cluster) -> None:
    put(stores, "before", 8)
    victim = follower(stores)
    stores.raftkube("stop", victim)
    journal = sorted(data(stores, victim).glob("journal-*.log"))[0]
    content = bytearray(journal.read_bytes())
    at = content.index(b"before-3")
    content[at] ^= 1
    journal.write_bytes(content)
    stores.raftkube("start", victim)
    row = wait_until(lambda: (row := stores.status()[victim])["phase"] == "failed" and row)
    assert row["last_exit"] == 3
    assert journal.name in row["reason"]
    assert "is damaged at byte" in row["reason"]
    assert f"{victim}: {row['reason']}" in stores.raftkube("status").stdout
    put(stores, "meanwhile", 3)
    assert stores.status()[victim]["restarts"] == row["restarts"]  # nothing restarts it by itself

    said = stores.raftkube("repair", victim, timeout_s=120).stdout
    for step in ("stopping", "kept the old data", "removed", "added", "starting", "is a voter again"):
        assert step in said
    wait_until(lambda: whole(stores))
    put(stores, "after", 3)
    wait_until(lambda: len(hashes(stores)) == 1)
    aside = data(stores, victim).with_name(f"{victim}.damaged-1")
    assert (aside / journal.name).read_bytes() == bytes(content)  # kept as it was
    assert [member["id"] for member in members(stores) if member["name"] == victim] != [victim]


@pytest.mark.long
def test_a_wiped_disk_does_not_come_back_by_itself_but_by_repair(stores: Cluster) -> None:
    victim = follower(stores)
    old = next(member["id"] for member in members(stores) if member["name"] == victim)
    stores.raftkube("stop", victim)
    shutil.rmtree(data(stores, victim))
    stores.raftkube("start", victim)
    wait_until(lambda: "waits_for_its_place" in stores.log(victim))
    assert f"kv member replace {victim}" in stores.log(victim)
    assert next(member["id"] for member in members(stores) if member["name"] == victim) == old
    assert not list(data(stores, victim).glob("journal-*"))
    reason = wait_until(lambda: stores.status()[victim]["reason"])
    assert "does not answer" in reason
    assert f"kv member replace {victim}" in reason
    stores.raftkube("repair", victim, timeout_s=120)
    wait_until(lambda: whole(stores))
    wait_until(lambda: len(hashes(stores)) == 1)


@pytest.mark.long
def test_repair_refuses_what_would_harm_or_help_nothing(stores: Cluster) -> None:
    victim = follower(stores)
    refused = stores.raftkube("repair", victim, check=False)
    assert refused.returncode == 2
    assert "its disk has not failed" in refused.stderr
    assert "there is no store 'apiserver-1'" in stores.raftkube("repair", "apiserver-1", check=False).stderr
    other = sorted(NAMES - {victim, stores.leader("store") or ""})[0]
    stores.raftkube("stop", victim)
    stores.raftkube("stop", other)
    try:
        refused = stores.raftkube("repair", victim, check=False)
        assert refused.returncode == 2
        assert "no quorum" in refused.stderr
        assert "nothing was touched" in refused.stderr
        assert list(data(stores, victim).glob("journal-*"))
    finally:
        stores.raftkube("start", victim)
        stores.raftkube("start", other)
    wait_until(lambda: whole(stores))


@pytest.mark.long
def test_a_store_that_cannot_write_stays_up_and_says_so(stores: Cluster) -> None:
    """The process may not write beyond a file's first byte any more: EFBIG, also for its own log."""
    victim = follower(stores)
    row = stores.status()[victim]
    process = psutil.Process(row["pid"])
    process.rlimit(psutil.RLIMIT_FSIZE, (1, process.rlimit(psutil.RLIMIT_FSIZE)[1]))
    put(stores, "limited", 3)
    reason = wait_until(lambda: stores.status()[victim]["reason"])
    assert reason.startswith("failed: journal: File too large")
    assert "Replace the disk" in reason
    assert str(data(stores, victim)) in reason
    put(stores, "more", 3)
    now = stores.status()[victim]
    assert (now["pid"], now["phase"], now["restarts"]) == (row["pid"], "running", row["restarts"])
    stores.raftkube("restart", victim)
    assert "killed_after_grace" not in stores.log("supervisor")
    wait_until(lambda: whole(stores))
    wait_until(lambda: len(hashes(stores)) == 1)
