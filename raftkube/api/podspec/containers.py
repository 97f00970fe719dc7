"""The rules of containers. Source: pkg/apis/core/validation/validation.go, ValidateContainers."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

from raftkube.api import fields
from raftkube.api.names import (
    config_key_errors,
    dns_label_errors,
    env_name_errors,
    port_errors,
    port_name_errors,
    qualified_name_errors,
)
from raftkube.api.objects import items, section
from raftkube.api.quantity import Quantity, QuantityError, quantity
from raftkube.api.status import FieldError

_PULL_POLICIES: Final = ("Always", "IfNotPresent", "Never")
_MESSAGE_POLICIES: Final = ("FallbackToLogsOnError", "File")
_PROTOCOLS: Final = ("SCTP", "TCP", "UDP")
_PROBES: Final = ("livenessProbe", "readinessProbe", "startupProbe")
_HANDLERS: Final = ("exec", "httpGet", "tcpSocket", "grpc")
_LIFECYCLE_HANDLERS: Final = ("exec", "httpGet", "tcpSocket", "sleep")
_COMPUTE: Final = ("cpu", "memory", "ephemeral-storage")
_ENV_SOURCES: Final = ("fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef")

Container = dict[str, Any]


def validate_container_lists(spec: dict[str, Any], path: str, volumes: Collection[str]) -> list[FieldError]:
    """containers, initContainers and ephemeralContainers; names are unique over all."""
    errors = [] if items(spec, "containers") else [fields.required(f"{path}.containers")]
    names: set[str] = set()
    for kind in ("containers", "initContainers", "ephemeralContainers"):
        for index, container in enumerate(items(spec, kind)):
            at = f"{path}.{kind}[{index}]"
            errors += _validate_name(container, at, names)
            errors += _validate_container(container, at, volumes, probes=_may_probe(kind, container))
            if spec.get("hostNetwork"):
                errors += _validate_host_network(container, at)
    return errors + _validate_host_ports(spec, path)


def _may_probe(kind: str, container: Container) -> bool:
    return kind == "containers" or (kind == "initContainers" and container.get("restartPolicy") == "Always")


def _validate_name(container: Container, path: str, names: set[str]) -> list[FieldError]:
    name = container.get("name") or ""
    if not name:
        return [fields.required(f"{path}.name")]
    errors = fields.all_invalid(f"{path}.name", name, dns_label_errors(name))
    if name in names:
        errors.append(fields.duplicate(f"{path}.name", name))
    names.add(name)
    return errors


def _validate_container(
    container: Container, path: str, volumes: Collection[str], *, probes: bool
) -> list[FieldError]:
    return [
        *validate_image(container, path),
        *fields.one_of(
            f"{path}.terminationMessagePolicy", container.get("terminationMessagePolicy"), _MESSAGE_POLICIES
        ),
        *fields.one_of(f"{path}.imagePullPolicy", container.get("imagePullPolicy"), _PULL_POLICIES),
        *_validate_ports(items(container, "ports"), f"{path}.ports"),
        *_validate_env(items(container, "env"), f"{path}.env"),
        *_validate_env_from(items(container, "envFrom"), f"{path}.envFrom"),
        *_validate_mounts(items(container, "volumeMounts"), f"{path}.volumeMounts", volumes),
        *_validate_probes(container, path, allowed=probes),
        *_validate_lifecycle(section(container, "lifecycle"), f"{path}.lifecycle"),
        *validate_resources(section(container, "resources"), f"{path}.resources"),
    ]


def validate_image(container: Container, path: str) -> list[FieldError]:
    """An image, without blanks around it."""
    image = container.get("image") or ""
    if not image:
        return [fields.required(f"{path}.image")]
    if image != image.strip():
        return [fields.invalid(f"{path}.image", image, "must not have leading or trailing whitespace")]
    return []


def _validate_ports(ports: list[dict[str, Any]], path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    names: set[str] = set()
    for index, port in enumerate(ports):
        at, name, number = f"{path}[{index}]", port.get("name") or "", port.get("containerPort") or 0
        if name:
            errors += fields.all_invalid(f"{at}.name", name, port_name_errors(name))
            if name in names:
                errors.append(fields.duplicate(f"{at}.name", name))
            names.add(name)
        if not number:
            errors.append(fields.required(f"{at}.containerPort"))
        else:
            errors += fields.all_invalid(f"{at}.containerPort", number, port_errors(number))
        if port.get("hostPort"):
            errors += fields.all_invalid(f"{at}.hostPort", port["hostPort"], port_errors(port["hostPort"]))
        errors += fields.one_of(f"{at}.protocol", port.get("protocol"), _PROTOCOLS)
    return errors


def _validate_host_network(container: Container, path: str) -> list[FieldError]:
    return [
        fields.invalid(f"{path}.ports[{index}].hostPort", port.get("hostPort"), "must match `containerPort`")
        for index, port in enumerate(items(container, "ports"))
        if port.get("hostPort") != port.get("containerPort")
    ]


def _validate_host_ports(spec: dict[str, Any], path: str) -> list[FieldError]:
    """No two containers of a pod take one port of the host."""
    errors: list[FieldError] = []
    taken: set[tuple[Any, ...]] = set()
    for number, container in enumerate(items(spec, "containers")):
        for index, port in enumerate(items(container, "ports")):
            if port.get("hostPort"):
                key = port.get("protocol"), port.get("hostIP") or "", port["hostPort"]
                if key in taken:
                    text = "/".join(str(part) for part in key)
                    at = f"{path}.containers[{number}].ports[{index}].hostPort"
                    errors.append(fields.duplicate(at, text))
                taken.add(key)
    return errors


def _validate_env(variables: list[dict[str, Any]], path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    for index, variable in enumerate(variables):
        at, name = f"{path}[{index}]", variable.get("name") or ""
        if not name:
            errors.append(fields.required(f"{at}.name"))
        else:
            errors += fields.all_invalid(f"{at}.name", name, env_name_errors(name))
        if variable.get("valueFrom") is not None:
            errors += _validate_env_source(variable, f"{at}.valueFrom")
    return errors


def _validate_env_source(variable: dict[str, Any], path: str) -> list[FieldError]:
    source = variable["valueFrom"]
    given = [name for name in _ENV_SOURCES if source.get(name) is not None]
    if not given:
        text = f"must specify one of: `{'`, `'.join(_ENV_SOURCES[:-1])}` or `{_ENV_SOURCES[-1]}`"
        return [fields.invalid(path, "", text)]
    if variable.get("value"):
        return [fields.invalid(path, "", "may not be specified when `value` is not empty")]
    if len(given) > 1:
        return [fields.invalid(path, "", "may not have more than one field specified at a time")]
    return _validate_key_ref(source[given[0]], f"{path}.{given[0]}", given[0])


def _validate_key_ref(reference: dict[str, Any], path: str, kind: str) -> list[FieldError]:
    if kind == "fieldRef":
        return [] if reference.get("fieldPath") else [fields.required(f"{path}.fieldPath")]
    if kind == "resourceFieldRef":
        return [] if reference.get("resource") else [fields.required(f"{path}.resource")]
    if kind == "fileKeyRef":
        return []
    key = reference.get("key") or ""
    if not key:
        return [fields.required(f"{path}.key")]
    return fields.all_invalid(f"{path}.key", key, config_key_errors(key))


def _validate_env_from(sources: list[dict[str, Any]], path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    for index, source in enumerate(sources):
        at, prefix = f"{path}[{index}]", source.get("prefix") or ""
        if prefix:
            errors += fields.all_invalid(f"{at}.prefix", prefix, env_name_errors(prefix))
        given = [name for name in ("configMapRef", "secretRef") if source.get(name) is not None]
        if not given:
            errors.append(fields.invalid(at, "", "must specify one of: `configMapRef` or `secretRef`"))
        elif len(given) > 1:
            errors.append(fields.invalid(at, "", "may not have more than one field specified at a time"))
        elif not source[given[0]].get("name"):
            errors.append(fields.required(f"{at}.{given[0]}.name"))
    return errors


def _validate_mounts(mounts: list[dict[str, Any]], path: str, volumes: Collection[str]) -> list[FieldError]:
    errors: list[FieldError] = []
    points: set[str] = set()
    for index, mount in enumerate(mounts):
        at, name, point = f"{path}[{index}]", mount.get("name") or "", mount.get("mountPath") or ""
        if not name:
            errors.append(fields.required(f"{at}.name"))
        elif name not in volumes:
            errors.append(fields.not_found(f"{at}.name", name))
        if not point:
            errors.append(fields.required(f"{at}.mountPath"))
        elif point in points:
            errors.append(fields.invalid(f"{at}.mountPath", point, "must be unique"))
        points.add(point)
        if mount.get("subPath") and mount.get("subPathExpr"):
            text = "subPathExpr and subPath are mutually exclusive"
            errors.append(fields.invalid(f"{at}.subPathExpr", mount["subPathExpr"], text))
        for sub in ("subPath", "subPathExpr"):
            errors += validate_local_path(mount.get(sub) or "", f"{at}.{sub}")
    return errors


def validate_local_path(text: str, path: str) -> list[FieldError]:
    """A relative path that stays below where it starts."""
    if text.startswith("/"):
        return [fields.invalid(path, text, "must be a relative path")]
    if ".." in text.split("/"):
        return [fields.invalid(path, text, "must not contain '..'")]
    return []


def _validate_probes(container: Container, path: str, *, allowed: bool) -> list[FieldError]:
    errors: list[FieldError] = []
    for kind in _PROBES:
        probe = container.get(kind)
        if probe is None:
            continue
        if not allowed:
            text = "may not be set for init containers without restartPolicy=Always"
            errors.append(fields.forbidden(f"{path}.{kind}", text))
            continue
        errors += _validate_probe(probe, f"{path}.{kind}")
        if kind != "readinessProbe" and probe.get("successThreshold") != 1:
            at = f"{path}.{kind}.successThreshold"
            errors.append(fields.invalid(at, probe.get("successThreshold"), "must be 1"))
    return errors


def _validate_probe(probe: dict[str, Any], path: str) -> list[FieldError]:
    errors = _validate_handler(probe, path, _HANDLERS)
    for name in ("initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold",
                 "failureThreshold"):  # fmt: skip
        errors += fields.not_negative(f"{path}.{name}", probe.get(name))
    grace = probe.get("terminationGracePeriodSeconds")
    if grace is not None and grace <= 0:
        errors.append(
            fields.invalid(f"{path}.terminationGracePeriodSeconds", grace, "must be greater than 0")
        )
    return errors


def _validate_handler(handler: dict[str, Any], path: str, kinds: tuple[str, ...]) -> list[FieldError]:
    given = [name for name in kinds if handler.get(name) is not None]
    if not given:
        return [fields.required(path, "must specify a handler type")]
    if len(given) > 1:
        text = "may not specify more than 1 handler type"
        return [fields.forbidden(f"{path}.{name}", text) for name in given[1:]]
    return _validate_action(handler[given[0]], f"{path}.{given[0]}", given[0])


def _validate_action(action: dict[str, Any], path: str, kind: str) -> list[FieldError]:
    if kind == "exec":
        return [] if items(action, "command") else [fields.required(f"{path}.command")]
    if kind == "sleep":
        return []
    port = action.get("port")
    if isinstance(port, str):
        errors = fields.all_invalid(f"{path}.port", port, port_name_errors(port))
    else:
        errors = fields.all_invalid(f"{path}.port", port or 0, port_errors(port or 0))
    if kind == "httpGet":
        errors += fields.one_of(f"{path}.scheme", action.get("scheme"), ("HTTP", "HTTPS"))
    return errors


def _validate_lifecycle(lifecycle: dict[str, Any], path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    for name in ("postStart", "preStop"):
        if lifecycle.get(name) is not None:
            errors += _validate_handler(lifecycle[name], f"{path}.{name}", _LIFECYCLE_HANDLERS)
    return errors


def validate_resources(resources: dict[str, Any], path: str) -> list[FieldError]:
    """Amounts are quantities ≥ 0 of known resources; no request exceeds its limit."""
    limit_errors, limits = _amounts(section(resources, "limits"), f"{path}.limits")
    errors, requests = _amounts(section(resources, "requests"), f"{path}.requests")
    errors = limit_errors + errors
    for name, request in requests.items():
        limit = limits.get(name)
        if limit is not None and limit < request:
            text = f"must be less than or equal to {name} limit of {limit}"
            errors.append(fields.invalid(f"{path}.requests", str(request), text))
        if name not in _COMPUTE and limit != request:
            errors += _not_overcommitted(name, limit, f"{path}")
    return errors


def _not_overcommitted(name: str, limit: Quantity | None, path: str) -> list[FieldError]:
    if limit is None:
        text = "Limit must be set for non overcommitable resources"
        return [fields.required(f"{path}.limits", text)]
    return []


def _amounts(amounts: dict[str, Any], path: str) -> tuple[list[FieldError], dict[str, Quantity]]:
    errors: list[FieldError] = []
    found: dict[str, Quantity] = {}
    for name, value in amounts.items():
        errors += _validate_resource_name(name, f"{path}[{name}]" if "/" in name else f"{path}.{name}")
        try:
            amount = quantity(value)
        except QuantityError as error:
            errors.append(fields.invalid(f"{path}[{name}]", value, str(error)))
            continue
        if amount.nano < 0:
            text = "must be greater than or equal to 0"
            errors.append(fields.invalid(f"{path}[{name}]", value, text))
        elif name not in _COMPUTE and amount.nano % 10**9:
            errors.append(fields.invalid(f"{path}[{name}]", value, "must be an integer"))
        found[name] = amount
    return errors, found


def _validate_resource_name(name: str, path: str) -> list[FieldError]:
    errors = fields.all_invalid(path, name, qualified_name_errors(name))
    if not errors and "/" not in name and name not in _COMPUTE and not name.startswith("hugepages-"):
        errors.append(fields.invalid(path, name, "must be a standard resource type or fully qualified"))
        errors.append(fields.invalid(path, name, "must be a standard resource for containers"))
    return errors
