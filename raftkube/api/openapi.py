"""OpenAPI v3 of what is served: an index and one document for each group and version.

kubectl reads it to validate (`create --validate`), to apply (merge keys, and whether PATCH takes
fieldValidation), to diff and to explain. The schemas are those of `schemas`, turned from the OpenAPI v2
dialect of the data into v3; the paths follow from the catalog.
Source: k8s.io/kube-openapi/pkg/handler3, pkg/openapiconv; the paths of k8s.io/kubernetes/api/openapi-spec/v3.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any, Final

import orjson

from raftkube.api import schemas
from raftkube.api.codecs import BODY_TYPES, JSON, PATCH_TYPES
from raftkube.api.registry import BUILT_IN, Catalog
from raftkube.api.resource import Resource, Subresource
from raftkube.version import KUBERNETES_VERSION

Json = dict[str, Any]

_META: Final = "io.k8s.apimachinery.pkg.apis.meta.v1."
_LIST_META: Final = _META + "ListMeta"
_STATUS: Final = _META + "Status"
_PATCH: Final = _META + "Patch"
_DELETE_OPTIONS: Final = _META + "DeleteOptions"
_COMPONENTS: Final = "#/components/schemas/"
_CACHED_MAX: Final = 256


@dataclass(frozen=True, slots=True)
class OpenApiDocument:
    """A document as JSON bytes. `hash` stands in the index's URL and, quoted, in the ETag."""

    body: bytes
    hash: str

    @property
    def etag(self) -> str:
        """The ETag header."""
        return f'"{self.hash}"'


class OpenApi:
    """The documents of one catalog, each made when first asked for (10–30 ms) and kept."""

    def __init__(self, catalog: Catalog = BUILT_IN) -> None:
        self._catalog = catalog
        self._names = {_document_name(group.name, version): (group.name, version)
                       for group in catalog.groups() for version in group.versions}  # fmt: skip
        self._document = lru_cache(maxsize=_CACHED_MAX)(self._make)

    def index(self) -> OpenApiDocument:
        """/openapi/v3: where every document is, with its hash."""
        return self._document("")

    def respond(self, path: str) -> OpenApiDocument | None:
        """The document at `path`: /openapi/v3 or /openapi/v3/apis/apps/v1; None if there is none."""
        name = path.rstrip("/").removeprefix("/openapi/v3").removeprefix("/")
        return self._document(name) if name in self._names or not name else None

    def _make(self, name: str) -> OpenApiDocument:
        value = self._group_version(*self._names[name]) if name else self._index()
        body = orjson.dumps(value)
        return OpenApiDocument(body, hashlib.sha512(body).hexdigest().upper())

    def _index(self) -> Json:
        paths = {
            name: {"serverRelativeURL": f"/openapi/v3/{name}?hash={self._document(name).hash}"}
            for name in self._names
        }
        return {"paths": paths}

    def _group_version(self, group: str, version: str) -> Json:
        resources = self._catalog.in_version(group, version)
        components = _with_references(_roots(resources)) | {
            _list_name(item): _list_schema(item) for item in resources if _list_name(item) not in _known()
        }
        return {
            "openapi": "3.0.0",
            "info": {"title": "Kubernetes", "version": f"v{KUBERNETES_VERSION}"},
            "paths": {path: item for resource in resources for path, item in _paths(resource).items()},
            "components": {"schemas": components},
        }


def _document_name(group: str, version: str) -> str:
    return f"apis/{group}/{version}" if group else f"api/{version}"


def _known() -> dict[str, Any]:
    return schemas.definitions()


# --- schemas ---


def _roots(resources: Iterable[Resource]) -> set[str]:
    """The definitions that the paths name, in addition to what they refer to."""
    roots = {_STATUS, _PATCH, _DELETE_OPTIONS, _LIST_META}
    for resource in resources:
        roots |= {resource.schema, _list_name(resource)}
        roots |= {name for sub in resource.subresources if (name := _sub_schema(resource, sub))}
    return {name for name in roots if name in _known()}


