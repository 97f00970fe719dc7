"""What this server serves, told to clients: /api, /apis and below, plain and aggregated, and /version.

Everything follows from the catalog of resources; a document is made when first asked for and kept as
bytes. Source: k8s.io/apiserver/pkg/endpoints/discovery, KEP-3352 (aggregated discovery).
"""

from __future__ import annotations

import base64
import hashlib
import platform
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from raftkube.api import codecs
from raftkube.api.negotiation import DISCOVERY_FORMS, PLAIN, Representation, Transform, negotiate
from raftkube.api.registry import BUILT_IN, ApiGroup, Catalog
from raftkube.api.resource import Resource, Subresource
from raftkube.version import KUBERNETES_VERSION, VERSION

Json = dict[str, Any]

_CACHED_MAX: Final = 256
# The client's address tells which server address to use; ours is whatever the client already uses.
_ANY_CLIENT: Final = "0.0.0.0/0"


@dataclass(frozen=True, slots=True)
class Document:
    """An answer that any client may keep: `etag` changes when the body does."""

    body: bytes
    content_type: str
    etag: str


class Discovery:
    """The discovery documents of one catalog. server_address: host:port that clients are told to use."""

    def __init__(self, catalog: Catalog = BUILT_IN, *, server_address: str = "") -> None:
        self._catalog = catalog
        self._server_address = server_address
        self._groups = {group.name: group for group in catalog.groups()}
        self._document = lru_cache(maxsize=_CACHED_MAX)(self._make)

    def respond(self, path: str, accept: str | None = None) -> Document | None:
        """The document at `path` (a trailing slash does not matter) in a form of `accept`.

        None: it is no discovery path, or names a group or version that is not served.
        Raises ApiError 406.
        """
        path = path.rstrip("/")
        if not self._serves(path):
            return None
        allowed = DISCOVERY_FORMS if path in ("/api", "/apis") else PLAIN
        return self._document(path, negotiate(accept, allowed))

    def _serves(self, path: str) -> bool:
        match path.split("/")[1:]:
            case ["version"] | ["api"] | ["apis"]:
                return True
            case ["api", version]:
                return self._has("", version)
            case ["apis", group]:
                return bool(group) and group in self._groups
            case ["apis", group, version]:
                return bool(group) and self._has(group, version)
            case _:
                return False

    def _has(self, group: str, version: str) -> bool:
        return group in self._groups and version in self._groups[group].versions

    def _make(self, path: str, form: Representation) -> Document:
        value = self._value(path, form.transform)
        body = codecs.encode(value, form.media)
        etag = hashlib.sha256(body).hexdigest().upper()[:32]
        return Document(body, _content_type(form), f'"{etag}"')

    def _value(self, path: str, form: Transform | None) -> Json:
        match path.split("/")[1:]:
            case ["version"]:
                return version_info()
            case ["api"]:
                core = [self._groups[""]] if "" in self._groups else []
                return self._aggregated(core, form) if form else self._core_versions(core)
            case ["apis"]:
                named = [group for group in self._groups.values() if group.name]
                return self._aggregated(named, form) if form else self._group_list(named)
            case ["apis", group]:
                return {"kind": "APIGroup", "apiVersion": "v1"} | self._group(self._groups[group])
            case ["api", version]:
                return self._resource_list("", version)
            case [_, group, version]:
                return self._resource_list(group, version)
            case other:
                raise AssertionError(f"not a discovery path: {other}")

    # --- the plain documents ---

    def _addresses(self) -> list[Json]:
        return [{"clientCIDR": _ANY_CLIENT, "serverAddress": self._server_address}]

    def _core_versions(self, core: list[ApiGroup]) -> Json:
        versions = [version for group in core for version in group.versions]
        return {
            "kind": "APIVersions", "versions": versions, "serverAddressByClientCIDRs": self._addresses(),
        }  # fmt: skip

    def _group_list(self, groups: list[ApiGroup]) -> Json:
        return {
            "kind": "APIGroupList",
            "apiVersion": "v1",
            "groups": [self._group(group) for group in groups],
        }

    def _group(self, group: ApiGroup) -> Json:
        versions = [
            {"groupVersion": f"{group.name}/{version}", "version": version} for version in group.versions
        ]
        return {"name": group.name, "versions": versions, "preferredVersion": versions[0]}

    def _resource_list(self, group: str, version: str) -> Json:
        entries: list[Json] = []
        for resource in self._catalog.in_version(group, version):
            entries.append(_entry(resource))
            entries += [_subentry(resource, sub) for sub in resource.subresources]
        return {
            "kind": "APIResourceList", "apiVersion": "v1",
            "groupVersion": f"{group}/{version}" if group else version, "resources": entries,
        }  # fmt: skip

    # --- the aggregated documents ---

    def _aggregated(self, groups: list[ApiGroup], form: Transform) -> Json:
        return {
            "kind": form.kind, "apiVersion": form.api_version, "metadata": {},
            "items": [self._group_discovery(group) for group in groups],
        }  # fmt: skip

    def _group_discovery(self, group: ApiGroup) -> Json:
        versions = [
            {
                "version": version,
                "resources": [_discovery(item) for item in self._catalog.in_version(group.name, version)],
                "freshness": "Current",
            }
            for version in group.versions
        ]
        metadata = {"creationTimestamp": None} | ({"name": group.name} if group.name else {})
        return {"metadata": metadata, "versions": versions}


