"""What kinds with a pod template share: its defaults, its rules, its columns, int-or-percent values."""

from __future__ import annotations

import re
from typing import Any, Final

from raftkube.api import fields
from raftkube.api.names import validate_annotations, validate_labels
from raftkube.api.objects import child, section
from raftkube.api.podspec.defaults import default_pod_spec
from raftkube.api.podspec.validation import validate_pod_spec
from raftkube.api.resource import Column, Object, Subresource
from raftkube.api.selectors import label_selector_of, validate_label_selector
from raftkube.api.status import FieldError

_PERCENT = re.compile("[0-9]+%")
_PERCENT_TEXT: Final = (
    "a valid percent string must be a numeric followed by an ending '%' "
    "(e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')"
)
WIDE_COLUMNS: Final = (
    Column("Containers", description="Names of each container in the template.", priority=1),
    Column("Images", description="Images referenced by each container in the template.", priority=1),
    Column("Selector", description="Selector is a label query over pods. It must match the pod template's "
           "labels.", priority=1),
)  # fmt: skip
_COUNTS: Final = ("replicas", "updatedReplicas", "fullyLabeledReplicas", "readyReplicas", "availableReplicas")
STATUS: Final = ("get", "patch", "update")


def status_subresource(kind: str, group: str = "", version: str = "") -> Subresource:
    """The `status` subresource of a kind."""
    return Subresource("status", kind, STATUS, group, version)


SCALE: Final = Subresource("scale", "Scale", STATUS, "autoscaling", "v1")


def default_template(spec: dict[str, Any]) -> None:
    """The defaults of spec.template."""
    template = child(spec, "template")
    child(template, "metadata")
    default_pod_spec(child(template, "spec"))


def validate_template(spec: dict[str, Any], path: str, *, workload: str) -> list[FieldError]:
    """Rules of spec.template for workloads that run for ever. workload: its kind, for messages."""
    template = section(spec, "template")
    meta, pod_spec = section(template, "metadata"), section(template, "spec")
    errors = validate_labels(section(meta, "labels"), f"{path}.metadata.labels")
    errors += validate_annotations(section(meta, "annotations"), f"{path}.metadata.annotations")
    errors += validate_pod_spec(pod_spec, f"{path}.spec")
    policy = pod_spec.get("restartPolicy")
    if policy and policy != "Always":
        errors.append(fields.not_supported(f"{path}.spec.restartPolicy", policy, ["Always"]))
    if pod_spec.get("activeDeadlineSeconds") is not None:
        text = f"activeDeadlineSeconds in {workload} is not Supported"
        errors.append(fields.forbidden(f"{path}.spec.activeDeadlineSeconds", text))
    return errors


def validate_selector(spec: dict[str, Any], path: str, template_path: str) -> list[FieldError]:
    """spec.selector: given, not empty, valid, and matching the template's labels."""
    selector = spec.get("selector")
    if selector is None:
        return [fields.required(path)]
    errors = validate_label_selector(selector, path)
    if errors:
        return errors
    wanted = label_selector_of(selector)
    if wanted.empty:
        return [fields.invalid(path, selector, "empty selector is invalid for deployment")]
    labels = section(section(section(spec, "template"), "metadata"), "labels")
    if not wanted.matches(labels):
        text = "`selector` does not match template `labels`"
        return [fields.invalid(f"{template_path}.metadata.labels", labels, text)]
    return []


def validate_int_or_percent(path: str, value: Any) -> list[FieldError]:
    """A count ≥ 0, or a percentage."""
    if isinstance(value, str):
        return [] if _PERCENT.fullmatch(value) else [fields.invalid(path, value, _PERCENT_TEXT)]
    if isinstance(value, int):
        return fields.not_negative(path, value)
    return [fields.invalid(path, value, "must be an integer or percentage (e.g '5%')")]


def scaled(value: Any, total: int, *, round_up: bool) -> int:
    """The count that an int-or-percent means of `total`; of a malformed one, 0."""
    if isinstance(value, int):
        return value
    if not isinstance(value, str) or not _PERCENT.fullmatch(value):
        return 0
    product = int(value[:-1]) * total
    return -(-product // 100) if round_up else product // 100


def selector_text(obj: Object) -> str:
    """A Selector cell as Deployments show it: the selector's text form."""
    try:
        return str(label_selector_of(section(obj, "spec").get("selector")))
    except (KeyError, TypeError):
        return "<invalid>"


def keep_labels(new: Object, old: Object) -> None:
    """A write to status does not touch labels."""
    if "labels" in old["metadata"]:
        new["metadata"]["labels"] = old["metadata"]["labels"]
    else:
        new["metadata"].pop("labels", None)


def validate_status_counts(new: Object, old: Object) -> list[FieldError]:
    """Counts of pods are no less than none, and no part is greater than the whole."""
    status = section(new, "status")
    errors = [error for name in _COUNTS for error in fields.not_negative(f"status.{name}", status.get(name))]
    ready, available = (status.get(name) or 0 for name in ("readyReplicas", "availableReplicas"))
    for name in _COUNTS[1:]:
        if (status.get(name) or 0) > (status.get("replicas") or 0):
            text = "cannot be greater than status.replicas"
            errors.append(fields.invalid(f"status.{name}", status[name], text))
    if available > ready:
        text = "cannot be greater than readyReplicas"
        errors.append(fields.invalid("status.availableReplicas", available, text))
    return errors
