"""/openapi/v2: a valid document that describes no path and no type; those stand in /openapi/v3.

kubectl reads v3 first and asks here about a kind that it did not find there; without an answer it
complains about a download instead of the unknown kind. kubectl up to 1.28 does not begin an apply without
it, and falls back to the types that it was built with.
Source: k8s.io/kube-openapi/pkg/handler, github.com/google/gnostic-models/openapiv2/OpenAPIv2.proto.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import orjson

from raftkube.version import KUBERNETES_VERSION

_TITLE: Final = "Kubernetes"
_VERSION: Final = f"v{KUBERNETES_VERSION}"
# Clients ask for the second too, and cannot parse it as a Content-Type: "@" is no letter of one.
_PROTOBUF_TYPES: Final = (
    "application/com.github.proto-openapi.spec.v2.v1.0+protobuf",
    "application/com.github.proto-openapi.spec.v2@v1.0+protobuf",
)


class OpenApiV2(NamedTuple):
    """The document in the form that an Accept header asks for."""

    body: bytes
    content_type: str


def respond(accept: str | None) -> OpenApiV2:
    """The document as protobuf where that is named, else as JSON."""
    asked = {clause.partition(";")[0].strip() for clause in (accept or "").split(",")}
    if not asked.isdisjoint(_PROTOBUF_TYPES):
        return OpenApiV2(_protobuf(), _PROTOBUF_TYPES[0])
    return OpenApiV2(_json(), "application/json")


def _json() -> bytes:
    info = {"title": _TITLE, "version": _VERSION}
    return orjson.dumps({"swagger": "2.0", "info": info, "paths": {}, "definitions": {}})


def _protobuf() -> bytes:
    """Document {swagger = 1, info = 2 {title = 1, version = 2}, paths = 8, definitions = 9}."""
    info = _field(1, _TITLE.encode()) + _field(2, _VERSION.encode())
    return _field(1, b"2.0") + _field(2, info) + _field(8, b"") + _field(9, b"")


def _field(number: int, data: bytes) -> bytes:
    """A field of wire type 2 with less than 128 bytes."""
    assert len(data) < 128, "longer fields need a varint of several bytes"
    return bytes((number << 3 | 2, len(data))) + data