def version_info() -> Json:
    """The document of /version."""
    major, minor, _ = KUBERNETES_VERSION.split(".")
    return {
        "major": major, "minor": minor, "emulationMajor": major, "emulationMinor": minor,
        "gitVersion": f"v{KUBERNETES_VERSION}+raftkube.{VERSION}", "gitCommit": "", "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z", "goVersion": f"none (Python {platform.python_version()})",
        "compiler": platform.python_implementation(), "platform": f"linux/{_architecture()}",
    }  # fmt: skip


def _architecture() -> str:
    """In Go's words."""
    machine = platform.machine()
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine)


def _content_type(form: Representation) -> str:
    # client-go takes an aggregated document only if its Content-Type says so in exactly these words.
    kind = form.transform
    return form.media if kind is None else f"{form.media};g={kind.group};v={kind.version};as={kind.kind}"


def _optional(resource: Resource) -> Json:
    found: Json = {}
    if resource.short_names:
        found["shortNames"] = list(resource.short_names)
    if resource.categories:
        found["categories"] = list(resource.categories)
    return found


def _entry(resource: Resource) -> Json:
    return {
        "name": resource.plural, "singularName": resource.singular, "namespaced": resource.namespaced,
        "kind": resource.kind, "verbs": sorted(resource.verbs),
    } | _optional(resource) | {"storageVersionHash": _storage_hash(resource)}  # fmt: skip


def _storage_hash(resource: Resource) -> str:
    """Opaque to clients; the same for as long as the stored form is (storageversionhashdata)."""
    text = f"{resource.group}/{resource.version}/{resource.kind}".encode()
    return base64.b64encode(hashlib.sha256(text).digest()[:8]).decode()


def _subentry(resource: Resource, sub: Subresource) -> Json:
    entry: Json = {
        "name": f"{resource.plural}/{sub.name}", "singularName": "", "namespaced": resource.namespaced,
    }  # fmt: skip
    if sub.version and (sub.group, sub.version) != (resource.group, resource.version):
        entry |= {"group": sub.group, "version": sub.version}
    return entry | {"kind": sub.kind, "verbs": sorted(sub.verbs)}


def _discovery(resource: Resource) -> Json:
    entry: Json = {
        "resource": resource.plural,
        "responseKind": {"group": resource.group, "version": resource.version, "kind": resource.kind},
        "scope": "Namespaced" if resource.namespaced else "Cluster",
        "singularResource": resource.singular, "verbs": sorted(resource.verbs),
    } | _optional(resource)  # fmt: skip
    if resource.subresources:
        entry["subresources"] = [_subdiscovery(resource, sub) for sub in resource.subresources]
    return entry


def _subdiscovery(resource: Resource, sub: Subresource) -> Json:
    group, version = (sub.group, sub.version) if sub.version else (resource.group, resource.version)
    return {
        "subresource": sub.name, "responseKind": {"group": group, "version": version, "kind": sub.kind},
        "verbs": sorted(sub.verbs),
    }  # fmt: skip
