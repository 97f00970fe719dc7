"""Sizes and times of a simulated control plane; a plan names those that differ from these."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final

from chaos.sim.plan import PlanError
from raftkube.client.leader_election import ElectionSettings
from raftkube.controllers.controller_manager import WORKERS
from raftkube.controllers.node_lifecycle import NodeTimes as LifecycleTimes
from raftkube.kubelet.core.node import Machine
from raftkube.kubelet.node_loop import NodeTimes
from raftkube.store.raft.settings import RaftSettings

_MACHINE: Final = Machine(4, 8 << 30, 64 << 30, "amd64", "6.1", "Simulated Linux", "machine", "boot")


def _workers() -> dict[str, int]:
    return {name: min(2, count) for name, count in WORKERS.items()}


@dataclass(frozen=True, slots=True)
class ClusterSettings:
    """Times in seconds. Small, so that much happens in a minute; heartbeats as slow as they may be."""

    stores: int = 3
    apiservers: int = 2
    controller_managers: int = 2
    schedulers: int = 2
    kubelets: int = 2
    nodes_per_kubelet: int = 2
    pods_per_node: int = 5
    history_events: int = 256
    delay_s: tuple[float, float] = (0.0005, 0.003)
    heartbeat_s: float = 0.25
    lease_s: int = 4
    machine: Machine = _MACHINE
    workers: Mapping[str, int] = field(default_factory=_workers)
    vanished_node_quarantine_s: float = 10.0
    node_grace_s: float = 20.0

    @property
    def raft(self) -> RaftSettings:
        return RaftSettings(
            heartbeat_s=self.heartbeat_s,
            election_timeout_min_s=4 * self.heartbeat_s,
            election_timeout_max_s=8 * self.heartbeat_s,
            segment_bytes=1 << 18,
            snapshot_log_entries=1_500,
            retain_entries=200,
        )

    @property
    def election(self) -> ElectionSettings:
        return ElectionSettings(self.lease_s, renew_deadline_s=10.0, retry_period_s=0.5)

    @property
    def node_times(self) -> LifecycleTimes:
        return LifecycleTimes(self.node_grace_s, self.node_grace_s, eviction_period_s=2.0)

    @property
    def kubelet_times(self) -> NodeTimes:
        return NodeTimes(lease_s=self.node_grace_s / 3, status_s=5.0)

    def count(self, kind: str) -> int:
        """How many hosts of a kind there are."""
        return int(getattr(self, kind.replace("-", "_") + "s"))


def settings_from(given: Mapping[str, Any]) -> ClusterSettings:
    """Raises PlanError: a name that is none of these."""
    known = {each.name for each in fields(ClusterSettings)} - {"machine", "workers"}
    if unknown := given.keys() - known:
        raise PlanError(f"settings.{min(unknown)} is not known; there are {', '.join(sorted(known))}")
    values = dict(given)
    if "delay_s" in values:
        values["delay_s"] = tuple(values["delay_s"])
    return ClusterSettings(**values)
