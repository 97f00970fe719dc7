"""The ReplicaSet controller: keep so many pods of one template.

`plan` claims pods and says how many to create or which to delete; `next_status` is written after that was
tried. Source: k8s.io/kubernetes/pkg/controller/replicaset.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from raftkube.api.objects import copy_json, items, section
from raftkube.api.resource import Object
from raftkube.api.selectors import label_selector_of
from raftkube.controllers.core import pods
from raftkube.controllers.core.conditions import (
    find_condition,
    make_condition,
    with_condition,
    without_condition,
)
from raftkube.controllers.core.owners import claim, controller_reference, is_deleting
from raftkube.controllers.core.pod_template import labels_of

BURST_REPLICAS: Final = 500
REPLICA_FAILURE: Final = "ReplicaFailure"


@dataclass(frozen=True, slots=True)
class Observed:
    """candidates: the pods of its namespace that it controls or that nobody does. related: all pods of the
    same Deployment."""

    replica_set: Object
    candidates: Sequence[Object]
    related: Sequence[Object] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do, in this order. active are the pods that count, as observed (adopted ones included)."""

    adopt: tuple[Object, ...]
    release: tuple[Object, ...]
    create: int
    delete: tuple[Object, ...]
    active: tuple[Object, ...]
    terminating: int


def plan(observed: Observed, *, now: float) -> Plan:
    """Compare and decide."""
    replica_set = observed.replica_set
    selector = label_selector_of(replica_set["spec"].get("selector"))
    claimed = claim(replica_set, selector, [p for p in observed.candidates if pods.is_active(p)])
    surplus = 0
    if not is_deleting(replica_set):
        surplus = len(claimed.ours) - replicas_of(replica_set)
        surplus = max(-BURST_REPLICAS, min(BURST_REPLICAS, surplus))
    victims = pods.choose_victims(claimed.ours, observed.related, surplus, now=now) if surplus > 0 else []
    return Plan(
        adopt=tuple(claimed.adopt),
        release=tuple(claimed.release),
        create=max(0, -surplus),
        delete=tuple(victims),
        active=tuple(claimed.ours),
        terminating=_count(observed.candidates, lambda pod: _is_terminating(pod, replica_set)),
    )


def replicas_of(workload: Object) -> int:
    """spec.replicas, 1 where it is left out."""
    replicas = workload["spec"].get("replicas")
    return 1 if replicas is None else int(replicas)


def _is_terminating(pod: Object, replica_set: Object) -> bool:
    ours = any(
        ref.get("uid") == replica_set["metadata"]["uid"] for ref in items(pod["metadata"], "ownerReferences")
    )
    return ours and is_deleting(pod) and not pods.is_finished(pod)


def new_pod(replica_set: Object, name: str) -> Object:
    """A pod of the template. Source: controller.GetPodFromTemplate."""
    template = replica_set["spec"]["template"]
    metadata = section(template, "metadata")
    copied = {
        key: copy_json(metadata[key]) for key in ("labels", "annotations", "finalizers") if metadata.get(key)
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "generateName": name_prefix(replica_set),
            "name": name,
            "namespace": replica_set["metadata"]["namespace"],
            "ownerReferences": [controller_reference(replica_set)],
            **copied,
        },
        "spec": copy_json(template["spec"]),
    }


def name_prefix(replica_set: Object) -> str:
    """What the names of its pods begin with."""
    return f"{replica_set['metadata']['name']}-"


def next_status(replica_set: Object, planned: Plan, failure: str, *, now: float) -> Object:
    """The status after `planned` was tried; `failure` is what went wrong, "" for nothing.

    Counts are those of the pods seen before: what was created or deleted shows in the next round.
    """
    min_ready_s = int(replica_set["spec"].get("minReadySeconds") or 0)
    template_labels = labels_of(replica_set["spec"]["template"]).items()
    active = planned.active
    status: Object = {
        "replicas": len(active),
        "fullyLabeledReplicas": _count(
            active, lambda pod: template_labels <= section(pod["metadata"], "labels").items()
        ),
        "readyReplicas": _count(active, pods.is_ready),
        "availableReplicas": _count(active, lambda pod: pods.is_available(pod, min_ready_s, now)),
        "observedGeneration": replica_set["metadata"].get("generation", 0),
        "terminatingReplicas": planned.terminating,
    }
    if conditions := items(section(replica_set, "status"), "conditions"):
        status["conditions"] = conditions
    return _with_failure(status, replica_set, planned, failure, now)


def _with_failure(status: Object, replica_set: Object, planned: Plan, failure: str, now: float) -> Object:
    if not failure:
        return without_condition(status, REPLICA_FAILURE)
    if find_condition(status, REPLICA_FAILURE) is not None:
        return status
    reason = "FailedCreate" if len(planned.active) < replicas_of(replica_set) else "FailedDelete"
    return with_condition(status, make_condition(REPLICA_FAILURE, "True", reason, failure, now=now))


def status_changed(replica_set: Object, status: Object) -> bool:
    """Whether `status` differs from the stored one; zero and absent are one."""
    return _nonzero(section(replica_set, "status")) != _nonzero(status)


def _nonzero(status: Object) -> Object:
    return {key: value for key, value in status.items() if value}


def recheck_after_s(replica_set: Object, active: Sequence[Object], *, now: float) -> float | None:
    """Seconds until the next ready pod becomes available by mere passing of time; None if none will."""
    min_ready_s = int(replica_set["spec"].get("minReadySeconds") or 0)
    remaining = [pods.available_in_s(pod, min_ready_s, now) for pod in active]
    return min((left for left in remaining if left is not None and left > 0), default=None)


def _count(found: Sequence[Object], wanted: Callable[[Object], bool]) -> int:
    return sum(1 for pod in found if wanted(pod))
