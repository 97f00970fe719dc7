"""One member of the store, whole: state machine, consensus, client port, wired and run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, NamedTuple

import structlog
import trio

from raftkube.clock import Clock
from raftkube.disk import Disk, disk_failure
from raftkube.errors import ConfigError, DiskFailed, DiskFull, Stopped, StoreError
from raftkube.net import Address, Network, TlsFiles, parse_address
from raftkube.rng import Rng
from raftkube.store.raft import identity as raft_identity
from raftkube.store.raft.driver import RaftNode
from raftkube.store.raft.identity import cluster_id_of, holds_a_member
from raftkube.store.raft.membership import Configuration
from raftkube.store.raft.settings import RaftSettings
from raftkube.store.raft.versions import Program
from raftkube.store.server.consensus import ConsensusView
from raftkube.store.server.join import find_place
from raftkube.store.server.machine import StoreMachine
from raftkube.store.server.member_requests import MEMBER_NAME
from raftkube.store.server.monitor import MetricsListen, Monitor, RaftFigures
from raftkube.store.server.room import Room
from raftkube.store.server.server import StoreServer
from raftkube.store.server.service import Identity, MemberInfo
from raftkube.store.server.settings import ServerSettings
from raftkube.types import member_name
from raftkube.wire.cluster_version import CLUSTER_VERSION, version_needed

log = structlog.get_logger(__name__)

# Who may speak to the client port: API servers, operators, other members (certificate organizations).
CLIENT_ROLES: Final = frozenset(("raftkube:store-client", "raftkube:store-admin", "raftkube:store-peer"))
STOP_S: Final = 5.0  # what a graceful stop may take; a supervisor waits longer before it kills
_GOODBYE_S: Final = 1.0  # what clients get to move elsewhere before a new life


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberConfig:
    """`members` maps every member's name to its peer address, this one's included; `client_addresses`
    those that are known. `cluster_state`: "new", an empty data directory becomes the member `name` of
    `members`; "existing", it waits until it was added to the cluster. `newest_version`: up to which cluster
    version it says to know everything. Without TLS files everything is plain."""

    name: str
    members: Mapping[str, Address]
    listen_client: Address
    listen_peer: Address
    client_tls: TlsFiles | None = None
    peer_tls: TlsFiles | None = None
    client_addresses: Mapping[str, Address] = field(default_factory=dict)
    cluster_state: str = "new"
    newest_version: int = CLUSTER_VERSION
    listen_metrics: tuple[MetricsListen, ...] = ()
    raft: RaftSettings = field(default_factory=RaftSettings)
    server: ServerSettings = field(default_factory=ServerSettings)

    def __post_init__(self) -> None:
        if self.cluster_state not in ("new", "existing"):
            raise ConfigError(f"--initial-cluster-state is new or existing, not {self.cluster_state!r}")
        if self.cluster_state == "new" and self.name not in self.members:
            names = ", ".join(sorted(self.members))
            raise ConfigError(f"member {self.name!r} is not in the initial cluster ({names}); add it")

    def identity(self) -> Identity:
        """What clients are told of this member and the others."""
        known = {name: str(address) for name, address in self.client_addresses.items()}
        members = tuple(
            MemberInfo(name, str(address), known.get(name, ""), id=name)
            for name, address in sorted(self.members.items())
        )
        return Identity(self.name, cluster_id_of(self.raft.cluster_token, self.members), members)


class BoundAddresses(NamedTuple):
    """Where a member listens."""

    client: Address
    peer: Address
    metrics: tuple[Address, ...] = ()


class _RaftConsensus:
    """What the server needs of a RaftNode. `failure`: what happened to the disk, and what is to be done."""

    def __init__(self, node: RaftNode, room: Room) -> None:
        self._node, self._room = node, room
        self.failure: str | None = None
        self.propose = node.propose
        self.submit = node.submit
        self.read_index = node.read_index
        self.transfer_leadership = node.transfer_leadership
        self.change_members = node.change_members

    def view(self) -> ConsensusView:
        try:
            status = self._node.status()
        except Stopped as error:
            return ConsensusView("recovering", None, 0, 0, 0, errors=(self.failure or error.message,))
        return ConsensusView(
            role=status.role,
            id=status.name,
            learners=status.learners,
            leader=status.leader,
            term=status.term,
            commit_index=status.commit_index,
            applied_index=status.applied_index,
            last_index=status.log_last,
            journal_bytes=status.journal_bytes,
            cluster_version=status.cluster_version,
            errors=tuple(filter(None, (self.failure or status.failed,))),
            warnings=tuple(filter(None, (self._room.warning,))),
        )


async def run_member(
    config: MemberConfig,
    *,
    network: Network,
    clock: Clock,
    rng: Rng,
    disk: Disk,
    stop: trio.Event | None = None,
    observe: Callable[[RaftNode], None] | None = None,
    task_status: trio.TaskStatus[BoundAddresses] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Run until cancelled, or until `stop` is set and what that takes is done: leadership handed over, every
    request answered, every client gone elsewhere (at most `STOP_S`). `started` once clients are served.

    A disk that fails ends neither the process nor its client port, which goes on saying so and serving what
    needs no consensus. When only room was missing, another life begins from the disk, as a restart would,
    once there is some; its sessions start anew. `observe` is called with the Raft member of each life, before
    it runs. Raises ConfigError (an address is taken, the data directory
    is damaged beyond use), InvariantViolation, or DiskFailed before anything was recovered: the member has
    stopped, and nothing restarts it by itself.
    """
    doors = _Doors(network, clock, rng, disk)
    room = Room(disk, clock, segment_bytes=config.raft.segment_bytes)
    blank = await _place(config, doors, stop) if config.cluster_state == "existing" else None
    while stop is None or not stop.is_set():
        life = _Life(config, doors, room, blank)
        if observe is not None:
            observe(life.node)
        again = await life.run(stop, task_status)
        if again is None:
            return
        tls = [listen.tls for listen in config.listen_metrics]
        config = replace(
            config,
            listen_client=again.client,
            listen_peer=again.peer,
            listen_metrics=tuple(map(MetricsListen, again.metrics, tls)),
        )
        task_status = trio.TASK_STATUS_IGNORED


