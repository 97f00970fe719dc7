"""Namespace."""

from __future__ import annotations

from typing import Any, Final

from raftkube.api import fields
from raftkube.api.field_selectors import text_at
from raftkube.api.metadata import metadata_of
from raftkube.api.names import qualified_name_errors
from raftkube.api.objects import child, items, section
from raftkube.api.resource import Column, Object, Resource, Strategy, Subresource
from raftkube.api.status import FieldError
from raftkube.api.tables import AGE, NAME, created
from raftkube.api.workloads import status_subresource

NAME_LABEL: Final = "kubernetes.io/metadata.name"
FINALIZER: Final = "kubernetes"


def _default(namespace: Object) -> None:
    """The label repeats the name, always: selectors of policies rely on it."""
    meta = metadata_of(namespace)
    if meta.get("name"):
        child(meta, "labels")[NAME_LABEL] = meta["name"]


def _prepare_create(namespace: Object) -> None:
    _default(namespace)  # again: generateName has its name only now
    spec = child(namespace, "spec")
    if FINALIZER not in items(spec, "finalizers"):
        spec["finalizers"] = [*items(spec, "finalizers"), FINALIZER]
    namespace["status"] = {"phase": "Active"}


def _prepare_update(new: Object, old: Object) -> None:
    """Only the `finalize` subresource changes spec.finalizers."""
    new["spec"] = old.get("spec", {})


def _prepare_deletion(namespace: Object) -> None:
    namespace["status"] = {**section(namespace, "status"), "phase": "Terminating"}


def _held(namespace: Object) -> bool:
    return bool(items(section(namespace, "spec"), "finalizers"))


def _validate(namespace: Object) -> list[FieldError]:
    return [
        error
        for index, name in enumerate(items(section(namespace, "spec"), "finalizers"))
        for error in fields.all_invalid(f"spec.finalizers[{index}]", name, qualified_name_errors(name))
    ]


def _validate_status(new: Object, old: Object) -> list[FieldError]:
    phase, deleted = section(new, "status").get("phase"), new["metadata"].get("deletionTimestamp")
    if deleted and phase != "Terminating":
        text = "may only be 'Terminating' if `deletionTimestamp` is not empty"
        return [fields.invalid("status.phase", phase, text)]
    if not deleted and phase == "Terminating":
        text = "may not be 'Terminating' if `deletionTimestamp` is empty"
        return [fields.invalid("status.phase", phase, text)]
    return []


def _row(namespace: Object, now: float) -> list[Any]:
    phase = section(namespace, "status").get("phase", "")
    return [namespace["metadata"].get("name", ""), phase, created(namespace, now)]


RESOURCE = Resource(
    group="", version="v1", kind="Namespace", plural="namespaces", singular="namespace",
    namespaced=False, schema="io.k8s.api.core.v1.Namespace", short_names=("ns",),
    verbs=("create", "delete", "get", "list", "patch", "update", "watch"),
    subresources=(Subresource("finalize", "Namespace", ("update",)), status_subresource("Namespace")),
    columns=(NAME, Column("Status", description="The status of the namespace"), AGE),
    row=_row,
    field_selectors={"status.phase": text_at("status", "phase"), "name": text_at("metadata", "name")},
    strategy=Strategy(
        default=_default, prepare_create=_prepare_create, prepare_update=_prepare_update,
        validate=_validate, validate_status_update=_validate_status,
        deletion_held=_held, prepare_deletion=_prepare_deletion, name_format="dns_label",
    ),
)  # fmt: skip
