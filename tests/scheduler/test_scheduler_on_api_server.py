"""The scheduler on real API servers: TLS sockets, real Leases, real refusals by the fencing check."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from api_world import World, world
from scheduler_objects import node, pod

from raftkube.api.status import ApiError
from raftkube.client.cache import INDEXES
from raftkube.client.endpoints import EVENTS, LEASES, NODES, PODS
from raftkube.client.errors import FencingTokenStale, LeadershipEnded
from raftkube.client.informer import Informer
from raftkube.client.kubeconfig import ClusterAccess
from raftkube.client.rest import FencingToken, RestClient
from raftkube.clock import SystemClock
from raftkube.net import Address, Connection, TlsFiles
from raftkube.net.tcp import TcpNetwork
from raftkube.rng import seeded_rng
from raftkube.scheduler.service import SchedulerConfig, run

USER = "system:kube-scheduler"


class CuttableNetwork:
    """The real network, until it is cut: then nobody is reached any more (the process is dead)."""

    def __init__(self) -> None:
        self._real = TcpNetwork()
        self._made: list[Connection] = []
        self.dead = False
        self.listen = self._real.listen

    async def connect(self, address: Address, tls: TlsFiles | None) -> Connection:
        if self.dead:
            await trio.lowlevel.checkpoint()
            raise ConnectionRefusedError("dead")
        connection = await self._real.connect(address, tls)
        self._made.append(connection)
        return connection

    def cut(self) -> None:
        self.dead = True
        for connection in self._made:
            connection.abort()


class Process:
    """One scheduler with a network of its own."""

    def __init__(self, w: World, number: int) -> None:
        self.name = f"scheduler-{number}"
        self.network = CuttableNetwork()
        self.scope = trio.CancelScope()
        self.over = trio.Event()
        self.ended: list[str] = []
        self._config = SchedulerConfig(self.name, ClusterAccess(tuple(w.addresses), w.tls(USER)))
        self._seed = number

    async def run(self) -> None:
        with self.scope:
            try:
                await run(self._config, network=self.network, clock=SystemClock(), rng=seeded_rng(self._seed))
            except* LeadershipEnded as group:
                self.ended = [str(error) for error in group.exceptions]
        self.over.set()


def client_of(w: World, user: str = "admin", *, servers: int = 2) -> RestClient:
    groups = ("system:masters",) if user == "admin" else ()
    tls = w.tls(user, *groups)
    return RestClient.connect(
        w.network, w.addresses[:servers], tls, user_agent="test", clock=SystemClock(), rng=seeded_rng(9)
    )


async def until(what: str, ready: Callable[[], Any], seconds: float = 30) -> None:
    """Wait for `await ready()` to be true."""
    deadline = trio.current_time() + seconds
    while not await ready():
        assert trio.current_time() < deadline, f"not within {seconds} s: {what}"
        await trio.sleep(0.05)


def fresh_pod(name: str, **fields: Any) -> dict[str, Any]:
    obj = pod(name, **fields)
    del obj["metadata"]["uid"], obj["status"]
    return obj


async def add_node(admin: RestClient, name: str, **fields: Any) -> None:
    obj = node(name, **fields)
    del obj["metadata"]["uid"]
    status = obj.pop("status")
    created = await admin.create(NODES, obj)
    await admin.update_status(NODES, created | {"status": status})


async def node_of(admin: RestClient, name: str) -> str:
    return str((await admin.get(PODS, name, "default"))["spec"].get("nodeName") or "")


async def holder(admin: RestClient) -> str:
    try:
        lease = await admin.get(LEASES, "kube-scheduler", "kube-system")
    except ApiError as error:
        if error.code == 404:
            return ""
        raise
    return str(lease["spec"]["holderIdentity"]).partition("_")[0]


@asynccontextmanager
async def two_schedulers(
    directory: Path,
) -> AsyncIterator[tuple[World, RestClient, Process, Process]]:
    """Two API servers, two nodes; scheduler-1 leads, scheduler-2 waits."""
    async with world(directory, servers=2) as w, trio.open_nursery() as nursery:
        admin = client_of(w)
        for name in ("node-1", "node-2"):
            await add_node(admin, name)
        first, second = Process(w, 1), Process(w, 2)
        nursery.start_soon(first.run)
        await until("scheduler-1 leads", lambda: _is(holder(admin), "scheduler-1"))
        nursery.start_soon(second.run)
        yield w, admin, first, second
        nursery.cancel_scope.cancel()


async def _is(found: Any, wanted: str) -> bool:
    return bool(await found == wanted)


async def _scheduled(admin: RestClient, *names: str) -> bool:
    return all([await node_of(admin, name) for name in names])


async def test_pods_are_bound_and_spread(tmp_path: Path) -> None:
    async with two_schedulers(tmp_path) as (_, admin, _, _):
        for number in range(3):
            await admin.create(PODS, fresh_pod(f"web-{number}", owner="rs"))
        names = [f"web-{number}" for number in range(3)]
        await until("all are bound", lambda: _scheduled(admin, *names))
        assert {await node_of(admin, name) for name in names} == {"node-1", "node-2"}
        bound = await admin.get(PODS, "web-0", "default")
        conditions = {c["type"]: c["status"] for c in bound["status"]["conditions"]}
        assert conditions["PodScheduled"] == "True"

        async def event_is_there() -> bool:
            events = (await admin.list(EVENTS, "default", field_selector="reason=Scheduled")).items
            return any("Successfully assigned default/web-0 to node-" in e["message"] for e in events)

        await until("the event is there", event_is_there)


async def test_unschedulable_says_so_until_a_node_comes(tmp_path: Path) -> None:
    async with two_schedulers(tmp_path) as (_, admin, _, _):
        await admin.create(PODS, fresh_pod("big", cpu="6"))

        async def explained() -> bool:
            status = (await admin.get(PODS, "big", "default"))["status"]
            return any(
                c["reason"] == "Unschedulable"
                and c["message"] == "0/2 nodes are available: 2 Insufficient cpu."
                for c in status.get("conditions") or ()
            )

        await until("the condition is there", explained)
        await add_node(admin, "node-3", cpu="8")
        await until("it is bound", lambda: _is(node_of(admin, "big"), "node-3"))


async def test_a_dead_leader_is_replaced(tmp_path: Path) -> None:
    async with two_schedulers(tmp_path) as (_, admin, first, _):
        first.network.cut()
        await until("scheduler-2 leads", lambda: _is(holder(admin), "scheduler-2"))
        await admin.create(PODS, fresh_pod("after"))
        await until("it is bound", lambda: _scheduled(admin, "after"))


async def test_a_stopped_leader_hands_over(tmp_path: Path) -> None:
    async with two_schedulers(tmp_path) as (_, admin, first, _):
        first.scope.cancel()
        await first.over.wait()
        assert first.ended == []
        await until("scheduler-2 leads", lambda: _is(holder(admin), "scheduler-2"), 3)


async def test_a_deposed_leader_is_refused_by_the_server_and_ends(tmp_path: Path) -> None:
    async with two_schedulers(tmp_path) as (w, admin, first, _):
        lease = await admin.get(LEASES, "kube-scheduler", "kube-system")
        token = lease["metadata"]["annotations"]["raftkube.dev/fencing-token"]
        await admin.delete(LEASES, "kube-scheduler", "kube-system")
        with trio.fail_after(20):
            await first.over.wait()
        assert len(first.ended) == 1
        assert "409" in first.ended[0] or "404" in first.ended[0]
        await until("scheduler-2 leads", lambda: _is(holder(admin), "scheduler-2"))
        other = await admin.create(PODS, fresh_pod("other", schedulerName="nobody"))
        deposed = client_of(w, USER).fenced(stale := FencingToken(token))
        with pytest.raises(FencingTokenStale, match="kube-scheduler"):
            await deposed.bind(other, "node-1")
        assert stale.stale.is_set()
        assert await node_of(admin, "other") == ""


async def test_an_api_server_that_goes_costs_nothing(tmp_path: Path) -> None:
    async with world(tmp_path) as w, trio.open_nursery() as nursery:
        stop = trio.Event()
        await w.start(stop=stop)
        admin = client_of(w, servers=1)
        await add_node(admin, "node-1")
        only = Process(w, 1)
        pods = Informer(client_of(w), PODS, rng=seeded_rng(3), indexes=INDEXES)
        nursery.start_soon(only.run)
        await nursery.start(pods.run)
        await until("it leads", lambda: _is(holder(admin), "scheduler-1"))
        stop.set()
        for number in range(3):
            pods.wrote(await admin.create(PODS, fresh_pod(f"p{number}")))
        await until("all are bound", lambda: _scheduled(admin, "p0", "p1", "p2"))
        with trio.fail_after(20):
            await pods.wait_for_writes()
        assert len(pods.by_index("namespace", "default")) == 3
        assert await holder(admin) == "scheduler-1"
        assert only.ended == []
        nursery.cancel_scope.cancel()