class _Doors(NamedTuple):
    network: Network
    clock: Clock
    rng: Rng
    disk: Disk


class _Life:
    """One life of a member, begun from what its disk holds: state machine, Raft member, client port."""

    def __init__(
        self, config: MemberConfig, doors: _Doors, room: Room, blank: raft_identity.Identity | None
    ) -> None:
        self._config, self._doors, self._room = config, doors, room
        machine = StoreMachine()
        self.node = RaftNode(
            name=config.name,
            members=config.members,
            disk=doors.disk,
            network=doors.network,
            tls=config.peer_tls,
            listen=config.listen_peer,
            clock=doors.clock,
            rng=doors.rng,
            machine=machine,
            settings=config.raft,
            clients=config.client_addresses,
            blank=blank,
            program=Program(config.newest_version, version_needed, CLUSTER_VERSION),
        )
        self._consensus = _RaftConsensus(self.node, room)
        self._server = StoreServer(
            config.identity(),
            machine,
            self._consensus,
            clock=doors.clock,
            rng=doors.rng,
            settings=config.server,
        )
        self.node.add_role_listener(lambda role: self._server.set_leading(role.ready))
        self.node.add_member_listener(self._set_members)
        self._bound = BoundAddresses(config.listen_client, config.listen_peer)
        self._again = False

    async def run(
        self, stop: trio.Event | None, task_status: trio.TaskStatus[BoundAddresses]
    ) -> BoundAddresses | None:
        """The addresses to come back to, when a full disk has room again; None after `stop`."""
        config, server = self._config, self._server
        listener = await self._doors.network.listen(config.listen_client, config.client_tls)
        roles = CLIENT_ROLES if config.client_tls is not None else frozenset[str]()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._room.watch)
            peer = await nursery.start(self._keep_node, nursery.cancel_scope)
            client = await nursery.start(server.run, listener, roles)
            metrics = await nursery.start(self._monitor().run, self._doors.network, config.listen_metrics)
            self._bound = BoundAddresses(client, peer, metrics)
            log.info(
                "store_serving",
                member=config.name,
                client=str(client),
                peer=str(peer),
                metrics=list(map(str, metrics)),
            )
            task_status.started(self._bound)
            if stop is not None:
                await stop.wait()
                await _leave(self.node, server)
                nursery.cancel_scope.cancel()
        return self._bound if self._again else None

    def _monitor(self) -> Monitor:
        node = self.node
        return Monitor(
            self._server.service,
            lambda: RaftFigures(node.status(), node.counters()),
            leaving=lambda: self._server.leaving,
            clock=self._doors.clock,
            settings=self._config.server,
        )

    async def _keep_node(self, life: trio.CancelScope, *, task_status: trio.TaskStatus[Address]) -> None:
        """Run the Raft member; when its disk fails, say so, and end this life once another can begin."""
        status = _Once(task_status)
        try:
            await self.node.run(task_status=status)
        except DiskFailed as error:
            full = isinstance(error, DiskFull)
            if not full and not status.done:
                raise
            why = self._consensus.failure = self._room.sentence(error)
            log.error("store_disk_failed", member=self._config.name, error=why)
            self._server.suspend(why, blank=not status.done)
            if not status.done:
                status.started(self._config.listen_peer)
            if not full:
                await trio.sleep_forever()
            await self._room.wait()
            log.info("store_lives_again", member=self._config.name)
            with trio.move_on_after(_GOODBYE_S):
                await self._server.drain()
            self._again = True
            life.cancel()

    def _set_members(self, configuration: Configuration) -> None:
        mine = self.node.identity
        infos = tuple(
            MemberInfo(
                member_name(id_), where.peer, where.client, id=id_, learner=id_ in configuration.learners
            )
            for id_, where in configuration.members.items()
        )
        self._server.set_identity(
            Identity(
                member_name(mine.id),
                mine.cluster_id,
                infos,
                id=mine.id,
                started=self._started,
                committed=self._committed,
            )
        )

    def _committed(self, member_id: str) -> bool:
        try:
            return member_id in self.node.committed_configuration.members
        except Stopped:
            return False  # it learns nothing any more

    def _started(self, member_id: str) -> bool:
        mine = self.node.identity
        return member_id == mine.id or member_id in mine.pins


