"""Deployment (apps/v1)."""

from __future__ import annotations

from typing import Any, Final

from raftkube.api import fields
from raftkube.api.objects import child, default, section, setdefault_falsy
from raftkube.api.podspec.status import container_cells
from raftkube.api.resource import Column, Object, Resource, Strategy
from raftkube.api.status import FieldError
from raftkube.api.tables import AGE, NAME, created
from raftkube.api.workloads import (
    SCALE,
    WIDE_COLUMNS,
    default_template,
    keep_labels,
    scaled,
    selector_text,
    status_subresource,
    validate_int_or_percent,
    validate_selector,
    validate_status_counts,
    validate_template,
)

_SPEC: Final = "spec"
_ROLLING: Final = f"{_SPEC}.strategy.rollingUpdate"


def _default(deployment: Object) -> None:
    spec = child(deployment, "spec")
    default(spec, "replicas", 1)
    strategy = child(spec, "strategy")
    setdefault_falsy(strategy, "type", "RollingUpdate")
    if strategy["type"] == "RollingUpdate":
        rolling = child(strategy, "rollingUpdate")
        default(rolling, "maxUnavailable", "25%")
        default(rolling, "maxSurge", "25%")
    default(spec, "revisionHistoryLimit", 10)
    default(spec, "progressDeadlineSeconds", 600)
    default_template(spec)


def _prepare_create(deployment: Object) -> None:
    deployment["status"] = {}


def _prepare_update(new: Object, old: Object) -> None:
    """Annotations count as wanted state here, since rollouts copy them to ReplicaSets."""
    meta, old_meta = new["metadata"], old["metadata"]
    if section(meta, "annotations") != section(old_meta, "annotations"):
        meta["generation"] = old_meta.get("generation", 0) + 1


def _validate(deployment: Object) -> list[FieldError]:
    spec = section(deployment, "spec")
    errors = fields.not_negative(f"{_SPEC}.replicas", spec.get("replicas"))
    errors += validate_selector(spec, f"{_SPEC}.selector", f"{_SPEC}.template")
    errors += validate_template(spec, f"{_SPEC}.template", workload="ReplicaSet")
    errors += _validate_strategy(section(spec, "strategy"))
    for name in ("minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds"):
        errors += fields.not_negative(f"{_SPEC}.{name}", spec.get(name))
    deadline = spec.get("progressDeadlineSeconds")
    if deadline is not None and deadline <= (spec.get("minReadySeconds") or 0):
        text = "must be greater than minReadySeconds"
        errors.append(fields.invalid(f"{_SPEC}.progressDeadlineSeconds", deadline, text))
    return errors


def _validate_strategy(strategy: dict[str, Any]) -> list[FieldError]:
    kind, rolling = strategy.get("type"), strategy.get("rollingUpdate")
    if kind == "Recreate":
        text = "may not be specified when strategy `type` is 'Recreate'"
        return [] if rolling is None else [fields.forbidden(_ROLLING, text)]
    if kind != "RollingUpdate":
        return [fields.not_supported(f"{_SPEC}.strategy.type", kind, ["Recreate", "RollingUpdate"])]
    if rolling is None:
        text = "this should be defaulted and never be nil"
        return [fields.required(_ROLLING, text)]
    return _validate_rolling(rolling.get("maxUnavailable"), rolling.get("maxSurge"))


def _validate_rolling(unavailable: Any, surge: Any) -> list[FieldError]:
    path = f"{_ROLLING}.maxUnavailable"
    errors = validate_int_or_percent(path, unavailable)
    errors += validate_int_or_percent(f"{_ROLLING}.maxSurge", surge)
    if errors:
        return errors
    if scaled(unavailable, 100, round_up=True) == 0 and scaled(surge, 100, round_up=True) == 0:
        errors.append(fields.invalid(path, unavailable, "may not be 0 when `maxSurge` is 0"))
    if isinstance(unavailable, str) and int(unavailable[:-1]) > 100:
        errors.append(fields.invalid(path, unavailable, "must not be greater than 100%"))
    return errors


def _validate_update(new: Object, old: Object) -> list[FieldError]:
    return fields.immutable(
        f"{_SPEC}.selector", section(new, "spec").get("selector"), section(old, "spec").get("selector")
    )


def _row(deployment: Object, now: float) -> list[Any]:
    spec, status = section(deployment, "spec"), section(deployment, "status")
    return [
        deployment["metadata"].get("name", ""),
        f"{status.get('readyReplicas') or 0}/{spec.get('replicas') or 0}",
        status.get("updatedReplicas") or 0,
        status.get("availableReplicas") or 0,
        created(deployment, now),
        *container_cells(section(section(spec, "template"), "spec")),
        selector_text(deployment),
    ]


RESOURCE = Resource(
    group="apps", version="v1", kind="Deployment", plural="deployments", singular="deployment",
    namespaced=True, schema="io.k8s.api.apps.v1.Deployment", short_names=("deploy",), categories=("all",),
    subresources=(SCALE, status_subresource("Deployment")),
    columns=(
        NAME,
        Column("Ready", description="Number of the pod with ready state"),
        Column(
            "Up-to-date",
            description="Total number of non-terminating pods targeted by this deployment that "
            "have the desired template spec.",
        ),
        Column(
            "Available",
            description="Total number of available non-terminating pods (ready for at least "
            "minReadySeconds) targeted by this deployment.",
        ),
        AGE,
        *WIDE_COLUMNS,
    ),
    row=_row,
    strategy=Strategy(
        default=_default, prepare_create=_prepare_create, prepare_update=_prepare_update,
        prepare_status_update=keep_labels, validate=_validate, validate_update=_validate_update,
        validate_status_update=validate_status_counts,
        generation=True,
    ),
)  # fmt: skip
