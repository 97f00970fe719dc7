"""The objects of one resource as last seen, with indexes. Without I/O.

Objects are shared with every reader: nobody changes them in place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from raftkube.client.endpoints import Object, Objects, object_key

IndexFunction = Callable[[Object], Iterable[str]]


def by_owner_uid(obj: Object) -> Iterable[str]:
    """uids of all owners."""
    return [owner["uid"] for owner in obj["metadata"].get("ownerReferences") or ()]


def by_controller_uid(obj: Object) -> Iterable[str]:
    """uid of the owner that controls it."""
    return [o["uid"] for o in obj["metadata"].get("ownerReferences") or () if o.get("controller")]


def by_namespace(obj: Object) -> Iterable[str]:
    """Its namespace."""
    namespace = obj["metadata"].get("namespace")
    return [namespace] if namespace else []


def by_node(obj: Object) -> Iterable[str]:
    """The node that a pod is bound to."""
    node = obj.get("spec", {}).get("nodeName")
    return [node] if node else []


def by_uid(obj: Object) -> Iterable[str]:
    """Its own uid."""
    uid = obj["metadata"].get("uid")
    return [uid] if uid else []


NAMESPACE: Final = "namespace"
OWNER_UID: Final = "owner_uid"
CONTROLLER_UID: Final = "controller_uid"
NODE: Final = "node"
UID: Final = "uid"
# Name → function, to be picked from.
INDEXES: Final[Mapping[str, IndexFunction]] = {
    NAMESPACE: by_namespace,
    OWNER_UID: by_owner_uid,
    CONTROLLER_UID: by_controller_uid,
    NODE: by_node,
    UID: by_uid,
}


class Cache:
    """Objects by key (`namespace/name`) and by the values of each index; iteration is by insertion."""

    def __init__(self, indexes: Mapping[str, IndexFunction] | None = None) -> None:
        self._functions = dict(indexes or {})
        self._objects: dict[str, Object] = {}
        self._indexes: dict[str, dict[str, dict[str, None]]] = {name: {} for name in self._functions}

    def __len__(self) -> int:
        return len(self._objects)

    def get(self, key: str) -> Object | None:
        """The object of this key."""
        return self._objects.get(key)

    def keys(self) -> list[str]:
        """All keys."""
        return list(self._objects)

    def list(self) -> Objects:
        """All objects."""
        return [*self._objects.values()]

    def by_index(self, index: str, value: str) -> Objects:
        """The objects for which this index has this value. KeyError: no such index."""
        return [self._objects[key] for key in self._indexes[index].get(value, ())]

    def put(self, obj: Object) -> Object | None:
        """Store `obj`; what stood there before."""
        key = object_key(obj)
        old = self._objects.get(key)
        if old is not None:
            self._unindex(key, old)
        self._objects[key] = obj
        for name, function in self._functions.items():
            for value in function(obj):
                self._indexes[name].setdefault(value, {})[key] = None
        return old

    def remove(self, key: str) -> Object | None:
        """Forget `key`; what stood there."""
        old = self._objects.pop(key, None)
        if old is not None:
            self._unindex(key, old)
        return old

    def _unindex(self, key: str, obj: Object) -> None:
        for name, function in self._functions.items():
            index = self._indexes[name]
            for value in function(obj):
                if (keys := index.get(value)) is not None:
                    keys.pop(key, None)
                    if not keys:
                        del index[value]
