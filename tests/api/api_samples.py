"""Objects that the tests of raftkube.api start from, and the way through create and update."""

from __future__ import annotations

from typing import Any

from raftkube.api.metadata import prepare_new, prepare_update
from raftkube.api.objects import copy_json
from raftkube.api.registry import find
from raftkube.api.resource import Object, Resource
from raftkube.api.status import FieldError
from raftkube.api.timestamps import seconds
from raftkube.api.validation import validate_create, validate_update

CREATED = "2026-01-01T00:00:00Z"
T0 = seconds(CREATED)


def resource(plural: str) -> Resource:
    for group in ("", "apps", "coordination.k8s.io"):
        found = find(group, "v1", plural)
        if found is not None:
            return found
    raise AssertionError(f"no such resource: {plural}")


def create(plural: str, obj: Object, namespace: str = "default") -> tuple[Object, list[FieldError]]:
    """(the object as it would be stored, what is wrong with it)."""
    kind = resource(plural)
    new = copy_json(obj)
    kind.strategy.default(new)
    own = namespace if kind.namespaced else ""
    prepare_new(new, kind, own, uid="uid-1", now_rfc3339=CREATED, suffix="x7k2p")
    return new, validate_create(kind, new)


def created_ok(plural: str, obj: Object) -> Object:
    new, errors = create(plural, obj)
    assert [str(error) for error in errors] == []
    return new


def create_errors(plural: str, obj: Object) -> list[str]:
    return [str(error) for error in create(plural, obj)[1]]


def update(plural: str, old: Object, change: Any) -> tuple[Object, list[str]]:
    """`change` alters a copy of `old` in place, as a client would; then (new, what is wrong)."""
    kind = resource(plural)
    new = copy_json(old)
    change(new)
    kind.strategy.default(new)
    prepare_update(new, old, kind)
    return new, [str(error) for error in validate_update(kind, new, old)]


def pod(**spec: Any) -> Object:
    return {
        "metadata": {"name": "web"},
        "spec": {"containers": [{"name": "app", "image": "nginx:1.27"}], **spec},
    }


def container(**more: Any) -> dict[str, Any]:
    return {"name": "app", "image": "nginx:1.27", **more}


def deployment(**spec: Any) -> Object:
    return {
        "metadata": {"name": "web"},
        "spec": {
            "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [container()]}},
            **spec,
        },
    }


def service(**spec: Any) -> Object:
    return {"metadata": {"name": "web"}, "spec": {"ports": [{"port": 80}], **spec}}
