"""The faults of the live harness: what each does, and the consequence by which it counts as effective."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from chaos.live.cluster import LiveCluster
from chaos.live.observers import Observers
from raftkube.errors import ConfigError

# A consequence is looked for this long after the end of a fault.
CONSEQUENCE_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Fault:
    """A SIGKILL of one component. `kind` is whose; `role` is leader, follower or any."""

    name: str
    kind: str
    role: str
    consequence: str  # in words, for reports
    group: str = "kill"

    async def target(self, cluster: LiveCluster, observers: Observers, choice: int) -> str | None:
        """The component to hit now; None if there is none (no leader is known)."""
        there = cluster.named(self.kind)
        leader = self._leader(observers, there)
        if self.role == "leader":
            return leader
        others = [name for name in there if name != leader] if self.role == "follower" else there
        return others[choice % len(others)] if others else None

    def _leader(self, observers: Observers, there: list[str]) -> str | None:
        if self.kind == "store":
            return observers.leader
        holder, _ = observers.holders.get(self.kind, ("", 0))
        return next((name for name in there if holder == name or holder.startswith(name + "_")), None)

    def effect(self, record: dict[str, Any], seen: Iterable[dict[str, Any]]) -> dict[str, Any] | None:
        """The first consequence in what was seen from the fault's start on; None: it had no effect."""
        end_ns = record["end_ns"] + int(CONSEQUENCE_S * 1e9)
        for observed in seen:
            if record["start_ns"] <= observed["time_ns"] <= end_ns and self._is_consequence(record, observed):
                return observed
        return None

    def _is_consequence(self, record: dict[str, Any], observed: dict[str, Any]) -> bool:
        if self.kind == "store" and self.role == "leader":
            return bool(observed["kind"] == "term" and observed["leader"] != record["target"])
        if self.kind in ("scheduler", "controller-manager"):
            return bool(observed["kind"] == "holder" and observed["lease"] == self.kind)
        return bool(observed["kind"] == "reset" and observed["component"] == record["target"])


FAULTS: Final = {
    fault.name: fault
    for fault in (
        Fault("kill-store-leader", "store", "leader", "another member leads in a later term"),
        Fault("kill-store-follower", "store", "follower", "the connections to it are reset"),
        Fault("kill-apiserver", "apiserver", "any", "the watches on it are cut"),
        Fault("kill-scheduler", "scheduler", "leader", "the lease has another holder or token"),
        Fault(
            "kill-controller-manager", "controller-manager", "leader", "the lease has another holder or token"
        ),
    )
}


def choose_faults(text: str) -> list[Fault]:
    """The faults of a list such as `kill` (a group), `all` or `kill-apiserver,kill-scheduler`.

    Raises ConfigError: an unknown name; the message lists those that are known.
    """
    chosen: dict[str, Fault] = {}
    for part in filter(None, text.split(",")):
        matched = {
            name: fault for name, fault in FAULTS.items() if part in ("all", name) or part == fault.group
        }
        if not matched:
            raise ConfigError(f"--faults: {part!r} is not known; there are kill, all, {', '.join(FAULTS)}")
        chosen |= matched
    return list(chosen.values())
