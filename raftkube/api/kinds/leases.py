"""Lease (coordination.k8s.io): who leads, and until when."""

from __future__ import annotations

from typing import Any

from raftkube.api import fields
from raftkube.api.objects import child, section
from raftkube.api.resource import Column, Object, Resource, Strategy
from raftkube.api.status import FieldError
from raftkube.api.tables import AGE, NAME, created
from raftkube.api.timestamps import seconds_or_none


def _default(lease: Object) -> None:
    child(lease, "spec")


def _validate(lease: Object) -> list[FieldError]:
    spec = section(lease, "spec")
    errors: list[FieldError] = []
    length, transitions = spec.get("leaseDurationSeconds"), spec.get("leaseTransitions")
    if length is not None and length <= 0:
        errors.append(fields.invalid("spec.leaseDurationSeconds", length, "must be greater than 0"))
    if transitions is not None and transitions < 0:
        text = "must be greater than or equal to 0"
        errors.append(fields.invalid("spec.leaseTransitions", transitions, text))
    for name in ("acquireTime", "renewTime"):
        if spec.get(name) is not None and seconds_or_none(spec[name]) is None:
            text = "must be an RFC 3339 time with microseconds, such as 2006-01-02T15:04:05.000000Z"
            errors.append(fields.invalid(f"spec.{name}", spec[name], text))
    return errors


def _row(lease: Object, now: float) -> list[Any]:
    holder = section(lease, "spec").get("holderIdentity") or ""
    return [lease["metadata"].get("name", ""), holder, created(lease, now)]


RESOURCE = Resource(
    group="coordination.k8s.io", version="v1", kind="Lease", plural="leases", singular="lease",
    namespaced=True, schema="io.k8s.api.coordination.v1.Lease",
    columns=(
        NAME,
        Column(
            "Holder", description="holderIdentity contains the identity of the holder of a current lease.",
        ),
        AGE,
    ),
    row=_row,
    strategy=Strategy(
        default=_default, validate=_validate, unconditional_update=False, create_on_update=True
    ),
)  # fmt: skip
