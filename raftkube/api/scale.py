"""autoscaling/v1 Scale: the `scale` subresource of a workload, to and from.

Source: pkg/registry/apps/deployment/storage/storage.go (scaleFromDeployment, scaleUpdatedObjectInfo).
"""

from __future__ import annotations

from typing import Any

from raftkube.api import fields
from raftkube.api.objects import section
from raftkube.api.resource import Object
from raftkube.api.selectors import label_selector_of
from raftkube.api.status import FieldError, bad_request


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
