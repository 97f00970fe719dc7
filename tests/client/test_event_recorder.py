"""Events: counted, bounded, never in the way."""

from __future__ import annotations

import trio

from raftkube.api.status import ApiError
from raftkube.client.endpoints import EVENTS, PODS
from raftkube.client.events import EventRecorder
from raftkube.clock import SystemClock
from raftkube.rng import seeded_rng
from raftkube.testing.fake_api import Call, FakeApi

POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "web", "namespace": "default", "uid": "u1", "resourceVersion": "5"},
}


def recorder(api: FakeApi) -> EventRecorder:
    return EventRecorder(api.client(), "default-scheduler", clock=SystemClock(), rng=seeded_rng(3))


async def test_equal_events_are_counted(autojump_clock: trio.testing.MockClock) -> None:
    api = FakeApi()
    events = recorder(api)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(events.run)
        for _ in range(3):
            events.warning(POD, "FailedScheduling", "0/0 nodes are available")
        events.normal(POD, "Scheduled", "Successfully assigned default/web to node-1")
        await trio.sleep(1)
        nursery.cancel_scope.cancel()
    stored = sorted((e["reason"], e["type"], e["count"]) for e in api.all(EVENTS))
    assert stored == [("FailedScheduling", "Warning", 3), ("Scheduled", "Normal", 1)]
    first = api.all(EVENTS)[0]
    assert first["involvedObject"] == {
        "apiVersion": "v1", "kind": "Pod", "namespace": "default", "name": "web", "uid": "u1",
        "resourceVersion": "5",
    }  # fmt: skip
    assert first["source"] == {"component": "default-scheduler"}
    assert first["metadata"]["name"].startswith("web.")


async def test_an_event_that_expired_is_made_anew(autojump_clock: trio.testing.MockClock) -> None:
    api = FakeApi()
    events = recorder(api)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(events.run)
        events.normal(POD, "Started", "x")
        await trio.sleep(1)
        api.remove(EVENTS, api.all(EVENTS)[0]["metadata"]["name"], "default")
        events.normal(POD, "Started", "x")
        await trio.sleep(1)
        nursery.cancel_scope.cancel()
    assert [e["count"] for e in api.all(EVENTS)] == [1]


async def test_refusals_and_floods_never_reach_the_caller(autojump_clock: trio.testing.MockClock) -> None:
    api = FakeApi()
    events = recorder(api)

    def refuse(call: Call) -> None:
        raise ApiError(403, "Forbidden", "no events for you")

    for number in range(1_500):
        events.normal(POD, "Started", str(number))
    assert events.dropped == 500
    api.intercept = refuse
    async with trio.open_nursery() as nursery:
        nursery.start_soon(events.run)
        await trio.sleep(1)
        assert events.dropped == 1_500
        api.intercept = lambda call: None
        events.normal(POD, "Started", "y" * 5_000)
        await trio.sleep(1)
        nursery.cancel_scope.cancel()
    assert [len(e["message"]) for e in api.all(EVENTS)] == [1_024]
    assert not api.all(PODS)


async def test_the_names_of_events_are_in_the_order_of_their_time(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """`kubectl describe` sorts by whole seconds; within one, the order of the list, by name, is left."""
    api = FakeApi()
    events = recorder(api)
    reasons = ["Scheduled", "Pulled", "Created", "Started", "Killing"]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(events.run)
        for reason in reasons:
            events.normal(POD, reason, "x")
        await trio.sleep(1)
        nursery.cancel_scope.cancel()
    by_name = sorted(api.all(EVENTS), key=lambda event: event["metadata"]["name"])
    assert [event["reason"] for event in by_name] == reasons
