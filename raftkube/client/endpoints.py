"""Where the resources of the API lie: group, version, plural and scope, and the paths made of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

Object = dict[str, Any]
Objects = list[Object]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One resource as a client needs it. Made by hand, from the constants below, or from discovery."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        """`v1` or `apps/v1`."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str = "", name: str = "", subresource: str = "") -> str:
        """The URL path of the collection (all namespaces if `namespace` is empty), of one object, or of
        its subresource."""
        parts = [f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"]
        if self.namespaced and namespace:
            parts += ["namespaces", quote(namespace, safe="")]
        parts.append(self.plural)
        parts += [quote(part, safe=":") for part in (name, subresource) if part]
        return "/".join(parts)


NAMESPACES: Final = Endpoint("", "v1", "namespaces", "Namespace", namespaced=False)
NODES: Final = Endpoint("", "v1", "nodes", "Node", namespaced=False)
PODS: Final = Endpoint("", "v1", "pods", "Pod")
CONFIG_MAPS: Final = Endpoint("", "v1", "configmaps", "ConfigMap")
SECRETS: Final = Endpoint("", "v1", "secrets", "Secret")
SERVICES: Final = Endpoint("", "v1", "services", "Service")
SERVICE_ACCOUNTS: Final = Endpoint("", "v1", "serviceaccounts", "ServiceAccount")
EVENTS: Final = Endpoint("", "v1", "events", "Event")
DEPLOYMENTS: Final = Endpoint("apps", "v1", "deployments", "Deployment")
REPLICA_SETS: Final = Endpoint("apps", "v1", "replicasets", "ReplicaSet")
LEASES: Final = Endpoint("coordination.k8s.io", "v1", "leases", "Lease")


def object_key(obj: Object) -> str:
    """`namespace/name`, or `name` for an object without a namespace: the key of caches and queues."""
    metadata = obj["metadata"]
    namespace = metadata.get("namespace")
    return f"{namespace}/{metadata['name']}" if namespace else str(metadata["name"])


def split_key(key: str) -> tuple[str, str]:
    """(namespace or "", name) of an `object_key`."""
    namespace, _, name = key.rpartition("/")
    return namespace, name


def revision_of(obj: Object) -> int:
    """An object's resourceVersion as a number, 0 if it has none.

    Decimal and ordered over all objects; comparing them is allowed to clients since KEP-5504.
    """
    text = obj.get("metadata", {}).get("resourceVersion") or "0"
    return int(text) if text.isdigit() else 0
