"""What may change in a pod after it was created: very little.

Source: pkg/apis/core/validation/validation.go, ValidatePodUpdate.
"""

from __future__ import annotations

from typing import Any, Final

from raftkube.api import fields
from raftkube.api.objects import items, section
from raftkube.api.podspec.containers import validate_image
from raftkube.api.resource import Object
from raftkube.api.status import FieldError

_MAY_CHANGE: Final = (
    "pod updates may not change fields other than `spec.containers[*].image`,"
    "`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,"
    "`spec.tolerations` (only additions to existing tolerations),"
    "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"
)
_MUNGED: Final = ("containers", "initContainers", "activeDeadlineSeconds", "tolerations", "schedulingGates",
                  "terminationGracePeriodSeconds")  # fmt: skip

Spec = dict[str, Any]


def validate_pod_update(new: Object, old: Object) -> list[FieldError]:
    """All that is wrong with going from `old` to `new`, both defaulted."""
    spec, old_spec = section(new, "spec"), section(old, "spec")
    counted = _validate_counts(spec, old_spec)
    if counted:
        return counted
    errors = [
        error
        for kind in ("containers", "initContainers")
        for index, container in enumerate(items(spec, kind))
        for error in validate_image(container, f"spec.{kind}[{index}]")
    ]
    errors += _validate_deadline(spec.get("activeDeadlineSeconds"), old_spec.get("activeDeadlineSeconds"))
    errors += _validate_tolerations(items(spec, "tolerations"), items(old_spec, "tolerations"))
    errors += _validate_gates(items(spec, "schedulingGates"), items(old_spec, "schedulingGates"))
    return errors + _validate_rest(spec, old_spec)


def _validate_counts(spec: Spec, old_spec: Spec) -> list[FieldError]:
    return [
        fields.forbidden(f"spec.{kind}", "pod updates may not add or remove containers")
        for kind in ("containers", "initContainers")
        if len(items(spec, kind)) != len(items(old_spec, kind))
    ]


def _validate_deadline(new: int | None, old: int | None) -> list[FieldError]:
    path = "spec.activeDeadlineSeconds"
    if new is None:
        text = "must not update from a positive integer to nil value"
        return [] if old is None else [fields.invalid(path, None, text)]
    if old is not None and new > old:
        return [fields.invalid(path, new, "must be less than or equal to previous value")]
    return []


def _validate_tolerations(new: list[Any], old: list[Any]) -> list[FieldError]:
    """Additions only, and changes of tolerationSeconds."""
    known = [_without_seconds(toleration) for toleration in new]
    if all(_without_seconds(toleration) in known for toleration in old):
        return []
    text = "existing toleration can not be modified except its tolerationSeconds"
    return [fields.forbidden("spec.tolerations", text)]


def _without_seconds(toleration: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in toleration.items() if name != "tolerationSeconds"}


def _validate_gates(new: list[Any], old: list[Any]) -> list[FieldError]:
    former = {gate.get("name") for gate in old}
    text = "only deletion is allowed, but found new scheduling gate "
    return [
        fields.forbidden(f"spec.schedulingGates[{index}].name", f"{text}'{gate.get('name')}'")
        for index, gate in enumerate(new)
        if gate.get("name") not in former
    ]


def _validate_rest(spec: Spec, old_spec: Spec) -> list[FieldError]:
    changed = [
        f"spec.{name}"
        for name in sorted({*spec, *old_spec} - set(_MUNGED))
        if spec.get(name) != old_spec.get(name) and not (name == "nodeSelector" and _gated(spec, old_spec))
    ]
    for kind in ("containers", "initContainers"):
        changed += _changed_containers(items(spec, kind), items(old_spec, kind), f"spec.{kind}")
    grace, old_grace = (s.get("terminationGracePeriodSeconds") for s in (spec, old_spec))
    if grace != old_grace and not (grace == 1 and (old_grace or 0) < 0):
        changed.append("spec.terminationGracePeriodSeconds")
    return [fields.forbidden("spec", f"{_MAY_CHANGE}\nchanged: {', '.join(changed)}")] if changed else []


def _gated(spec: Spec, old_spec: Spec) -> bool:
    """Before it is let to the scheduler, a pod's node selector may be narrowed."""
    selector, old_selector = section(spec, "nodeSelector"), section(old_spec, "nodeSelector")
    return bool(items(old_spec, "schedulingGates")) and old_selector.items() <= selector.items()


def _changed_containers(new: list[Any], old: list[Any], path: str) -> list[str]:
    return [
        f"{path}[{index}].{name}"
        for index, (container, former) in enumerate(zip(new, old, strict=True))
        for name in sorted({*container, *former} - {"image"})
        if container.get(name) != former.get(name)
    ]
