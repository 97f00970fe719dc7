"""Linearizable reads of one member, fed by hand: which answers count for which readers."""

from __future__ import annotations

from random import Random

from raftkube.store.raft import messages as msg
from raftkube.store.raft.messages import Message
from raftkube.store.raft.reads import Reads, ReadView
from raftkube.store.raft.waiting import Waiter


class Outlet:
    def __init__(self) -> None:
        self.sent: list[tuple[str, Message]] = []

    def send(self, name: str, message: Message) -> None:
        self.sent.append((name, message))

    def requests(self) -> list[int]:
        return [message[1] for _, message in self.sent if message[0] == msg.READ_REQUEST]


def follower(seed: int) -> tuple[Reads, Outlet, Waiter]:
    """A follower of n2 that has applied everything and has just asked for one read."""
    outlet, waiter = Outlet(), Waiter()
    reads = Reads(outlet, 5.0, Random(seed))
    reads.set_voters(["n2", "n3"], 2)
    reads.add(waiter, VIEW.now)
    reads.step(VIEW)
    return reads, outlet, waiter


VIEW = ReadView(100.0, False, 4, "n2", 10, 10, False)


def test_an_answer_to_the_request_at_hand_serves_the_read() -> None:
    reads, outlet, waiter = follower(1)
    reads.receive("n2", [msg.READ_INDEX, outlet.requests()[0], 10], VIEW)
    reads.step(VIEW)
    assert waiter.resolved


def test_an_answer_to_what_was_asked_before_a_restart_serves_nothing() -> None:
    """The leader still works on a request of this member's former life; its index may be older than a
    write that was acknowledged before the new read began."""
    _, before, _ = follower(1)
    reads, _, waiter = follower(2)
    reads.receive("n2", [msg.READ_INDEX, before.requests()[0], 3], VIEW)
    reads.step(VIEW)
    assert not waiter.resolved


def test_an_answer_of_a_member_that_does_not_lead_serves_nothing() -> None:
    reads, outlet, waiter = follower(1)
    reads.receive("n3", [msg.READ_INDEX, outlet.requests()[0], 3], VIEW)
    reads.step(VIEW)
    assert not waiter.resolved
