"""The end of a run: a barrier write, every key from every member, every member's hash at one revision."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final, cast

import trio

from chaos.etcd.client import EtcdClient
from chaos.etcd.cluster import EtcdCluster, MemberHash, MemberState
from chaos.final_reads import HARNESS_CLIENT, hash_record, write_barrier
from chaos.recording import Recorder
from chaos.workload import PREFIX, PREFIX_END, run_operation
from raftkube.net.tcp import TcpNetwork
from raftkube.store.client import StoreClient

_PAUSE_S: Final = 0.2


class ReadBack:
    """Writes what it reads into the history, where it is judged."""

    def __init__(self, cluster: EtcdCluster, recorder: Recorder, rng: random.Random) -> None:
        self._cluster = cluster
        self._recorder = recorder
        self._rng = rng

    async def run(self, store: EtcdClient, log_reached: Callable[[], int]) -> None:
        """Returns when the complete watch, too, has got to the barrier; the caller bounds the time.

        Or as far as the member can get that has lost most: it may be the one that feeds the watch.
        """
        barrier = await write_barrier(cast(StoreClient, store), self._recorder)
        states = await self._at_rest()
        for member in self._cluster.names:
            await self._read_member(member, states[member])
        lowest = min(state.revision for state in states.values())
        await self._read_hashes(lowest)
        while log_reached() < min(barrier, lowest):  # noqa: ASYNC110  the caller bounds it
            await trio.sleep(_PAUSE_S)

    async def _at_rest(self) -> dict[str, MemberState]:
        """Every member's state once all have applied the log to the same index, twice in a row.

        Not to the same revision: a member that has lost an entry never gets there.
        """
        before: set[int] = set()
        while True:
            for name in self._cluster.ended():  # its port was taken by another process while it was down
                self._cluster.start(name)
            states = {name: await self._cluster.state(name) for name in self._cluster.names}
            known = {name: state for name, state in states.items() if state is not None}
            applied = {state.applied_index for state in known.values()}
            if len(known) == len(states) and len(applied) == 1 and applied == before:
                return known
            before = applied
            await trio.sleep(_PAUSE_S)

    async def _read_member(self, member: str, state: MemberState) -> None:
        """From its own state, which has the barrier; asked again until it answers."""
        address = self._cluster.address(member)
        request = {"key": PREFIX, "range_end": PREFIX_END, "member": str(address)}
        async with EtcdClient.open(TcpNetwork(), [address], rng=self._rng, pinned=True) as store:
            while True:
                # What an operation uses of a StoreClient, an EtcdClient has.
                record = await run_operation(
                    cast(StoreClient, store), self._recorder, HARNESS_CLIENT, f"final-{member}", "range",
                    request, final=True, serializable=True, read_from=member,
                    applied_index=state.applied_index,
                )  # fmt: skip
                if record["outcome"] == "ok":
                    return
                await trio.sleep(_PAUSE_S)

    async def _read_hashes(self, revision: int) -> None:
        """At a revision that all have, once all have compacted at the same one."""
        while True:
            hashes = {name: await self._cluster.hash_at(name, revision) for name in self._cluster.names}
            told = {name: found for name, found in hashes.items() if found is not None}
            if len(told) == len(hashes) and len({found.compact_revision for found in told.values()}) == 1:
                for name, found in told.items():
                    self._write_hash(name, revision, found)
                return
            await trio.sleep(_PAUSE_S)

    def _write_hash(self, member: str, revision: int, found: MemberHash) -> None:
        about = {"hash": found.hash, "compact_revision": found.compact_revision}
        self._recorder.write(hash_record(self._recorder.now_ns(), member, revision, about))
