"""A pod's status from what is seen: phase, conditions, container statuses.

Source: k8s.io/kubernetes/pkg/kubelet (getPhase, convertToAPIContainerStatuses) and pkg/kubelet/status
(generate.go).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from raftkube.api.timestamps import rfc3339
from raftkube.kubelet.core import pods
from raftkube.kubelet.core.plan import Waiting
from raftkube.kubelet.core.pods import Attempts, Container, Object

_DEFAULT_WAITING: Final = Waiting("ContainerCreating")
_INITIALIZING: Final = Waiting("PodInitializing")
OWNED_CONDITIONS: Final = (
    "PodReadyToStartContainers",
    "Initialized",
    "Ready",
    "ContainersReady",
    "PodScheduled",
)


class StatusInput(NamedTuple):
    """`ready` and `started`: ids of containers whose probes say so; `ended`: the pod is to run no more;
    `failure`: (reason, message) of a pod that the kubelet itself failed; `scheme`: of container ids."""

    attempts: Attempts
    waiting: Mapping[str, Waiting]
    ready: frozenset[str]
    started: frozenset[str]
    node_ip: str
    now: float
    scheme: str
    ended: bool = False
    failure: Waiting | None = None


class _Counts(NamedTuple):
    waiting: int = 0
    running: int = 0
    stopped: int = 0
    succeeded: int = 0


def compute_status(pod: Object, seen: StatusInput) -> Object:
    """The whole pod status. Conditions that others own are carried over; times of conditions that did not
    change as well."""
    inits = [_container_status(c, pod, seen, init=True) for c in pods.init_containers(pod)]
    mains = [_container_status(c, pod, seen, init=False) for c in pods.containers(pod)]
    phase = "Failed" if seen.failure else pod_phase(pod, inits, mains, ended=seen.ended)
    if pods.is_finished(pod):
        phase = pod["status"]["phase"]  # final phases never change (pkg/kubelet/status: mergePodStatus)
    old = pod.get("status") or {}
    status: Object = {
        "phase": phase,
        "conditions": _conditions(pod, phase, inits, mains, seen),
        "hostIP": seen.node_ip,
        "hostIPs": [{"ip": seen.node_ip}],
        "podIP": seen.node_ip,
        "podIPs": [{"ip": seen.node_ip}],
        "startTime": old.get("startTime") or rfc3339(seen.now),
        "containerStatuses": sorted(mains, key=lambda status: str(status["name"])),
    }
    if inits:
        status["initContainerStatuses"] = inits
    if seen.failure:
        status |= {"reason": seen.failure.reason, "message": seen.failure.message}
    if "generation" in pod["metadata"]:
        status["observedGeneration"] = pod["metadata"]["generation"]
    return status


def pod_phase(pod: Object, inits: list[Object], mains: list[Object], *, ended: bool) -> str:
    """Pending, Running, Succeeded or Failed. Source: getPhase."""
    policy = pods.restart_policy(pod)
    pending, failed = _init_progress(pod, inits)
    if failed and policy == "Never":
        return "Failed"
    counts = _count(mains)
    if pending and not ended:
        return "Pending"
    if counts.waiting:
        return "Failed" if ended else "Pending"
    if counts.running:
        return "Running"
    if policy == "Always" and not ended:
        return "Running"
    if counts.stopped == counts.succeeded:
        return "Succeeded"
    return "Failed" if policy == "Never" or ended else "Running"


def _init_progress(pod: Object, inits: list[Object]) -> tuple[int, int]:
    """(init containers that have still to end or start, init containers that ended badly)."""
    pending = failed = 0
    for container, status in zip(pods.init_containers(pod), inits, strict=True):
        state = status["state"]
        if pods.is_sidecar(container):
            pending += not status["started"] and "terminated" not in state
            continue
        end = state.get("terminated") or (status["lastState"] if "waiting" in state else {}).get("terminated")
        if end is None:
            pending += 1
        elif end["exitCode"] != 0:
            failed += 1
            pending += 1
    return pending, failed


def _count(mains: list[Object]) -> _Counts:
    waiting = running = stopped = succeeded = 0
    for status in mains:
        state = status["state"]
        if "running" in state:
            running += 1
        elif "terminated" in state:
            stopped += 1
            succeeded += state["terminated"]["exitCode"] == 0
        elif "terminated" in status["lastState"]:
            stopped += 1
        else:
            waiting += 1
    return _Counts(waiting, running, stopped, succeeded)


def _container_status(container: Object, pod: Object, seen: StatusInput, *, init: bool) -> Object:
    name = container["name"]
    of_name = seen.attempts.get(name) or ()
    last = of_name[0] if of_name else None
    waiting = seen.waiting.get(name)
    state, previous = _state(last, of_name[1] if len(of_name) > 1 else None, waiting, seen.scheme)
    if last is None and waiting is None:
        why = _DEFAULT_WAITING if not pods.init_containers(pod) else _INITIALIZING
        state = {"waiting": {"reason": why.reason}}
    ready = last is not None and last.id in seen.ready and last.running
    if init and last is not None and not pods.is_sidecar(container):
        ready = last.exit_code == 0
    return {
        "name": name,
        "state": state,
        "lastState": previous,
        "ready": ready,
        "restartCount": last.attempt if last is not None else 0,
        "image": container.get("image", ""),
        "imageID": last.image_id if last is not None else "",
        **({"containerID": f"{seen.scheme}://{last.id}"} if last is not None else {}),
        "started": last is not None and last.running and last.id in seen.started,
    }


def _state(
    last: Container | None, before: Container | None, waiting: Waiting | None, scheme: str
) -> tuple[Object, Object]:
    """(state, lastState)."""
    ended = {"terminated": _terminated(last, scheme)} if last is not None and not last.running else {}
    earlier = {"terminated": _terminated(before, scheme)} if before is not None else {}
    if last is not None and last.running:
        return {"running": {"startedAt": rfc3339(last.started_at)}}, earlier
    if waiting is not None:
        message = {"message": waiting.message} if waiting.message else {}
        return {"waiting": {"reason": waiting.reason, **message}}, ended or earlier
    return ended, earlier


def _terminated(container: Container, scheme: str) -> Object:
    exit_code = container.exit_code or 0
    ended: Object = {
        "exitCode": exit_code,
        "reason": container.reason or ("Completed" if exit_code == 0 else "Error"),
        "startedAt": rfc3339(container.started_at),
        "finishedAt": rfc3339(container.finished_at),
        "containerID": f"{scheme}://{container.id}",
    }
    if container.message:
        ended["message"] = container.message
    return ended


class _Condition(NamedTuple):
    status: bool
    reason: str = ""
    message: str = ""


def _conditions(
    pod: Object, phase: str, inits: list[Object], mains: list[Object], seen: StatusInput
) -> list[Object]:
    initialized = _initialized(pod, phase, inits)
    containers_ready = _containers_ready(pod, phase, inits, mains)
    wanted = {
        "PodReadyToStartContainers": _Condition(bool(seen.attempts) and phase not in ("Succeeded", "Failed")),
        "Initialized": initialized,
        "Ready": _ready(pod, containers_ready),
        "ContainersReady": containers_ready,
        "PodScheduled": _Condition(True),
    }
    old = {c["type"]: c for c in (pod.get("status") or {}).get("conditions") or ()}
    ours = [_condition(kind, condition, old.get(kind), pod, seen.now) for kind, condition in wanted.items()]
    return ours + [c for kind, c in old.items() if kind not in OWNED_CONDITIONS]


def _initialized(pod: Object, phase: str, inits: list[Object]) -> _Condition:
    incomplete = []
    for container, status in zip(pods.init_containers(pod), inits, strict=True):
        done = status["started"] if pods.is_sidecar(container) else status["ready"]
        if not done:
            incomplete.append(str(status["name"]))
    if phase == "Succeeded":
        return _Condition(True, "PodCompleted")
    if incomplete:
        message = f"containers with incomplete status: [{' '.join(incomplete)}]"
        return _Condition(False, "ContainersNotInitialized", message)
    return _Condition(True)


def _containers_ready(pod: Object, phase: str, inits: list[Object], mains: list[Object]) -> _Condition:
    if phase == "Succeeded":
        return _Condition(False, "PodCompleted")
    if phase == "Failed":
        return _Condition(False, "PodFailed")
    sidecars = [
        s for c, s in zip(pods.init_containers(pod), inits, strict=True) if pods.is_sidecar(c)
    ]  # fmt: skip
    unready = [str(status["name"]) for status in sidecars + mains if not status["ready"]]
    if unready:
        message = f"containers with unready status: [{' '.join(unready)}]"
        return _Condition(False, "ContainersNotReady", message)
    return _Condition(True)


def _ready(pod: Object, containers_ready: _Condition) -> _Condition:
    if not containers_ready.status:
        return containers_ready
    held = {c["type"] for c in (pod.get("status") or {}).get("conditions") or () if c.get("status") == "True"}
    gates = [str(gate["conditionType"]) for gate in pod["spec"].get("readinessGates") or ()]
    missing = [f'corresponding condition of pod readiness gate "{g}" does not exist or is not true'
               for g in gates if g not in held]  # fmt: skip
    return _Condition(False, "ReadinessGatesNotReady", ", ".join(missing)) if missing else _Condition(True)


def _condition(kind: str, wanted: _Condition, old: Object | None, pod: Object, now: float) -> Object:
    status = str(wanted.status)
    unchanged = old is not None and old.get("status") == status
    since = (old or {}).get("lastTransitionTime") if unchanged else None
    condition: dict[str, Any] = {"type": kind, "status": status, "lastTransitionTime": since or rfc3339(now)}
    if wanted.reason:
        condition["reason"] = wanted.reason
    if wanted.message:
        condition["message"] = wanted.message
    if "generation" in pod["metadata"]:
        condition["observedGeneration"] = pod["metadata"]["generation"]
    return condition


def differs(old: Object, new: Object) -> bool:
    """Whether writing `new` would change `old`: other fields and others' conditions do not count."""
    by_type = {condition["type"]: condition for condition in old.get("conditions") or ()}
    if any(by_type.get(condition["type"]) != condition for condition in new["conditions"]):
        return True
    return any(old.get(name) != value for name, value in new.items() if name != "conditions")
