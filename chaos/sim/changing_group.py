"""A group whose members come, go and move while it works."""

from __future__ import annotations

import contextlib

import trio

from chaos.sim.clock import SimClock
from chaos.sim.disk import SimDisk
from chaos.sim.raft_group import PEER_PORT, Host, RaftGroup
from raftkube.errors import StoreError
from raftkube.net import Address
from raftkube.rng import seeded_rng
from raftkube.store.raft.identity import bootstrap, new_member_id
from raftkube.store.raft.membership import AddLearner, Change, Configuration, MemberAddresses, Remove


class ChangingGroup(RaftGroup):
    """`names` are those that belong to it now; machines of former members stay in `hosts`."""

    async def change(self, change: Change, *, timeout_s: float = 60.0) -> Configuration:
        """Ask whoever leads, until the change is seen to be made."""
        with trio.fail_after(timeout_s):
            while True:
                leader = await self.wait_leader(timeout_s=timeout_s)
                try:
                    with trio.move_on_after(5):
                        return await self.node(leader).change_members(change)
                except StoreError:
                    await trio.sleep(0.05)
                done = self._made(change)
                if done is not None:
                    return done

    def _made(self, change: Change) -> Configuration | None:
        """The configuration, if an earlier attempt at `change` turns out to have been committed."""
        for name in self.up():
            replica = self.node(name)._replica
            if replica is None or not self.node(name).role.ready:
                continue
            committed = replica.committed_configuration
            if isinstance(change, AddLearner) and change.id in committed.members:
                return committed
            if isinstance(change, Remove) and change.id in committed.removed:
                return committed
        return None

    def machine_of(self, name: str) -> Host:
        """A machine for a member called `name`: new, or the old one with an empty disk."""
        address = Address(name, PEER_PORT)
        self.members.setdefault(name, address)
        host = self.hosts.get(name)
        disk = SimDisk(seeded_rng(f"{name}-{self._seed}-{0 if host is None else host.starts}"))
        if host is None:
            clock = SimClock(monotonic_offset_s=1000.0 * len(self.hosts))
            host = self.hosts[name] = Host(name, disk, clock)
        host.disk = disk
        return host

    async def add(self, name: str, *, promote: bool = True) -> str:
        """A new member's id, once it is a learner; it is not started."""
        id_ = new_member_id(name, self.rng)
        addresses = MemberAddresses(str(self.members.get(name, Address(name, PEER_PORT))))
        configuration = await self.change(AddLearner(id_, addresses, promote))
        leader = await self.wait_leader()
        mine = self.node(leader).identity
        host = self.machine_of(name)
        host.blank = bootstrap(name, mine.token, mine.cluster_id, configuration, self.rng)
        if name not in self.names:
            self.names.append(name)
        return id_

    async def remove(self, name: str, id_: str) -> None:
        """Remove the member `id_` on the machine `name`; its process goes on until it learns of it."""
        await self.change(Remove(id_))
        self.names.remove(name)

    def id_of(self, name: str) -> str:
        """The id of the member on that machine."""
        return self.node(name).identity.id

    async def wait_voter(self, id_: str, *, timeout_s: float = 60.0) -> None:
        """Until every member that runs knows `id_` as a voter."""
        with trio.fail_after(timeout_s):
            while not all(id_ in self._voters(name) for name in self.up()):  # noqa: ASYNC110  virtual time
                await trio.sleep(0.05)

    def _voters(self, name: str) -> set[str]:
        with contextlib.suppress(StoreError):
            return set(self.node(name).configuration.voters)
        return set()
