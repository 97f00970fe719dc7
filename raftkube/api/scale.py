"""autoscaling/v1 Scale: the `scale` subresource of a workload, to and from.

Source: pkg/registry/apps/deployment/storage/storage.go (scaleFromDeployment, scaleUpdatedObjectInfo).
"""

from __future__ import annotations

from typing import Any, Final

from raftkube.api import fields
from raftkube.api.objects import section
from raftkube.api.resource import Column, Object, Resource
from raftkube.api.selectors import label_selector_of
from raftkube.api.status import FieldError, bad_request
from raftkube.api.tables import AGE, NAME, created


def scale_of(obj: Object) -> Object:
    """The Scale of a Deployment or ReplicaSet."""
    meta, spec = obj["metadata"], section(obj, "spec")
    carried = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {name: meta[name] for name in carried if name in meta},
        "spec": _replicas(spec.get("replicas")),
        "status": {
            "replicas": section(obj, "status").get("replicas") or 0,
            "selector": str(label_selector_of(spec.get("selector"))),
        },
    }


def _replicas(count: Any) -> dict[str, Any]:
    return {"replicas": count} if count else {}


def _row(scale: Object, now: float) -> list[Any]:
    """pkg/printers/internalversion/printers.go, printScale."""
    desired, actual = (section(scale, part).get("replicas") or 0 for part in ("spec", "status"))
    return [scale["metadata"].get("name", ""), desired, actual, created(scale, now)]


# No resource of its own: the form of the `scale` subresources.
SCALE_FORM: Final = Resource(
    group="autoscaling", version="v1", kind="Scale", plural="scales", singular="scale", namespaced=True,
    schema="io.k8s.api.autoscaling.v1.Scale",
    columns=(
        NAME,
        Column("Desired", "integer", description="desired number of instances for the scaled object."),
        Column("Available", "integer", description="actual number of observed instances of the scaled "
               "object."),
        AGE,
    ),
    row=_row, verbs=(),
)  # fmt: skip


def validate_scale(scale: Object) -> list[FieldError]:
    """All that is wrong with a Scale."""
    return fields.not_negative("spec.replicas", section(scale, "spec").get("replicas"))


def with_scale(obj: Object, scale: Object) -> Object:
    """A copy of `obj` with the replicas, and as preconditions the uid and resourceVersion, of `scale`.

    Raises ApiError 400: the Scale is of another object, or spec.replicas is no integer.
    """
    meta, scale_meta = obj["metadata"], section(scale, "metadata")
    for name in ("name", "namespace"):
        sent = scale_meta.get(name)
        if sent and sent != meta.get(name):
            raise bad_request(f"the {name} of the object ({sent}) does not match the {name} on the URL "
                              f"({meta.get(name)})")  # fmt: skip
    replicas = section(scale, "spec").get("replicas") or 0
    if type(replicas) is not int:
        raise bad_request("Scale: spec.replicas must be an integer")
    preconditions = {name: scale_meta[name] for name in ("uid", "resourceVersion") if scale_meta.get(name)}
    return {
        **obj,
        "metadata": {**meta, **preconditions},
        "spec": {**section(obj, "spec"), "replicas": replicas},
    }
