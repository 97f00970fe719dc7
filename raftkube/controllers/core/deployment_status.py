"""A Deployment's status: counts, and the conditions Available, Progressing and ReplicaFailure.

Source: k8s.io/kubernetes/pkg/controller/deployment/{progress,sync}.go and util/deployment_util.go.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from raftkube.api.objects import items, section
from raftkube.api.resource import Object
from raftkube.api.timestamps import seconds_or_none
from raftkube.controllers.core import rollout
from raftkube.controllers.core.conditions import (
    find_condition,
    make_condition,
    with_condition,
    without_condition,
)
from raftkube.controllers.core.replica_set import replicas_of

AVAILABLE: Final = "Available"
PROGRESSING: Final = "Progressing"
REPLICA_FAILURE: Final = "ReplicaFailure"

CREATED_NEW: Final = "NewReplicaSetCreated"
FOUND_NEW: Final = "FoundNewReplicaSet"
NEW_AVAILABLE: Final = "NewReplicaSetAvailable"
UPDATED: Final = "ReplicaSetUpdated"
CREATE_FAILED: Final = "ReplicaSetCreateError"
TIMED_OUT: Final = "ProgressDeadlineExceeded"
PAUSED: Final = "DeploymentPaused"
RESUMED: Final = "DeploymentResumed"
_NO_DEADLINE: Final = 2**31 - 1
_COUNTS: Final = (
    "replicas", "updatedReplicas", "readyReplicas", "availableReplicas", "unavailableReplicas",
    "terminatingReplicas",
)  # fmt: skip


def deadline_s(deployment: Object) -> int | None:
    """spec.progressDeadlineSeconds; None if progress is not judged."""
    deadline = deployment["spec"].get("progressDeadlineSeconds", 600)
    return None if deadline is None or deadline == _NO_DEADLINE else int(deadline)


def progressing(status: str, reason: str, message: str, now: float) -> Object:
    """A Progressing condition."""
    return make_condition(PROGRESSING, status, reason, message, now=now, updated=True)


def paused_status(deployment: Object, now: float) -> Object:
    """The status with Progressing set when it has just been paused or resumed (checkPausedConditions)."""
    status = section(deployment, "status")
    found = find_condition(status, PROGRESSING)
    reason = (found or {}).get("reason")
    paused = bool(deployment["spec"].get("paused"))
    if deadline_s(deployment) is None or reason == TIMED_OUT or paused == (reason == PAUSED):
        return status
    if paused:
        return with_condition(status, progressing("Unknown", PAUSED, "Deployment is paused", now))
    return with_condition(status, progressing("Unknown", RESUMED, "Deployment is resumed", now))


def observed_status(deployment: Object, all_sets: Sequence[Object], new: Object | None, now: float) -> Object:
    """Counts and Available (calculateStatus)."""
    available = rollout.reported(all_sets, "availableReplicas")
    status: Object = {
        "observedGeneration": deployment["metadata"].get("generation", 0),
        "replicas": rollout.reported(all_sets, "replicas"),
        "updatedReplicas": rollout.reported([new] if new else [], "replicas"),
        "readyReplicas": rollout.reported(all_sets, "readyReplicas"),
        "availableReplicas": available,
        "unavailableReplicas": max(0, rollout.wanted(all_sets) - available),
        "terminatingReplicas": rollout.reported(all_sets, "terminatingReplicas"),
    }
    old = section(deployment, "status")
    status |= {key: old[key] for key in ("conditions", "collisionCount") if old.get(key) is not None}
    return with_condition(status, _availability(deployment, available, now))


def _availability(deployment: Object, available: int, now: float) -> Object:
    enough = available >= replicas_of(deployment) - rollout.max_unavailable(deployment)
    word = "True" if enough else "False"
    reason = "MinimumReplicasAvailable" if enough else "MinimumReplicasUnavailable"
    message = f"Deployment {'has' if enough else 'does not have'} minimum availability."
    return make_condition(AVAILABLE, word, reason, message, now=now, updated=True)


def rollout_status(deployment: Object, all_sets: Sequence[Object], new: Object | None, now: float) -> Object:
    """The status during and after a rollout: with progress judged (syncRolloutStatus)."""
    status = observed_status(deployment, all_sets, new, now)
    if deadline_s(deployment) is None:
        status = without_condition(status, PROGRESSING)
    elif not _was_complete(deployment, status):
        status = _judge_progress(deployment, status, new, now)
    return _with_replica_failure(status, all_sets, new)


def _was_complete(deployment: Object, status: Object) -> bool:
    """Nothing but the new ReplicaSet runs, and it has been declared available: no progress to judge."""
    found = find_condition(section(deployment, "status"), PROGRESSING)
    updated = status["replicas"] == status["updatedReplicas"]
    return updated and found is not None and found.get("reason") == NEW_AVAILABLE


def _judge_progress(deployment: Object, status: Object, new: Object | None, now: float) -> Object:
    what = f'ReplicaSet "{new["metadata"]["name"]}"' if new else f'Deployment "{_name(deployment)}"'
    if is_complete(deployment, status):
        return with_condition(
            status, progressing("True", NEW_AVAILABLE, f"{what} has successfully progressed.", now)
        )
    if _moved(section(deployment, "status"), status):
        return _note_progress(status, progressing("True", UPDATED, f"{what} is progressing.", now))
    if _timed_out(deployment, status, now):
        return with_condition(
            status, progressing("False", TIMED_OUT, f"{what} has timed out progressing.", now)
        )
    return status


def _name(deployment: Object) -> str:
    return str(deployment["metadata"]["name"])


def is_complete(deployment: Object, status: Object) -> bool:
    """Everything wanted is updated and available, and nothing else runs (DeploymentComplete)."""
    target = replicas_of(deployment)
    counts = (status.get(name) or 0 for name in ("updatedReplicas", "replicas", "availableReplicas"))
    observed = int(status.get("observedGeneration") or 0)
    return all(count == target for count in counts) and observed >= (
        deployment["metadata"].get("generation") or 0
    )


def _moved(before: Object, after: Object) -> bool:
    """More new, ready or available pods, or fewer old ones (DeploymentProgressing)."""

    def count(status: Object, name: str) -> int:
        return int(status.get(name) or 0)

    def old_ones(status: Object) -> int:
        return count(status, "replicas") - count(status, "updatedReplicas")

    grown = ("updatedReplicas", "readyReplicas", "availableReplicas")
    return old_ones(after) < old_ones(before) or any(count(after, n) > count(before, n) for n in grown)


def _note_progress(status: Object, condition: Object) -> Object:
    """lastUpdateTime moves with each step, also when the reason is the same."""
    found = find_condition(status, PROGRESSING)
    if found is not None and found.get("status") == "True":
        condition = condition | {"lastTransitionTime": found.get("lastTransitionTime")}
    return with_condition(without_condition(status, PROGRESSING), condition)


def _timed_out(deployment: Object, status: Object, now: float) -> bool:
    found = find_condition(status, PROGRESSING)
    if found is None or found.get("reason") == NEW_AVAILABLE:
        return False
    left = _deadline_in_s(deployment, found, now)
    return found.get("reason") == TIMED_OUT or (left is not None and left < 0)


def _deadline_in_s(deployment: Object, condition: Object, now: float) -> float | None:
    deadline = deadline_s(deployment)
    since = seconds_or_none(condition.get("lastUpdateTime"))
    return None if deadline is None or since is None else since + deadline - now


def _with_replica_failure(status: Object, all_sets: Sequence[Object], new: Object | None) -> Object:
    """The failure of a ReplicaSet becomes the Deployment's, the new one's before others'."""
    for rs in ([new] if new else []) + list(all_sets):
        failure = find_condition(section(rs, "status"), REPLICA_FAILURE)
        if failure is not None:
            dated = failure | {"lastUpdateTime": failure.get("lastTransitionTime")}
            return with_condition(status, dated)
    return without_condition(status, REPLICA_FAILURE)


def recheck_after_s(deployment: Object, status: Object, now: float) -> float | None:
    """Seconds until the progress deadline must be looked at again; None if it need not.

    Source: requeueStuckDeployment, which adds a second against skew.
    """
    found = find_condition(status, PROGRESSING)
    if found is None or is_complete(deployment, status) or found.get("reason") in (TIMED_OUT, NEW_AVAILABLE):
        return None
    left = _deadline_in_s(deployment, found, now)
    return None if left is None else max(left, 0.0) + 1.0


def status_changed(before: Object, after: Object) -> bool:
    """Whether two statuses differ; a count of 0 and an absent one are one."""
    return _without_zeros(before) != _without_zeros(after)


def _without_zeros(status: Object) -> Object:
    zeros = {name for name in (*_COUNTS, "observedGeneration") if not status.get(name)}
    rest = {key: value for key, value in status.items() if key not in zeros}
    return rest if items(rest, "conditions") else {k: v for k, v in rest.items() if k != "conditions"}
