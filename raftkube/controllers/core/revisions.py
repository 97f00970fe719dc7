"""A Deployment's ReplicaSets as its history: which is the new one, their revisions and annotations, and
what a new one looks like. Source: k8s.io/kubernetes/pkg/controller/deployment/util/deployment_util.go.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from raftkube.api.objects import copy_json, section
from raftkube.api.resource import Object
from raftkube.controllers.core.owners import controller_reference, is_deleting
from raftkube.controllers.core.pod_template import TEMPLATE_HASH, labels_of, same_template, template_hash
from raftkube.controllers.core.replica_set import replicas_of
from raftkube.controllers.core.rollout import (
    DESIRED_REPLICAS,
    MAX_REPLICAS,
    REVISION,
    annotated,
    by_age,
    max_replicas,
    reported,
)

REVISION_HISTORY: Final = "deployment.kubernetes.io/revision-history"
_HISTORY_CHARS_MAX: Final = 2_000
_UNLIMITED: Final = 2**31 - 1
_NAME_CHARS_MAX: Final = 253
# Annotations of a Deployment that its ReplicaSets do not get.
_NOT_COPIED: Final = frozenset(
    (
        "kubectl.kubernetes.io/last-applied-configuration",
        "deprecated.deployment.rollback.to",
        REVISION,
        REVISION_HISTORY,
        DESIRED_REPLICAS,
        MAX_REPLICAS,
    )
)


def find_new(deployment: Object, replica_sets: Iterable[Object]) -> Object | None:
    """The ReplicaSet of the current template; of several the oldest."""
    template = deployment["spec"]["template"]
    return next((rs for rs in by_age(replica_sets) if same_template(rs["spec"]["template"], template)), None)


def revision_of(obj: Object) -> int:
    """Its revision, 0 if it has none."""
    return annotated(obj, REVISION) or 0


def next_revision(old: Iterable[Object]) -> int:
    """One more than any old ReplicaSet's."""
    return max((revision_of(rs) for rs in old), default=0) + 1


def annotate_new(deployment: Object, rs: Object, revision: int) -> Object:
    """`rs`, an existing ReplicaSet that is the new one, with the Deployment's annotations, its revision and
    the history of those that it had; the same object if nothing changes. Source:
    SetNewReplicaSetAnnotations."""
    before = section(rs["metadata"], "annotations")
    after = before | _copied(deployment)
    own = revision_of(rs)
    if own < revision:
        after[REVISION] = str(revision)
        if own:
            after[REVISION_HISTORY] = _longer_history(before.get(REVISION_HISTORY, ""), own)
    if after == before:
        return rs
    return rs | {"metadata": rs["metadata"] | {"annotations": after}}


def _copied(deployment: Object) -> dict[str, str]:
    annotations = section(deployment["metadata"], "annotations")
    return {name: value for name, value in annotations.items() if name not in _NOT_COPIED}


def _longer_history(history: str, revision: int) -> str:
    """A comma-separated list, the oldest first, which are dropped when it becomes too long."""
    revisions = [part for part in history.split(",") if part] + [str(revision)]
    while len(",".join(revisions)) > _HISTORY_CHARS_MAX:
        revisions.pop(0)
    return ",".join(revisions)


def sized(deployment: Object, rs: Object, replicas: int) -> Object:
    """`rs` with this size, and the Deployment's in its annotations."""
    annotations = section(rs["metadata"], "annotations") | size_annotations(deployment)
    return rs | {
        "metadata": rs["metadata"] | {"annotations": annotations},
        "spec": rs["spec"] | {"replicas": replicas},
    }


def size_annotations(deployment: Object) -> dict[str, str]:
    """What proportional scaling needs to know later: the Deployment's size and limit now."""
    return {
        DESIRED_REPLICAS: str(replicas_of(deployment)),
        MAX_REPLICAS: str(max_replicas(deployment)),
    }


def make_new(deployment: Object, revision: int) -> Object:
    """The ReplicaSet of the current template, without pods. Its name depends on the template and
    status.collisionCount only, so making it twice makes it once."""
    spec, metadata = deployment["spec"], deployment["metadata"]
    hashed = template_hash(spec["template"], section(deployment, "status").get("collisionCount"))
    template = copy_json(spec["template"])
    template["metadata"] = section(template, "metadata") | {
        "labels": labels_of(template) | {TEMPLATE_HASH: hashed}
    }
    selector = copy_json(spec["selector"])
    selector["matchLabels"] = section(selector, "matchLabels") | {TEMPLATE_HASH: hashed}
    return {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {
            "name": _name(metadata["name"], hashed),
            "namespace": metadata["namespace"],
            "labels": dict(template["metadata"]["labels"]),
            "annotations": _copied(deployment) | {REVISION: str(revision)} | size_annotations(deployment),
            "ownerReferences": [controller_reference(deployment)],
        },
        "spec": {
            "replicas": 0,
            "minReadySeconds": int(spec.get("minReadySeconds") or 0),
            "selector": selector,
            "template": template,
        },
    }


def _name(deployment_name: str, hashed: str) -> str:
    """Short enough to be a name, the hash whole."""
    return f"{deployment_name[: _NAME_CHARS_MAX - len(hashed) - 1]}-{hashed}"


def expendable(deployment: Object, old: Sequence[Object]) -> list[Object]:
    """Old ReplicaSets beyond revisionHistoryLimit, the lowest revisions, if nothing of them runs.
    Source: cleanupDeployment."""
    limit = deployment["spec"].get("revisionHistoryLimit", 10)
    if limit is None or limit == _UNLIMITED:
        return []
    alive = sorted((rs for rs in old if not is_deleting(rs)), key=revision_of)
    return [rs for rs in alive[: max(0, len(alive) - int(limit))] if _is_idle(rs)]


def _is_idle(rs: Object) -> bool:
    observed = section(rs, "status").get("observedGeneration") or 0
    nothing = replicas_of(rs) == 0 and reported([rs], "replicas") == 0
    return nothing and (rs["metadata"].get("generation") or 0) <= observed
