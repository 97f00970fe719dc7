"""The loop over a scripted API: binding, explaining, faults, and two schedulers of which one acts."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from scheduler_objects import node, pod

from raftkube.api.status import ApiError, conflict
from raftkube.client.endpoints import EVENTS, LEASES, NODES, PODS
from raftkube.client.errors import LeadershipEnded
from raftkube.client.leader_election import ElectionSettings
from raftkube.clock import SystemClock
from raftkube.net.http_client import ResponseLost
from raftkube.rng import seeded_rng
from raftkube.scheduler.loop import Scheduler
from raftkube.scheduler.metrics import SchedulerMetrics
from raftkube.scheduler.service import run_with
from raftkube.testing.fake_api import Call, FakeApi


@asynccontextmanager
async def scheduling(api: FakeApi) -> AsyncIterator[SchedulerMetrics]:
    metrics = SchedulerMetrics()
    scheduler = Scheduler(api.client(), clock=SystemClock(), rng=seeded_rng(1), metrics=metrics)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(scheduler.run)
        yield metrics
        nursery.cancel_scope.cancel()


def node_of(api: FakeApi, name: str) -> str:
    found = api.find(PODS, name, "default")
    assert found is not None
    return str(found["spec"].get("nodeName") or "")


def events(api: FakeApi) -> list[tuple[str, str]]:
    return [(event["reason"], event["message"]) for event in api.all(EVENTS)]


async def test_binds_what_is_there_and_what_comes(autojump_clock: trio.testing.MockClock) -> None:
    api = FakeApi()
    for name in ("node-1", "node-2"):
        api.put(NODES, node(name))
    api.put(PODS, pod("early", owner="rs"))
    async with scheduling(api) as metrics:
        await trio.sleep(0.5)
        api.put(PODS, pod("late", owner="rs"))
        api.put(PODS, pod("later", owner="rs"))
        await trio.sleep(0.5)
    placed = [node_of(api, name) for name in ("early", "late", "later")]
    assert sorted(set(placed)) == ["node-1", "node-2"]
    assert ("Scheduled", f"Successfully assigned default/early to {placed[0]}") in events(api)
    binds = [call for call in api.calls if call.subresource == "binding"]
    assert len(binds) == 3
    assert (
        metrics.registry.get_sample_value("scheduler_schedule_attempts_total", {"result": "scheduled"}) == 3
    )


async def test_says_why_and_goes_on_when_the_cluster_changes(autojump_clock: trio.testing.MockClock) -> None:
    api = FakeApi()
    api.put(NODES, node("node-1", cpu="1"))
    async with scheduling(api):
        api.put(PODS, pod("big", cpu="2"))
        await trio.sleep(3)
        condition = api.find(PODS, "big", "default")["status"]["conditions"][0]
        assert (condition["type"], condition["status"], condition["reason"]) == (
            "PodScheduled", "False", "Unschedulable",
        )  # fmt: skip
        assert condition["message"] == "0/1 nodes are available: 1 Insufficient cpu."
        assert ("FailedScheduling", condition["message"]) in events(api)
        api.put(NODES, node("node-2", cpu="4"))
        await trio.sleep(3)
        assert node_of(api, "big") == "node-2"


async def test_waits_for_a_node_and_for_room(autojump_clock: trio.testing.MockClock) -> None:
    api = FakeApi()
    async with scheduling(api):
        api.put(PODS, pod("first", cpu="1"))
        await trio.sleep(2)
        assert ("FailedScheduling", "no nodes available to schedule pods") in events(api)
        api.put(NODES, node("node-1", cpu="1"))
        await trio.sleep(3)
        assert node_of(api, "first") == "node-1"
        api.put(PODS, pod("second", cpu="1"))
        await trio.sleep(20)
        assert node_of(api, "second") == ""
        api.remove(PODS, "first", "default")
        await trio.sleep(11)
        assert node_of(api, "second") == "node-1"


async def test_a_burst_never_overcommits(autojump_clock: trio.testing.MockClock) -> None:
    api = FakeApi()
    for name in ("node-1", "node-2", "node-3"):
        api.put(NODES, node(name, cpu="4"))
    async with scheduling(api):
        for number in range(20):
            api.put(PODS, pod(f"p{number}", cpu="1"))
        await trio.sleep(5)
        placed = [node_of(api, f"p{number}") for number in range(20)]
        assert {name: placed.count(name) for name in set(placed)} == {
            "node-1": 4, "node-2": 4, "node-3": 4, "": 8,
        }  # fmt: skip


async def test_an_answer_that_is_lost_is_looked_up(autojump_clock: trio.testing.MockClock) -> None:
    api = FakeApi()
    api.put(NODES, node("node-1", cpu="2"))
    lost: list[str] = []

    def lose(call: Call) -> None:
        if call.subresource == "binding" and call.name not in lost:
            lost.append(call.name)
            raise ResponseLost("cut")

    api.after = lose
    async with scheduling(api):
        api.put(PODS, pod("a", cpu="1"))
        api.put(PODS, pod("b", cpu="1"))
        await trio.sleep(5)
        assert (node_of(api, "a"), node_of(api, "b")) == ("node-1", "node-1")
    assert sorted(lost) == ["a", "b"]
    assert sorted(events(api)) == [
        ("Scheduled", f"Successfully assigned default/{name} to node-1") for name in ("a", "b")
    ]
    assert len([call for call in api.calls if call.subresource == "binding"]) == 2


async def test_a_binding_that_fails_gives_the_room_back(autojump_clock: trio.testing.MockClock) -> None:
    api = FakeApi()
    api.put(NODES, node("node-1", cpu="1"))
    refusals = [ApiError(500, "InternalError", "no"), conflict("", "pods", "a", "changed")]

    def refuse(call: Call) -> None:
        if call.subresource == "binding" and refusals:
            raise refusals.pop()

    api.intercept = refuse
    async with scheduling(api):
        api.put(PODS, pod("a", cpu="1"))
        await trio.sleep(10)
        assert not refusals
        assert node_of(api, "a") == "node-1"


async def test_a_pod_deleted_while_it_is_bound_gives_the_room_back(
    autojump_clock: trio.testing.MockClock,
) -> None:
    api = FakeApi()
    api.put(NODES, node("node-1", cpu="1"))

    def delete_first(call: Call) -> None:
        if call.subresource == "binding" and call.name == "a":
            api.remove(PODS, "a", "default")

    api.intercept = delete_first
    async with scheduling(api):
        api.put(PODS, pod("a", cpu="1"))
        await trio.sleep(2)
        api.put(PODS, pod("b", cpu="1"))
        await trio.sleep(15)
        assert node_of(api, "b") == "node-1"


async def test_others_pods_are_left_alone(autojump_clock: trio.testing.MockClock) -> None:
    api = FakeApi()
    api.put(NODES, node("node-1"))
    async with scheduling(api):
        api.put(PODS, pod("theirs", schedulerName="mine"))
        api.put(PODS, pod("gated", schedulingGates=[{"name": "x"}]))
        await trio.sleep(30)
        assert (node_of(api, "theirs"), node_of(api, "gated")) == ("", "")
        gated = pod("gated")
        del gated["metadata"]["uid"]
        api.put(PODS, gated)
        await trio.sleep(2)
        assert node_of(api, "gated") == "node-1"


async def test_a_pod_that_makes_no_sense_stops_nothing(autojump_clock: trio.testing.MockClock) -> None:
    api = FakeApi()
    api.put(NODES, node("node-1"))
    api.put(NODES, node("node-2", cpu="nonsense"))
    async with scheduling(api):
        api.put(PODS, pod("odd", cpu="nonsense"))
        api.put(PODS, pod("fine"))
        await trio.sleep(2)
        assert node_of(api, "fine") == "node-1"
        assert node_of(api, "odd") == ""


class Process:
    """One scheduler process: elected, fenced, and able to be stopped like a process."""

    def __init__(self, api: FakeApi, name: str, seed: int) -> None:
        self.name = name
        self.scope = trio.CancelScope()
        self.client = api.client(user="system:kube-scheduler", seed=seed)
        self.seed = seed
        self.metrics = SchedulerMetrics()
        self.ended: LeadershipEnded | None = None

    async def run(self) -> None:
        with self.scope:
            try:
                await run_with(
                    self.client, self.name, ElectionSettings(), clock=SystemClock(),
                    rng=seeded_rng(self.seed), metrics=self.metrics,
                )  # fmt: skip
            except LeadershipEnded as error:
                self.ended = error


@pytest.mark.parametrize("how", ["stopped", "deposed"])
async def test_of_two_one_acts_and_the_other_takes_over(
    how: str, autojump_clock: trio.testing.MockClock
) -> None:
    api = FakeApi()
    for name in ("node-1", "node-2"):
        api.put(NODES, node(name))
    first, second = Process(api, "scheduler-1", 1), Process(api, "scheduler-2", 2)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(api.expire_leases)
        nursery.start_soon(first.run)
        await trio.sleep(1)
        nursery.start_soon(second.run)
        api.put(PODS, pod("a"))
        await trio.sleep(5)
        assert node_of(api, "a")
        lease = api.find(LEASES, "kube-scheduler", "kube-system")
        assert lease["spec"]["holderIdentity"].startswith("scheduler-1_")
        if how == "stopped":
            first.scope.cancel()
        else:
            api.remove(LEASES, "kube-scheduler", "kube-system")
        await trio.sleep(0.2)
        api.put(PODS, pod("b"))
        await trio.sleep(5)
        assert node_of(api, "b")
        lease = api.find(LEASES, "kube-scheduler", "kube-system")
        assert lease["spec"]["holderIdentity"].startswith("scheduler-2_")
        assert (first.ended is not None) is (how == "deposed")
        nursery.cancel_scope.cancel()
    writes = [c for c in api.calls if c.method != "GET" and c.plural != "leases"]
    assert writes
    assert all(c.headers.get("Raftkube-Fencing-Token") for c in writes)
    binds = [call.name for call in api.calls if call.subresource == "binding"]
    assert binds.count("a") == 1
