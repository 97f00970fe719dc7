"""The objects of a control plane as its recorded log tells them, revision by revision.

Keys are `/registry/<group>/<resource>/[<namespace>/]<name>`, values the objects' JSON. Numbers of the
product's own code are read here anew: quantities, percentages, controllers among owners.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import orjson

from chaos.checkers.history import History

Json = dict[str, Any]

PODS: Final = "core/pods"
NODES: Final = "core/nodes"
REPLICA_SETS: Final = "apps/replicasets"
DEPLOYMENTS: Final = "apps/deployments"
LEASES: Final = "coordination.k8s.io/leases"
_FINISHED: Final = ("Succeeded", "Failed")
_SUFFIXES: Final = {
    "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12,
    "Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40,
}  # fmt: skip


class Change(NamedTuple):
    """One event of the log. `old` and `new` are the object before and after, None where there is none."""

    revision: int
    key: str
    resource: str  # "core/pods"
    old: Json | None
    new: Json | None
    event: Json

    @property
    def deleted(self) -> bool:
        return self.new is None

    @property
    def created(self) -> bool:
        return self.old is None


@dataclass(slots=True)
class Objects:
    """All objects as of the last change taken. `created` and `modified` are revisions by key."""

    revision: int = 0
    by_key: dict[str, Json] = field(default_factory=dict)
    created: dict[str, int] = field(default_factory=dict)
    modified: dict[str, int] = field(default_factory=dict)
    by_uid: dict[str, str] = field(default_factory=dict)  # uid -> key
    controlled: dict[str, dict[str, None]] = field(default_factory=dict)  # controller's uid -> keys
    on_node: dict[str, dict[str, None]] = field(default_factory=dict)  # node name -> keys of pods

    def take(self, event: Json) -> Change:
        """Apply one event of the log (kind put or delete)."""
        key, revision = event["key"], event["revision"]
        old = self.by_key.get(key)
        new = _object(event)
        self.revision = revision
        if old is not None:
            self._drop(key, old)
        if new is None:
            self.by_key.pop(key, None)
            self.created.pop(key, None)
            self.modified.pop(key, None)
        else:
            self.by_key[key] = new
            self.created.setdefault(key, revision)
            self.modified[key] = revision
            self._add(key, new)
        return Change(revision, key, resource_of(key), old, new, event)

    def of(self, resource: str) -> Iterator[tuple[str, Json]]:
        """(key, object) of one resource, "core/pods"."""
        prefix = f"/registry/{resource}/"
        return ((key, obj) for key, obj in self.by_key.items() if key.startswith(prefix))

    def uid(self, uid: str) -> Json | None:
        """The object with this uid."""
        key = self.by_uid.get(uid)
        return None if key is None else self.by_key[key]

    def controlled_by(self, uid: str) -> list[Json]:
        """Objects whose controller has this uid."""
        return [self.by_key[key] for key in self.controlled.get(uid, ())]

    def pods_on(self, node: str) -> list[Json]:
        """Pods bound to the node of this name."""
        return [self.by_key[key] for key in self.on_node.get(node, ())]

    def _add(self, key: str, obj: Json) -> None:
        self.by_uid[uid_of(obj)] = key
        if (controller := controller_uid(obj)) is not None:
            self.controlled.setdefault(controller, {})[key] = None
        if (node := node_of(key, obj)) is not None:
            self.on_node.setdefault(node, {})[key] = None

    def _drop(self, key: str, obj: Json) -> None:
        self.by_uid.pop(uid_of(obj), None)
        if (controller := controller_uid(obj)) is not None:
            self.controlled[controller].pop(key, None)
        if (node := node_of(key, obj)) is not None:
            self.on_node[node].pop(key, None)


def changes(history: History) -> Iterator[tuple[Objects, Change]]:
    """Every change of the log in order, with the objects right after it (one `Objects`, which moves on)."""
    objects = Objects()
    watch = history.log_watch
    for event in () if watch is None else watch.events:
        if event["kind"] in ("put", "delete"):
            change = objects.take(event)
            yield objects, change


def _object(event: Json) -> Json | None:
    """What was put; None for a delete, and for a value that is no object (reserved addresses and ports)."""
    if event["kind"] != "put" or not event["value"].startswith("{"):
        return None
    obj: Json = orjson.loads(event["value"])
    return obj if "metadata" in obj else None


def resource_of(key: str) -> str:
    """`core/pods` of a key."""
    parts = key.split("/", 4)
    return "/".join(parts[2:4])


def name_of(key: str) -> str:
    """What people call it: `pods default/web-1`."""
    parts = key.split("/", 4)
    return f"{parts[3]} {parts[4]}" if len(parts) == 5 else key


def uid_of(obj: Json) -> str:
    return str(obj["metadata"].get("uid") or "")


def node_of(key: str, obj: Json) -> str | None:
    """The node that a pod is bound to; None for what is no pod or not bound."""
    if not key.startswith("/registry/core/pods/"):
        return None
    return (obj.get("spec") or {}).get("nodeName") or None


def owner_refs(obj: Json) -> list[Json]:
    return obj["metadata"].get("ownerReferences") or []


def controller_uid(obj: Json) -> str | None:
    """The uid of the owner that is its controller."""
    return next((str(ref["uid"]) for ref in owner_refs(obj) if ref.get("controller")), None)


def is_deleting(obj: Json) -> bool:
    return bool(obj["metadata"].get("deletionTimestamp"))


def is_finished(pod: Json) -> bool:
    return (pod.get("status") or {}).get("phase") in _FINISHED


def is_live(pod: Json) -> bool:
    """Whether a workload counts it (controller.IsPodActive)."""
    return not is_deleting(pod) and not is_finished(pod)


def is_ready(obj: Json) -> bool:
    """A pod's or node's condition Ready."""
    conditions = (obj.get("status") or {}).get("conditions") or ()
    return any(c.get("type") == "Ready" and c.get("status") == "True" for c in conditions)


def replicas_of(obj: Json) -> int:
    """spec.replicas, 1 if absent."""
    value = obj["spec"].get("replicas")
    return 1 if value is None else int(value)


def generation_of(obj: Json) -> int:
    return int(obj["metadata"].get("generation") or 0)


def observed_generation_of(obj: Json) -> int:
    return int((obj.get("status") or {}).get("observedGeneration") or 0)


def pods_max(deployment: Json) -> int:
    """spec.replicas and the surge (deployment_util.go's MaxSurge; a percentage is rounded up)."""
    total, strategy = replicas_of(deployment), deployment["spec"].get("strategy") or {}
    if strategy.get("type", "RollingUpdate") != "RollingUpdate":
        return total
    surge = (strategy.get("rollingUpdate") or {}).get("maxSurge", "25%")
    return total + (math.ceil(int(surge[:-1]) * total / 100) if isinstance(surge, str) else int(surge))


def quantity(value: Any) -> float:
    """Of "250m", "64Mi", "4", 4."""
    text = str(value)
    for suffix in sorted(_SUFFIXES, key=len, reverse=True):
        if text.endswith(suffix):
            return float(text[: -len(suffix)]) * _SUFFIXES[suffix]
    return float(text)


def requests_of(pod: Json) -> dict[str, float]:
    """What a pod takes of its node: the sum of its containers' requests, and one of `pods`."""
    total = {"pods": 1.0}
    for container in pod["spec"].get("containers") or ():
        for name, value in ((container.get("resources") or {}).get("requests") or {}).items():
            total[name] = total.get(name, 0.0) + quantity(value)
    return total
