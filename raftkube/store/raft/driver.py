"""`RaftNode`: one member of the store's Raft group, driven from trio.

It takes a step (`replica`) when messages arrive, when something is proposed and when a timer is due,
never by polling. A broken invariant or a failed disk ends the member: nothing leaves any more, what waits
fails, its connections break (so that the others elect at once), and `run` raises.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import structlog
import trio

from raftkube.clock import Clock
from raftkube.disk import Disk, disk_failure
from raftkube.errors import (
    DiskFailed,
    InvariantViolation,
    MemberOutdated,
    MemberRetired,
    NoLeader,
    NotLeader,
    RaftkubeError,
    Stopped,
    StoreError,
)
from raftkube.net import Address, Network, TlsFiles, parse_address
from raftkube.rng import Rng
from raftkube.store.raft import mutants
from raftkube.store.raft.admission import admit, initial_identity, open_identity
from raftkube.store.raft.counters import RaftCounters
from raftkube.store.raft.identity import Identity, IdentityFile
from raftkube.store.raft.machine import Machine
from raftkube.store.raft.membership import Change, Configuration
from raftkube.store.raft.messages import Hello, Message
from raftkube.store.raft.peers import Peers
from raftkube.store.raft.replica import Replica
from raftkube.store.raft.report import counters_of, status_of
from raftkube.store.raft.settings import RaftSettings, RaftStatus, RoleChange
from raftkube.store.raft.transfer import TRANSFER_TIMEOUT_S
from raftkube.store.raft.versions import Program
from raftkube.store.raft.waiting import Waiter
from raftkube.types import Term
from raftkube.wire.frames import FrameError

log = structlog.get_logger(__name__)

_DEFAULTS: Final = RaftSettings()
_READY_S: Final = 2.0
# What was due has been done, so a deadline at hand is one that rounding put a hair before its time.
_SLEEP_S_MIN: Final = 0.0002


class RaftNode:
    """One member. `run` it in a nursery, once; call the rest from any task of the same trio run."""

    def __init__(
        self,
        *,
        name: str,
        members: Mapping[str, Address],
        disk: Disk,
        network: Network,
        tls: TlsFiles | None,
        listen: Address,
        clock: Clock,
        rng: Rng,
        machine: Machine,
        settings: RaftSettings = _DEFAULTS,
        clients: Mapping[str, Address] | None = None,
        blank: Identity | None = None,
        program: Program = Program(),  # noqa: B008 it is immutable
    ) -> None:
        """`members` (name -> peer address) and `clients` make the first configuration of a new cluster;
        later they only hint where members may be found. `blank`: what an empty disk becomes instead, in a
        cluster that exists. Raises ConfigError: an unknown mutant."""
        self._name, self._members, self._listen = name, members, listen
        self._clients, self._blank, self._program = clients or {}, blank, program
        self._identity: IdentityFile | None = None
        self._member_listeners: list[Callable[[Configuration], None]] = []
        self._disk, self._clock, self._rng = disk, clock, rng
        self._machine, self._settings = machine, settings
        self._mutant = mutants.find(settings.mutant)
        self._peers = Peers(network, tls, rng, settings, self, hints=members)
        self._replica: Replica | None = None
        self._failure: RaftkubeError | None = None
        self._stopping = self._stepping = False
        self._wake = trio.Event()
        self._sleeping_until = float("inf")
        self._role = RoleChange("follower", Term(0), None, False)
        self._role_changed = trio.Event()
        self._listeners: list[Callable[[RoleChange], None]] = []
        self._last_leader: str | None = None
        self._leader_changes = 0

    # Life.

    async def run(self, *, task_status: trio.TaskStatus[Address] = trio.TASK_STATUS_IGNORED) -> None:
        """Recover, listen, take part; `started` (the bound peer address) once it does.

        Returns after `stop`. Raises InvariantViolation (a bug or damaged data), DiskFailed: the member has
        stopped and must not be restarted blindly; DiskFull: once there is room, a new RaftNode may go on
        from the same disk; MemberOutdated; ConfigError. Cancelled: it stops, and acknowledges nothing more.
        """
        try:
            replica = self._replica = self._recover()
            listener = await self._peers.listen(self._listen)
            async with trio.open_nursery() as nursery:
                address = await nursery.start(self._peers.run, listener)
                nursery.start_soon(replica.snapshots.run, self._failed, lambda: self._wake.set())
                task_status.started(address)
                await self._drive(replica)
                nursery.cancel_scope.cancel()
        finally:
            self._close()
        if self._failure is not None:
            raise self._failure

    async def stop(self) -> None:
        """End `run` after the step at hand: the log is sealed, what waits fails as Stopped."""
        self._stopping = True
        self._wake.set()
        await trio.lowlevel.checkpoint()

    def _recover(self) -> Replica:
        token = self._settings.cluster_token

        def blank() -> Identity:
            return self._blank or initial_identity(self._name, token, self._members, self._clients, self._rng)

        self._identity = open_identity(self._disk, self._name, token, blank)
        identity = self._identity.identity
        self._name = identity.id
        self._peers.identify(identity.id, identity.cluster_id)
        self._identity.check_journal()
        replica = Replica(
            name=identity.id,
            configuration=identity.configuration,
            disk=self._disk,
            clock=self._clock,
            rng=self._rng,
            machine=self._machine,
            outlet=self._peers,
            settings=self._settings,
            mutant=self._mutant,
            on_role=self._note_role,
            on_members=self._note_members,
            program=self._program,
        )
        self._identity.begin()
        return replica

    async def _drive(self, replica: Replica) -> None:
        while not self._stopping:
            self._pump()
            self._sleeping_until = replica.next_deadline()
            delay_s = self._sleeping_until - self._clock.monotonic()
            with trio.move_on_after(max(_SLEEP_S_MIN, delay_s)):
                await self._wake.wait()
            self._wake = trio.Event()

    def _pump(self) -> None:
        """Take the steps that are due. Never raises: a failure ends `run`."""
        replica = self._replica
        if replica is None or self._stopping or self._stepping:
            return
        self._stepping = True
        try:
            replica.pump()
            if replica.next_deadline() < self._sleeping_until:
                self._wake.set()
        except Exception as error:  # noqa: BLE001 the member's boundary: a bug stops it
            self._failed(error)
        finally:
            self._stepping = False

    def _failed(self, error: Exception) -> None:
        """Acknowledge nothing any more; `run` raises the error, the first one: what a member that is ending
        still meets must not make a failed disk a full one."""
        if self._failure is not None:
            return
        if isinstance(error, OSError):
            error = disk_failure(error, "disk")
        if not isinstance(error, InvariantViolation | DiskFailed | MemberRetired | MemberOutdated):
            log.error("raft_bug", member=self._name, exc_info=error)
            bug = InvariantViolation(f"{type(error).__name__}: {error}")
            bug.__cause__ = error
            error = bug
        self._failure = error
        log.error("raft_member_stopped", member=self._name, error=str(error))
        self._close()
        self._note_role(RoleChange("follower", self._role.term, None, False))
        self._wake.set()

    def _close(self) -> None:
        self._stopping = True
        self._peers.close()
        self._role_changed.set()
        replica = self._replica
        if replica is None:
            return
        replica.proposals.stop(lambda: Stopped("this member has stopped; nothing was proposed"))
        replica.transfer.stop(Stopped("this member has stopped"))
        replica.changes.stop()
        replica.reads.fail_all(Stopped("this member has stopped; the read had no effect"))
        try:
            replica.snapshots.close()
            replica.journal.close()
        except (DiskFailed, OSError) as error:
            log.warning("journal_not_sealed", member=self._name, error=str(error))

    # For the store's server.

    async def propose(self, operation: Any) -> Any:
        """Replicate one operation, a value as msgpack unpacks it (no tuples); its result from apply, once it
        is committed and applied here.

        Raises, definite: NotLeader(leader=), NoLeader, Overloaded, RequestTooLarge, DeadlineExpired,
        Unsupported, Stopped; indefinite: LeadershipLost, ProposalTimeout. Cancelled: the proposal goes on.
        """
        try:
            replica = self._leading()
            self._check_version(replica, [operation])
            waiter = replica.proposals.add([operation], self._clock.monotonic())
        except StoreError:
            await trio.lowlevel.checkpoint()
            raise
        self._wake.set()
        return (await waiter.wait())[0]

    def submit(
        self, operations: list[Any], done: Callable[[Any], None], deadline: float = float("inf")
    ) -> None:
        """As `propose`, of several at once (left alone from now on) and without a task that waits: `done`,
        which must not raise, gets the list of their results, or one error for all. After `deadline` (of the
        member's clock) they are not proposed any more. Raises the definite errors that are known at once."""
        replica = self._leading()
        self._check_version(replica, operations)
        replica.proposals.add(operations, self._clock.monotonic(), deadline).tell(done)
        if len(operations) == 1 and replica.proposals.lone:
            self._pump()  # nothing to wait for, nothing to gather
        else:
            self._wake.set()

    @staticmethod
    def _check_version(replica: Replica, operations: list[Any]) -> None:
        if replica.versions.behind:
            replica.versions.admit(operations, replica.configuration.members)

    async def transfer_leadership(
        self, to: str | None = None, *, timeout_s: float = TRANSFER_TIMEOUT_S
    ) -> str:
        """Make the voting member `to` (an id or a name; None: the most up-to-date one) lead; the id of
        whoever leads afterwards. Proposals wait meanwhile, and fail with NotLeader if it succeeds.

        Raises, and this member leads on, NotLeader, NoLeader, InvalidRequest, Unreachable, Overloaded (it is
        under way to another), DeadlineExpired; Indefinite: the target was asked and may still win.
        Cancelled: it goes on. Source: Raft thesis §3.10.
        """
        replica = self._leading()
        waiter = replica.transfer.begin(to, self._clock.monotonic(), timeout_s)
        self._wake.set()
        return str(await waiter.wait())

    async def change_members(self, change: Change) -> Configuration:
        """Change the members by one entry of the log; the configuration once it is committed.

        A leader that is to be removed hands its leadership over and raises NotLeader: ask the new one.
        Raises, definite: MembershipRefused (why), NotLeader, NoLeader, Stopped, and what
        `transfer_leadership` raises; indefinite: LeadershipLost. Cancelled: the change goes on.
        """
        await self._until_ready()
        replica = self._leading()
        if replica.changes.must_hand_over(change, self._clock.monotonic()):
            leader = await self.transfer_leadership()
            raise NotLeader(f"{self._name} handed its leadership to {leader}", leader=leader)
        waiter = replica.changes.request(change, self._clock.monotonic())
        self._wake.set()
        configuration = await waiter.wait()
        assert isinstance(configuration, Configuration)
        return configuration

    async def _until_ready(self) -> None:
        """A leader of a moment ago commits an entry of its own term first, and may raise the version: wait
        for that, not for ever."""
        with trio.move_on_after(_READY_S):
            while self._leading() and not self._role.ready:
                await self.wait_role_change(self._role)
            await self._leading().changes.raised.wait()

    @property
    def configuration(self) -> Configuration:
        """The members in force here. Raises Stopped before `run` has recovered."""
        if self._replica is None:
            raise Stopped("this member has not recovered yet")
        return self._replica.configuration

    @property
    def committed_configuration(self) -> Configuration:
        """The members by what is known here to be committed. Raises Stopped as above."""
        return self._running().committed_configuration

    @property
    def identity(self) -> Identity:
        """Whose data directory this is, with the peers' that were met. Raises Stopped as above."""
        if self._identity is None:
            raise Stopped("this member has not recovered yet")
        return self._identity.identity

    def add_member_listener(self, listener: Callable[[Configuration], None]) -> None:
        """Call `listener` with every configuration that comes into force; it neither waits nor raises."""
        self._member_listeners.append(listener)

    async def read_index(self) -> None:
        """Wait until what this member has applied holds every write acknowledged before the call.

        Callable on any member. Raises NoLeader: no leader confirmed it within `read_timeout_s`; Stopped.
        Source: Raft thesis §6.4.
        """
        replica, waiter = self._running(), Waiter()
        replica.reads.add(waiter, self._clock.monotonic())
        self._wake.set()
        await waiter.wait()

    @property
    def leader(self) -> str | None:
        """The member believed to lead; None if none is known."""
        return None if self._replica is None else self._replica.leader

    @property
    def role(self) -> RoleChange:
        """What this member is now."""
        return self._role

    def add_role_listener(self, listener: Callable[[RoleChange], None]) -> None:
        """Call `listener` at every change of role, term, leader or readiness; it neither waits nor raises."""
        self._listeners.append(listener)

    async def wait_role_change(self, seen: RoleChange) -> RoleChange:
        """The role, as soon as it differs from `seen`. Raises Stopped: there will be no other."""
        while self._role == seen:
            if self._stopping:
                raise Stopped("this member has stopped")
            await self._role_changed.wait()
        await trio.lowlevel.checkpoint()
        return self._role

    def status(self) -> RaftStatus:
        """A consistent picture of this moment. Raises Stopped before `run` has recovered."""
        replica = self._replica
        if replica is None:
            raise Stopped("this member has not recovered yet")
        return status_of(replica, self._role, self._failure)

    def _leading(self) -> Replica:
        """Raises NotLeader, NoLeader, Stopped."""
        replica = self._running()
        if not replica.leading:
            leader = replica.leader
            if leader is None:
                raise NoLeader("no member is known to lead; nothing was proposed")
            raise NotLeader(f"this member does not lead, {leader} does", leader=leader)
        return replica

    def counters(self) -> RaftCounters:
        """What it has counted since its start. Raises Stopped before `run` has recovered."""
        if self._replica is None:
            raise Stopped("this member has not recovered yet")
        return counters_of(self._replica, self._peers, leader_changes=self._leader_changes)

    def _running(self) -> Replica:
        if self._replica is None or self._stopping:
            raise Stopped("this member is not running; nothing was proposed")
        return self._replica

    def _note_role(self, role: RoleChange) -> None:
        before, self._role = self._role, role
        if role.leader not in (None, self._last_leader):
            self._last_leader = role.leader
            self._leader_changes += 1
        if (before.role, before.leader) != (role.role, role.leader):
            log.info("raft_role", member=self._name, role=role.role, term=role.term, leader=role.leader)
        for listener in self._listeners:
            listener(role)
        changed, self._role_changed = self._role_changed, trio.Event()
        changed.set()

    def _note_members(self, configuration: Configuration) -> None:
        members = configuration.members
        self._peers.set_members({id_: parse_address(members[id_].peer) for id_ in members})
        log.info(
            "raft_members",
            member=self._name,
            voters=sorted(configuration.voters),
            learners=sorted(configuration.learners),
        )
        for listener in self._member_listeners:
            listener(configuration)

    # What the connections say.

    def greeting(self) -> Hello:
        replica, mine = self._replica, self.identity
        version = 1 if replica is None else replica.committed_configuration.cluster_version
        return Hello(mine.id, mine.incarnation, self._program.newest, version)

    def admit(self, peer: Hello) -> str | None:
        replica, file = self._replica, self._identity
        if replica is None or file is None or self._stopping:
            raise FrameError("this member does not run")
        known, committed = replica.configuration, replica.committed_configuration
        try:
            refusal = admit(file, known, committed, peer.sender, peer.incarnation)
            if refusal is None:
                replica.versions.meet(peer)
            return refusal
        except (DiskFailed, MemberOutdated) as error:
            self._failed(error)
            raise FrameError(f"this member has stopped: {error}") from error

    def refused(self, sentence: str) -> None:
        if not self._stopping:
            self._failed(MemberRetired(sentence))

    def received(self, name: str, messages: list[Message]) -> None:
        """Messages of a peer: a step is taken at once, without waking another task."""
        if self._replica is not None:
            self._replica.deliver(name, messages)
            self._pump()

    def peer_up(self, name: str) -> None:
        if self._replica is not None:
            self._replica.guard.connection_up(name)
            self._replica.snapshots.connection_up(name)
            self._wake.set()

    def peer_down(self, name: str) -> None:
        if self._replica is not None:
            self._replica.guard.connection_down(name)

    def peer_reset(self, name: str) -> None:
        if self._replica is not None and not self._stopping:
            self._replica.connection_lost(name)
            self._wake.set()
