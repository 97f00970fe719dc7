"""Pod templates: their hash, which names a Deployment's ReplicaSets, and whether two are the same.

The hash is upstream's shape (FNV-1a of 32 bits, written in the safe alphabet), taken of the template's
canonical JSON instead of Go's memory layout, so the values differ from upstream's. Collisions are met with
status.collisionCount. Source: k8s.io/kubernetes/pkg/controller (ComputeHash).
"""

from __future__ import annotations

import json
from typing import Any, Final

from raftkube.api.objects import section
from raftkube.api.resource import Object

TEMPLATE_HASH: Final = "pod-template-hash"
_ALPHABET: Final = "bcdfghjklmnpqrstvwxz2456789"
_FNV_OFFSET: Final = 0x811C9DC5
_FNV_PRIME: Final = 0x01000193


def template_hash(template: Object, collision_count: int | None = None) -> str:
    """Up to ten characters that are the same for the same template and count, here and after a restart."""
    text = json.dumps(_normal(template), sort_keys=True, separators=(",", ":"))
    data = text.encode()
    if collision_count is not None:
        data += collision_count.to_bytes(8, "little")
    return "".join(_ALPHABET[ord(digit) % len(_ALPHABET)] for digit in str(_fnv1a(data)))


def same_template(a: Object, b: Object) -> bool:
    """Equal but for the label that a Deployment adds (EqualIgnoreHash)."""
    return bool(_normal(a) == _normal(b))


def labels_of(template: Object) -> dict[str, str]:
    """The labels of the pods to be."""
    return section(section(template, "metadata"), "labels")


def _fnv1a(data: bytes) -> int:
    value = _FNV_OFFSET
    for byte in data:
        value = ((value ^ byte) * _FNV_PRIME) & 0xFFFFFFFF
    return value


def _normal(template: Object) -> Object:
    """Absent, null and empty list are one (Go's semantic equality); empty maps only in metadata, for in a
    spec they mean something (`emptyDir: {}`)."""
    metadata = {
        key: value
        for key, value in section(template, "metadata").items()
        if value and key != "creationTimestamp"
    }
    if labels := {k: v for k, v in section(metadata, "labels").items() if k != TEMPLATE_HASH}:
        metadata["labels"] = labels
    else:
        metadata.pop("labels", None)
    return {"metadata": metadata, "spec": _pruned(section(template, "spec"))}


def _pruned(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _pruned(item) for key, item in value.items() if item is not None and item != []}
    if isinstance(value, list):
        return [_pruned(item) for item in value]
    return value
