"""What every cluster has from the start; each API server sees to it, and finding it there is fine.

Source: pkg/controlplane/controller/systemnamespaces, pkg/controlplane/controller/kubernetesservice.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import structlog
import trio

from raftkube.api.resource import Object, Resource
from raftkube.api.status import ApiError
from raftkube.apiserver.call import Call, Parts
from raftkube.apiserver.core.authorization import MASTERS, User
from raftkube.apiserver.core.request_info import RequestInfo
from raftkube.apiserver.handlers.write import create_object
from raftkube.net.http import Request

log = structlog.get_logger(__name__)

NAMESPACES: Final = ("default", "kube-system", "kube-public", "kube-node-lease")
_USER: Final = User("system:apiserver", (MASTERS,))
_RETRY_S: Final = 0.5
KEEP_PERIOD_S: Final = 10.0


async def bootstrap(parts: Parts, *, secure_port: int) -> None:
    """Create what is missing; waits for the store as long as it takes."""
    for plural, namespace, obj in _wanted(parts, secure_port):
        await _ensure(parts, plural, namespace, obj)


async def keep(parts: Parts, *, secure_port: int) -> None:
    """Put back what was deleted (`kubectl delete all --all` takes the Service along), until cancelled."""
    while True:
        await trio.sleep(KEEP_PERIOD_S)
        for plural, namespace, obj in _wanted(parts, secure_port):
            resource = parts.catalog.find("", "v1", plural)
            assert resource is not None
            key = resource.key(namespace, obj["metadata"]["name"]).encode()
            if parts.cache.of(resource).get(key) is None:
                await _ensure(parts, plural, namespace, obj)


def _wanted(parts: Parts, secure_port: int) -> Iterator[tuple[str, str, Object]]:
    """(plural, namespace, object)."""
    for name in NAMESPACES:
        yield "namespaces", "", {"metadata": {"name": name}}
    yield "services", "default", _kubernetes_service(parts.allocations.addresses.first, secure_port)


def _kubernetes_service(address: str, secure_port: int) -> Object:
    labels = {"component": "apiserver", "provider": "kubernetes"}
    port = {"name": "https", "protocol": "TCP", "port": 443, "targetPort": secure_port}
    return {
        "metadata": {"name": "kubernetes", "namespace": "default", "labels": labels},
        "spec": {"type": "ClusterIP", "clusterIP": address, "clusterIPs": [address], "ports": [port]},
    }


async def _ensure(parts: Parts, plural: str, namespace: str, obj: dict[str, Any]) -> None:
    resource = parts.catalog.find("", "v1", plural)
    assert resource is not None
    name = obj["metadata"]["name"]
    while True:
        try:
            if await parts.store.find(resource.key(namespace, name).encode()) is None:
                await create_object(_call(parts, resource, namespace), obj, dry_run=False)
            return
        except ApiError as error:
            if error.reason == "AlreadyExists":
                return
            log.warning("bootstrap_waits", object=f"{plural}/{name}", error=error.message)
            await trio.sleep(_RETRY_S)


def _call(parts: Parts, resource: Resource, namespace: str) -> Call:
    info = RequestInfo("create", "/", resource.group, resource.version, resource.plural, "", namespace)
    return Call(parts, Request("POST", "/", "", {}), info, resource, _USER, {})
