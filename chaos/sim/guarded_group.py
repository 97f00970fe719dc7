"""raftkube's members (`raft_group`) behind the face that scenarios and the fuzz know (`groups`)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Final

import trio

from chaos.sim.disk import SimDisk
from chaos.sim.groups import GroupOptions, Kind
from chaos.sim.raft_group import RaftGroup
from raftkube.errors import Stopped
from raftkube.store.raft.driver import RaftNode
from raftkube.store.raft.replica import Replica
from raftkube.store.raft.settings import RaftSettings

_RECOVERING: Final = 1 << 62  # the end of a log that is still being read: not short, as far as one can see
_PAUSED_S: Final = 0.05  # how soon a paused member looks again whether it may go on
SMALL: Final = RaftSettings(retain_entries=8, segment_bytes=16 * 1024)


class GuardedGroup(RaftGroup):
    """Small segments and snapshots, so that a short run meets each of their edges."""

    kind: Kind = "raftkube"

    def __init__(self, seed: int, nursery: trio.Nursery, options: GroupOptions) -> None:
        settings = dataclasses.replace(
            SMALL,
            heartbeat_s=options.heartbeat_s,
            election_timeout_min_s=options.election_timeout_min_s,
            election_timeout_max_s=options.election_timeout_max_s,
            snapshot_log_entries=options.snapshot_log_entries,
            snapshot_chunk_bytes=options.snapshot_part_bytes,
            entries_in_flight_max=options.entries_in_flight_max,
        )
        super().__init__(seed, nursery, size=options.size, settings=settings)
        self.network.delay_s = options.delay_s

    # What is seen.

    def leaders(self) -> list[str]:
        found = [name for name in self.up() if self._leads(name)]
        return sorted(found, key=self.term, reverse=True)

    def _leads(self, name: str) -> bool:
        replica = self.node(name)._replica
        return replica is not None and replica.leading

    def replica(self, name: str) -> Replica:
        replica = self.node(name)._replica
        assert replica is not None
        return replica

    def starts(self, name: str) -> int:
        return self.hosts[name].starts

    def disk(self, name: str) -> SimDisk:
        return self.hosts[name].disk

    def operations(self, name: str) -> Sequence[bytes]:
        return self.machine(name).operations

    def applied_index(self, name: str) -> int:
        return self.replica(name).core.applied_index

    def commit_index(self, name: str) -> int:
        return self.replica(name).core.commit_index

    def last_index(self, name: str) -> int:
        replica = self.node(name)._replica
        return _RECOVERING if replica is None else replica.journal.last_index

    def term(self, name: str) -> int:
        return self.replica(name).core.term

    def failures(self) -> list[str]:
        return [f"{name}: {host.error}" for name, host in self.hosts.items() if host.error is not None]

    # Life and death.

    def pause(self, name: str) -> None:
        node, clock = self.node(name), self.hosts[name].clock
        if node._replica is not None and "_pump" not in vars(node):
            _shadow(node, "_pump", lambda: None)
            _shadow(node._replica, "next_deadline", lambda: clock.monotonic() + _PAUSED_S)

    def resume(self, name: str) -> None:
        node = self.node(name)
        vars(node).pop("_pump", None)
        if node._replica is not None:
            vars(node._replica).pop("next_deadline", None)
        node._wake.set()

    def compact(self, name: str) -> None:
        """Nothing to do: the member makes a snapshot after `snapshot_log_entries`."""

    # Clients.

    async def propose_on(self, name: str, operation: bytes) -> int:
        index, _ = await self._alive(name).propose(operation)
        return int(index)

    async def read_on(self, name: str) -> int:
        machine = self.machine(name)
        await self._alive(name).read_index()
        return machine.applied

    def _alive(self, name: str) -> RaftNode:
        if self.hosts[name].scope is None:
            raise Stopped(f"{name} does not run")
        return self.node(name)


def _shadow(target: object, name: str, value: object) -> None:
    setattr(target, name, value)
