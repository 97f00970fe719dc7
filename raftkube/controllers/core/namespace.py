"""A namespace that is being deleted: what its status says of what is left in it.

Source: k8s.io/kubernetes/pkg/controller/namespace/deletion (status_condition_utils.go).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from raftkube.api.objects import items, section
from raftkube.api.resource import Object
from raftkube.controllers.core.conditions import (
    find_condition,
    make_condition,
    with_condition,
    without_condition,
)

FINALIZER: Final = "kubernetes"


@dataclass(frozen=True, slots=True)
class Remains:
    """What is left: instances by resource (`pods.`, `deployments.apps`), by finalizer, and failures."""

    resources: Mapping[str, int] = field(default_factory=dict)
    finalizers: Mapping[str, int] = field(default_factory=dict)
    failures: Sequence[str] = ()

    @property
    def empty(self) -> bool:
        """Whether the namespace can go."""
        return not self.resources and not self.failures


def count_finalizers(objects: Sequence[Object]) -> dict[str, int]:
    """How many of the objects each finalizer holds."""
    counts: dict[str, int] = {}
    for obj in objects:
        for name in items(obj["metadata"], "finalizers"):
            counts[name] = counts.get(name, 0) + 1
    return counts


def status_of(namespace: Object, remains: Remains, *, now: float) -> Object:
    """The status with the conditions of the deletion."""
    status = section(namespace, "status")
    for kind, (holds, reason, message) in _conditions(remains).items():
        status = _with(status, make_condition(kind, str(holds), reason, message, now=now))
    return status


def _with(status: Object, condition: Object) -> Object:
    """Here the message tells of progress, so it is kept up to date."""
    found = find_condition(status, condition["type"])
    if found is None or found.get("message") == condition["message"]:
        return with_condition(status, condition)
    return with_condition(without_condition(status, condition["type"]), condition)


def _conditions(remains: Remains) -> dict[str, tuple[bool, str, str]]:
    resources = [
        f"{name} has {count} resource instances" for name, count in sorted(remains.resources.items())
    ]
    finalizers = [
        f"{name} in {count} resource instances" for name, count in sorted(remains.finalizers.items())
    ]
    failures = remains.failures
    return {
        "NamespaceDeletionDiscoveryFailure": (
            False, "ResourcesDiscovered", "All resources successfully discovered",
        ),
        "NamespaceDeletionGroupVersionParsingFailure": (
            False, "ParsedGroupVersions", "All legacy kube types successfully parsed",
        ),
        "NamespaceDeletionContentFailure": (
            (True, "ContentDeletionFailed", f"Failed to delete all resource types, "
             f"{len(failures)} remaining: {', '.join(failures)}")
            if failures
            else (False, "ContentDeleted", "All content successfully deleted, may be waiting on finalization")
        ),
        "NamespaceContentRemaining": (
            (True, "SomeResourcesRemain", f"Some resources are remaining: {', '.join(resources)}")
            if resources
            else (False, "ContentRemoved", "All content successfully removed")
        ),
        "NamespaceFinalizersRemaining": (
            (True, "SomeFinalizersRemain",
             f"Some content in the namespace has finalizers remaining: {', '.join(finalizers)}")
            if finalizers
            else (False, "ContentHasNoFinalizers", "All content-preserving finalizers finished")
        ),
    }  # fmt: skip
