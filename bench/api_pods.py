"""The pods that the API benches read and write: how they are made, marked and told apart.

A pod's number says where it is: its namespace, its label `half` and its node. One pod is created through
the API; the others are put into the store as the API server left that one, which takes seconds, not minutes.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import orjson
import trio

from bench.api_cluster import ApiCluster
from bench.errors import BenchError
from bench.loop import Endpoint
from raftkube.api.registry import find
from raftkube.net import Address, TlsFiles
from raftkube.net.tcp import TcpNetwork
from raftkube.store.client import StoreClient

MARK: Final = "bench/mark"
PADDING: Final = "bench/padding"
_TOGETHER: Final = 50  # puts in one transaction's time
NAMESPACES: Final = ("bench-0", "bench-1")


class View(NamedTuple):
    """What of the pods a watch shows. scope: cluster or namespace; selector: none, label or field."""

    scope: str = "cluster"
    selector: str = "none"

    def shows(self, number: int) -> bool:
        """Whether pod `number` is in it."""
        if self.scope == "namespace" and number % 2:
            return False
        if self.selector == "label":
            return not number // 2 % 2
        return self.selector != "field" or not number // 4 % 2

    @property
    def path(self) -> str:
        """Of the collection, with the selector."""
        where = "/api/v1/pods" if self.scope == "cluster" else f"/api/v1/namespaces/{NAMESPACES[0]}/pods"
        selector = {"label": "labelSelector=half%3Da", "field": "fieldSelector=spec.nodeName%3Dnode-0"}
        return f"{where}?{selector.get(self.selector, '')}"


def name(number: int) -> str:
    return f"pod-{number:06d}"


def number_of(pod_name: str) -> int:
    """The opposite of `name`."""
    return int(pod_name[4:])


def path(number: int) -> str:
    """Of one pod."""
    return f"/api/v1/namespaces/{NAMESPACES[number % 2]}/pods/{name(number)}"


def pod(number: int, *, padding: int = 0) -> dict[str, Any]:
    """What is posted."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name(number),
            "namespace": NAMESPACES[number % 2],
            "labels": {"half": "ab"[number // 2 % 2], "app": "bench"},
            "annotations": {MARK: mark(0, 0), PADDING: "x" * padding},
        },
        "spec": {
            "nodeName": f"node-{number // 4 % 2}",
            "containers": [{"name": "main", "image": "bench"}],
        },
    }


def mark(sequence: int, sent_ns: int) -> str:
    """What a write leaves in its pod: which it was, and when it was sent (monotonic); always as long."""
    return f"{sequence:010d}.{sent_ns:020d}"


def read_mark(text: str) -> tuple[int, int]:
    """The opposite of `mark`."""
    sequence, _, sent_ns = text.partition(".")
    return int(sequence), int(sent_ns)


def fill(cluster: ApiCluster, count: int, object_bytes: int) -> int:
    """Make pods 0 to count - 1, each about `object_bytes` of JSON; the size that they have.

    Raises BenchError: a pod without padding is larger than that.
    """
    for namespace in NAMESPACES:
        make_namespace(cluster, namespace)
    made = cluster.request("POST", f"/api/v1/namespaces/{NAMESPACES[0]}/pods", pod(0))
    bare = len(orjson.dumps(made))
    if bare > object_bytes:
        raise BenchError(f"--object-bytes must be at least {bare}: a pod without padding has so many")
    trio.run(_put_all, cluster.store.endpoint(cluster.leader), made, count, object_bytes - bare)
    found = cluster.request("GET", path(count - 1))
    return len(orjson.dumps(found))


def make_namespace(cluster: ApiCluster, name_: str) -> None:
    """With the service account that its pods need."""
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name_}}
    cluster.request("POST", "/api/v1/namespaces", namespace)
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}
    cluster.request("POST", f"/api/v1/namespaces/{name_}/serviceaccounts", account)


def as_stored(made: dict[str, Any], number: int, padding: int) -> dict[str, Any]:
    """Pod `number` as the store has it, after the example of one that the API server made."""
    wanted = pod(number, padding=padding)
    uid = f"{number:08d}" + made["metadata"]["uid"][8:]
    metadata = {**made["metadata"], **wanted["metadata"], "uid": uid}
    del metadata["resourceVersion"]
    spec = {**made["spec"], "nodeName": wanted["spec"]["nodeName"]}
    return {**made, "metadata": metadata, "spec": spec}


async def _put_all(endpoint: Endpoint, made: dict[str, Any], count: int, padding: int) -> None:
    resource = find("", "v1", "pods")
    assert resource is not None
    tls = TlsFiles(endpoint.ca, endpoint.cert, endpoint.key)
    numbers = iter(range(count))

    async def put_some() -> None:
        for number in numbers:
            key = resource.key(NAMESPACES[number % 2], name(number)).encode()
            await client.put(key, orjson.dumps(as_stored(made, number, padding)))

    async with StoreClient.open(
        TcpNetwork(), [Address(endpoint.host, endpoint.port)], tls, name="bench", pinned=True
    ) as client:
        async with trio.open_nursery() as nursery:
            for _ in range(_TOGETHER):
                nursery.start_soon(put_some)
