"""What the harness sees of the cluster's inner life, written into the history: terms, resets, holders.

A fault counts as effective only by one of these consequences, never because a signal was sent.
"""

from __future__ import annotations

from typing import Any, Final

import orjson
import trio

from chaos.live.cluster import LiveCluster
from chaos.recording import Recorder
from raftkube.errors import StoreError
from raftkube.net.http_client import HttpClient, HttpClientError
from raftkube.net.tcp import TcpNetwork
from raftkube.store.client import StoreClient

_POLL_S: Final = 0.1
_LEASES: Final = {"scheduler": "kube-scheduler", "controller-manager": "kube-controller-manager"}


class Observers:
    """Watches a cluster from outside; everything seen is written and kept in `seen`."""

    def __init__(self, cluster: LiveCluster, recorder: Recorder) -> None:
        self._cluster = cluster
        self._recorder = recorder
        self._network = TcpNetwork()
        self.seen: list[dict[str, Any]] = []
        self.leader: str | None = None
        self.term = 0
        self.holders: dict[str, tuple[str, int]] = {}

    async def run(self) -> None:
        """Until cancelled."""
        async with trio.open_nursery() as nursery:
            for member in self._cluster.named("store"):
                nursery.start_soon(self._watch_term, member)
            for server in self._cluster.named("apiserver"):
                nursery.start_soon(self._watch_connection, server)
            if self._cluster.named("apiserver"):
                nursery.start_soon(self._watch_holders)

    def _see(self, kind: str, **fields: Any) -> None:
        record = {"type": "observe", "kind": kind, "time_ns": self._recorder.now_ns(), **fields}
        self.seen.append(record)
        self._recorder.write(record)

    async def _watch_term(self, member: str) -> None:
        """Poll one member's status over one connection; its loss is a reset."""
        address, tls = self._cluster.address(member), self._cluster.store_tls
        while True:
            connected = False
            try:
                async with StoreClient.open(
                    self._network, [address], tls, name="chaos-observer", pinned=True
                ) as store:
                    while True:
                        with trio.fail_after(2):
                            self._on_status(member, await store.status())
                        connected = True
                        await trio.sleep(_POLL_S)
            except (StoreError, trio.TooSlowError) as error:
                if connected:
                    self._see("reset", component=member, error=type(error).__name__)
            await trio.sleep(_POLL_S)

    def _on_status(self, member: str, status: dict[str, Any]) -> None:
        term, leader = status["term"], status["leader"]
        if leader and (term > self.term or (term == self.term and leader != self.leader)):
            self.term, self.leader = term, leader
            self._see("term", term=term, leader=leader, told_by=member)

    async def _watch_connection(self, server: str) -> None:
        """Hold a watch open on one API server; when it is cut, that is a reset."""
        path = "/api/v1/namespaces/default/configmaps?watch=1&timeoutSeconds=3600"
        client = HttpClient(self._network, self._cluster.address(server), self._cluster.api_tls)
        while True:
            opened = False
            try:
                async with client.stream("GET", path) as stream:
                    opened = stream.status == 200
                    async for _ in stream:
                        pass
            except HttpClientError:
                pass
            if opened:
                self._see("reset", component=server, error="watch ended")
            await trio.sleep(_POLL_S)

    async def _watch_holders(self) -> None:
        """Poll the two leases through any API server that answers."""
        clients = [
            HttpClient(self._network, self._cluster.address(server), self._cluster.api_tls)
            for server in self._cluster.named("apiserver")
        ]
        while True:
            for kind, lease in _LEASES.items():
                for client in clients:
                    found = await _get_lease(client, lease)
                    if found is not None:
                        self._on_lease(kind, found)
                        break
            await trio.sleep(_POLL_S)

    def _on_lease(self, kind: str, lease: dict[str, Any]) -> None:
        holder = str(lease.get("spec", {}).get("holderIdentity") or "")
        token = int(lease["metadata"].get("annotations", {}).get("raftkube.dev/fencing-token", 0))
        if holder and self.holders.get(kind) != (holder, token):
            self.holders[kind] = (holder, token)
            self._see("holder", lease=kind, holder=holder, token=token)


async def _get_lease(client: HttpClient, lease: str) -> dict[str, Any] | None:
    path = f"/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/{lease}"
    with trio.move_on_after(2):
        try:
            response = await client.request("GET", path)
        except HttpClientError:
            return None
        if response.status == 200:
            loaded: dict[str, Any] = orjson.loads(response.body)
            return loaded
    return None
