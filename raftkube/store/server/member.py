"""One member of the store, whole: state machine, consensus, client port, wired and run."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import structlog
import trio

from raftkube.clock import Clock
from raftkube.disk import Disk
from raftkube.errors import ConfigError, Stopped
from raftkube.net import Address, Network, TlsFiles, parse_address
from raftkube.rng import Rng
from raftkube.store.raft.driver import RaftNode
from raftkube.store.raft.settings import RaftSettings, RoleChange
from raftkube.store.server.consensus import ConsensusView
from raftkube.store.server.machine import StoreMachine
from raftkube.store.server.server import StoreServer
from raftkube.store.server.service import Identity, MemberInfo
from raftkube.store.server.settings import ServerSettings

log = structlog.get_logger(__name__)

# Who may speak to the client port: API servers, operators, other members (certificate organizations).
CLIENT_ROLES: Final = frozenset(("raftkube:store-client", "raftkube:store-admin", "raftkube:store-peer"))
_NAME: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberConfig:
    """`members` maps every member's name to its peer address, this one's included; `client_addresses`
    those that are known. Without TLS files everything is plain."""

    name: str
    members: Mapping[str, Address]
    listen_client: Address
    listen_peer: Address
    client_tls: TlsFiles | None = None
    peer_tls: TlsFiles | None = None
    client_addresses: Mapping[str, Address] = field(default_factory=dict)
    raft: RaftSettings = field(default_factory=RaftSettings)
    server: ServerSettings = field(default_factory=ServerSettings)

    def __post_init__(self) -> None:
        if self.name not in self.members:
            names = ", ".join(sorted(self.members))
            raise ConfigError(f"member {self.name!r} is not in the initial cluster ({names}); add it")

    def identity(self) -> Identity:
        """What clients are told of this member and the others."""
        known = {name: str(address) for name, address in self.client_addresses.items()}
        members = tuple(
            MemberInfo(name, str(address), known.get(name, ""))
            for name, address in sorted(self.members.items())
        )
        return Identity(self.name, self.raft.cluster_id or "+".join(sorted(self.members)), members)


class BoundAddresses(NamedTuple):
    """Where a member listens."""

    client: Address
    peer: Address


class _RaftConsensus:
    """What the server needs of a RaftNode."""

    def __init__(self, node: RaftNode) -> None:
        self._node = node
        self.propose = node.propose
        self.submit = node.submit
        self.read_index = node.read_index

    def view(self) -> ConsensusView:
        try:
            status = self._node.status()
        except Stopped as error:
            return ConsensusView("recovering", None, 0, 0, 0, errors=(error.message,))
        return ConsensusView(
            role=status.role,
            leader=status.leader,
            term=status.term,
            commit_index=status.commit_index,
            applied_index=status.applied_index,
            last_index=status.log_last,
            journal_bytes=status.journal_bytes,
            errors=() if status.failed is None else (status.failed,),
        )


async def run_member(
    config: MemberConfig,
    *,
    network: Network,
    clock: Clock,
    rng: Rng,
    disk: Disk,
    task_status: trio.TaskStatus[BoundAddresses] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Run until cancelled; `started` once clients are served.

    Raises ConfigError (an address is taken, the data directory is damaged beyond use), InvariantViolation
    or DiskFailed: the member has stopped, and nothing restarts it by itself.
    """
    listener = await network.listen(config.listen_client, config.client_tls)
    machine = StoreMachine()
    node = RaftNode(
        name=config.name,
        members=config.members,
        disk=disk,
        network=network,
        tls=config.peer_tls,
        listen=config.listen_peer,
        clock=clock,
        rng=rng,
        machine=machine,
        settings=config.raft,
    )
    server = StoreServer(
        config.identity(), machine, _RaftConsensus(node), clock=clock, rng=rng, settings=config.server
    )

    def role_changed(role: RoleChange) -> None:
        server.set_leading(role.ready)

    node.add_role_listener(role_changed)
    roles = CLIENT_ROLES if config.client_tls is not None else frozenset[str]()
    async with trio.open_nursery() as nursery:
        peer = await nursery.start(node.run)
        client = await nursery.start(server.run, listener, roles)
        log.info("store_serving", member=config.name, client=str(client), peer=str(peer))
        task_status.started(BoundAddresses(client, peer))


def parse_members(text: str, *, flag: str) -> dict[str, Address]:
    """`name=host:port,name=host:port`. Raises ConfigError naming `flag` and what is wrong in it."""
    members: dict[str, Address] = {}
    for part in text.split(","):
        name, equals, address_text = part.strip().partition("=")
        if not equals or not _NAME.fullmatch(name):
            raise ConfigError(f"{flag}: {part.strip()!r} is not a member; write name=host:port")
        if name in members:
            raise ConfigError(f"{flag}: two members are called {name!r}; give each its own name")
        address = parse_address(address_text)
        if address in members.values():
            raise ConfigError(f"{flag}: two members have the address {address}; give each its own")
        members[name] = address
    return members
