"""The work queue's promises: once, never twice at a time, never lost; backoff; delays; stop."""

from __future__ import annotations

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from raftkube.client.work_queue import QueueStopped, WorkQueue
from raftkube.clock import SystemClock


def new_queue(**options: float) -> WorkQueue[str]:
    return WorkQueue(SystemClock(), **options)


async def test_a_key_stands_in_it_once_and_in_order() -> None:
    queue = new_queue()
    for key in ("a", "b", "a", "c", "b"):
        queue.add(key)
    assert [await queue.get() for _ in range(3)] == ["a", "b", "c"]
    assert len(queue) == 0


async def test_added_while_worked_on_comes_back_when_done() -> None:
    queue = new_queue()
    queue.add("a")
    key = await queue.get()
    queue.add("a")
    queue.add("a")
    assert len(queue) == 0
    queue.done(key)
    assert await queue.get() == "a"
    queue.done("a")
    assert len(queue) == 0


async def test_delays_and_the_earliest_counts(autojump_clock: trio.testing.MockClock) -> None:
    queue = new_queue()
    start = trio.current_time()
    queue.add_after("late", 10)
    queue.add_after("early", 2)
    queue.add_after("late", 5)
    queue.add_after("late", 30)
    got = []
    for _ in range(2):
        key = await queue.get()
        got.append((key, round(trio.current_time() - start, 3)))
        queue.done(key)
    assert got == [("early", 2.0), ("late", 5.0)]
    with trio.move_on_after(100) as scope:
        await queue.get()
    assert scope.cancelled_caught


async def test_a_waiting_worker_hears_of_an_earlier_delay(autojump_clock: trio.testing.MockClock) -> None:
    queue = new_queue()
    queue.add_after("late", 1000)
    start = trio.current_time()
    async with trio.open_nursery() as nursery:

        async def add() -> None:
            await trio.sleep(1)
            queue.add_after("soon", 1)

        nursery.start_soon(add)
        assert await queue.get() == "soon"
    assert round(trio.current_time() - start, 3) == 2.0


async def test_backoff_doubles_to_its_bound_and_is_forgotten(autojump_clock: trio.testing.MockClock) -> None:
    queue = new_queue(backoff_base_s=1, backoff_max_s=5)
    waits = []
    for _ in range(5):
        start = trio.current_time()
        queue.add_rate_limited("a")
        queue.done(await queue.get())
        waits.append(round(trio.current_time() - start, 3))
    assert waits == [1, 2, 4, 5, 5]
    queue.forget("a")
    start = trio.current_time()
    queue.add_rate_limited("a")
    await queue.get()
    assert round(trio.current_time() - start, 3) == 1


async def test_stop_ends_every_worker() -> None:
    queue = new_queue()
    ended = []

    async def worker() -> None:
        with pytest.raises(QueueStopped):
            await queue.get()
        ended.append(1)

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(worker)
        await trio.testing.wait_all_tasks_blocked()
        queue.stop()
    assert len(ended) == 3
    queue.add("a")
    with pytest.raises(QueueStopped):
        await queue.get()


async def test_no_key_is_worked_on_twice_at_once_nor_lost(autojump_clock: trio.testing.MockClock) -> None:
    queue = new_queue()
    working: set[str] = set()
    level: dict[str, int] = {}  # what a worker must have seen at last
    seen: dict[str, int] = {}

    async def worker() -> None:
        while True:
            try:
                key = await queue.get()
            except QueueStopped:
                return
            assert key not in working
            working.add(key)
            observed = level[key]
            await trio.sleep(0.3)
            seen[key] = observed
            working.discard(key)
            queue.done(key)

    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(worker)
        for number in range(200):
            key = "abcdefg"[number * number % 7]
            level[key] = number
            queue.add(key) if number % 3 else queue.add_after(key, 0.7)
            await trio.sleep(0.05 if number % 5 else 0)
        await trio.sleep(60)
        queue.stop()
    assert seen == level


async def test_a_cancelled_get_takes_nothing(autojump_clock: trio.testing.MockClock) -> None:
    queue = new_queue()
    with trio.move_on_after(1):
        await queue.get()
    async with trio.open_nursery() as nursery:
        scope = trio.CancelScope()

        async def get_and_be_cancelled() -> None:
            with scope:
                await queue.get()

        nursery.start_soon(get_and_be_cancelled)
        await trio.testing.wait_all_tasks_blocked()
        scope.cancel()
        queue.add("a")
    with trio.fail_after(1):
        assert await queue.get() == "a"


@given(st.lists(st.sampled_from(["add a", "add b", "get", "done"]), max_size=60))
def test_every_add_is_followed_by_a_get(steps: list[str]) -> None:
    async def run() -> None:
        queue = new_queue()
        pending: set[str] = set()  # added since its last get
        held: list[str] = []
        for step in steps:
            if step.startswith("add"):
                queue.add(step[4:])
                pending.add(step[4:])
            elif step == "get" and len(queue):
                key = await queue.get()
                assert key in pending
                assert key not in held
                pending.discard(key)
                held.append(key)
            elif step == "done" and held:
                queue.done(held.pop())
        for key in held:
            queue.done(key)
        assert {await queue.get() for _ in range(len(queue))} == pending

    trio.run(run)
