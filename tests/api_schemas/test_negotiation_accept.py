"""Accept headers, as real clients send them."""

from __future__ import annotations

import pytest

from raftkube.api.negotiation import (
    DISCOVERY_FORMS,
    JSON,
    LIST_FORMS,
    OBJECT_FORMS,
    PLAIN,
    YAML,
    Representation,
    Transform,
    negotiate,
)
from raftkube.api.status import ApiError

TABLE = Transform("Table", "meta.k8s.io", "v1")
KUBECTL_GET = (
    "application/json;as=Table;v=v1;g=meta.k8s.io,"
    "application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json"
)
DISCOVERY = (
    "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,"
    "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json"
)


@pytest.mark.parametrize(
    ("accept", "allowed", "expected"),
    [
        (None, PLAIN, Representation(JSON)),
        ("", PLAIN, Representation(JSON)),
        ("*/*", PLAIN, Representation(JSON)),
        ("application/json, */*", PLAIN, Representation(JSON)),
        ("application/vnd.kubernetes.protobuf,application/json", PLAIN, Representation(JSON)),
        (KUBECTL_GET, LIST_FORMS, Representation(JSON, TABLE)),
        (KUBECTL_GET, PLAIN, Representation(JSON)),
        (DISCOVERY, DISCOVERY_FORMS,
         Representation(JSON, Transform("APIGroupDiscoveryList", "apidiscovery.k8s.io", "v2"))),
        ("application/yaml", PLAIN, Representation(YAML)),
        ("application/json;q=0.1, application/yaml;q=0.9", PLAIN, Representation(YAML)),
        ("application/yaml;q=0, application/json", PLAIN, Representation(JSON)),
        ("application/json;stream=watch", PLAIN, Representation(JSON)),
        ("text/html,application/xhtml+xml,*/*;q=0.8", PLAIN, Representation(JSON)),
        ('application/json;as="Table";v=v1;g=meta.k8s.io', OBJECT_FORMS, Representation(JSON, TABLE)),
        ("application/json;q=x", PLAIN, Representation(JSON)),
    ],
)  # fmt: skip
def test_the_best_clause_that_can_be_served(
    accept: str | None, allowed: frozenset[Transform], expected: Representation
) -> None:
    assert negotiate(accept, allowed) == expected


@pytest.mark.parametrize(
    ("accept", "allowed"),
    [
        ("text/html", PLAIN),
        ("application/vnd.kubernetes.protobuf", PLAIN),
        ("application/json;as=Table;v=v1;g=meta.k8s.io", PLAIN),
        ("application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io", OBJECT_FORMS),
        ("application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io", LIST_FORMS),
        ("application/json;as=Table;v=v2;g=meta.k8s.io", LIST_FORMS),
    ],
)
def test_nothing_that_can_be_served_is_406(accept: str, allowed: frozenset[Transform]) -> None:
    with pytest.raises(ApiError) as caught:
        negotiate(accept, allowed)
    assert (caught.value.code, caught.value.reason) == (406, "NotAcceptable")
    assert JSON in caught.value.message