async def _place(
    config: MemberConfig, doors: _Doors, stop: trio.Event | None
) -> raft_identity.Identity | None:
    """What an empty data directory becomes in the cluster that exists; None: it is not empty, or `stop`
    was set meanwhile.
    """
    try:
        empty = not holds_a_member(doors.disk)
    except OSError as error:
        raise disk_failure(error, "data directory") from error
    if not empty:
        return None
    others = {name: at for name, at in config.client_addresses.items() if name != config.name}
    outcome: raft_identity.Identity | ConfigError | None = None
    async with trio.open_nursery() as nursery:
        if stop is not None:
            nursery.start_soon(_cancel_on, stop, nursery.cancel_scope)
        try:
            outcome = await find_place(
                config.name,
                config.raft.cluster_token,
                others,
                network=doors.network,
                tls=config.peer_tls,
                rng=doors.rng,
            )
        except ConfigError as error:
            outcome = error
        nursery.cancel_scope.cancel()
    if isinstance(outcome, ConfigError):
        raise outcome
    return outcome


async def _cancel_on(stop: trio.Event, scope: trio.CancelScope) -> None:
    await stop.wait()
    scope.cancel()


class _Once:
    """Passes `started` on, and remembers it."""

    def __init__(self, outer: trio.TaskStatus[Address]) -> None:
        self._outer, self.done = outer, False

    def started(self, value: Any = None) -> None:
        self.done = True
        self._outer.started(value)


async def _leave(node: RaftNode, server: StoreServer) -> None:
    """Nobody loses a request: another member leads before this one's clients are sent away."""
    with trio.move_on_after(STOP_S) as bound:
        try:
            leader = await node.transfer_leadership()
            log.info("store_handed_over", to=leader)
        except StoreError as error:  # it does not lead, or nobody can take over
            log.info("store_leaves", leadership=error.message)
        await server.drain()
    if bound.cancelled_caught:
        log.warning("store_left_clients_behind", waited_s=STOP_S)
    await node.stop()


def parse_members(text: str, *, flag: str) -> dict[str, Address]:
    """`name=host:port,name=host:port`. Raises ConfigError naming `flag` and what is wrong in it."""
    members: dict[str, Address] = {}
    for part in text.split(","):
        name, equals, address_text = part.strip().partition("=")
        if not equals or not MEMBER_NAME.fullmatch(name):
            raise ConfigError(f"{flag}: {part.strip()!r} is not a member; write name=host:port")
        if name in members:
            raise ConfigError(f"{flag}: two members are called {name!r}; give each its own name")
        address = parse_address(address_text)
        if address in members.values():
            raise ConfigError(f"{flag}: two members have the address {address}; give each its own")
        members[name] = address
    return members
