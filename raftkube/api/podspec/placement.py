"""The rules of affinity and topology spread.

Source: pkg/apis/core/validation/validation.go, validateAffinity and validateTopologySpreadConstraints.
"""

from __future__ import annotations

from typing import Any, Final

from raftkube.api import fields
from raftkube.api.names import qualified_name_errors
from raftkube.api.objects import items, section
from raftkube.api.selectors import validate_label_selector
from raftkube.api.status import FieldError

_REQUIRED: Final = "requiredDuringSchedulingIgnoredDuringExecution"
_PREFERRED: Final = "preferredDuringSchedulingIgnoredDuringExecution"
_WITHOUT_VALUES: Final = ("Exists", "DoesNotExist")
_ONE_VALUE: Final = ("Gt", "Lt")


def validate_affinity(affinity: dict[str, Any], path: str) -> list[FieldError]:
    """Of nodes, of pods, and away from pods."""
    errors = _validate_node_affinity(section(affinity, "nodeAffinity"), f"{path}.nodeAffinity")
    for name in ("podAffinity", "podAntiAffinity"):
        errors += _validate_pod_affinity(section(affinity, name), f"{path}.{name}")
    return errors


def _validate_node_affinity(affinity: dict[str, Any], path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    if affinity.get(_REQUIRED) is not None:
        terms, at = items(affinity[_REQUIRED], "nodeSelectorTerms"), f"{path}.{_REQUIRED}.nodeSelectorTerms"
        if not terms:
            errors.append(fields.required(at, "must have at least one node selector term"))
        for index, term in enumerate(terms):
            errors += _validate_node_term(term, f"{at}[{index}]")
    for index, preference in enumerate(items(affinity, _PREFERRED)):
        at = f"{path}.{_PREFERRED}[{index}]"
        errors += _validate_weight(preference, at)
        errors += _validate_node_term(section(preference, "preference"), f"{at}.preference")
    return errors


def _validate_weight(term: dict[str, Any], path: str) -> list[FieldError]:
    weight = term.get("weight") or 0
    if 1 <= weight <= 100:
        return []
    return [fields.invalid(f"{path}.weight", weight, "must be in the range 1-100")]


def _validate_node_term(term: dict[str, Any], path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    for index, requirement in enumerate(items(term, "matchExpressions")):
        errors += _validate_requirement(requirement, f"{path}.matchExpressions[{index}]")
    for index, requirement in enumerate(items(term, "matchFields")):
        errors += _validate_match_field(requirement, f"{path}.matchFields[{index}]")
    return errors


def _validate_requirement(requirement: dict[str, Any], path: str) -> list[FieldError]:
    operator, values = requirement.get("operator"), items(requirement, "values")
    key = requirement.get("key") or ""
    errors: list[FieldError] = []
    if operator in ("In", "NotIn"):
        if not values:
            text = "must be specified when `operator` is 'In' or 'NotIn'"
            errors.append(fields.required(f"{path}.values", text))
    elif operator in _WITHOUT_VALUES:
        if values:
            text = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
            errors.append(fields.forbidden(f"{path}.values", text))
    elif operator in _ONE_VALUE:
        if len(values) != 1:
            text = "must be specified single value when `operator` is 'Lt' or 'Gt'"
            errors.append(fields.required(f"{path}.values", text))
    else:
        errors.append(fields.invalid(f"{path}.operator", operator or "", "not a valid selector operator"))
    return errors + fields.all_invalid(f"{path}.key", key, qualified_name_errors(key))


def _validate_match_field(requirement: dict[str, Any], path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    if requirement.get("operator") not in ("In", "NotIn"):
        text = "not a valid selector operator"
        errors.append(fields.invalid(f"{path}.operator", requirement.get("operator") or "", text))
    elif len(items(requirement, "values")) != 1:
        text = "must be only one value when `operator` is 'In' or 'NotIn' for node field selector"
        errors.append(fields.required(f"{path}.values", text))
    if requirement.get("key") != "metadata.name":
        text = "not a valid field selector key"
        errors.append(fields.invalid(f"{path}.key", requirement.get("key") or "", text))
    return errors


def _validate_pod_affinity(affinity: dict[str, Any], path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    for index, term in enumerate(items(affinity, _REQUIRED)):
        errors += _validate_pod_term(term, f"{path}.{_REQUIRED}[{index}]")
    for index, preference in enumerate(items(affinity, _PREFERRED)):
        at = f"{path}.{_PREFERRED}[{index}]"
        errors += _validate_weight(preference, at)
        errors += _validate_pod_term(section(preference, "podAffinityTerm"), f"{at}.podAffinityTerm")
    return errors


def _validate_pod_term(term: dict[str, Any], path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    for name in ("labelSelector", "namespaceSelector"):
        errors += validate_label_selector(section(term, name), f"{path}.{name}")
    key = term.get("topologyKey") or ""
    if not key:
        return [*errors, fields.required(f"{path}.topologyKey", "can not be empty")]
    return errors + fields.all_invalid(f"{path}.topologyKey", key, qualified_name_errors(key))


def validate_spread_constraints(constraints: list[dict[str, Any]], path: str) -> list[FieldError]:
    """maxSkew above 0, a topology key, a known action."""
    errors: list[FieldError] = []
    for index, constraint in enumerate(constraints):
        at = f"{path}[{index}]"
        if (constraint.get("maxSkew") or 0) <= 0:
            errors.append(
                fields.invalid(f"{at}.maxSkew", constraint.get("maxSkew") or 0, "must be greater than zero")
            )
        if not constraint.get("topologyKey"):
            errors.append(fields.required(f"{at}.topologyKey", "can not be empty"))
        errors += fields.one_of(
            f"{at}.whenUnsatisfiable",
            constraint.get("whenUnsatisfiable"),
            ("DoNotSchedule", "ScheduleAnyway"),
        )
        errors += validate_label_selector(section(constraint, "labelSelector"), f"{at}.labelSelector")
    return errors
