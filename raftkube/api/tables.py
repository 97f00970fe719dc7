"""Other forms of an object: Table for people, PartialObjectMetadata for those who need no more.

Source: k8s.io/apiserver/pkg/endpoints/handlers/response.go, k8s.io/apimachinery/pkg/util/duration.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from raftkube.api.resource import Column, Object, Resource
from raftkube.api.status import bad_request
from raftkube.api.timestamps import seconds_or_none

_META_API: Final = "meta.k8s.io/v1"
INCLUDE_OBJECT: Final = ("None", "Metadata", "Object")
NAME: Final = Column(
    "Name", format="name",
    description="Name must be unique within a namespace. Is required when creating resources, although some "
    "resources may allow a client to request the generation of an appropriate name automatically.",
)  # fmt: skip
AGE: Final = Column(
    "Age",
    description="CreationTimestamp is a timestamp representing the server time when this object was created.",
)
_MINUTE, _HOUR, _DAY, _YEAR = 60, 3600, 86400, 365 * 86400


def duration(seconds: float) -> str:
    """A length of time for people: 2-3 significant figures (duration.HumanDuration)."""
    whole = int(seconds)
    if whole < -1:
        return "<invalid>"
    if whole < 2 * _MINUTE:
        return f"{max(whole, 0)}s"
    if whole < 10 * _MINUTE:
        return _two(whole, _MINUTE, "m", 1, "s")
    if whole < 3 * _HOUR:
        return f"{whole // _MINUTE}m"
    if whole < 8 * _HOUR:
        return _two(whole, _HOUR, "h", _MINUTE, "m")
    if whole < 48 * _HOUR:
        return f"{whole // _HOUR}h"
    if whole < 8 * _DAY:
        return _two(whole, _DAY, "d", _HOUR, "h")
    if whole < 2 * _YEAR:
        return f"{whole // _DAY}d"
    if whole < 8 * _YEAR:
        return _two(whole, _YEAR, "y", _DAY, "d")
    return f"{whole // _YEAR}y"


def _two(whole: int, unit: int, name: str, small: int, small_name: str) -> str:
    rest = whole % unit // small
    return f"{whole // unit}{name}{rest}{small_name}" if rest else f"{whole // unit}{name}"


def age(timestamp: Any, now: float) -> str:
    """How long ago `timestamp` was; `<unknown>` if absent. now: wall seconds."""
    then = seconds_or_none(timestamp)
    return "<unknown>" if then is None else duration(now - then)


def created(obj: Object, now: float) -> str:
    """The Age cell."""
    return age(obj["metadata"].get("creationTimestamp"), now)


def column_definitions(resource: Resource) -> list[dict[str, Any]]:
    """The Table's columnDefinitions."""
    return [
        {"name": column.name, "type": column.type, "format": column.format,
         "description": column.description, "priority": column.priority}
        for column in resource.columns
    ]  # fmt: skip


def row(resource: Resource, obj: Object, now: float, include_object: str = "Metadata") -> dict[str, Any]:
    """One row of a Table. include_object: None, Metadata or Object."""
    cells: dict[str, Any] = {"cells": resource.row(obj, now)}
    if include_object == "Metadata":
        cells["object"] = partial_metadata(obj)
    elif include_object == "Object":
        cells["object"] = obj
    return cells


def table(
    resource: Resource,
    objects: Iterable[Object],
    now: float,
    include_object: str = "Metadata",
    list_metadata: Mapping[str, Any] | None = None,
    *,
    with_columns: bool = True,
) -> dict[str, Any]:
    """A meta.k8s.io/v1 Table of the objects.

    now: wall seconds, for ages. list_metadata: the list's (resourceVersion, continue, …). In a watch only
    the first event carries columns: with_columns=False for the others.
    """
    return {
        "kind": "Table",
        "apiVersion": _META_API,
        "metadata": dict(list_metadata or {}),
        "columnDefinitions": column_definitions(resource) if with_columns else None,
        "rows": [row(resource, obj, now, include_object) for obj in objects],
    }


def check_include_object(value: str) -> str:
    """Of the `includeObject` parameter ("" is Metadata). Raises ApiError 400: another word."""
    if value and value not in INCLUDE_OBJECT:
        names = ", ".join(INCLUDE_OBJECT)
        raise bad_request(f'unrecognized includeObject value: "{value}"; it must be one of {names}')
    return value or "Metadata"


def partial_metadata(obj: Object) -> Object:
    """A PartialObjectMetadata of an object."""
    return {"kind": "PartialObjectMetadata", "apiVersion": _META_API, "metadata": obj.get("metadata") or {}}


def partial_metadata_list(objects: Iterable[Object], list_metadata: Mapping[str, Any]) -> Object:
    """A PartialObjectMetadataList of objects."""
    return {
        "kind": "PartialObjectMetadataList",
        "apiVersion": _META_API,
        "metadata": dict(list_metadata),
        "items": [partial_metadata(obj) for obj in objects],
    }
