"""Controllers that die after any of their writes, and answers that are lost: what is left is always enough
to go on from, and never too much."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import trio
from controlled_world import Cluster, cluster, deployment, rolled_out, until

from raftkube.client.endpoints import DEPLOYMENTS, PODS, REPLICA_SETS
from raftkube.client.errors import IndefiniteApiError
from raftkube.client.rest import RestClient
from raftkube.clock import SystemClock
from raftkube.controllers.controller_manager import Choice, run_controllers
from raftkube.controllers.metrics import ControllerMetrics
from raftkube.controllers.runtime import Context
from raftkube.rng import seeded_rng

WRITES_OF_A_ROLLOUT = 14


class FaultyClient(RestClient):
    """The real client, which dies after its n-th write, or loses the answers of some."""

    writes = 0
    dies_after = 0
    loses_every = 0
    scope = trio.CancelScope()

    async def exchange(self, method: str, target: str, **more: Any) -> Any:
        reply = await super().exchange(method, target, **more)
        if method == "GET" or "/events" in target:
            return reply
        self.writes += 1
        if self.writes == self.dies_after:
            self.scope.cancel()
            await trio.lowlevel.checkpoint()
        if self.loses_every and self.writes % self.loses_every == 0:
            raise IndefiniteApiError(504, "Timeout", "the answer was lost")
        return reply


async def run_until_dead(c: Cluster, *, dies_after: int = 0, loses_every: int = 0) -> None:
    """Controllers under an identity that is not fenced, so that only their own logic protects."""
    client = FaultyClient.connect(
        c.world.network, c.world.addresses, c.world.tls("admin", "system:masters"),
        user_agent="test", clock=SystemClock(), rng=seeded_rng(dies_after),
    )  # fmt: skip
    assert isinstance(client, FaultyClient)
    client.dies_after, client.loses_every = dies_after, loses_every
    client.scope = trio.CancelScope()
    clock, rng = SystemClock(), seeded_rng(f"controllers {dies_after}")
    with client.scope:
        await run_controllers(Context(client, clock, rng, ControllerMetrics()), Choice())


async def assert_right(c: Cluster, image: str, replicas: int) -> None:
    assert {p["spec"]["containers"][0]["image"] for p in await c.objects(PODS)} == {image}
    assert len(await c.names(PODS)) == replicas
    owners = {p["metadata"]["ownerReferences"][0]["uid"] for p in await c.objects(PODS)}
    assert owners <= {rs["metadata"]["uid"] for rs in await c.objects(REPLICA_SETS)}


async def test_dying_after_each_write_of_a_rollout(tmp_path: Path) -> None:
    async with cluster(tmp_path) as c:
        await c.admin.create(DEPLOYMENTS, deployment(3))
        for writes in range(1, WRITES_OF_A_ROLLOUT + 1):
            image = f"web:{writes}"
            await c.set_image(image)
            with trio.move_on_after(2):  # a rollout may be over before so many writes
                await run_until_dead(c, dies_after=writes)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(run_until_dead, c)
                await until(f"rolled out after dying at {writes}", lambda: rolled_out(c))
                nursery.cancel_scope.cancel()
            await assert_right(c, image, 3)
        assert c.most_active <= 4, "never more than desired and surge"


async def test_lost_answers_make_nothing_twice(tmp_path: Path) -> None:
    async with cluster(tmp_path) as c, trio.open_nursery() as nursery:
        await c.admin.create(DEPLOYMENTS, deployment(8))

        async def control() -> None:
            await run_until_dead(c, loses_every=3)

        nursery.start_soon(control)
        await until("rolled out", lambda: rolled_out(c))
        await assert_right(c, "web:1", 8)
        assert c.most_active == 8, "no pod was made twice"
        assert c.deleted_pods == []
        nursery.cancel_scope.cancel()
