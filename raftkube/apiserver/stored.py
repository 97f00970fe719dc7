"""An object as the store holds it, and as the API shows it.

The store holds JSON without what the store itself knows: `resourceVersion` is the key's mod revision, and
the fencing token of an annotated Lease its create revision; both are put in on reading.
"""

from __future__ import annotations

from typing import Final

import orjson

from raftkube.api.resource import Object
from raftkube.wire.store import KeyValue

STORE_LEASE_ANNOTATION: Final = "raftkube.dev/store-lease"
TOKEN_ANNOTATION: Final = "raftkube.dev/fencing-token"
FENCES_ANNOTATION: Final = "raftkube.dev/fences"
_LEASE_PREFIX: Final = b"/registry/coordination.k8s.io/leases/"


class Stored:
    """One version of an object. `obj` is shared by all who read it: never change it in place."""

    __slots__ = ("_json", "_metadata_json", "create_revision", "key", "lease", "obj", "revision")

    def __init__(self, key: bytes, obj: Object, revision: int, create_revision: int, lease: int) -> None:
        self.key = key
        self.obj = obj
        self.revision = revision
        self.create_revision = create_revision
        self.lease = lease
        self._json: bytes | None = None
        self._metadata_json: bytes | None = None

    @property
    def json(self) -> bytes:
        """The object's JSON, encoded once."""
        if self._json is None:
            self._json = orjson.dumps(self.obj)
        return self._json

    @property
    def metadata_json(self) -> bytes:
        """The JSON of its PartialObjectMetadata, encoded once."""
        if self._metadata_json is None:
            partial = {
                "kind": "PartialObjectMetadata",
                "apiVersion": "meta.k8s.io/v1",
                "metadata": self.obj["metadata"],
            }
            self._metadata_json = orjson.dumps(partial)
        return self._metadata_json

    @property
    def namespace(self) -> str:
        """ "" for cluster-scoped objects."""
        return str(self.obj["metadata"].get("namespace") or "")

    @property
    def name(self) -> str:
        """metadata.name."""
        return str(self.obj["metadata"]["name"])

    def at(self, revision: int) -> Stored:
        """The same object with another resourceVersion: what a deletion shows."""
        metadata = {**self.obj["metadata"], "resourceVersion": str(revision)}
        obj = {**self.obj, "metadata": metadata}
        return Stored(self.key, obj, revision, self.create_revision, self.lease)


def decode(kv: KeyValue) -> Stored:
    """The object of a store key."""
    obj: Object = orjson.loads(kv.value)
    metadata = obj["metadata"]
    metadata["resourceVersion"] = str(kv.mod_revision)
    if kv.key.startswith(_LEASE_PREFIX) and has_store_lease(obj):
        metadata["annotations"][TOKEN_ANNOTATION] = str(kv.create_revision)
    return Stored(kv.key, obj, kv.mod_revision, kv.create_revision, kv.lease)


def encode(obj: Object) -> bytes:
    """What the store is to hold of `obj`."""
    metadata = {name: value for name, value in obj["metadata"].items() if name != "resourceVersion"}
    annotations = metadata.get("annotations")
    if annotations and TOKEN_ANNOTATION in annotations:
        metadata["annotations"] = {k: v for k, v in annotations.items() if k != TOKEN_ANNOTATION}
    return orjson.dumps({**obj, "metadata": metadata})


def has_store_lease(obj: Object) -> bool:
    """Whether a Lease object asks for a store lease behind it."""
    return (obj["metadata"].get("annotations") or {}).get(STORE_LEASE_ANNOTATION) == "true"
