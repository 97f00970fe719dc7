"""The faults of an etcd run, what is seen of its leaders, and by what a fault counts as effective."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import trio

from chaos.etcd.client import EtcdClient
from chaos.etcd.cluster import EtcdCluster, read_state
from chaos.recording import Recorder
from raftkube.errors import ConfigError, StoreError
from raftkube.net.tcp import TcpNetwork

# A consequence is looked for this long after the end of a fault: an election takes etcd 1 to 2 s.
CONSEQUENCE_S: Final = 5.0
_POLL_S: Final = 0.1


@dataclass(frozen=True, slots=True)
class EtcdFault:
    """`action`: kill (SIGKILL), pause (SIGSTOP), restart (SIGTERM); `role`: leader, follower or all."""

    name: str
    action: str
    role: str
    consequence: str  # in words, for reports

    def targets(self, cluster: EtcdCluster, leader: str | None, choice: int) -> list[str]:
        """The members to hit now; empty: there is none (no leader is known)."""
        if self.role == "all":
            return list(cluster.names)
        if leader is None:
            return []
        others = [name for name in cluster.names if name != leader]
        return [leader] if self.role == "leader" else [others[choice % len(others)]]

    async def hit(self, cluster: EtcdCluster, targets: list[str]) -> None:
        """Returns when the targets are down, or paused."""
        async with trio.open_nursery() as nursery:
            for name in targets:
                if self.action == "pause":
                    cluster.pause(name)
                else:
                    nursery.start_soon(cluster.kill if self.action == "kill" else cluster.stop, name)

    def heal(self, cluster: EtcdCluster, targets: list[str]) -> None:
        """What was hit runs again."""
        for name in targets:
            if self.action == "pause":
                cluster.resume(name)
            else:
                cluster.start(name)

    def effect(self, record: dict[str, Any], seen: Iterable[dict[str, Any]]) -> dict[str, Any] | None:
        """The first consequence in what was seen from the fault's start on; None: it had no effect."""
        end_ns = record["end_ns"] + int(CONSEQUENCE_S * 1e9)
        for observed in seen:
            if record["start_ns"] <= observed["time_ns"] <= end_ns and self._is_consequence(record, observed):
                return observed
        return None

    def _is_consequence(self, record: dict[str, Any], observed: dict[str, Any]) -> bool:
        if self.role == "follower":
            return bool(observed["kind"] == "reset" and observed["component"] == record["target"])
        newer = observed["kind"] == "term" and observed["term"] > record["term"]
        return bool(newer and (self.role == "all" or observed["leader"] != record["target"]))


ETCD_FAULTS: Final = {
    fault.name: fault
    for fault in (
        EtcdFault("kill-store-leader", "kill", "leader", "another member leads in a later term"),
        EtcdFault("kill-store-follower", "kill", "follower", "the connection to it is reset"),
        EtcdFault("kill-store-all", "kill", "all", "a member leads in a later term"),
        EtcdFault("pause-store-leader", "pause", "leader", "another member leads in a later term"),
        EtcdFault("restart-store-leader", "restart", "leader", "another member leads in a later term"),
    )
}


def choose_etcd_faults(text: str) -> list[EtcdFault]:
    """Of a list of names, groups (kill, pause, restart) or `all`. Raises ConfigError: an unknown name."""
    chosen: dict[str, EtcdFault] = {}
    for part in filter(None, text.split(",")):
        matched = {name: fault for name, fault in ETCD_FAULTS.items() if part in ("all", name, fault.action)}
        if not matched:
            known = ", ".join(ETCD_FAULTS)
            raise ConfigError(
                f"--faults: {part!r} is not known for etcd; there are all, kill, pause, restart, {known}"
            )
        chosen |= matched
    return list(chosen.values())


class EtcdObserver:
    """Asks every member for its state; terms, leaders and resets are written and kept in `seen`."""

    def __init__(self, cluster: EtcdCluster, recorder: Recorder, rng: random.Random) -> None:
        self._cluster = cluster
        self._recorder = recorder
        self._rng = rng
        self._names: dict[str, str] = {}  # member id -> name
        self.seen: list[dict[str, Any]] = []
        self.leader: str | None = None
        self.term = 0

    async def run(self) -> None:
        """Until cancelled."""
        async with trio.open_nursery() as nursery:
            for name in self._cluster.names:
                nursery.start_soon(self._follow, name)

    async def _follow(self, name: str) -> None:
        connected = False
        network, address = TcpNetwork(), self._cluster.address(name)
        async with EtcdClient.open(network, [address], rng=self._rng, pinned=True) as client:
            while True:
                try:
                    with trio.fail_after(2):
                        self._on_status(name, await client.status())
                    connected = True
                except (StoreError, trio.TooSlowError) as error:
                    if connected:
                        self._see("reset", component=name, error=type(error).__name__)
                    connected = False
                await trio.sleep(_POLL_S)

    def _on_status(self, name: str, told: dict[str, Any]) -> None:
        """etcd's raftTerm is the term of the last entry that was applied, while its leader may be a later
        term's already: only a term's first leader is written down, and S5 cannot be judged of etcd."""
        state = read_state(told)
        self._names[state.member_id] = name
        leader = self._names.get(state.leader_id)
        if leader is None or state.term < self.term:
            return
        self.leader = leader
        if state.term > self.term:
            self.term = state.term
            self._see("term", term=state.term, leader=leader, told_by=name)

    def _see(self, kind: str, **fields: Any) -> None:
        record = {"type": "observe", "kind": kind, "time_ns": self._recorder.now_ns(), **fields}
        self.seen.append(record)
        self._recorder.write(record)
