"""All faults of the live harness, and which of them are possible for this user and this cluster file."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Final

from chaos.live.disk_faults import DISK_FAULTS
from chaos.live.fault import Fault
from chaos.live.host_faults import HOST_FAULTS
from chaos.live.network_faults import NETWORK_FAULTS
from chaos.live.process_faults import PROCESS_FAULTS
from chaos.live.root_faults import ROOT_FAULTS, Freezer
from raftkube.cluster.config import ClusterConfig
from raftkube.errors import ConfigError

FAULTS: Final = {
    fault.name: fault
    for fault in (*PROCESS_FAULTS, *ROOT_FAULTS, *NETWORK_FAULTS, *DISK_FAULTS, *HOST_FAULTS)
}
GROUPS: Final = tuple(dict.fromkeys(fault.group for fault in FAULTS.values()))
LAUNCHER: Final = "chaos.live.faulty_store"


@dataclass(frozen=True, slots=True)
class Chosen:
    """The faults of a run, and (name, why) of those that were asked for and are not possible."""

    faults: list[Fault]
    skipped: list[tuple[str, str]]


def choose_faults(text: str) -> list[Fault]:
    """The faults of a list such as `kill` (a group), `all` or `kill-apiserver,pause`.

    Raises ConfigError: an unknown name; the message lists those that are known.
    """
    chosen: dict[str, Fault] = {}
    for part in filter(None, text.split(",")):
        matched = {name: fault for name, fault in FAULTS.items() if part in ("all", name, fault.group)}
        if not matched:
            raise ConfigError(
                f"--faults: {part!r} is not known; there are all, {', '.join(GROUPS)}, {', '.join(FAULTS)}"
            )
        chosen |= matched
    return list(chosen.values())


def default_config(text: str) -> str:
    """The cluster file that the list is run on unless another is named: the plain product where that will
    do. Raises ConfigError as `choose_faults` does."""
    inside = any("launcher" in fault.needs for fault in choose_faults(text))
    return "cluster_configs/chaos-all.yaml" if inside else "cluster_configs/chaos-kill.yaml"


def split_possible(text: str, config: ClusterConfig) -> Chosen:
    """What of the list can be done. Raises ConfigError: a fault that was asked for by its own name, or
    all of them, cannot be done."""
    why = {fault.name: obstacle(fault, config) for fault in choose_faults(text)}
    for name in text.split(","):
        if why.get(name):
            raise ConfigError(f"--faults: {name} {why[name]}")
    chosen = Chosen(
        [FAULTS[name] for name, reason in why.items() if not reason],
        [(name, reason) for name, reason in why.items() if reason],
    )
    if chosen.skipped and not chosen.faults:
        raise ConfigError(f"--faults: {chosen.skipped[0][0]} {chosen.skipped[0][1]}")
    return chosen


def obstacle(fault: Fault, config: ClusterConfig) -> str:
    """Why a fault cannot be done; "" if it can."""
    if "root" in fault.needs and os.geteuid() != 0:
        return f"needs root ({fault.done})"
    if "cgroup" in fault.needs and Freezer.find() is None:
        return "needs a cgroup hierarchy of version 2 that can be written to"
    if "launcher" in fault.needs and config.launcher != LAUNCHER:
        return f"needs spec.store.launcher: {LAUNCHER} in the cluster file"
    needed = 3 if fault.role in ("follower", "majority") or "partition" in fault.group else 1
    if _replicas(fault.kind, config) < needed:
        return f"needs {needed} of {fault.kind} in the cluster file"
    return ""


def _replicas(kind: str, config: ClusterConfig) -> int:
    if kind == "store":
        return len(config.members)
    parts = {
        "apiserver": config.apiserver,
        "scheduler": config.scheduler,
        "controller-manager": config.controller_manager,
    }
    return parts[kind].replicas
