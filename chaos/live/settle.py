"""The end of a live run: everything runs, the load is gone; what every member holds is read back."""

from __future__ import annotations

import contextlib
from typing import Any, Final

import trio

from chaos.live.cluster import LiveCluster
from chaos.recording import Recorder
from chaos.workload import PREFIX, PREFIX_END, run_operation
from raftkube.errors import StoreError
from raftkube.net.tcp import TcpNetwork
from raftkube.store.client import StoreClient

_HARNESS_CLIENT: Final = 9_000
_LAST_CONSEQUENCE_S: Final = 3.0
_REST: Final = ("scheduler", "controller-manager", "kubelet", "balancer", "apiserver")


async def heal(cluster: LiveCluster) -> None:
    """Everything runs again; then all but the store is stopped, so that the store comes to rest."""
    for row in (await cluster.ask("status"))["components"]:
        if row["phase"] in ("killed", "stopped"):
            await cluster.ask("start", row["name"])
    await trio.sleep(_LAST_CONSEQUENCE_S)  # the last fault's may still come
    for kind in _REST:
        for name in cluster.named(kind):
            await cluster.ask("stop", name)


async def read_back(cluster: LiveCluster, store: StoreClient, recorder: Recorder) -> int:
    """A barrier write; then every key from every member, and every member's hash. The barrier's revision.
    The caller bounds it."""
    barrier = await _barrier(store, recorder)
    for member in cluster.named("store"):
        await _read_member(cluster, member, barrier, recorder)
    await _read_hashes(cluster, store, recorder)
    return barrier


async def _barrier(store: StoreClient, recorder: Recorder) -> int:
    number = 0
    while True:
        number += 1
        request = {"key": PREFIX + "barrier", "value": f"barrier-{number}"}
        record = await run_operation(store, recorder, _HARNESS_CLIENT, number, "put", request, barrier=True)
        if record["outcome"] == "ok":
            return int(record["revision"])
        await trio.sleep(0.2)


async def _read_member(cluster: LiveCluster, member: str, barrier: int, recorder: Recorder) -> None:
    """Until the member has everything up to the barrier; each read is recorded and judged."""
    address, tls = cluster.address(member), cluster.store_tls
    while True:
        try:
            async with StoreClient.open(
                TcpNetwork(), [address], tls, name="chaos-final", pinned=True
            ) as store:
                request = {"key": PREFIX, "range_end": PREFIX_END, "member": str(address)}
                record = await run_operation(
                    store, recorder, _HARNESS_CLIENT, f"final-{member}", "range", request,
                    final=True, serializable=True, read_from=member,
                )  # fmt: skip
                if record["outcome"] == "ok" and record["revision"] >= barrier:
                    return
        except StoreError:
            pass
        await trio.sleep(0.2)


async def _read_hashes(cluster: LiveCluster, store: StoreClient, recorder: Recorder) -> None:
    """Until all members gave theirs at one point of the log: leases may still run out."""
    members = cluster.named("store")
    while True:
        with contextlib.suppress(StoreError):
            told = {member: await store.hash(member) for member in members}
            for member in members:
                _write_hash(recorder, member, told[member])
            if len({each["applied_index"] for each in told.values()}) == 1:
                return
        await trio.sleep(0.2)


def _write_hash(recorder: Recorder, member: str, told: dict[str, Any]) -> None:
    now_ns = recorder.now_ns()
    recorder.write(
        {
            "type": "op", "client": _HARNESS_CLIENT, "id": f"hash-{member}", "kind": "hash",
            "request": {"member": member}, "call_ns": now_ns, "return_ns": now_ns, "outcome": "ok",
            "error": None, "revision": told["revision"], "serializable": True,
            "response": {"hash": str(told["hash"]), "applied_index": told["applied_index"]},
        }
    )  # fmt: skip
