"""The rules of a pod specification as a whole; those of containers and volumes are beside.

Source: pkg/apis/core/validation/validation.go, ValidatePodSpec.
"""

from __future__ import annotations

from typing import Any, Final

from raftkube.api import fields
from raftkube.api.names import (
    dns_label_errors,
    dns_subdomain_errors,
    label_value_errors,
    qualified_name_errors,
    validate_labels,
)
from raftkube.api.objects import items, section
from raftkube.api.podspec.containers import validate_container_lists
from raftkube.api.podspec.placement import validate_affinity, validate_spread_constraints
from raftkube.api.podspec.volumes import validate_volumes
from raftkube.api.resource import Object
from raftkube.api.status import FieldError

_RESTART_POLICIES: Final = ("Always", "Never", "OnFailure")
_DNS_POLICIES: Final = ("ClusterFirst", "ClusterFirstWithHostNet", "Default", "None")
_EFFECTS: Final = ("NoSchedule", "PreferNoSchedule", "NoExecute")
_INT32_MAX: Final = 2**31 - 1

Spec = dict[str, Any]


def validate_pod(pod: Object) -> list[FieldError]:
    """All that is wrong with a Pod by itself."""
    return validate_pod_spec(section(pod, "spec"), "spec")


def validate_pod_spec(spec: Spec, path: str) -> list[FieldError]:
    """All that is wrong with a pod specification that stands at `path`."""
    volume_errors, volumes = validate_volumes(items(spec, "volumes"), f"{path}.volumes")
    return [
        *volume_errors,
        *validate_container_lists(spec, path, volumes),
        *fields.one_of(f"{path}.restartPolicy", spec.get("restartPolicy"), _RESTART_POLICIES),
        *fields.one_of(f"{path}.dnsPolicy", spec.get("dnsPolicy"), _DNS_POLICIES),
        *validate_labels(section(spec, "nodeSelector"), f"{path}.nodeSelector"),
        *_validate_seconds(spec, path),
        *_validate_names(spec, path),
        *validate_tolerations(items(spec, "tolerations"), f"{path}.tolerations"),
        *validate_affinity(section(spec, "affinity"), f"{path}.affinity"),
        *validate_spread_constraints(
            items(spec, "topologySpreadConstraints"), f"{path}.topologySpreadConstraints"
        ),
        *_validate_gates(spec, path),
    ]


def _validate_seconds(spec: Spec, path: str) -> list[FieldError]:
    errors = []
    deadline = spec.get("activeDeadlineSeconds")
    if deadline is not None:
        errors += fields.in_range(f"{path}.activeDeadlineSeconds", deadline, 1, _INT32_MAX)
    return errors + fields.not_negative(
        f"{path}.terminationGracePeriodSeconds", spec.get("terminationGracePeriodSeconds")
    )


def _validate_names(spec: Spec, path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    for name in ("serviceAccountName", "nodeName", "priorityClassName", "runtimeClassName"):
        if spec.get(name):
            errors += fields.all_invalid(f"{path}.{name}", spec[name], dns_subdomain_errors(spec[name]))
    for name in ("hostname", "subdomain"):
        if spec.get(name):
            errors += fields.all_invalid(f"{path}.{name}", spec[name], dns_label_errors(spec[name]))
    for index, secret in enumerate(items(spec, "imagePullSecrets")):
        if not secret.get("name"):
            errors.append(fields.required(f"{path}.imagePullSecrets[{index}].name"))
    return errors


def validate_tolerations(tolerations: list[dict[str, Any]], path: str) -> list[FieldError]:
    """Key, operator, value and effect of each fit together."""
    errors: list[FieldError] = []
    for index, toleration in enumerate(tolerations):
        errors += _validate_toleration(toleration, f"{path}[{index}]")
    return errors


def _validate_toleration(toleration: dict[str, Any], path: str) -> list[FieldError]:
    key, value = toleration.get("key") or "", toleration.get("value") or ""
    operator, effect = toleration.get("operator") or "Equal", toleration.get("effect") or ""
    errors = fields.all_invalid(f"{path}.key", key, qualified_name_errors(key)) if key else []
    if not key and operator != "Exists":
        text = 'operator must be Exists when `key` is empty, which means "match all values and all keys"'
        errors.append(fields.invalid(f"{path}.operator", operator, text))
    if toleration.get("tolerationSeconds") is not None and effect != "NoExecute":
        text = "effect must be 'NoExecute' when `tolerationSeconds` is set"
        errors.append(fields.invalid(f"{path}.effect", effect, text))
    if operator == "Equal":
        errors += fields.all_invalid(f"{path}.operator", value, label_value_errors(value))
    elif operator == "Exists" and value:
        text = "value must be empty when `operator` is 'Exists'"
        errors.append(fields.invalid(f"{path}.operator", toleration, text))
    elif operator != "Exists":
        errors.append(fields.not_supported(f"{path}.operator", operator, ["Equal", "Exists"]))
    return errors + (fields.one_of(f"{path}.effect", effect, _EFFECTS) if effect else [])


def _validate_gates(spec: Spec, path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    seen: set[str] = set()
    for index, gate in enumerate(items(spec, "schedulingGates")):
        name, at = gate.get("name") or "", f"{path}.schedulingGates[{index}]"
        if not name:
            errors.append(fields.required(at, "must not be empty"))
        elif name in seen:
            errors.append(fields.duplicate(at, name))
        else:
            errors += fields.all_invalid(at, name, qualified_name_errors(name))
        seen.add(name)
    for index, gate in enumerate(items(spec, "readinessGates")):
        kind = gate.get("conditionType") or ""
        at = f"{path}.readinessGates[{index}].conditionType"
        errors += fields.all_invalid(at, kind, qualified_name_errors(kind))
    return errors
