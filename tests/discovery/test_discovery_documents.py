"""Discovery and OpenAPI documents: complete, of one mind with each other, in the forms clients ask for."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from raftkube.api.openapi import OpenApi, OpenApiDocument, component
from raftkube.api.registry import BUILT_IN, RESOURCES
from raftkube.api.resource import Resource
from raftkube.api.schemas import definitions
from raftkube.api.status import ApiError
from raftkube.apiserver.core.discovery import Discovery, Document
from raftkube.version import KUBERNETES_VERSION

AGGREGATED = (
    "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,"
    "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json"
)
DISCOVERY = Discovery(server_address="127.0.0.1:6443")
OPEN_API = OpenApi()


def document(path: str, accept: str | None = None) -> Document:
    found = DISCOVERY.respond(path, accept)
    assert found is not None
    return found


def value(path: str, accept: str | None = None) -> Any:
    return orjson.loads(document(path, accept).body)


def openapi(path: str) -> OpenApiDocument:
    found = OPEN_API.respond(path)
    assert found is not None
    return found


def list_path(resource: Resource) -> str:
    return f"/apis/{resource.group}/{resource.version}" if resource.group else f"/api/{resource.version}"


@pytest.mark.parametrize("resource", RESOURCES, ids=lambda item: item.plural)
def test_a_resource_and_its_subresources_are_listed(resource: Resource) -> None:
    entries = {entry["name"]: entry for entry in value(list_path(resource))["resources"]}
    entry = entries[resource.plural]
    assert entry["kind"] == resource.kind
    assert entry["namespaced"] == resource.namespaced
    assert entry["verbs"] == sorted(resource.verbs)
    assert entry.get("shortNames", []) == list(resource.short_names)
    for sub in resource.subresources:
        assert entries[f"{resource.plural}/{sub.name}"]["kind"] == sub.kind


def test_eviction_is_found_as_drain_looks_for_it() -> None:
    """kubectl drain reads the plain list and wants pods/eviction with kind Eviction of group policy."""
    entries = {entry["name"]: entry for entry in value("/api/v1")["resources"]}
    eviction = entries["pods/eviction"]
    assert (eviction["group"], eviction["version"], eviction["kind"]) == ("policy", "v1", "Eviction")


def flattened(aggregated: Any) -> Iterator[tuple[str, str, str, tuple[str, ...]]]:
    for group in aggregated["items"]:
        for version in group["versions"]:
            assert version["freshness"] == "Current"
            for entry in version["resources"]:
                names = (sub["subresource"] for sub in entry.get("subresources", ()))
                yield group["metadata"].get("name", ""), version["version"], entry["resource"], tuple(names)


def test_the_aggregated_documents_say_the_same() -> None:
    told = {*flattened(value("/api", AGGREGATED)), *flattened(value("/apis", AGGREGATED))}
    assert told == {
        (item.group, item.version, item.plural, tuple(sub.name for sub in item.subresources))
        for item in RESOURCES
    }


@pytest.mark.parametrize("version", ["v2", "v2beta1"])
def test_the_content_type_names_the_form_as_client_go_wants_it(version: str) -> None:
    accept = f"application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList"
    found = document("/apis", accept)
    assert found.content_type == accept
    assert orjson.loads(found.body)["apiVersion"] == f"apidiscovery.k8s.io/{version}"
    assert document("/apis").content_type == "application/json"


def test_groups() -> None:
    groups = value("/apis")["groups"]
    names = {group["name"] for group in groups}
    assert names == {group.name for group in BUILT_IN.groups() if group.name}
    for group in groups:
        assert value(f"/apis/{group['name']}") == {"kind": "APIGroup", "apiVersion": "v1"} | group
        assert group["preferredVersion"] in group["versions"]
    assert value("/api")["versions"] == ["v1"]
    assert value("/api")["serverAddressByClientCIDRs"][0]["serverAddress"] == "127.0.0.1:6443"


def test_version() -> None:
    info = value("/version")
    assert info["gitVersion"].startswith(f"v{KUBERNETES_VERSION}")
    assert all(isinstance(text, str) for text in info.values())


def test_a_trailing_slash_does_not_matter_and_what_is_not_served_is_none() -> None:
    assert document("/version/").body == document("/version").body
    assert document("/apis/apps/v1/") == document("/apis/apps/v1")
    for path in ("/", "/apis/nothing", "/apis/apps/v9", "/api/v2", "/apis//v1", "/api/v1/pods", "/apisx", ""):
        assert DISCOVERY.respond(path) is None, path


def test_etags_follow_the_body() -> None:
    assert document("/apis").etag == document("/apis").etag
    assert document("/apis").etag != document("/apis", AGGREGATED).etag
    with pytest.raises(ApiError) as caught:
        DISCOVERY.respond("/apis", "text/html")
    assert caught.value.code == 406


# --- OpenAPI v3 ---

GROUP_VERSIONS = [f"apis/{group.name}/{version}" if group.name else f"api/{version}"
                  for group in BUILT_IN.groups() for version in group.versions]  # fmt: skip


def test_the_index_leads_to_every_document_by_its_hash() -> None:
    paths = orjson.loads(openapi("/openapi/v3").body)["paths"]
    assert list(paths) == GROUP_VERSIONS
    for name, entry in paths.items():
        path, _, digest = entry["serverRelativeURL"].partition("?hash=")
        assert path == f"/openapi/v3/{name}"
        assert openapi(path).hash == digest
        assert openapi(path).etag == f'"{digest}"'
    assert OPEN_API.respond("/openapi/v3/apis/nothing/v1") is None
    assert OpenApi().index() == OPEN_API.index(), "two API servers answer alike"


@pytest.mark.parametrize("name", GROUP_VERSIONS)
def test_every_reference_leads_somewhere(name: str) -> None:
    body = openapi(f"/openapi/v3/{name}").body
    found = set(re.findall(rb'"\$ref":"([^"]*)"', body))
    schemas = orjson.loads(body)["components"]["schemas"]
    assert {reference.decode() for reference in found} <= {f"#/components/schemas/{key}" for key in schemas}
    assert b'"null"' not in body
    assert b"$defs" not in body


@pytest.mark.parametrize("resource", RESOURCES, ids=lambda item: item.plural)
def test_a_patch_lists_its_parameters_and_bodies(resource: Resource) -> None:
    """Without these kubectl asks for /openapi/v2, which is protobuf."""
    paths = orjson.loads(openapi(f"/openapi/v3{list_path(resource)}").body)["paths"]
    scope = "/namespaces/{namespace}" if resource.namespaced else ""
    item = paths[f"{list_path(resource)}{scope}/{resource.plural}/{{name}}"]
    patch = item["patch"]
    names = {parameter["name"] for parameter in patch["parameters"]}
    assert {"dryRun", "fieldManager", "fieldValidation", "force"} <= names
    assert set(patch["requestBody"]["content"]) == {
        "application/json-patch+json", "application/merge-patch+json",
        "application/strategic-merge-patch+json",
    }  # fmt: skip
    assert patch["x-kubernetes-group-version-kind"] == {
        "group": resource.group, "version": resource.version, "kind": resource.kind,
    }  # fmt: skip
    assert {parameter["name"] for parameter in item["parameters"]} >= {"name"}
    assert set(item) == {"get", "put", "patch", "delete", "parameters"}


def test_merge_keys_stand_beside_allof() -> None:
    spec = component("io.k8s.api.core.v1.PodSpec")["properties"]
    containers = spec["containers"]
    assert containers["x-kubernetes-patch-merge-key"] == "name"
    assert containers["items"] == {"$ref": "#/components/schemas/io.k8s.api.core.v1.Container"}
    assert spec["affinity"]["allOf"] == [{"$ref": "#/components/schemas/io.k8s.api.core.v1.Affinity"}]
    assert spec["affinity"]["description"]
    kind = component("io.k8s.api.core.v1.Pod")["properties"]["kind"]
    assert kind["type"] == "string"
    assert "enum" not in kind
    port = component("io.k8s.apimachinery.pkg.util.intstr.IntOrString")
    assert port["format"] == "int-or-string"


def test_the_data_is_not_changed_by_serving_it() -> None:
    before = orjson.dumps(definitions())
    OpenApi().index()
    assert orjson.dumps(definitions()) == before
