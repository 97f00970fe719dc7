"""The end of a live run: everything runs, the load is gone; what every member holds is read back."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Final

import trio

from chaos.final_reads import read_hashes, read_member, write_barrier
from chaos.live.cluster import LiveCluster
from chaos.recording import Recorder
from raftkube.net.tcp import TcpNetwork
from raftkube.store.client import StoreClient

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


async def members_given_up(cluster: LiveCluster) -> dict[str, str]:
    """The store members that ended by themselves and that nothing starts again, with the reason they gave."""
    rows = (await cluster.ask("status"))["components"]
    return {
        row["name"]: str(row["reason"]) for row in rows if row["kind"] == "store" and row["phase"] == "failed"
    }


async def read_back(cluster: LiveCluster, store: StoreClient, recorder: Recorder) -> int:
    """A barrier write; then every key from every member, and every member's hash. The barrier's revision.
    The caller bounds it."""

    def pinned(member: str) -> AbstractAsyncContextManager[StoreClient]:
        address = cluster.address(member)
        return StoreClient.open(TcpNetwork(), [address], cluster.store_tls, name="chaos-final", pinned=True)

    barrier = await write_barrier(store, recorder)
    for member in cluster.named("store"):
        await read_member(pinned, member, barrier, recorder)
    await read_hashes(store, cluster.named("store"), recorder)
    return barrier
