"""What is seen of a cluster becomes observations, and troubles while it is not whole."""

from __future__ import annotations

from typing import Any, cast

import pytest

from chaos.live.cluster import LiveCluster
from chaos.live.observers import Observers
from chaos.recording import MemoryRecorder


class Members:
    """Three store members; no processes."""

    def named(self, kind: str) -> list[str]:
        return [f"store-{number}" for number in (1, 2, 3)] if kind == "store" else []


class Watched:
    """Observers fed by hand, under a clock set by hand."""

    def __init__(self) -> None:
        self.now_s = 100.0
        recorder = MemoryRecorder(lambda: self.now_s)
        self.observers = Observers(cast(LiveCluster, Members()), recorder)

    def tell(self, member: str, applied: int, **fields: Any) -> None:
        status = {
            "id": member, "term": 1, "leader": "store-1", "role": "follower", "is_learner": False,
            "errors": [], "applied_index": applied,
        }  # fmt: skip
        self.observers._on_status(member, status | fields)

    def all(self, applied: int) -> None:
        for member in Members().named("store"):
            self.tell(member, applied)

    @property
    def kinds(self) -> list[str]:
        return [seen["kind"] for seen in self.observers.seen]


@pytest.fixture
def watched() -> Watched:
    made = Watched()
    made.all(10)
    return made


def test_a_leader_is_seen_once_and_a_later_one_again(watched: Watched) -> None:
    watched.all(11)
    assert watched.kinds == ["term"]
    watched.tell("store-2", 11, term=2, leader="store-2")
    watched.tell("store-3", 11, term=1, leader="store-1")  # it has not heard yet
    assert watched.kinds == ["term", "term"]
    assert (watched.observers.leader, watched.observers.term) == ("store-2", 2)


def test_a_member_that_says_that_it_leads_is_seen_once_a_term(watched: Watched) -> None:
    for term in (1, 1, 2):
        watched.tell("store-1", 10, role="leader", term=term)
    roles = [seen for seen in watched.observers.seen if seen["kind"] == "role"]
    assert [(seen["member"], seen["role"], seen["term"]) for seen in roles] == [
        ("store-1", "leader", 1), ("store-1", "leader", 2),
    ]  # fmt: skip


def test_a_member_is_behind_that_lacks_what_others_had_a_second_ago(watched: Watched) -> None:
    watched.now_s += 0.5
    watched.tell("store-1", 500)
    watched.now_s += 0.5
    watched.tell("store-2", 10)
    assert watched.kinds == ["term"], "half a second is nothing"
    watched.now_s += 0.6
    watched.tell("store-2", 20)
    watched.tell("store-2", 21)
    assert watched.observers.seen[-1]["component"] == "store-2"
    assert watched.kinds == ["term", "behind"], "it is said once"
    assert watched.observers.troubles() == [
        "store-1 does not answer",
        "store-2 is behind",
        "store-3 does not answer",
    ]
    watched.all(500)
    assert watched.observers.troubles() == []


def test_a_failed_disk_is_seen_when_it_is_said(watched: Watched) -> None:
    watched.tell("store-3", 10, errors=["low on disk space: 200 MiB free"])
    assert watched.kinds == ["term"]
    for _ in range(2):
        watched.tell("store-3", 10, errors=["failed: journal: Input/output error"], leader="")
    assert watched.kinds == ["term", "disk"]
    assert watched.observers.troubles() == ["store-3 failed: journal: Input/output error"]


def test_a_new_id_is_seen(watched: Watched) -> None:
    watched.tell("store-3", 10, id="store-3#01234567")
    assert watched.observers.seen[-1] | {"time_ns": 0} == {
        "type": "observe", "kind": "id", "time_ns": 0, "component": "store-3", "id": "store-3#01234567",
        "before": "store-3",
    }  # fmt: skip


@pytest.mark.parametrize(
    "fields",
    [{"leader": ""}, {"is_learner": True}, {"role": "recovering"}],
    ids=["leader", "learner", "recovering"],
)
def test_a_member_without_a_part_is_a_trouble(watched: Watched, fields: dict[str, Any]) -> None:
    watched.tell("store-2", 10, **fields)
    assert watched.observers.troubles() == ["store-2 knows no leader, or does not vote"]


def test_silence_is_seen_of_what_answered_before(watched: Watched) -> None:
    watched.observers._on_silence("apiserver-1", False)
    assert watched.kinds == ["term"]
    watched.observers._on_silence("apiserver-1", True)
    assert watched.kinds == ["term", "silent"]
