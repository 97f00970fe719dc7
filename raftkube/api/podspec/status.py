"""What a pod's specification and status add up to: its QoS class, and what `kubectl get pods` says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from raftkube.api.objects import items, section
from raftkube.api.quantity import QuantityError, quantity
from raftkube.api.resource import Object
from raftkube.api.tables import created, duration
from raftkube.api.timestamps import seconds_or_none

_TERMINAL: Final = ("Succeeded", "Failed")
_QOS_RESOURCES: Final = ("cpu", "memory")


def qos_class(spec: dict[str, Any]) -> str:
    """Guaranteed, Burstable or BestEffort (pkg/apis/core/helper/qos, ComputePodQOS)."""
    requests: dict[str, int] = {}
    limits: dict[str, int] = {}
    guaranteed = True
    for container in [*items(spec, "containers"), *items(spec, "initContainers")]:
        resources = section(container, "resources")
        _sum(requests, section(resources, "requests"))
        found = _sum(limits, section(resources, "limits"))
        guaranteed = guaranteed and found == set(_QOS_RESOURCES)
    if not requests and not limits:
        return "BestEffort"
    return "Guaranteed" if guaranteed and requests == limits else "Burstable"


def _sum(total: dict[str, int], amounts: dict[str, Any]) -> set[str]:
    found = set()
    for name in _QOS_RESOURCES:
        nano = _nano(amounts.get(name))
        if nano > 0:
            total[name] = total.get(name, 0) + nano
            found.add(name)
    return found


def _nano(value: Any) -> int:
    try:
        return quantity(value).nano if value is not None else 0
    except QuantityError:
        return 0


@dataclass(slots=True)
class _Summary:
    """What printPod gathers while it walks the containers."""

    reason: str
    total: int
    ready: int = 0
    restarts: int = 0
    last_restart: float = 0.0
    sidecar_restarts: int = 0
    sidecar_last_restart: float = 0.0
    initializing: bool = False


def pod_cells(pod: Object, now: float) -> list[Any]:
    """The cells of a pod's row (pkg/printers/internalversion/printers.go, printPod)."""
    spec, status = section(pod, "spec"), section(pod, "status")
    summary = _summarize(pod, spec, status)
    restarts = str(summary.restarts)
    if summary.restarts and summary.last_restart:
        restarts += f" ({duration(now - summary.last_restart)} ago)"
    addresses = items(status, "podIPs")
    return [
        pod["metadata"].get("name", ""),
        f"{summary.ready}/{summary.total}",
        summary.reason,
        restarts,
        created(pod, now),
        (addresses[0].get("ip") if addresses else status.get("podIP")) or "<none>",
        spec.get("nodeName") or "<none>",
        status.get("nominatedNodeName") or "<none>",
        _readiness_gates(spec, status),
    ]


def _summarize(pod: Object, spec: dict[str, Any], status: dict[str, Any]) -> _Summary:
    phase = status.get("phase") or ""
    sidecars = {item.get("name") for item in items(spec, "initContainers") if is_sidecar(item)}
    summary = _Summary(status.get("reason") or phase, len(items(spec, "containers")) + len(sidecars))
    if _condition(status, "PodScheduled").get("reason") == "SchedulingGated":
        summary.reason = "SchedulingGated"
    _walk_init_containers(summary, spec, status, sidecars)
    if not summary.initializing or _condition(status, "Initialized").get("status") == "True":
        _walk_containers(summary, status)
    if pod["metadata"].get("deletionTimestamp"):
        if status.get("reason") == "NodeLost":
            summary.reason = "Unknown"
        elif phase not in _TERMINAL:
            summary.reason = "Terminating"
    return summary


def is_sidecar(container: dict[str, Any]) -> bool:
    """An init container that keeps running beside the others."""
    return container.get("restartPolicy") == "Always"


def _walk_init_containers(
    summary: _Summary, spec: dict[str, Any], status: dict[str, Any], sidecars: set[Any]
) -> None:
    for index, container in enumerate(items(status, "initContainerStatuses")):
        count, ended = container.get("restartCount") or 0, _last_ended(container)
        summary.restarts += count
        summary.last_restart = max(summary.last_restart, ended)
        sidecar = container.get("name") in sidecars
        if sidecar:
            summary.sidecar_restarts += count
            summary.sidecar_last_restart = max(summary.sidecar_last_restart, ended)
        state = section(container, "state")
        if state.get("terminated") and not state["terminated"].get("exitCode"):
            continue
        if sidecar and container.get("started"):
            summary.ready += bool(container.get("ready"))
            continue
        summary.initializing = True
        summary.reason = _init_reason(state, index, len(items(spec, "initContainers")))
        break


def _init_reason(state: dict[str, Any], index: int, count: int) -> str:
    terminated, waiting = state.get("terminated"), section(state, "waiting")
    if terminated:
        return "Init:" + _ended_reason(terminated)
    if waiting.get("reason") not in (None, "", "PodInitializing"):
        return f"Init:{waiting['reason']}"
    return f"Init:{index}/{count}"


def _ended_reason(terminated: dict[str, Any]) -> str:
    if terminated.get("reason"):
        return str(terminated["reason"])
    if terminated.get("signal"):
        return f"Signal:{terminated['signal']}"
    return f"ExitCode:{terminated.get('exitCode', 0)}"


def _walk_containers(summary: _Summary, status: dict[str, Any]) -> None:
    summary.restarts = summary.sidecar_restarts
    summary.last_restart = summary.sidecar_last_restart
    running = False
    for container in reversed(items(status, "containerStatuses")):
        summary.restarts += container.get("restartCount") or 0
        summary.last_restart = max(summary.last_restart, _last_ended(container))
        state = section(container, "state")
        if section(state, "waiting").get("reason"):
            summary.reason = state["waiting"]["reason"]
        elif state.get("terminated") is not None:
            summary.reason = _ended_reason(state["terminated"])
        elif container.get("ready") and state.get("running") is not None:
            running = True
            summary.ready += 1
    if summary.reason == "Completed" and running:
        ready = _condition(status, "Ready").get("status") == "True"
        summary.reason = "Running" if ready else "NotReady"


def _last_ended(container: dict[str, Any]) -> float:
    terminated = section(section(container, "lastState"), "terminated")
    return seconds_or_none(terminated.get("finishedAt")) or 0.0


def _condition(status: dict[str, Any], kind: str) -> dict[str, Any]:
    found: dict[str, Any] = next((c for c in items(status, "conditions") if c.get("type") == kind), {})
    return found


def _readiness_gates(spec: dict[str, Any], status: dict[str, Any]) -> str:
    gates = items(spec, "readinessGates")
    if not gates:
        return "<none>"
    true = sum(_condition(status, gate.get("conditionType", "")).get("status") == "True" for gate in gates)
    return f"{true}/{len(gates)}"


def container_cells(spec: dict[str, Any]) -> list[Any]:
    """The Containers and Images cells of a workload."""
    containers = items(spec, "containers")
    return [
        ",".join(container.get("name", "") for container in containers),
        ",".join(container.get("image", "") for container in containers),
    ]
