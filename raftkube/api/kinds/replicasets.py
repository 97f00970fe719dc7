"""ReplicaSet (apps/v1)."""

from __future__ import annotations

from typing import Any

from raftkube.api import fields
from raftkube.api.field_selectors import text_at
from raftkube.api.objects import child, default, section
from raftkube.api.podspec.status import container_cells
from raftkube.api.resource import Column, Object, Resource, Strategy
from raftkube.api.selectors import format_label_selector
from raftkube.api.status import FieldError
from raftkube.api.tables import AGE, NAME, created
from raftkube.api.workloads import (
    SCALE,
    WIDE_COLUMNS,
    default_template,
    keep_labels,
    status_subresource,
    validate_selector,
    validate_status_counts,
    validate_template,
)


def _default(replica_set: Object) -> None:
    spec = child(replica_set, "spec")
    default(spec, "replicas", 1)
    default_template(spec)


def _prepare_create(replica_set: Object) -> None:
    replica_set["status"] = {"replicas": 0}


def _validate(replica_set: Object) -> list[FieldError]:
    spec = section(replica_set, "spec")
    errors = fields.not_negative("spec.replicas", spec.get("replicas"))
    errors += fields.not_negative("spec.minReadySeconds", spec.get("minReadySeconds"))
    errors += validate_selector(spec, "spec.selector", "spec.template")
    return errors + validate_template(spec, "spec.template", workload="ReplicaSet")


def _validate_update(new: Object, old: Object) -> list[FieldError]:
    selector, old_selector = section(new, "spec").get("selector"), section(old, "spec").get("selector")
    return fields.immutable("spec.selector", selector, old_selector)


def _row(replica_set: Object, now: float) -> list[Any]:
    spec, status = section(replica_set, "spec"), section(replica_set, "status")
    return [
        replica_set["metadata"].get("name", ""),
        spec.get("replicas") or 0,
        status.get("replicas") or 0,
        status.get("readyReplicas") or 0,
        created(replica_set, now),
        *container_cells(section(section(spec, "template"), "spec")),
        format_label_selector(spec.get("selector")),
    ]


RESOURCE = Resource(
    group="apps", version="v1", kind="ReplicaSet", plural="replicasets", singular="replicaset",
    namespaced=True, schema="io.k8s.api.apps.v1.ReplicaSet", short_names=("rs",), categories=("all",),
    subresources=(SCALE, status_subresource("ReplicaSet")),
    columns=(
        NAME,
        Column("Desired", "integer", description="Replicas is the number of desired pods."),
        Column(
            "Current", "integer",
            description="Replicas is the most recently observed number of non-terminating pods.",
        ),
        Column(
            "Ready", "integer",
            description="The number of non-terminating pods targeted by this ReplicaSet with a "
            "Ready Condition.",
        ),
        AGE,
        *WIDE_COLUMNS,
    ),
    row=_row,
    field_selectors={"status.replicas": lambda rs: text_at("status", "replicas")(rs) or "0"},
    strategy=Strategy(
        default=_default, prepare_create=_prepare_create, prepare_status_update=keep_labels,
        validate=_validate, validate_update=_validate_update,
        validate_status_update=validate_status_counts, generation=True,
    ),
)  # fmt: skip