def _with_references(roots: set[str]) -> dict[str, Json]:
    """The roots and everything that they refer to, by name, as OpenAPI v3."""
    found: dict[str, Json] = {}
    waiting = sorted(roots)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found[name] = component(name)
            waiting += sorted(_references(_known()[name]) - found.keys())
    return dict(sorted(found.items()))


def _references(schema: Json) -> set[str]:
    name = schemas.reference(schema)
    found = {name} if name else set()
    for member in _children(schema):
        found |= _references(member)
    return found


def _children(schema: Json) -> list[Json]:
    nested = [schema.get("items"), schema.get("additionalProperties")]
    return [*schema.get("properties", {}).values(), *(item for item in nested if isinstance(item, dict))]


@cache
def component(name: str) -> Json:
    """One definition in the v3 dialect. Do not change it."""
    if name.endswith(".IntOrString"):
        return {"description": _known()[name].get("description", ""), "format": "int-or-string",
                "oneOf": [{"type": "integer"}, {"type": "string"}]}  # fmt: skip
    if name.endswith(".Quantity"):
        return {"description": _known()[name].get("description", ""),
                "oneOf": [{"type": "string"}, {"type": "number"}]}  # fmt: skip
    return _converted(_known()[name])


def _converted(schema: Json) -> Json:
    """v2 to v3: no nulls among the types, no invented enums, and a $ref that has neighbours stands in
    allOf (in v3 a $ref hides what stands beside it, and the merge keys stand there)."""
    converted = {key: value for key, value in schema.items() if key not in _REWRITTEN}
    kinds = schemas.types(schema)
    if kinds:
        converted["type"] = next(iter(kinds))
    if "properties" in schema:
        converted["properties"] = {key: _converted(value) for key, value in schema["properties"].items()}
    for key in ("items", "additionalProperties"):
        if key in schema:
            converted[key] = _converted(schema[key]) if isinstance(schema[key], dict) else schema[key]
    name = schemas.reference(schema)
    if name is None:
        return converted
    target = {"$ref": _COMPONENTS + name}
    return {**converted, "allOf": [target]} if converted else target


# The enums are injected (kind and apiVersion only); oneOf stands only where `component` replaces it.
_REWRITTEN: Final = frozenset(
    ("$ref", "type", "enum", "oneOf", "properties", "items", "additionalProperties")
)


def _list_name(resource: Resource) -> str:
    return f"{resource.schema}List"


def _list_schema(resource: Resource) -> Json:
    """The list of a kind that the data has no list for (custom resources)."""
    kind = {"group": resource.group, "version": resource.version, "kind": f"{resource.kind}List"}
    return {
        "type": "object", "required": ["items"], "x-kubernetes-group-version-kind": [kind],
        "properties": {
            "apiVersion": {"type": "string"}, "kind": {"type": "string"},
            "items": {"type": "array", "items": {"$ref": _COMPONENTS + resource.schema}},
            "metadata": {"$ref": _COMPONENTS + _LIST_META},
        },
    }  # fmt: skip


def _sub_schema(resource: Resource, sub: Subresource) -> str | None:
    if sub.kind == resource.kind and not sub.version:
        return resource.schema
    group, version = (sub.group, sub.version) if sub.version else (resource.group, resource.version)
    return schemas.schema_of_kind(group, version, sub.kind)


# --- paths ---


def _paths(resource: Resource) -> dict[str, Json]:
    root = f"/apis/{resource.group}" if resource.group else "/api"
    base = f"{root}/{resource.version}"
    scope = f"{base}/namespaces/{{namespace}}" if resource.namespaced else base
    shared = [_path_parameter("namespace")] if resource.namespaced else []
    one, gvk = f"{scope}/{resource.plural}/{{name}}", _gvk(resource.group, resource.version, resource.kind)
    named = [_path_parameter("name"), *shared]
    paths = {
        f"{scope}/{resource.plural}": _item(
            _COLLECTION, resource.verbs, resource.schema, resource, gvk, shared
        ),
        one: _item(_OBJECT, resource.verbs, resource.schema, resource, gvk, named),
    }
    if resource.namespaced:
        across = tuple(verb for verb in resource.verbs if verb == "list")
        paths[f"{base}/{resource.plural}"] = _item(_COLLECTION, across, resource.schema, resource, gvk, [])
    for sub in resource.subresources:
        schema = _sub_schema(resource, sub)
        own = _gvk(sub.group, sub.version, sub.kind) if sub.version else gvk | {"kind": sub.kind}
        if schema:
            paths[f"{one}/{sub.name}"] = _item(_SUBRESOURCE, sub.verbs, schema, resource, own, named)
    return {path: item for path, item in paths.items() if len(item) > 1}


