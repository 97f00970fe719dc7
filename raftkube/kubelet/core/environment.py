"""A container's environment and command line: sources resolved, `$(VAR)` expanded.

Source: k8s.io/kubernetes/third_party/forked/golang/expansion and kubelet's makeEnvironmentVariables.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from raftkube.kubelet.core import pods
from raftkube.kubelet.core.pods import Object

_REFERENCE: Final = re.compile(r"\$(?:\$|\(([^)]*)\))")
_KEYED_FIELD: Final = re.compile(r"metadata\.(labels|annotations)\['(.+)'\]")
_FIELDS: Final = {
    "metadata.name": ("metadata", "name"),
    "metadata.namespace": ("metadata", "namespace"),
    "metadata.uid": ("metadata", "uid"),
    "spec.nodeName": ("spec", "nodeName"),
    "spec.serviceAccountName": ("spec", "serviceAccountName"),
}


class ConfigRef(NamedTuple):
    """A ConfigMap or Secret that a container takes values from."""

    kind: str  # "configmap" or "secret", as upstream's messages say it
    name: str


class ContainerConfigError(Exception):
    """The container cannot be made from its configuration (CreateContainerConfigError)."""


# None: it does not exist.
Sources = Mapping[ConfigRef, Mapping[str, str] | None]


def expand(text: str, values: Mapping[str, str]) -> str:
    """`$(NAME)` becomes its value if there is one, `$$` becomes `$`, everything else stays."""

    def replace(match: re.Match[str]) -> str:
        if match[0] == "$$":
            return "$"
        return values.get(match[1], match[0])

    return _REFERENCE.sub(replace, text)


def references(container: Object) -> Iterable[ConfigRef]:
    """Every ConfigMap and Secret that this container's environment needs."""
    for source in container.get("envFrom") or ():
        yield from _refs(source, "configMapRef", "secretRef")
    for variable in container.get("env") or ():
        yield from _refs(variable.get("valueFrom") or {}, "configMapKeyRef", "secretKeyRef")


def _refs(source: Object, config_map: str, secret: str) -> Iterable[ConfigRef]:
    for field, kind in ((config_map, "configmap"), (secret, "secret")):
        if ref := source.get(field):
            yield ConfigRef(kind, str(ref.get("name", "")))


def make_environment(pod: Object, container: Object, sources: Sources, *, node_ip: str) -> dict[str, str]:
    """The variables that the pod asks for, in order: envFrom, then env, later ones win.

    Raises ContainerConfigError: a source that is not optional is missing.
    """
    values: dict[str, str] = {}
    for source in container.get("envFrom") or ():
        prefix = source.get("prefix", "")
        for field, kind in (("configMapRef", "configmap"), ("secretRef", "secret")):
            if ref := source.get(field):
                data = _source(ref, kind, sources)
                values |= {prefix + key: value for key, value in data.items()}
    for variable in container.get("env") or ():
        value = _value(variable, pod, container, sources, values, node_ip)
        if value is not None:
            values[variable["name"]] = value
    return values


def _source(ref: Object, kind: str, sources: Sources) -> Mapping[str, str]:
    data = sources.get(ConfigRef(kind, str(ref.get("name", ""))))
    if data is None:
        if ref.get("optional"):
            return {}
        raise ContainerConfigError(f'{kind} "{ref.get("name", "")}" not found')
    return data


def _value(
    variable: Object,
    pod: Object,
    container: Object,
    sources: Sources,
    values: Mapping[str, str],
    node_ip: str,
) -> str | None:
    source = variable.get("valueFrom")
    if not source:
        return expand(str(variable.get("value") or ""), values)
    if field := source.get("fieldRef"):
        return _field(pod, str(field.get("fieldPath", "")), node_ip)
    if resource := source.get("resourceFieldRef"):
        return _resource(pod, container, resource)
    for field_name, kind in (("configMapKeyRef", "configmap"), ("secretKeyRef", "secret")):
        if ref := source.get(field_name):
            return _key(pod, ref, kind, sources)
    raise ContainerConfigError(f"environment variable {variable['name']} has a source that is not known")


def _key(pod: Object, ref: Object, kind: str, sources: Sources) -> str | None:
    data = _source(ref, kind, sources)
    key = str(ref.get("key", ""))
    if key in data:
        return data[key]
    if ref.get("optional"):
        return None
    what = "ConfigMap" if kind == "configmap" else "Secret"
    place = f"{pod['metadata'].get('namespace', '')}/{ref.get('name', '')}"
    raise ContainerConfigError(f"couldn't find key {key} in {what} {place}")


def _field(pod: Object, path: str, node_ip: str) -> str:
    if path in ("status.podIP", "status.podIPs", "status.hostIP", "status.hostIPs"):
        return node_ip
    if path in _FIELDS:
        section, name = _FIELDS[path]
        return str(pod[section].get(name) or "")
    if match := _KEYED_FIELD.fullmatch(path):
        return str((pod["metadata"].get(match[1]) or {}).get(match[2], ""))
    raise ContainerConfigError(f"fieldPath {path!r} is not supported; see the API reference of fieldRef")


def _resource(pod: Object, container: Object, ref: Object) -> str:
    """The quantity as it is written; divisors are not applied."""
    named = ref.get("containerName")
    owner = next((c for c in pods.all_containers(pod) if c["name"] == named), container)
    section, _, name = str(ref.get("resource", "")).partition(".")
    return str(((owner.get("resources") or {}).get(section) or {}).get(name, "0"))


def make_command(container: Object, values: Mapping[str, str]) -> list[str]:
    """command and args with `$(VAR)` expanded; empty if the image is to say what runs."""
    if not names_command(container):
        return []
    words = [*(container.get("command") or ()), *(container.get("args") or ())]
    return [expand(str(word), values) for word in words]


def names_command(container: Object) -> bool:
    """Whether the container itself says what runs. args alone do unless they start with an option:
    for an image without an entrypoint they are the command (`kubectl run x --image=busybox -- sleep 9`)."""
    args = container.get("args") or ()
    return bool(container.get("command")) or bool(args and not str(args[0]).startswith("-"))
