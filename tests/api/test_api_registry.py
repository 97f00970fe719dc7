from __future__ import annotations

import pkgutil

import pytest

from raftkube.api import kinds
from raftkube.api.names import NAME_FORMATS
from raftkube.api.registry import (
    BUILT_IN,
    RESOURCES,
    ApiGroup,
    Catalog,
    by_kind,
    find,
    groups,
    version_priority,
)
from raftkube.api.resource import Resource


def test_every_kind_of_this_round_is_served() -> None:
    assert {(item.group, item.plural) for item in RESOURCES} >= {
        ("", "namespaces"), ("", "nodes"), ("", "pods"), ("", "configmaps"), ("", "secrets"),
        ("", "services"), ("", "events"), ("", "serviceaccounts"), ("apps", "deployments"),
        ("apps", "replicasets"),
        ("coordination.k8s.io", "leases"),
    }  # fmt: skip
    assert len(RESOURCES) >= len(list(pkgutil.iter_modules(kinds.__path__)))


def test_look_up() -> None:
    pods = find("", "v1", "pods")
    assert pods is not None
    assert by_kind("", "v1", "Pod") is pods
    assert find("apps", "v1", "pods") is None
    assert by_kind("", "v1", "pod") is None
    assert groups()[0] == ApiGroup("", ("v1",))
    assert {group.name for group in groups()} >= {"apps", "coordination.k8s.io"}
    assert pods in BUILT_IN.in_version("", "v1")


@pytest.mark.parametrize("item", RESOURCES, ids=lambda item: item.plural)
def test_a_descriptor_is_complete(item: Resource) -> None:
    assert item.columns[0].format == "name" or any(column.format == "name" for column in item.columns)
    assert item.strategy.name_format in NAME_FORMATS
    assert item.schema.endswith(f".{item.kind}")
    assert len(item.row({"metadata": {"name": "a"}}, 0.0)) == len(item.columns)
    assert all(getter({"metadata": {}}) is not None for getter in item.field_selectors.values())


def test_short_names_are_nobody_elses() -> None:
    names = [name for item in RESOURCES for name in (item.plural, item.singular, *item.short_names)]
    assert len(names) == len(set(names))


def test_versions_in_order_of_preference() -> None:
    versions = ["v1alpha1", "v2beta1", "v1", "v11", "v2", "v1beta2", "foo10", "v1beta1", "foo1"]
    assert sorted(versions, key=version_priority) == [
        "v11", "v2", "v1", "v2beta1", "v1beta2", "v1beta1", "v1alpha1", "foo1", "foo10",
    ]  # fmt: skip


def test_a_catalog_of_ones_own() -> None:
    pods = find("", "v1", "pods")
    assert pods is not None
    catalog = Catalog([pods])
    assert catalog.find("", "v1", "pods") is pods
    assert [group.name for group in catalog.groups()] == [""]
