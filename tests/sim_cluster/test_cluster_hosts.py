"""Simulated hosts: the dead reach nobody, not even from a `finally`; those that stand take no step."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

from chaos.recording import MemoryRecorder
from chaos.sim.clock import run_simulation
from chaos.sim.cluster_door import ApiDoor, watched_doors
from chaos.sim.cluster_faults import Scene
from chaos.sim.cluster_observers import LogObserver
from chaos.sim.cluster_settings import ClusterSettings
from chaos.sim.cluster_world import ClusterWorld

SETTINGS = ClusterSettings(apiservers=1, kubelets=0, schedulers=0)
KIND = "controller-manager"
LEASE = "/registry/coordination.k8s.io/leases/kube-system/kube-controller-manager"


class Stage:
    """A running cluster and the log so far."""

    def __init__(self, world: ClusterWorld, nursery: trio.Nursery) -> None:
        self.world, self.observer = world, LogObserver(world)
        self.scene = Scene(world, self.observer, nursery)

    def lease_changes(self, since_s: float) -> list[str]:
        """Kinds of the log's events of the Lease."""
        return [
            record["kind"]
            for record in self.world.recorder.records
            if record.get("key") == LEASE and record["recv_ns"] > since_s * 1e9
        ]

    async def leader(self, but: str = "") -> str:
        for _ in range(600):
            if (name := self.scene.leader(KIND)) not in (None, but):
                assert name is not None
                return name
            await trio.sleep(0.1)
        raise AssertionError("nobody leads")


def tell(story: Callable[[Stage], Awaitable[None]]) -> list[dict[str, object]]:
    """Run a story on a cluster without nodes; the history."""
    recorder = MemoryRecorder(trio.current_time)

    async def main() -> None:
        door = ApiDoor(recorder)
        recorder.write({"format": 1})
        with watched_doors(door):
            async with trio.open_nursery() as nursery:
                stage = Stage(ClusterWorld(1, SETTINGS, nursery, door, recorder), nursery)
                for name in stage.world.everyone():
                    stage.world.start(name)
                nursery.start_soon(stage.observer.run)
                await story(stage)
                nursery.cancel_scope.cancel()

    run_simulation(1, main)
    return recorder.records


def test_a_killed_leader_does_not_release_its_lease() -> None:
    async def story(stage: Stage) -> None:
        name = await stage.leader()
        await trio.sleep(5.0)
        now = trio.current_time()
        await stage.world.kill(name)
        await trio.sleep(1.0)
        assert "delete" not in stage.lease_changes(now), "its `finally` reached the API"
        await stage.leader(but=name)
        assert stage.lease_changes(now)[-2:] == ["delete", "put"]

    tell(story)


def test_a_standing_leader_renews_nothing_and_is_refused_when_it_goes_on() -> None:
    async def story(stage: Stage) -> None:
        name = await stage.leader()
        await trio.sleep(5.0)
        stage.world.pause(name)
        await trio.sleep(0.1)  # what it had sent arrives
        now = trio.current_time()
        await trio.sleep(SETTINGS.lease_s / 2)
        assert stage.lease_changes(now) == []
        await stage.leader(but=name)
        stage.world.resume(name)
        await trio.sleep(5.0)

    ends = [record for record in tell(story) if record.get("kind") == "process_ended"]
    assert [end["error"] for end in ends] == ["LeadershipEnded"]


def test_a_host_that_stands_can_be_killed_and_started() -> None:
    async def story(stage: Stage) -> None:
        name = await stage.leader()
        stage.world.pause(name)
        await stage.world.kill(name)
        other = await stage.leader(but=name)
        stage.world.start(name)
        await stage.world.kill(other)
        assert await stage.leader(but=other) == name

    tell(story)
