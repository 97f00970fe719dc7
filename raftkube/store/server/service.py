"""What a member does for its clients: stamps and proposes writes, gates reads, describes itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import structlog

from raftkube.clock import Clock
from raftkube.errors import DeadlineExpired, InvalidRequest, NotLeader, Stopped, StoreError
from raftkube.rng import Rng
from raftkube.store.core import validate
from raftkube.store.server.consensus import Consensus, Done, ReadGate
from raftkube.store.server.hub import Hub
from raftkube.store.server.lease_clock import LeaseClock
from raftkube.store.server.machine import StoreMachine
from raftkube.version import VERSION
from raftkube.wire.store import (
    LeaseExpire,
    LeaseGrant,
    LeaseList,
    LeaseResult,
    LeaseTimeToLive,
    Op,
    Range,
    Txn,
    op_to_wire,
)

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class MemberInfo:
    """One member as the cluster knows it; `client_address` is empty where it is not known."""

    name: str
    peer_address: str
    client_address: str = ""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who this member is. `members` includes itself."""

    name: str
    cluster_id: str
    members: tuple[MemberInfo, ...]

    def client_address(self, name: str | None) -> str:
        """Empty if it is not known."""
        return next((member.client_address for member in self.members if member.name == name), "")


@dataclass(slots=True)
class Suspension:
    """Why a member whose disk failed serves no watch (nothing is applied here any more), or, while it holds
    no state yet, no read."""

    watches: Stopped | None = None
    reads: Stopped | None = None

    def check_watches(self) -> None:
        """Raises Stopped."""
        if self.watches is not None:
            raise Stopped(self.watches.message)

    def check_reads(self) -> None:
        """Raises Stopped."""
        if self.reads is not None:
            raise Stopped(self.reads.message)


class Service:
    """Answers operations of all connections through callbacks, in the step that knows the answer."""

    def __init__(
        self,
        identity: Identity,
        machine: StoreMachine,
        hub: Hub,
        leases: LeaseClock,
        consensus: Consensus,
        reads: ReadGate,
        *,
        clock: Clock,
        rng: Rng,
        suspension: Suspension | None = None,
    ) -> None:
        self.suspension = suspension or Suspension()
        self.identity = identity
        self.machine = machine
        self.hub = hub
        self.leases = leases
        self.consensus = consensus
        self.reads = reads
        self.clock = clock
        self._rng = rng

    def submit(self, op: Op, deadline: float, done: Done) -> None:
        """Carry out `op` unless `deadline` (monotonic seconds) has passed; `done` gets the result or a
        StoreError. Raises StoreError, definite: it is invalid, or it cannot be proposed now."""
        if isinstance(op, LeaseExpire):
            raise InvalidRequest("a lease's expiry is proposed by the store itself", field="op")
        validate(op)
        if isinstance(op, Range | LeaseTimeToLive | LeaseList):
            self.reads.submit(lambda error: done(error if error is not None else self.read(op)))
        else:
            if deadline <= self.clock.monotonic():
                raise DeadlineExpired("the deadline passed before the operation was proposed")
            self._propose([op_to_wire(self._stamp(op))], lambda outcome: done(_only(outcome)))

    def read(self, op: Range | LeaseTimeToLive | LeaseList) -> Any:
        """The answer, or the StoreError, from this member's state as it is."""
        self.machine.activity.ranges += isinstance(op, Range)
        try:
            if isinstance(op, LeaseTimeToLive):
                return self._time_to_live(op)
            return self.machine.core.read(op)
        except StoreError as error:
            return error

    def status(self) -> dict[str, Any]:
        """Every field is a msgpack value; revisions and indexes are those applied here."""
        view = self.consensus.view()
        core = self.machine.core
        return {
            "name": self.identity.name,
            "cluster_id": self.identity.cluster_id,
            "version": VERSION,
            "role": view.role,
            "leader": view.leader or "",
            "leader_client_address": self.identity.client_address(view.leader),
            "term": view.term,
            "commit_index": view.commit_index,
            "applied_index": view.applied_index,
            "last_index": view.last_index,
            "journal_bytes": view.journal_bytes,
            "revision": core.revision,
            "compact_revision": core.compact_revision,
            "errors": list(view.errors),
        }

    def state_hash(self) -> dict[str, Any]:
        """The hash of this member's state, with what it is the hash of. Raises Stopped: it has none yet."""
        self.suspension.check_reads()
        core = self.machine.core
        return {
            "revision": core.revision,
            "compact_revision": core.compact_revision,
            "applied_index": self.consensus.view().applied_index,
            "hash": f"{core.state_hash():016x}",
        }

    def member_list(self) -> list[dict[str, Any]]:
        """The members, and which of them leads as far as this one knows."""
        leader = self.consensus.view().leader
        return [
            {
                "name": member.name,
                "peer_address": member.peer_address,
                "client_address": member.client_address,
                "leader": member.name == leader,
            }
            for member in self.identity.members
        ]

    def not_leader(self) -> NotLeader:
        """The refusal that says where to go."""
        leader = self.consensus.view().leader
        address = self.identity.client_address(leader)
        return NotLeader("this member does not lead", leader=leader, address=address)

    def _time_to_live(self, op: LeaseTimeToLive) -> LeaseResult:
        if self.consensus.view().role != "leader":
            raise self.not_leader()  # only the leader has the clock
        result = self.machine.core.read(op)
        assert isinstance(result, LeaseResult)
        return result._replace(remaining_s=self.leases.remaining_s(op.lease))

    def submit_puts(self, puts: list[Any], done: Done) -> None:
        """Propose operations for which `is_plain_put` holds, together; `done` gets the list of their results
        or one StoreError. Raises StoreError, definite: they cannot be proposed now."""
        self._propose(puts, done)

    def _propose(self, operations: list[Any], done: Done) -> None:
        def finish(outcome: Any) -> None:  # called inside a step of consensus: nothing may escape
            try:
                done(self.not_leader() if isinstance(outcome, NotLeader) else outcome)
            except Exception:  # the boundary: an answer that fails never stops a member
                log.exception("answer_failed")

        try:
            self.consensus.submit(operations, finish)
        except NotLeader:
            raise self.not_leader() from None

    def _stamp(self, op: Op) -> Op:
        """Choose what apply may not: the ids of new leases."""
        if isinstance(op, LeaseGrant) and not op.lease:
            return op._replace(lease=self._rng.randrange(1, 2**63))
        if isinstance(op, Txn):
            return op._replace(
                success=tuple([self._stamp(item) for item in op.success]),
                failure=tuple([self._stamp(item) for item in op.failure]),
            )
        return op


def _only(outcome: Any) -> Any:
    """The result of a lone operation, or the error."""
    return outcome[0] if type(outcome) is list else outcome
