"""Whether the parts of a cluster serve yet, and who leads: asked as the operator, over the wire.

Every wait here polls until it holds; the caller bounds it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, Final

import orjson
import trio

from raftkube.clock import Clock
from raftkube.cluster.plan import Component, Plan, kubelet_node
from raftkube.cluster.state import ClusterState
from raftkube.errors import ConfigError, StoreError
from raftkube.net import Network, TlsFiles, parse_address
from raftkube.net.http_client import HttpClient, HttpClientError
from raftkube.rng import Rng
from raftkube.store.client import StoreClient
from raftkube.types import member_name

_POLL_S: Final = 0.1
_LEASES: Final = {"scheduler": "kube-scheduler", "controller-manager": "kube-controller-manager"}


class Readiness:
    """Asks the components of one cluster."""

    def __init__(self, state: ClusterState, plan: Plan, network: Network, clock: Clock, rng: Rng) -> None:
        self._plan = plan
        self._network = network
        self._clock = clock
        self._rng = rng
        pki = state.pki
        self._store_tls = TlsFiles(
            str(pki / "store-ca.crt"), str(pki / "store-admin.crt"), str(pki / "store-admin.key")
        )
        self._api_tls = TlsFiles(str(pki / "ca.crt"), str(pki / "admin.crt"), str(pki / "admin.key"))
        # Called on every poll; raises ConfigError when waiting is useless.
        self.check: Callable[[], None] = lambda: None

    async def store(self) -> None:
        """Until the store has a leader."""
        await self._until(lambda: self.leader("store"))

    async def api(self) -> None:
        """Until the API answers behind the balancer and every API server is ready."""
        for address in (
            *self._plan.addresses("apiserver", "secure"),
            *self._plan.addresses("balancer", "front"),
        ):
            await self._until(lambda address=address: self._is_ready(address))  # type: ignore[misc]

    async def control_loops(self) -> None:
        """Until one scheduler and one controller manager lead, where there are any."""
        for kind in ("controller-manager", "scheduler"):
            if self._plan.of_kind(kind):
                await self._until(lambda kind=kind: self.leader(kind))  # type: ignore[misc]

    async def nodes(self) -> None:
        """Until every kubelet's node is Ready."""
        for component in self._plan.of_kind("kubelet"):
            node = kubelet_node(component.name)
            await self._until(lambda node=node: self._node_ready(node))  # type: ignore[misc]

    async def leader(self, kind: str) -> str | None:
        """The component of `kind` that leads now; None if none is known. Raises ConfigError: no such kind."""
        if kind == "store":
            return await self._store_leader()
        if kind not in _LEASES:
            raise ConfigError(f"--leader takes store, {' or '.join(_LEASES)}, not {kind!r}")
        lease = await self._get(f"/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/{_LEASES[kind]}")
        holder = ((lease or {}).get("spec") or {}).get("holderIdentity") or ""
        for component in self._plan.of_kind(kind):
            if holder == component.name or holder.startswith(component.name + "_"):
                return component.name
        return None

    async def _store_leader(self) -> str | None:
        """The answer of the highest term counts."""
        known = [status for status in (await self.store_statuses()).values() if status["leader"]]
        if not known:
            return None
        return member_name(max(known, key=lambda status: int(status["term"]))["leader"])

    async def store_statuses(self) -> dict[str, dict[str, Any]]:
        """What each store says of itself, all asked at once; those that do not answer are left out."""
        statuses: dict[str, dict[str, Any]] = {}

        async def one(component: Component) -> None:
            address = parse_address(f"127.0.0.1:{component.ports['client']}")
            with trio.move_on_after(1), contextlib.suppress(StoreError, OSError):
                async with StoreClient.open(
                    self._network,
                    [address],
                    self._store_tls,
                    name="supervisor",
                    clock=self._clock,
                    rng=self._rng,
                    pinned=True,
                ) as client:
                    statuses[component.name] = await client.status()

        async with trio.open_nursery() as nursery:
            for component in self._plan.of_kind("store"):
                nursery.start_soon(one, component)
        return statuses

    async def _is_ready(self, address: str) -> bool:
        client = HttpClient(self._network, parse_address(address), self._api_tls)
        try:
            return (await client.request("GET", "/readyz")).status == 200
        except HttpClientError:
            return False
        finally:
            await client.aclose()

    async def _node_ready(self, node: str) -> bool:
        found = await self._get(f"/api/v1/nodes/{node}")
        conditions = ((found or {}).get("status") or {}).get("conditions") or []
        return any(c.get("type") == "Ready" and c.get("status") == "True" for c in conditions)

    async def _get(self, path: str) -> dict[str, Any] | None:
        """The object at `path` from any API server that answers; None: not there, or none answers."""
        for address in self._plan.addresses("apiserver", "secure"):
            client = HttpClient(self._network, parse_address(address), self._api_tls)
            with trio.move_on_after(2):
                try:
                    response = await client.request("GET", path)
                except HttpClientError:
                    continue
                finally:
                    await client.aclose()
                if response.status == 200:
                    loaded: dict[str, Any] = orjson.loads(response.body)
                    return loaded
                if response.status == 404:
                    return None
        return None

    async def _until(self, holds: Callable[[], Any]) -> None:
        while not await holds():
            self.check()
            await trio.sleep(_POLL_S)
