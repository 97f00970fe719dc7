"""A Service's rules, and what the allocator of cluster addresses asks and sets.

Source: pkg/apis/core/validation/validation.go, ValidateService and ValidateServiceUpdate.
"""

from __future__ import annotations

import ipaddress
from typing import Any, Final

from raftkube.api import fields
from raftkube.api.names import (
    dns_label_errors,
    dns_subdomain_errors,
    port_errors,
    port_name_errors,
    validate_labels,
)
from raftkube.api.objects import child, items, section
from raftkube.api.resource import Object
from raftkube.api.status import FieldError

_TYPES: Final = ("ClusterIP", "ExternalName", "LoadBalancer", "NodePort")
_PROTOCOLS: Final = ("SCTP", "TCP", "UDP")
_POLICIES: Final = ("Cluster", "Local")
HEADLESS: Final = "None"


def needs_cluster_ip(service: Object) -> bool:
    """Whether an address is to be allocated: no headless one, no external name, none given."""
    spec = section(service, "spec")
    return spec.get("type") != "ExternalName" and not spec.get("clusterIP")


def set_cluster_ip(service: Object, address: str) -> None:
    """Put an allocated address in, in place."""
    spec = child(service, "spec")
    spec["clusterIP"], spec["clusterIPs"] = address, [address]


def validate_service(service: Object) -> list[FieldError]:
    """All that is wrong with a Service by itself."""
    spec = section(service, "spec")
    kind = spec.get("type") or ""
    errors = fields.one_of("spec.type", kind, _TYPES)
    errors += fields.one_of("spec.sessionAffinity", spec.get("sessionAffinity"), ("ClientIP", "None"))
    errors += validate_labels(section(spec, "selector"), "spec.selector")
    if kind == "ExternalName":
        return errors + _validate_external_name(spec)
    errors += _validate_ports(spec, kind)
    errors += _validate_addresses(spec)
    if kind == "LoadBalancer" and spec.get("clusterIP") == HEADLESS:
        text = "may not be set to 'None' for LoadBalancer services"
        errors.append(fields.invalid("spec.clusterIPs[0]", HEADLESS, text))
    for name in ("internalTrafficPolicy", "externalTrafficPolicy"):
        if spec.get(name):
            errors += fields.one_of(f"spec.{name}", spec[name], _POLICIES)
    if spec.get("externalTrafficPolicy") and kind == "ClusterIP" and not spec.get("externalIPs"):
        text = "may only be set for externally-accessible services"
        errors.append(fields.invalid("spec.externalTrafficPolicy", spec["externalTrafficPolicy"], text))
    return errors


def _validate_external_name(spec: dict[str, Any]) -> list[FieldError]:
    name = (spec.get("externalName") or "").removesuffix(".")
    errors: list[FieldError] = []
    if spec.get("clusterIP"):
        text = "may not be set for ExternalName services"
        errors.append(fields.forbidden("spec.clusterIPs", text))
    if not name:
        return [*errors, fields.required("spec.externalName")]
    return errors + fields.all_invalid("spec.externalName", name, dns_subdomain_errors(name))


def _validate_ports(spec: dict[str, Any], kind: str) -> list[FieldError]:
    ports = items(spec, "ports")
    if not ports and spec.get("clusterIP") != HEADLESS:
        return [fields.required("spec.ports")]
    errors: list[FieldError] = []
    names: set[str] = set()
    targets: set[tuple[Any, Any]] = set()
    node_ports: set[tuple[Any, Any]] = set()
    for index, port in enumerate(ports):
        path = f"spec.ports[{index}]"
        errors += _validate_port(port, path, named=len(ports) > 1, kind=kind)
        name = port.get("name")
        if name and name in names:
            errors.append(fields.duplicate(f"{path}.name", name))
        names.add(name or "")
        target = port.get("protocol"), port.get("port")
        if target in targets:
            errors.append(fields.duplicate(path, {"protocol": target[0], "port": target[1]}))
        targets.add(target)
        node_port = port.get("protocol"), port.get("nodePort")
        if node_port[1] and node_port in node_ports:
            errors.append(fields.duplicate(f"{path}.nodePort", node_port[1]))
        node_ports.add(node_port)
    return errors


def _validate_port(port: dict[str, Any], path: str, *, named: bool, kind: str) -> list[FieldError]:
    name = port.get("name") or ""
    errors = [fields.required(f"{path}.name")] if named and not name else []
    if name:
        errors += fields.all_invalid(f"{path}.name", name, dns_label_errors(name))
    errors += fields.all_invalid(f"{path}.port", port.get("port") or 0, port_errors(port.get("port") or 0))
    errors += fields.one_of(f"{path}.protocol", port.get("protocol"), _PROTOCOLS)
    errors += _validate_target_port(port.get("targetPort"), f"{path}.targetPort")
    if kind == "ClusterIP" and port.get("nodePort"):
        text = "may not be used when `type` is 'ClusterIP'"
        errors.append(fields.forbidden(f"{path}.nodePort", text))
    return errors


def _validate_target_port(target: Any, path: str) -> list[FieldError]:
    if isinstance(target, str):
        return fields.all_invalid(path, target, port_name_errors(target))
    return fields.all_invalid(path, target, port_errors(target)) if isinstance(target, int) else []


def _validate_addresses(spec: dict[str, Any]) -> list[FieldError]:
    addresses, first = items(spec, "clusterIPs"), spec.get("clusterIP") or ""
    errors: list[FieldError] = []
    if addresses and addresses[0] != first:
        errors.append(fields.invalid("spec.clusterIPs", addresses, "first value must match `clusterIP`"))
    for index, address in enumerate(addresses):
        if address != HEADLESS and not is_ip(address):
            text = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"
            errors.append(fields.invalid(f"spec.clusterIPs[{index}]", address, text))
    for index, address in enumerate(items(spec, "externalIPs")):
        if not is_ip(address):
            text = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"
            errors.append(fields.invalid(f"spec.externalIPs[{index}]", address, text))
    return errors


def is_ip(text: Any) -> bool:
    """Whether `text` is an IPv4 or IPv6 address."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return isinstance(text, str)


def validate_service_update(new: Object, old: Object) -> list[FieldError]:
    """The cluster address stays, unless the service turns to or from ExternalName."""
    spec, old_spec = section(new, "spec"), section(old, "spec")
    if "ExternalName" in (spec.get("type"), old_spec.get("type")):
        return []
    addresses, old_addresses = items(spec, "clusterIPs"), items(old_spec, "clusterIPs")
    if old_addresses and addresses[:1] != old_addresses[:1]:
        return [fields.invalid("spec.clusterIPs[0]", addresses, "may not change once set")]
    return []
