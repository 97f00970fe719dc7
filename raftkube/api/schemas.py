"""The schemas of the built-in kinds, as data: kubernetes-validate's definitions (OpenAPI v2, one file).

The file is read once, when first asked for (about 10 ms); its version is the Kubernetes version served.
What a definition means for a decoded object is `structure`'s matter, how clients see it `openapi`'s.
"""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple

import orjson

from raftkube.errors import InvariantViolation
from raftkube.version import KUBERNETES_VERSION

Definition = dict[str, Any]

_REF_PREFIX: Final = "#/$defs/"


def _definitions_path() -> Path:
    # The package itself is not imported: it would load jsonschema, which costs 100 ms and is not used.
    spec = importlib.util.find_spec("kubernetes_validate")
    if spec is None or not spec.submodule_search_locations:
        raise InvariantViolation("the package kubernetes-validate is not installed; reinstall raftkube")
    folder = f"kubernetes-json-schema/v{KUBERNETES_VERSION}-local"
    return Path(spec.submodule_search_locations[0]) / folder / "_definitions.json"


@cache
def definitions() -> dict[str, Definition]:
    """Every definition by name (`io.k8s.api.core.v1.Pod`). Never change what this returns."""
    loaded: dict[str, Definition] = orjson.loads(_definitions_path().read_bytes())["$defs"]
    return loaded


def definition(name: str) -> Definition:
    """One definition. Raises KeyError: no such name."""
    return definitions()[name]


def reference(schema: Definition) -> str | None:
    """The name that a schema's $ref points to."""
    target = schema.get("$ref")
    return target.removeprefix(_REF_PREFIX) if isinstance(target, str) else None


def types(schema: Definition) -> frozenset[str]:
    """The JSON types of a schema without the `null` that the data allows everywhere."""
    found = schema.get("type", ())
    return frozenset([found] if isinstance(found, str) else found) - {"null"}


@cache
def schema_of_kind(group: str, version: str, kind: str) -> str | None:
    """The name of the definition of a group, version and kind."""
    wanted = {"group": group, "version": version, "kind": kind}
    for name, schema in definitions().items():
        if wanted in schema.get("x-kubernetes-group-version-kind", ()):
            return name
    return None


class PatchMeta(NamedTuple):
    """How a strategic merge patch treats one field.

    schema: the name of the definition of the value or of a list's items; "" where there is none
    (scalars, maps, free-form objects). merge_key: what tells a list's items apart; "" if none.
    known: whether the parent knows the field at all.
    """

    schema: str
    strategies: tuple[str, ...]
    merge_key: str
    known: bool

    @property
    def merges(self) -> bool:
        """Whether a list is merged with the old one (else it replaces it)."""
        return "merge" in self.strategies

    @property
    def replaces(self) -> bool:
        """Whether an object replaces the old one (else it is merged into it)."""
        return "replace" in self.strategies


FREE_FORM: Final = PatchMeta("", (), "", known=True)
_UNKNOWN: Final = PatchMeta("", (), "", known=False)


@cache
def patch_meta(schema: str, field: str) -> PatchMeta:
    """The patch metadata of `field` in the definition `schema` ("" is free-form: everything is known).

    Source: x-kubernetes-patch-strategy and x-kubernetes-patch-merge-key.
    """
    if not schema:
        return FREE_FORM
    parent = definition(schema)
    found = parent.get("properties", {}).get(field)
    if found is None:
        return _UNKNOWN if parent.get("properties") else FREE_FORM
    strategies = tuple(filter(None, found.get("x-kubernetes-patch-strategy", "").split(",")))
    value = found.get("items") or found
    return PatchMeta(
        reference(value) or "", strategies, found.get("x-kubernetes-patch-merge-key", ""), known=True
    )
