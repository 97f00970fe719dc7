"""What a kubelet reads of a pod: its containers, policies and times, and what runtimes report of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from raftkube.api.timestamps import seconds_or_none

Object = dict[str, Any]

DEFAULT_GRACE_S: Final = 30.0
EXIT_CODE_LOST: Final = 137  # upstream's for a container whose end nobody saw
EXIT_CODE_NOT_STARTED: Final = 128


@dataclass(frozen=True, slots=True)
class Container:
    """One attempt at running a container, as its runtime knows it. Times are wall seconds.

    exit_code is None while it runs; `reason` is empty for an ordinary end (Completed or Error follows
    from the exit code); id has no scheme.
    """

    id: str
    pod_uid: str
    name: str
    attempt: int
    image: str
    image_id: str
    started_at: float
    finished_at: float = 0.0
    exit_code: int | None = None
    reason: str = ""
    message: str = ""

    @property
    def running(self) -> bool:
        return self.exit_code is None


# By container name, newest attempt first; at most the last two.
Attempts = Mapping[str, Sequence[Container]]


def latest(attempts: Attempts, name: str) -> Container | None:
    """The newest attempt at this container."""
    of_name = attempts.get(name)
    return of_name[0] if of_name else None


def uid(pod: Object) -> str:
    return str(pod["metadata"]["uid"])


def full_name(pod: Object) -> str:
    """name_namespace(uid), upstream's format for people."""
    metadata = pod["metadata"]
    return f"{metadata['name']}_{metadata.get('namespace', '')}({metadata['uid']})"


def containers(pod: Object) -> list[Object]:
    return list(pod["spec"].get("containers") or ())


def init_containers(pod: Object) -> list[Object]:
    return list(pod["spec"].get("initContainers") or ())


def all_containers(pod: Object) -> list[Object]:
    return init_containers(pod) + containers(pod)


def is_sidecar(container: Object) -> bool:
    """Whether it is a restartable init container (KEP-753)."""
    return bool(container.get("restartPolicy") == "Always")


def restart_policy(pod: Object) -> str:
    """Always, OnFailure or Never."""
    return str(pod["spec"].get("restartPolicy") or "Always")


def is_deleted(pod: Object) -> bool:
    return bool(pod["metadata"].get("deletionTimestamp"))


def is_finished(pod: Object) -> bool:
    """Whether its phase is final."""
    return pod.get("status", {}).get("phase") in ("Succeeded", "Failed")


def grace_s(pod: Object) -> float:
    """Seconds between the request to end and the kill."""
    grace = pod["metadata"].get("deletionGracePeriodSeconds")
    if grace is None:
        grace = pod["spec"].get("terminationGracePeriodSeconds")
    return DEFAULT_GRACE_S if grace is None else max(0.0, float(grace))


def deadline(pod: Object) -> float | None:
    """The wall second after which the pod has failed (activeDeadlineSeconds), if it has one and started."""
    limit = pod["spec"].get("activeDeadlineSeconds")
    start = seconds_or_none(pod.get("status", {}).get("startTime"))
    return None if limit is None or start is None else start + float(limit)
