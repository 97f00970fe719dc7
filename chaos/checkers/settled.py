"""What a set of objects lacks to be at rest, one sentence each; nothing: it has converged."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from chaos.checkers.objects import (
    DEPLOYMENTS,
    NODES,
    PODS,
    REPLICA_SETS,
    Json,
    Objects,
    generation_of,
    is_deleting,
    is_finished,
    is_live,
    is_ready,
    name_of,
    node_of,
    observed_generation_of,
    owner_refs,
    replicas_of,
    uid_of,
)

_DEPLOYMENT_COUNTS: Final = ("replicas", "updatedReplicas", "readyReplicas", "availableReplicas")
_SET_COUNTS: Final = ("replicas", "readyReplicas", "availableReplicas")


def unsettled(objects: Objects) -> Iterator[str]:
    """What keeps the cluster from being converged."""
    for key, obj in objects.by_key.items():
        if is_deleting(obj):
            yield f"{name_of(key)} is still being deleted"
    for key, deployment in objects.of(DEPLOYMENTS):
        yield from _workload(key, deployment, _DEPLOYMENT_COUNTS)
    for key, replica_set in objects.of(REPLICA_SETS):
        yield from _workload(key, replica_set, _SET_COUNTS)
        live = sum(is_live(pod) for pod in objects.controlled_by(uid_of(replica_set)))
        if live != replicas_of(replica_set):
            yield f"{name_of(key)} has {live} live pods of {replicas_of(replica_set)}"
    for key, pod in objects.of(PODS):
        yield from _pod(objects, key, pod)
    for key, node in objects.of(NODES):
        if not is_ready(node):
            yield f"{name_of(key)} is not Ready"
        elif node["spec"].get("taints"):
            yield f"{name_of(key)} is still tainted"


def _workload(key: str, obj: Json, counts: tuple[str, ...]) -> Iterator[str]:
    generation, observed = generation_of(obj), observed_generation_of(obj)
    if observed != generation:
        yield f"{name_of(key)} is at generation {generation}, observed is {observed}"
    if obj["spec"].get("paused"):
        return
    status = obj.get("status") or {}
    for count in counts:
        if (status.get(count) or 0) != replicas_of(obj):
            yield f"{name_of(key)} has {status.get(count) or 0} {count} of {replicas_of(obj)}"


def _pod(objects: Objects, key: str, pod: Json) -> Iterator[str]:
    if is_finished(pod):
        return
    node = node_of(key, pod)
    if node is None:
        yield f"{name_of(key)} is not bound"
    elif f"/registry/{NODES}/{node}" not in objects.by_key:
        yield f"{name_of(key)} is on {node}, which does not exist"
    elif not is_ready(pod):
        yield f"{name_of(key)} is not Ready"


def orphans(objects: Objects) -> Iterator[str]:
    """Objects that have owners and of whose owners none exists."""
    for key, obj in objects.by_key.items():
        uids = [str(ref["uid"]) for ref in owner_refs(obj)]
        if uids and all(objects.uid(uid) is None for uid in uids):
            yield f"{name_of(key)} has lost its owners"
