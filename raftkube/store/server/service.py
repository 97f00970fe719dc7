"""What a member does for its clients: stamps and proposes writes, gates reads, describes itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import structlog
import trio

from raftkube.clock import Clock
from raftkube.errors import DeadlineExpired, InvalidRequest, NotLeader, Stopped, StoreError
from raftkube.rng import Rng
from raftkube.store.core import validate
from raftkube.store.raft.identity import new_member_id
from raftkube.store.raft.membership import Change
from raftkube.store.server.consensus import Consensus, Done, ReadGate
from raftkube.store.server.hub import Hub
from raftkube.store.server.lease_clock import LeaseClock
from raftkube.store.server.machine import StoreMachine
from raftkube.store.server.quota import Quota
from raftkube.types import member_name
from raftkube.version import VERSION
from raftkube.wire.store import (
    Alarm,
    AlarmList,
    LeaseExpire,
    LeaseGrant,
    LeaseList,
    LeaseResult,
    LeaseTimeToLive,
    Once,
    Op,
    Range,
    SessionOpen,
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
    id: str = ""
    learner: bool = False


@dataclass(frozen=True, slots=True)
class Identity:
    """Who this member is. `members` includes itself; `started` tells of an id whether it was ever met,
    `committed` whether it is a member for good: a leader that is cut off may list one that it adds in vain.
    """

    name: str
    cluster_id: str
    members: tuple[MemberInfo, ...]
    id: str = ""
    started: Callable[[str], bool] = lambda member_id: False
    committed: Callable[[str], bool] = lambda member_id: True

    def client_address(self, member: str | None) -> str:
        """Of an id or name; empty if it is not known."""
        found = (each for each in self.members if member in (each.id, each.name))
        return next((each.client_address for each in found), "")


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
        quota_bytes: int = 0,
    ) -> None:
        self._quota = Quota(machine, consensus, identity.name, quota_bytes)
        self.suspension = suspension or Suspension()
        self.identity = identity
        self.machine = machine
        self.hub = hub
        self.leases = leases
        self.consensus = consensus
        self.reads = reads
        self.clock = clock
        self._rng = rng
        self._hashing = trio.Lock()

    def submit(self, op: Op, deadline: float, done: Done) -> None:
        """Carry out `op` unless `deadline` (monotonic seconds) has passed; `done` gets the result or a
        StoreError, or, of a read, a function that reads when it is called. Raises StoreError, definite: it
        is invalid, or it cannot be proposed now."""
        if isinstance(op, LeaseExpire):
            raise InvalidRequest("a lease's expiry is proposed by the store itself", field="op")
        if isinstance(op, Alarm) and op.active:
            raise InvalidRequest("alarms are raised by the store itself", field="active")
        request_bytes = validate(op)
        if isinstance(op, Range | LeaseTimeToLive | LeaseList | AlarmList):
            self.reads.submit(lambda error: done(error if error is not None else lambda: self.read(op)))
        else:
            if deadline <= self.clock.monotonic():
                raise DeadlineExpired("the deadline passed before the operation was proposed")
            self._quota.check(op, request_bytes)
            self._propose([op_to_wire(self._stamp(op))], deadline, lambda outcome: done(_only(outcome)))

    def read(self, op: Range | LeaseTimeToLive | LeaseList | AlarmList) -> Any:
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
            "id": self.identity.id or self.identity.name,
            "is_learner": view.id in view.learners,
            "members": {
                "voters": [each.id for each in self.identity.members if not each.learner],
                "learners": [each.id for each in self.identity.members if each.learner],
            },
            "cluster_id": self.identity.cluster_id,
            "version": VERSION,
            "cluster_version": view.cluster_version,
            "role": view.role,
            "leader": member_name(view.leader or ""),
            "leader_client_address": self.identity.client_address(view.leader),
            "term": view.term,
            "commit_index": view.commit_index,
            "applied_index": view.applied_index,
            "last_index": view.last_index,
            "journal_bytes": view.journal_bytes,
            "revision": core.revision,
            "compact_revision": core.compact_revision,
            "db_size": core.db_size,
            "db_size_in_use": core.db_size_in_use,
            "quota_bytes": self._quota.quota_bytes,
            "alarms": [list(alarm) for alarm in core.alarms],
            "errors": [*view.errors, *view.warnings],
        }

    async def state_hash(self) -> dict[str, Any]:
        """The hash of this member's state as it is now, with what it is the hash of; the member goes on
        meanwhile. Raises Stopped: it has none yet."""
        self.suspension.check_reads()
        async with self._hashing:  # one at a time, so that many asked for take no more of a turn than one
            core = self.machine.core
            told = {
                "revision": core.revision,
                "compact_revision": core.compact_revision,
                "applied_index": self.consensus.view().applied_index,
            }
            slices = core.hash_slices()  # of this moment: what is applied from now on does not show
            while True:
                try:
                    next(slices)
                except StopIteration as done:
                    return {**told, "hash": f"{done.value:016x}"}
                await trio.lowlevel.checkpoint()

    def member_list(self) -> list[dict[str, Any]]:
        """The members, and which of them leads as far as this one knows."""
        leader = self.consensus.view().leader
        return [
            {
                "id": member.id or member.name,
                "name": member.name,
                "peer_address": member.peer_address,
                "client_address": member.client_address,
                "leader": leader is not None and leader in (member.id, member.name),
                "learner": member.learner,
                "voter": not member.learner,
                "started": self.identity.started(member.id),
                "committed": self.identity.committed(member.id),
            }
            for member in self.identity.members
        ]

    async def change_members(self, change: Change) -> None:
        """Carry out `change` once it is committed. Raises StoreError."""
        try:
            await self.consensus.change_members(change)
        except NotLeader as error:
            raise self.not_leader(error.fields.get("leader")) from None

    def new_member_id(self, name: str) -> str:
        """An id for a member to be added."""
        return new_member_id(name, self._rng)

    def member_id(self, member: str) -> str:
        """The id of a member by its id or name; itself if there is none."""
        found = (each.id for each in self.identity.members if member in (each.id, each.name))
        return next(found, member)

    async def move_leader(self, to: str | None) -> str:
        """Make `to` lead (None: the most up-to-date other member); who leads then. Raises StoreError."""
        try:
            return await self.consensus.transfer_leadership(to)
        except NotLeader:
            raise self.not_leader() from None

    def not_leader(self, expected: str | None = None) -> NotLeader:
        """The refusal that says where to go: to the leader, or to whom leadership is moving."""
        leader = self.consensus.view().leader or expected
        if leader == self.identity.id and expected is not None:
            leader = expected  # it has just handed over
        address = self.identity.client_address(leader)
        name = None if leader is None else member_name(leader)
        return NotLeader("this member does not lead", leader=name, address=address)

    def _time_to_live(self, op: LeaseTimeToLive) -> LeaseResult:
        if self.consensus.view().role != "leader":
            raise self.not_leader()  # only the leader has the clock
        result = self.machine.core.read(op)
        assert isinstance(result, LeaseResult)
        return result._replace(remaining_s=self.leases.remaining_s(op.lease))

    def submit_puts(self, puts: list[Any], deadline: float, done: Done) -> None:
        """Propose operations for which `is_plain_put` holds, together, unless `deadline` passes first; `done`
        gets the list of their results or one StoreError. Raises StoreError, definite: they cannot be
        proposed now."""
        self._quota.check_puts(puts)
        self._propose(puts, deadline, done)

    def _propose(self, operations: list[Any], deadline: float, done: Done) -> None:
        def finish(outcome: Any) -> None:  # called inside a step of consensus: nothing may escape
            try:
                if isinstance(outcome, NotLeader):
                    outcome = self.not_leader(outcome.fields.get("leader"))
                done(outcome)
            except Exception:  # the boundary: an answer that fails never stops a member
                log.exception("answer_failed")

        try:
            self.consensus.submit(operations, finish, deadline)
        except NotLeader:
            raise self.not_leader() from None

    def _stamp(self, op: Op) -> Op:
        """Choose what apply may not: the ids of new leases and sessions."""
        if isinstance(op, LeaseGrant) and not op.lease:
            return op._replace(lease=self._rng.randrange(1, 2**63))
        if isinstance(op, SessionOpen) and not op.session:
            return SessionOpen(self._rng.randrange(1, 2**63))
        if isinstance(op, Once):
            return op._replace(op=self._stamp(op.op))
        if isinstance(op, Txn):
            return op._replace(
                success=tuple([self._stamp(item) for item in op.success]),
                failure=tuple([self._stamp(item) for item in op.failure]),
            )
        return op


def _only(outcome: Any) -> Any:
    """The result of a lone operation, or the error."""
    return outcome[0] if type(outcome) is list else outcome
