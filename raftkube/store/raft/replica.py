"""One member's replicated state, and the step that moves it on: all that is synchronous.

    messages received -> pysyncobj's tick (elect, commit, apply, append what waits) -> callers learn results
    -> one sync of the journal -> what depended on the sync leaves -> members learn the commit index

The sync blocks the process: on the disks it was measured on (0.1 ms) a thread's hand-over costs more, and
while it lasts the other processes of the machine have the processor.

Invariants: nothing that depends on the journal leaves before the sync returned; a leader counts itself only
in the step after. So a result that a caller learns is that of an entry which an earlier step's sync covers
here, and which a majority holds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from pysyncobj import SyncObjConf

from raftkube.clock import Clock
from raftkube.disk import Disk
from raftkube.errors import InvariantViolation, MemberRetired
from raftkube.limits import LOG_ENTRY_BYTES_MAX
from raftkube.rng import Rng, seeded_rng
from raftkube.store.raft import messages as msg
from raftkube.store.raft.changes import Changes
from raftkube.store.raft.counters import SlowNotes
from raftkube.store.raft.guard import Guard
from raftkube.store.raft.journal import SegmentedJournal
from raftkube.store.raft.machine import Machine
from raftkube.store.raft.membership import CONFIGURATION, Configuration, ConfigurationLog
from raftkube.store.raft.messages import Message
from raftkube.store.raft.mutants import DelayedAppends, Mutant
from raftkube.store.raft.outlet import Outlet
from raftkube.store.raft.private import LEADER, NO_OP, REGULAR, ROLES, Core, World
from raftkube.store.raft.proposals import Proposals
from raftkube.store.raft.reads import Reads, ReadView
from raftkube.store.raft.settings import RaftSettings, RoleChange
from raftkube.store.raft.snapshots import Snapshots
from raftkube.store.raft.transfer import Transfer
from raftkube.store.raft.versions import Program, Versions
from raftkube.types import LogIndex, Term

_STRICTLY_LATER_S: Final = 0.0005  # pysyncobj compares deadlines with <
_READ_MESSAGES: Final = {msg.READ_ROUND, msg.READ_ROUND_OK, msg.READ_REQUEST, msg.READ_INDEX}
_SNAPSHOT_MESSAGES: Final = {msg.SNAPSHOT, msg.SNAPSHOT_OK}


class Replica:
    """Recovered on construction. Any error of a method but `deliver` and the plain reads ends the member."""

    def __init__(
        self,
        *,
        name: str,
        configuration: Configuration,
        disk: Disk,
        clock: Clock,
        rng: Rng,
        machine: Machine,
        outlet: Outlet,
        settings: RaftSettings,
        mutant: Mutant,
        on_role: Callable[[RoleChange], None],
        on_members: Callable[[Configuration], None] = lambda configuration: None,
        program: Program = Program(),  # noqa: B008 it is immutable
    ) -> None:
        """`configuration` held before the log's first entry; what log and snapshot say goes before it.

        Raises InvariantViolation: damaged data, naming file and offset; MemberOutdated; DiskFailed.
        """
        self.name, self._clock, self._machine, self._mutant = name, clock, machine, mutant
        self._on_role, self._on_members = on_role, on_members
        self.versions = Versions(name, program)
        self._world = World(seeded_rng(rng.getrandbits(64)))  # pysyncobj draws with every append
        self._outlet = DelayedAppends(outlet, mutant.hold_appends_s, clock.monotonic)
        self.proposals = Proposals(settings)
        self.reads = Reads(self._outlet, settings.read_timeout_s, rng, settings.slow_read_s)
        self._inbox: list[tuple[str, list[Message]]] = []
        self._heartbeat_s, self.late_heartbeats = settings.heartbeat_s, 0
        self.slow_applies = SlowNotes("slow_apply", settings.slow_apply_s)
        self._slow_fsyncs = SlowNotes("slow_fsync", settings.slow_fsync_s)
        self._speculated = 0
        self.role = RoleChange("follower", Term(0), None, False)
        self.journal = SegmentedJournal(
            disk,
            rng,
            clock,
            segment_bytes=settings.segment_bytes,
            fsync=not mutant.skip_fsync,
            configurations=ConfigurationLog(configuration),
        )
        self.guard = Guard(name, self.journal, self._outlet, settings, lambda: self._world.now)
        self.snapshots = Snapshots(disk, self.journal, machine, self._outlet, settings)
        restored = self.snapshots.recover()
        self._world.now, self._world.journal = clock.monotonic(), self.journal
        with self._world:
            self.core = Core(self, name, [], _conf(settings), self.guard)
            self._set_members(self.configuration)
        self.journal.configurations.on_change = self._set_members
        self.core.jump_to(restored)
        self.guard.core = self.core
        self.guard.on_snapshot_needed = self.snapshots.needed_by
        self.snapshots.attach(self.core, self.guard)
        self.transfer = Transfer(name, self.core, self.journal, self.proposals, self._outlet)
        silent_s = settings.election_timeout_min_s
        self.changes = Changes(
            name, self.core, self.journal, self.guard.progress, silent_s, self.versions.common
        )
        self.journal.sync()

    def _set_members(self, configuration: Configuration) -> None:
        """The configuration in force has changed: from here on it holds for everything, at once."""
        self.versions.follow(configuration)
        self.core.set_members(list(configuration.voters), list(configuration.learners))
        self.guard.set_members(configuration)
        self.reads.set_voters(self.guard.voters, configuration.majority)
        self._on_members(configuration)

    # Plain reads.

    @property
    def configuration(self) -> Configuration:
        """The members, by the newest entry of the log, committed or not."""
        return self.journal.configurations.effective

    @property
    def committed_configuration(self) -> Configuration:
        """The members, by the newest entry that is known to be committed."""
        return self.journal.configurations.at(self.core.commit_index)

    @property
    def leading(self) -> bool:
        """True while this member believes that it leads."""
        return self.core.role == LEADER

    @property
    def leader(self) -> str | None:
        """The member believed to lead; None if none is known, or the one known was silent for an election
        timeout (as in etcd, whose pre-candidates have no leader)."""
        if self.leading:
            return self.name
        if self.core.election_deadline <= self._world.now:
            return None
        leader = self.core.leader_name
        return None if leader == self.name else leader

    def next_deadline(self) -> float:
        """When `pump` has something to do although nothing arrives; seconds of the member's clock."""
        if self.leading:
            at = self.core.next_heartbeat
        elif not self.guard.votes:
            at = float("inf")
        else:
            at = self.core.election_deadline
            if at <= self._world.now:
                at = self.guard.prevote.retry_at
        return min(
            at + _STRICTLY_LATER_S,
            self.proposals.next_deadline(),
            self.reads.next_deadline(),
            self._outlet.next_deadline(),
            self.snapshots.next_deadline(),
            self.journal.seal_at,
            self.transfer.next_deadline(),
        )

    # The step.

    def deliver(self, name: str, messages: list[Message]) -> None:
        """Messages of a peer, for the next step."""
        self._inbox.append((name, messages))

    def connection_lost(self, name: str) -> None:
        """The connection *from* `name` was reset."""
        self._world.now = self._clock.monotonic()
        self.guard.leader_reset(name)

    def pump(self) -> None:
        """Step until nothing more can be done now."""
        self._step()
        while self._inbox or self._more_to_do():
            self._step()

    def _more_to_do(self) -> bool:
        """A leader may append again, or, being alone, commit what has just become durable."""
        if not self.leading:
            return False
        uncommitted = self.core.commit_index < self.journal.last_index
        change = self.changes.can_append and not self.transfer.active
        may_append = self.proposals.can_append or change
        return may_append or (not self.guard.voters and uncommitted)

    def _step(self) -> None:
        self._world.now = now = self._clock.monotonic()
        if self.leading and now - self.core.next_heartbeat > self._heartbeat_s:
            self.late_heartbeats += 1
        with self._world:
            inbox, self._inbox = self._inbox, []
            for name, messages in inbox:
                for message in messages:
                    self._receive(name, message)
            self.guard.hurry()
            self.proposals.drop_expired(now)
            self.core.doTick(0.0)
        self.proposals.flush()
        if self.journal.sync() and self.journal.fsync_s_last > self._slow_fsyncs.expected_s:
            self._slow_fsyncs.note(now, self.journal.fsync_s_last)
        self.guard.release()
        self._outlet.flush()
        self._note_role()
        self.changes.flush()
        self.guard.announce()
        self.proposals.expire(now)
        may_change = self.configuration.promote or self.versions.behind
        if may_change and self.leading and not self.transfer.active:
            self.changes.step(now)
        self.transfer.step(now)
        self.reads.step(self._view())
        self.snapshots.step(now)
        if now >= self.journal.seal_at:
            self.journal.seal()

    def _receive(self, name: str, message: Message) -> None:
        if message[0] in _READ_MESSAGES:
            if self.guard.knows(name):
                self.reads.receive(name, message, self._view())
        elif message[0] in _SNAPSHOT_MESSAGES:
            self.snapshots.receive(name, message, self._world.now)
        else:
            self.guard.receive(name, message)

    def _view(self) -> ReadView:
        core = self.core
        return ReadView(
            now=self._world.now,
            leading=self.leading,
            term=core.term,
            leader=core.leader_name,
            commit_index=core.commit_index,
            applied_index=core.applied_index,
            committed_in_term=self.leading and self.journal.term_at(core.commit_index) == core.term,
        )

    def _note_role(self) -> None:
        core = self.core
        ready = self.leading and self.journal.term_at(core.applied_index) == core.term
        role = RoleChange(ROLES[core.role], Term(core.term), self.leader, ready)
        if role == self.role:
            return
        before, self.role = self.role, role
        if before.role == "leader" and (not self.leading or before.term != role.term):
            self.proposals.step_down(role.leader or self.transfer.target)
            self.changes.step_down(role.leader or self.transfer.target)
        self._on_role(role)

    # What pysyncobj asks.

    def may_campaign(self) -> bool:
        """The pre-vote."""
        return self.guard.may_campaign()

    def append_proposals(self, append: Callable[[bytes], None]) -> None:
        """This member leads: append one entry of what waits."""
        if self.changes.can_append and not self.transfer.active:
            append(self.changes.take())
            return
        if not self.proposals.can_append:
            return
        command, groups = self.proposals.take()
        index = self.journal.last_index + 1
        append(command)
        if self.journal.last_index != index:
            raise InvariantViolation(f"pysyncobj did not append entry {index}")
        self.proposals.appended(index, self.core.term, groups)
        if self._mutant.acknowledge_at_proposal:
            self._speculate(index, command)

    def apply_entry(self, command: bytes) -> None:
        """Apply the entry behind the last applied one."""
        index = self.core.applied_index + 1
        kind = command[:1]
        if kind == REGULAR:
            if index > self._speculated:
                term = self.journal.term_at(index) or 0
                results = self._apply(index, command[1:], self.proposals.operations(index, term))
                self.proposals.applied(index, term, results)
        elif kind == CONFIGURATION:
            self.changes.applied(index, self.journal.term_at(index) or 0)
            self._check_membership(Configuration.decode(command[1:]))
        elif kind != NO_OP:
            raise InvariantViolation(f"entry {index} is of kind {kind!r}, which this version does not know")

    def _check_membership(self, committed: Configuration) -> None:
        if self.name in committed.removed:
            raise MemberRetired(f"{self.name} was removed from the cluster, and has stopped")

    def _apply(self, index: int, payload: bytes, operations: list[Any] | None = None) -> list[Any]:
        started = self._clock.monotonic()
        try:
            results = self._machine.apply(LogIndex(index), payload, operations)
        except Exception as error:
            what = f"{type(error).__name__}: {error}"
            raise InvariantViolation(f"entry {index} cannot be applied: {what}") from error
        took_s = self._clock.monotonic() - started
        if took_s > self.slow_applies.expected_s:
            self.slow_applies.note(started, took_s, index=index, operations=len(results), bytes=len(payload))
        return results

    def _speculate(self, index: int, command: bytes) -> None:
        """The mutant's defect: apply and acknowledge before anything is replicated."""
        if max(self.core.applied_index, self._speculated) == index - 1:
            self._speculated = index
            self.proposals.applied(index, self.core.term, self._apply(index, command[1:]))


def _conf(settings: RaftSettings) -> SyncObjConf:
    """pysyncobj's settings: no thread, no file, no compaction, no membership change of its own."""
    never = 1 << 62
    return SyncObjConf(
        autoTick=False,
        appendEntriesUseBatch=False,
        appendEntriesBatchSizeBytes=2 * LOG_ENTRY_BYTES_MAX,  # no entry is as large: never in parts
        appendEntriesPeriod=settings.heartbeat_s,
        raftMinTimeout=settings.election_timeout_min_s,
        raftMaxTimeout=settings.election_timeout_max_s,
        leaderFallbackTimeout=settings.election_timeout_min_s,
        connectionTimeout=settings.election_timeout_max_s,
        commandsQueueSize=0,
        logCompactionMinEntries=never,
        logCompactionMinTime=never,
        dynamicMembershipChange=False,
        fullDumpFile=None,
        journalFile=None,
        useFork=False,
        pollerType="select",
    )
