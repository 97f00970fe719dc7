"""The queue in front of the log: every caller is answered, with a definite error only where nothing was
appended."""

from __future__ import annotations

from random import Random
from typing import Any

import msgpack
import pytest

from chaos.sim.disk import SimDisk
from raftkube.errors import DeadlineExpired, DiskFailed, InvariantViolation, LeadershipLost, Stopped
from raftkube.store.raft.membership import Configuration
from raftkube.store.raft.mutants import find
from raftkube.store.raft.proposals import Proposals
from raftkube.store.raft.replica import Replica
from raftkube.store.raft.settings import RaftSettings
from raftkube.store.raft.waiting import Waiter


class StillClock:
    now = 100.0

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> float:
        return self.now


class EchoMachine:
    def apply(self, index: int, payload: bytes, operations: Any = None) -> list[Any]:
        return [index] * len(msgpack.unpackb(payload))

    def snapshot(self) -> Any:
        return iter(())

    def restoring(self, chunks: Any) -> Any:
        raise AssertionError("there is no snapshot")


class Nowhere:
    def send(self, name: str, message: list[Any]) -> None:
        pass


def lone_leader(disk: SimDisk) -> Replica:
    replica = Replica(
        name="n1", configuration=Configuration.of_names(["n1"]),
        disk=disk, clock=StillClock(), rng=Random(1), machine=EchoMachine(),
        outlet=Nowhere(), settings=RaftSettings(), mutant=find(None), on_role=lambda role: None,
    )  # fmt: skip
    replica.core.election_deadline = 0.0
    replica.pump()
    assert replica.leading
    return replica


def told(waiter: Waiter) -> list[Any]:
    """What the caller is told, once it is."""
    answers: list[Any] = []
    waiter.tell(answers.append)
    return answers


def stop(replica: Replica) -> None:
    replica.proposals.stop(lambda: Stopped("nothing was proposed"))


def test_a_result_is_covered_by_an_earlier_sync_than_that_of_its_step() -> None:
    """Only what this member has synced counts as held by it: what a failed sync leaves open is unknown."""
    disk = SimDisk(Random(1))
    replica = lone_leader(disk)
    first = told(replica.proposals.add([b"one"], 100.0))
    replica._step()  # appended and synced
    second = told(replica.proposals.add([b"two"], 100.0))
    disk.fail_next["sync"] = 5
    with pytest.raises(DiskFailed):
        replica._step()  # the first is applied, the second appended, the sync fails
    assert first == [[2]] or first == [[3]]
    assert second == []
    stop(replica)
    assert [type(answer) for answer in second] == [LeadershipLost]
    disk.crash(lose_all=True)
    commands = [entry[0] for entry in lone_leader(disk).journal[:]]
    assert any(b"one" in command for command in commands)


def test_what_was_taken_for_an_append_that_failed_is_unknown() -> None:
    replica = lone_leader(SimDisk(Random(1)))
    answers = told(replica.proposals.add([b"one"], 100.0))

    def broken(command: bytes) -> None:
        raise InvariantViolation("the journal refuses")

    with pytest.raises(InvariantViolation):
        replica.append_proposals(broken)
    stop(replica)
    assert [type(answer) for answer in answers] == [LeadershipLost]


def test_what_still_waits_was_never_proposed() -> None:
    proposals = Proposals(RaftSettings())
    answers = told(proposals.add([b"one"], 100.0))
    proposals.stop(lambda: Stopped("nothing was proposed"))
    assert [type(answer) for answer in answers] == [Stopped]


def test_what_nobody_wants_any_more_never_enters_the_log() -> None:
    """Deadlines are looked at again in the step that takes, for what waits anywhere in the queue."""
    replica = lone_leader(SimDisk(Random(1)))
    proposals = replica.proposals
    proposals.held = True  # as while leadership moves
    wanted = told(proposals.add([b"wanted"], 100.0))
    expired = told(proposals.add([b"expired"], 100.0, 100.5))
    later = told(proposals.add([b"later"], 100.0, 105.0))
    assert proposals.next_deadline() == 100.5
    replica._clock.now = 101.0  # type: ignore[attr-defined]
    replica.pump()
    assert [type(answer) for answer in expired] == [DeadlineExpired]
    proposals.held = False
    replica.pump()
    assert len(wanted) == len(later) == 1
    commands = b"".join(command for command, _, _ in replica.journal[:])
    assert b"wanted" in commands
    assert b"later" in commands
    assert b"expired" not in commands
    assert proposals.queued_bytes == proposals.pending == 0