# verb → (HTTP method, x-kubernetes-action)
_COLLECTION: Final = {"list": ("get", "list"), "create": ("post", "post"),
                      "deletecollection": ("delete", "deletecollection")}  # fmt: skip
_OBJECT: Final = {"get": ("get", "get"), "update": ("put", "put"), "patch": ("patch", "patch"),
                  "delete": ("delete", "delete")}  # fmt: skip
_SUBRESOURCE: Final = _OBJECT | {"create": ("post", "post")}
_LIST_PARAMETERS: Final = {
    "allowWatchBookmarks": "boolean", "continue": "string", "fieldSelector": "string",
    "labelSelector": "string", "limit": "integer", "resourceVersion": "string",
    "resourceVersionMatch": "string", "sendInitialEvents": "boolean", "timeoutSeconds": "integer",
    "watch": "boolean",
}  # fmt: skip
_WRITE_PARAMETERS: Final = {"dryRun": "string", "fieldManager": "string", "fieldValidation": "string"}
_DELETE_PARAMETERS: Final = {
    "dryRun": "string", "gracePeriodSeconds": "integer", "orphanDependents": "boolean",
    "propagationPolicy": "string",
}  # fmt: skip
_PARAMETERS: Final[dict[str, dict[str, str]]] = {
    "list": _LIST_PARAMETERS, "get": {}, "post": _WRITE_PARAMETERS, "put": _WRITE_PARAMETERS,
    "patch": _WRITE_PARAMETERS | {"force": "boolean"}, "delete": _DELETE_PARAMETERS,
    "deletecollection": _LIST_PARAMETERS | _DELETE_PARAMETERS,
}  # fmt: skip


def _item(
    methods: dict[str, tuple[str, str]], verbs: Iterable[str], schema: str, resource: Resource, gvk: Json,
    path_parameters: list[Json],
) -> Json:  # fmt: skip
    """A path item: an operation for each verb that is served, and the parameters that all share."""
    item: Json = {
        methods[verb][0]: _operation(methods[verb][1], schema, resource, gvk)
        for verb in verbs
        if verb in methods
    }
    return item | {"parameters": [*path_parameters, _query_parameter("pretty", "string")]}


def _operation(action: str, schema: str, resource: Resource, gvk: Json) -> Json:
    answer = {"list": _list_name(resource), "delete": _STATUS, "deletecollection": _STATUS}.get(
        action, schema
    )
    operation: Json = {
        "tags": [f"{resource.group.partition('.')[0] or 'core'}_{resource.version}"],
        "parameters": [_query_parameter(name, type_) for name, type_ in _PARAMETERS[action].items()],
        "responses": {"200": {"description": "OK", "content": _content([JSON], answer)}},
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": gvk,
    }
    if action == "patch":
        operation["requestBody"] = {"content": _content(PATCH_TYPES, _PATCH), "required": True}
    elif action in ("post", "put"):
        operation["requestBody"] = {"content": _content(BODY_TYPES, schema), "required": True}
    elif action in ("delete", "deletecollection"):
        operation["requestBody"] = {"content": _content([JSON], _DELETE_OPTIONS)}
    return operation


def _content(media: Iterable[str], schema: str) -> Json:
    return {name: {"schema": {"$ref": _COMPONENTS + schema}} for name in media}


def _gvk(group: str, version: str, kind: str) -> Json:
    return {"group": group, "version": version, "kind": kind}


def _query_parameter(name: str, type_: str) -> Json:
    return {"name": name, "in": "query", "schema": {"type": type_, "uniqueItems": True}}


def _path_parameter(name: str) -> Json:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string", "uniqueItems": True}}
