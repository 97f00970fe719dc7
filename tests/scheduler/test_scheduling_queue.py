"""The queue: order, backoff, what wakes a parked pod, and that none is ever lost."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from scheduler_objects import info

from raftkube.scheduler.core.queue import BACKOFF_MAX_S, UNSCHEDULABLE_MAX_S, SchedulingQueue


def drain(queue: SchedulingQueue, now: float) -> list[str]:
    names = []
    while (popped := queue.pop(now)) is not None:
        names.append(popped.key.removeprefix("default/"))
    return names


def test_priority_then_age() -> None:
    queue = SchedulingQueue()
    for now, (name, priority) in enumerate([("a", 0), ("b", 10), ("c", 0), ("d", 10)]):
        queue.add(info(name, priority=priority), now)
    assert drain(queue, 10) == ["b", "d", "a", "c"]


def test_a_parked_pod_waits_for_a_change_and_its_backoff() -> None:
    queue = SchedulingQueue()
    queue.add(info("a"), 0)
    popped = queue.pop(0)
    assert popped is not None
    queue.park(popped, 0)
    assert drain(queue, 100) == []
    queue.cluster_changed(100.0)
    assert drain(queue, 100) == ["a"]
    queue.park(popped, 100)  # second attempt: 2 s
    queue.cluster_changed(100.5)
    assert drain(queue, 101.9) == []
    assert queue.next_due() == 102
    assert drain(queue, 102) == ["a"]


def test_backoff_doubles_to_its_bound() -> None:
    queue = SchedulingQueue()
    queue.add(info("a"), 0)
    now, waits = 0.0, []
    for _ in range(6):
        popped = queue.pop(now)
        assert popped is not None
        queue.retry(popped, now)
        waits.append(queue.next_due() - now)
        now = queue.next_due()
    assert waits == [1, 2, 4, 8, BACKOFF_MAX_S, BACKOFF_MAX_S]


def test_a_change_during_the_attempt_is_not_lost() -> None:
    queue = SchedulingQueue()
    queue.add(info("a"), 0)
    popped = queue.pop(0)
    assert popped is not None
    queue.cluster_changed(0.1)
    queue.park(popped, 0.2)
    assert queue.count("parked") == 0
    assert drain(queue, 1.2) == ["a"]


def test_a_long_parked_pod_is_tried_anyway() -> None:
    queue = SchedulingQueue()
    queue.add(info("a"), 0)
    popped = queue.pop(0)
    assert popped is not None
    queue.park(popped, 0)
    assert queue.next_due() == UNSCHEDULABLE_MAX_S
    assert drain(queue, UNSCHEDULABLE_MAX_S) == ["a"]


def test_a_changed_spec_wakes_it_and_a_changed_status_does_not() -> None:
    queue = SchedulingQueue()
    queue.add(info("a", cpu="8"), 0)
    popped = queue.pop(0)
    assert popped is not None
    queue.park(popped, 0)
    same = info("a", cpu="8")
    same.obj["status"]["conditions"] = [{"type": "PodScheduled"}]
    queue.add(same, 50)
    assert drain(queue, 50) == []
    queue.add(info("a", cpu="1"), 51)
    assert drain(queue, 51) == ["a"]


def test_a_pod_reborn_under_its_name_is_another() -> None:
    queue = SchedulingQueue()
    queue.add(info("a"), 0)
    old = queue.pop(0)
    assert old is not None
    obj = info("a").obj
    reborn = type(old).of(obj | {"metadata": obj["metadata"] | {"uid": "other"}})
    queue.add(reborn, 1)
    queue.park(old, 2)
    queue.remove(old.key, old.uid)
    assert queue.pop(2) == reborn


@given(st.lists(st.tuples(st.sampled_from(["add", "pop", "park", "retry", "change", "wait", "remove"]),
                          st.integers(0, 4)), max_size=80))  # fmt: skip
def test_no_pod_is_lost_or_given_twice(script: list[tuple[str, int]]) -> None:
    queue = SchedulingQueue()
    now = 0.0
    present: set[str] = set()
    held: dict[str, Any] = {}
    for action, number in script:
        key = f"default/p{number}"
        if action == "add":
            queue.add(info(f"p{number}", priority=number % 2), now)
            present.add(key)
        elif action == "pop" and (popped := queue.pop(now)) is not None:
            assert popped.key in present
            assert popped.key not in held
            held[popped.key] = popped
        elif action in ("park", "retry") and key in held:
            getattr(queue, action)(held.pop(key), now)
        elif action == "change":
            queue.cluster_changed(now)
        elif action == "wait":
            now += number
        elif action == "remove":
            queue.remove(key)
            present.discard(key)
            held.pop(key, None)
    for popped in held.values():
        queue.park(popped, now)
    queue.cluster_changed(now)
    assert {f"default/{name}" for name in drain(queue, now + BACKOFF_MAX_S)} == present
