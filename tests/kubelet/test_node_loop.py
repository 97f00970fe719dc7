"""A node's life in the API, on a clock that jumps."""

from __future__ import annotations

from typing import Any

import trio
from trio.testing import MockClock

from raftkube.api.quantity import canonicalize
from raftkube.api.status import ApiError, conflict, unavailable
from raftkube.kubelet.core.node import (
    LEASE_NAMESPACE,
    Machine,
    NodeSpec,
    is_due,
    make_node,
    node_status,
)
from raftkube.kubelet.node_loop import NodeLoop, this_machine
from raftkube.rng import seeded_rng

MACHINE = Machine(4, 8 << 30, 100 << 30, "amd64", "6.1", "Linux", "m", "b")
SPEC = NodeSpec("node-1", "127.0.0.1", 10250, "process", MACHINE)


class JumpingClock:
    def monotonic(self) -> float:
        return trio.current_time()

    def wall(self) -> float:
        return 1_700_000_000.0 + trio.current_time()


class FakeNodes:
    """One node and one lease in memory; `failures` are raised first."""

    def __init__(self, *failures: ApiError) -> None:
        self.failures = list(failures)
        self.node: dict[str, Any] | None = None
        self.leases: list[float] = []
        self.stored: dict[str, Any] | None = None
        self.writes = 0

    def _fail(self) -> None:
        if self.failures:
            raise self.failures.pop(0)

    async def register(self, node: dict[str, Any]) -> dict[str, Any]:
        await trio.lowlevel.checkpoint()
        self._fail()
        self.node = self.node or node | {"metadata": node["metadata"] | {"uid": "n"}}
        return self.node

    async def patch(self, name: str, patch: dict[str, Any], *, subresource: str = "") -> dict[str, Any]:
        await trio.lowlevel.checkpoint()
        assert self.node is not None
        self.writes += 1
        for section, value in patch.items():
            self.node = self.node | {section: (self.node.get(section) or {}) | value}
        return self.node

    async def renew(self, lease: dict[str, Any]) -> dict[str, Any]:
        await trio.lowlevel.checkpoint()
        self._fail()
        self.leases.append(trio.current_time())
        version = str(len(self.leases))
        self.stored = lease | {"metadata": lease["metadata"] | {"resourceVersion": version}}
        return self.stored

    async def lease(self, namespace: str, name: str) -> dict[str, Any] | None:
        await trio.lowlevel.checkpoint()
        assert (namespace, name) == (LEASE_NAMESPACE, "node-1")
        return self.stored

    def get(self, name: str) -> dict[str, Any] | None:
        return self.node


async def live(nodes: FakeNodes, nursery: trio.Nursery) -> None:
    loop = NodeLoop(SPEC, nodes, nodes, clock=JumpingClock(), rng=seeded_rng(1))
    await nursery.start(loop.run)


async def test_the_lease_is_renewed_every_ten_seconds(autojump_clock: MockClock) -> None:
    nodes = FakeNodes()
    async with trio.open_nursery() as nursery:
        await live(nodes, nursery)
        await trio.sleep(300)
        nursery.cancel_scope.cancel()
    gaps = [late - early for early, late in zip(nodes.leases, nodes.leases[1:], strict=False)]
    assert 28 <= len(gaps) <= 32
    assert all(9.6 <= gap <= 10.4 for gap in gaps)
    assert nodes.writes <= 3  # at registration, and once in five minutes


async def test_a_lost_renewal_is_tried_again_soon(autojump_clock: MockClock) -> None:
    nodes = FakeNodes()
    async with trio.open_nursery() as nursery:
        await live(nodes, nursery)
        await trio.sleep(1)
        nodes.failures = [conflict("", "leases", "node-1", "changed"), unavailable("later")]
        await trio.sleep(20)
        nursery.cancel_scope.cancel()
    gaps = [late - early for early, late in zip(nodes.leases, nodes.leases[1:], strict=False)]
    assert max(gaps) <= 13


async def test_registration_goes_on_until_the_api_is_there(autojump_clock: MockClock) -> None:
    nodes = FakeNodes(*[unavailable("not yet")] * 7)
    async with trio.open_nursery() as nursery:
        with trio.fail_after(60):
            await live(nodes, nursery)
        nursery.cancel_scope.cancel()
    assert nodes.node is not None


async def test_what_others_say_of_the_node_is_mended(autojump_clock: MockClock) -> None:
    nodes = FakeNodes()
    async with trio.open_nursery() as nursery:
        await live(nodes, nursery)
        assert nodes.node is not None
        for condition in nodes.node["status"]["conditions"]:
            condition["status"] = "Unknown"  # as the node lifecycle controller after a silence
        await trio.sleep(11)
        assert {c["type"]: c["status"] for c in nodes.node["status"]["conditions"]}["Ready"] == "True"
        nursery.cancel_scope.cancel()


async def test_an_old_node_of_this_name_gets_our_labels_and_port(autojump_clock: MockClock) -> None:
    nodes = FakeNodes()
    old = make_node(SPEC._replace(port=1), 0.0)
    nodes.node = old | {"metadata": {"name": "node-1", "uid": "n", "labels": {"mine": "kept"}}}
    async with trio.open_nursery() as nursery:
        await live(nodes, nursery)
        nursery.cancel_scope.cancel()
    assert nodes.node["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"] == 10250
    assert nodes.node["metadata"]["labels"]["kubernetes.io/os"] == "linux"


def test_this_machine_has_everything_that_clients_insist_on() -> None:
    machine = this_machine("/")
    assert machine.cpus >= 1
    assert machine.memory_bytes > 0
    assert machine.disk_bytes > 0
    info = make_node(SPEC._replace(machine=machine), 0.0)["status"]["nodeInfo"]
    assert all(isinstance(value, str) for value in info.values())
    assert all(value for name, value in info.items() if name != "kubeProxyVersion")


def test_a_status_as_the_api_server_stores_it_is_not_written_again() -> None:
    status = node_status(SPEC, {}, 0.0)
    canonicalize(status["capacity"])  # 8388608Ki is stored as 8Gi
    canonicalize(status["allocatable"])
    assert not is_due(SPEC, {"status": status}, now=1.0, last_written=0.0, report_every_s=300.0)
