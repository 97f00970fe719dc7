"""Service."""

from __future__ import annotations

from typing import Any, Final

from raftkube.api.field_selectors import text_at
from raftkube.api.objects import child, default, items, section, setdefault_falsy
from raftkube.api.resource import Column, Object, Resource, Strategy
from raftkube.api.selectors import format_labels
from raftkube.api.services import validate_service, validate_service_update
from raftkube.api.tables import AGE, NAME, created
from raftkube.api.workloads import status_subresource

_AFFINITY_SECONDS: Final = 3 * 3600
_EXTERNAL: Final = ("NodePort", "LoadBalancer")
_INTERNAL: Final = ("ClusterIP", *_EXTERNAL)
# The fields that mean something for some types only.
_TYPE_FIELDS: Final = {
    "clusterIP": _INTERNAL, "clusterIPs": _INTERNAL, "ipFamilies": _INTERNAL, "ipFamilyPolicy": _INTERNAL,
    "internalTrafficPolicy": _INTERNAL, "externalTrafficPolicy": _EXTERNAL,
    "allocateLoadBalancerNodePorts": ("LoadBalancer",), "loadBalancerClass": ("LoadBalancer",),
    "healthCheckNodePort": ("LoadBalancer",),
}  # fmt: skip


def _default(service: Object) -> None:
    spec = child(service, "spec")
    setdefault_falsy(spec, "sessionAffinity", "None")
    setdefault_falsy(spec, "type", "ClusterIP")
    if spec["sessionAffinity"] == "ClientIP":
        client_ip = child(child(spec, "sessionAffinityConfig"), "clientIP")
        default(client_ip, "timeoutSeconds", _AFFINITY_SECONDS)
    for port in items(spec, "ports"):
        setdefault_falsy(port, "protocol", "TCP")
        setdefault_falsy(port, "targetPort", port.get("port"))
    if spec["type"] in _EXTERNAL:
        setdefault_falsy(spec, "externalTrafficPolicy", "Cluster")
    if spec["type"] == "LoadBalancer":
        default(spec, "allocateLoadBalancerNodePorts", True)
    if spec["type"] != "ExternalName":
        default(spec, "internalTrafficPolicy", "Cluster")
        _default_families(spec)


def _default_families(spec: dict[str, Any]) -> None:
    """One IPv4 address; clusterIPs repeats clusterIP."""
    default(spec, "ipFamilies", ["IPv4"])
    default(spec, "ipFamilyPolicy", "SingleStack")
    if spec.get("clusterIP") and not spec.get("clusterIPs"):
        spec["clusterIPs"] = [spec["clusterIP"]]
    elif spec.get("clusterIPs") and not spec.get("clusterIP"):
        spec["clusterIP"] = spec["clusterIPs"][0]


def _prepare_create(service: Object) -> None:
    service["status"] = {"loadBalancer": {}}


def _prepare_update(new: Object, old: Object) -> None:
    """What was allocated stays with a service that leaves it out (patchAllocatedValues), and goes when the
    type that it belonged to goes (dropTypeDependentFields)."""
    spec, old_spec = child(new, "spec"), section(old, "spec")
    for name in _TYPE_FIELDS:
        left_over = name in spec and spec[name] == old_spec.get(name) and _belongs(name, old_spec)
        if left_over and not _belongs(name, spec):
            del spec[name]
    if _belongs("clusterIP", spec) and _belongs("clusterIP", old_spec):
        _carry_address(spec, old_spec)
    ports, old_ports = items(spec, "ports"), items(old_spec, "ports")
    if spec.get("type") in _EXTERNAL and old_spec.get("type") in _EXTERNAL:
        _carry_node_ports(ports, old_ports)
    elif old_spec.get("type") in _EXTERNAL:
        _drop_node_ports(ports, old_ports)


def _belongs(name: str, spec: dict[str, Any]) -> bool:
    return spec.get("type") in _TYPE_FIELDS[name]


def _carry_address(spec: dict[str, Any], old_spec: dict[str, Any]) -> None:
    if not spec.get("clusterIP") and not spec.get("clusterIPs"):
        for name in ("clusterIP", "clusterIPs"):
            if name in old_spec:
                spec[name] = old_spec[name]


def _drop_node_ports(ports: list[Any], old_ports: list[Any]) -> None:
    """Those that the client merely sent back; a new one is its mistake, for validation to name."""
    allocated = {port.get("nodePort") for port in old_ports}
    for port in ports:
        if port.get("nodePort") in allocated:
            port.pop("nodePort", None)


def _carry_node_ports(ports: list[Any], old_ports: list[Any]) -> None:
    taken = {port.get("nodePort") for port in ports}
    allocated = {(port.get("protocol"), port.get("port")): port.get("nodePort") for port in old_ports}
    for port in ports:
        former = allocated.get((port.get("protocol"), port.get("port")))
        if former and not port.get("nodePort") and former not in taken:
            port["nodePort"] = former


def _external_ip(spec: dict[str, Any], status: dict[str, Any]) -> str:
    kind, external = spec.get("type"), items(spec, "externalIPs")
    if kind == "ExternalName":
        return str(spec.get("externalName") or "")
    if kind == "LoadBalancer":
        ingress = items(section(status, "loadBalancer"), "ingress")
        found = [item.get("ip") or item.get("hostname") or "" for item in ingress]
        return ",".join([*found, *external]) or "<pending>"
    return ",".join(external) or "<none>"


def _port(port: dict[str, Any]) -> str:
    node_port = f":{port['nodePort']}" if port.get("nodePort") else ""
    return f"{port.get('port')}{node_port}/{port.get('protocol')}"


def _row(service: Object, now: float) -> list[Any]:
    spec = section(service, "spec")
    addresses = items(spec, "clusterIPs")
    return [
        service["metadata"].get("name", ""),
        spec.get("type", ""),
        addresses[0] if addresses else spec.get("clusterIP") or "<none>",
        _external_ip(spec, section(service, "status")),
        ",".join(_port(port) for port in items(spec, "ports")) or "<none>",
        created(service, now),
        format_labels(spec.get("selector")),
    ]


RESOURCE = Resource(
    group="", version="v1", kind="Service", plural="services", singular="service",
    namespaced=True, schema="io.k8s.api.core.v1.Service", short_names=("svc",), categories=("all",),
    subresources=(status_subresource("Service"),),
    columns=(
        NAME,
        Column("Type", description="type determines how the Service is exposed."),
        Column(
            "Cluster-IP",
            description="clusterIP is the IP address of the service and is usually assigned "
            "randomly.",
        ),
        Column(
            "External-IP",
            description="externalIPs is a list of IP addresses for which nodes in the cluster "
            "will also accept traffic for this service.",
        ),
        Column("Port(s)", description="The list of ports that are exposed by this service."),
        AGE,
        Column(
            "Selector",
            description="Route service traffic to pods with label keys and values matching this "
            "selector.", priority=1,
        ),
    ),
    row=_row,
    field_selectors={"spec.clusterIP": text_at("spec", "clusterIP"), "spec.type": text_at("spec", "type")},
    strategy=Strategy(
        default=_default, prepare_create=_prepare_create, prepare_update=_prepare_update,
        validate=validate_service, validate_update=validate_service_update, name_format="dns_1035_label",
        create_on_update=True,
    ),
)  # fmt: skip
