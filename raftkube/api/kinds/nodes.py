"""Node."""

from __future__ import annotations

from typing import Any, Final

from raftkube.api import fields
from raftkube.api.field_selectors import flag_at
from raftkube.api.names import label_value_errors, qualified_name_errors
from raftkube.api.objects import child, items, section
from raftkube.api.quantity import canonicalize
from raftkube.api.resource import Column, Object, Resource, Strategy
from raftkube.api.status import FieldError
from raftkube.api.tables import AGE, NAME, created
from raftkube.api.workloads import status_subresource

_ROLE_PREFIX: Final = "node-role.kubernetes.io/"
_EFFECTS: Final = ("NoSchedule", "PreferNoSchedule", "NoExecute")
_CHANGEABLE: Final = ("unschedulable", "taints", "podCIDR", "podCIDRs", "providerID")


def _default(node: Object) -> None:
    child(node, "spec")
    status = child(node, "status")
    if status.get("capacity") and status.get("allocatable") is None:
        status["allocatable"] = dict(status["capacity"])
    for name in ("capacity", "allocatable"):
        canonicalize(status.get(name))


def _validate(node: Object) -> list[FieldError]:
    errors: list[FieldError] = []
    seen: set[tuple[Any, Any]] = set()
    for index, taint in enumerate(items(section(node, "spec"), "taints")):
        path = f"spec.taints[{index}]"
        errors += _validate_taint(taint, path)
        identity = taint.get("key"), taint.get("effect")
        if identity in seen:
            errors.append(fields.duplicate(path, taint))
        seen.add(identity)
    return errors


def _validate_taint(taint: dict[str, Any], path: str) -> list[FieldError]:
    key, value = taint.get("key") or "", taint.get("value") or ""
    return [
        *fields.all_invalid(f"{path}.key", key, qualified_name_errors(key)),
        *fields.all_invalid(f"{path}.value", value, label_value_errors(value)),
        *fields.one_of(f"{path}.effect", taint.get("effect"), _EFFECTS),
    ]


def _validate_update(new: Object, old: Object) -> list[FieldError]:
    spec, old_spec = section(new, "spec"), section(old, "spec")
    errors: list[FieldError] = []
    if old_spec.get("podCIDRs") and spec.get("podCIDRs") != old_spec["podCIDRs"]:
        text = 'node updates may not change podCIDR except from "" to valid'
        errors.append(fields.forbidden("spec.podCIDRs", text))
    if old_spec.get("providerID") and spec.get("providerID") != old_spec["providerID"]:
        text = 'node updates may not change providerID except from "" to valid'
        errors.append(fields.forbidden("spec.providerID", text))
    names = {*spec, *old_spec} - set(_CHANGEABLE)
    if any(spec.get(name) != old_spec.get(name) for name in names):
        errors.append(fields.forbidden("spec", "node updates may only change labels, taints, or capacity"))
    return errors


def _roles(node: Object) -> str:
    labels = section(node["metadata"], "labels")
    roles = {key.removeprefix(_ROLE_PREFIX) for key in labels if key.startswith(_ROLE_PREFIX)}
    roles.add(labels.get("kubernetes.io/role") or "")
    return ",".join(sorted(roles - {""})) or "<none>"


def _status(node: Object) -> str:
    ready = next((c for c in items(section(node, "status"), "conditions") if c.get("type") == "Ready"), None)
    word = "Unknown" if ready is None else "Ready" if ready.get("status") == "True" else "NotReady"
    return word + ",SchedulingDisabled" if section(node, "spec").get("unschedulable") else word


def _address(node: Object, kind: str) -> str:
    addresses = items(section(node, "status"), "addresses")
    found = (item.get("address") for item in addresses if item.get("type") == kind)
    return next(found, "") or "<none>"


def _row(node: Object, now: float) -> list[Any]:
    info = section(section(node, "status"), "nodeInfo")
    return [
        node["metadata"].get("name", ""), _status(node), _roles(node), created(node, now),
        info.get("kubeletVersion", ""), _address(node, "InternalIP"), _address(node, "ExternalIP"),
        info.get("osImage") or "<unknown>", info.get("kernelVersion") or "<unknown>",
        info.get("containerRuntimeVersion") or "<unknown>",
    ]  # fmt: skip


_ADDRESSES: Final = "List of addresses reachable to the node."

RESOURCE = Resource(
    group="", version="v1", kind="Node", plural="nodes", singular="node",
    namespaced=False, schema="io.k8s.api.core.v1.Node", short_names=("no",),
    subresources=(status_subresource("Node"),),
    columns=(
        NAME,
        Column("Status", description="The status of the node"),
        Column("Roles", description="The roles of the node"),
        AGE,
        Column("Version", description="Kubelet Version reported by the node."),
        Column("Internal-IP", description=_ADDRESSES, priority=1),
        Column("External-IP", description=_ADDRESSES, priority=1),
        Column(
            "OS-Image",
            description="OS Image reported by the node from /etc/os-release (e.g. Debian "
            "GNU/Linux 7 (wheezy)).", priority=1,
        ),
        Column(
            "Kernel-Version", description="Kernel Version reported by the node from 'uname -r'.", priority=1,
        ),
        Column(
            "Container-Runtime",
            description="ContainerRuntime Version reported by the node through runtime remote "
            "API.", priority=1,
        ),
    ),
    row=_row,
    field_selectors={"spec.unschedulable": flag_at("spec", "unschedulable")},
    strategy=Strategy(default=_default, validate=_validate, validate_update=_validate_update),
)  # fmt: skip
