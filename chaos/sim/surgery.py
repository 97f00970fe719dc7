"""What an operator does to a simulated store: starts what is down, replaces what is lost, changes members.

One change at a time; what cannot be finished while faults go on is finished after them (`finish`).
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import trio

from chaos.sim.simulated_store import SimulatedStore
from raftkube.errors import Stopped, StoreError
from raftkube.store.client import StoreClient

_CALL_S: Final = 8.0
_POLL_S: Final = 0.5
_VOTER_S: Final = 60.0
OPERATOR: Final = "operator"


class Surgery:
    """`broken`: members whose data is gone and that are not replaced yet. `refused`: what members said that
    did not start, in sentences."""

    def __init__(self, store: SimulatedStore, nursery: trio.Nursery) -> None:
        self.store = store
        self.broken: set[str] = set()
        self.refused: list[str] = []
        self._nursery = nursery
        self._busy = False
        self._joining = 0
        self._starting: set[str] = set()
        self._ids: dict[str, str] = {}  # that members were given here
        self._lost_ids: set[str] = set()  # whose data is gone

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[bool]:
        """True: this is the only change under way, and no member is broken."""
        free = not self._busy and not self.broken
        if free:
            self._busy = True
        try:
            yield free
        finally:
            if free:
                self._busy = False

    async def start(self, name: str) -> None:
        """Start it unless it runs, is being replaced, or is gone."""
        store = self.store
        if name in store.running or name in self.broken or name not in store.names:
            return
        await self._start(name)

    async def _start(self, name: str) -> None:
        """Whole: a start that is given up half way is no process' end, and would leave its ports taken."""
        if name in self._starting:
            return
        self._starting.add(name)
        before = len(self.store.failures)
        try:
            with trio.CancelScope(shield=True):
                await self.store.start(name)
        except RuntimeError:  # it ended before it served
            self.refused += self.store.failures[before:]
        finally:
            self._starting.discard(name)

    async def start_or_replace(self, name: str) -> None:
        """A member whose disk was damaged: if it finds that out, it is replaced."""
        await self.start(name)
        await trio.sleep(_POLL_S)
        if name not in self.store.running:
            await self.replace(name)

    async def replace(self, name: str) -> None:
        """As `raftkube repair`: the old id out, an empty disk, a new id in, until it votes."""
        self.broken.add(name)
        self._lost_ids.add(self._id_of(name))
        await self.store.kill(name)
        self.store.add_machine(name)
        with trio.move_on_after(_VOTER_S):
            await self._join(name)

    def failed(self, name: str) -> bool:
        """Whether it runs, and waits for an operator because of its disk."""
        try:
            return self.store.nodes[name].status().failed is not None
        except (Stopped, KeyError):  # it starts
            return False

    def _id_of(self, name: str) -> str:
        with contextlib.suppress(Stopped, KeyError):
            return self.store.nodes[name].status().name
        return self._ids.get(name, name)

    async def _join(self, name: str) -> None:
        async with self.store.client(OPERATOR) as client:
            await self._until(lambda: self._advance(client, name))
        self.broken.discard(name)

    async def _advance(self, client: StoreClient, name: str) -> bool:
        """One step from a lost id to a new one that votes; True once it does."""
        store = self.store
        found = await self._find(client, name)
        if found is not None and found["id"] in self._lost_ids:
            await client.member_remove(found["id"])
            return False
        if found is None:
            if store.disks[name].names():  # of an id that was removed
                await store.kill(name)
                store.add_machine(name)
            peer, at = str(store.peers[name]), str(store.clients[name])
            self._ids[name] = await client.member_add(name, peer, at)
            return False
        self._ids[name] = found["id"]  # also if the answer to its addition was lost
        if name in store.running and self.failed(name):  # its disk did, as it joined
            await store.kill(name)
        if name not in store.running:
            self._nursery.start_soon(self._start, name)  # it waits for its place, perhaps for long
        return bool(found["voter"])

    async def _find(self, client: StoreClient, name: str) -> dict[str, Any] | None:
        return next((each for each in await client.member_list() if each["name"] == name), None)

    async def _until(self, step: Callable[[], Awaitable[bool]]) -> None:
        """Again and again, with a bound on each try."""
        while True:
            with trio.move_on_after(_CALL_S):
                try:
                    if await step():
                        return
                except StoreError:
                    pass
            await trio.sleep(_POLL_S)

    async def move_leader(self) -> bool:
        """One try to make another member lead."""
        async with self.store.client(OPERATOR) as client:
            with trio.move_on_after(_CALL_S):
                try:
                    await client.move_leader()
                except StoreError:
                    return False
                return True
        return False

    async def exchange(self, choice: int) -> bool:
        """A new member joins; when it votes, one of the old ones is removed."""
        store = self.store
        self._joining += 1
        new = f"store-{len(store.initial) + self._joining}"
        store.add_machine(new)
        self.broken.add(new)
        with trio.move_on_after(_VOTER_S):
            await self._join(new)
        if new in self.broken:
            return False
        known = [name for name in store.names if name in store.initial]  # clients find the store by these
        others = [name for name in store.names if name != new and (len(known) > 1 or name not in known)]
        await self._remove(others[choice % len(others)])
        return True

    async def _remove(self, name: str) -> None:
        """For good; the machine goes once it is out of the list."""

        async def gone() -> bool:
            found = await self._find(client, name)
            if found is None:
                return True
            await client.member_remove(found["id"])
            return True

        async with self.store.client(OPERATOR) as client:
            with trio.move_on_after(_VOTER_S):
                await self._until(gone)
                await self._scrap(name)

    async def _scrap(self, name: str) -> None:
        await self.store.kill(name)
        self.store.remove_machine(name)
        self.broken.discard(name)

    async def finish(self) -> None:
        """Faults are over: whatever was removed goes, whatever is down runs again, whatever is broken is
        replaced."""
        members: set[str] = set()

        async def listed() -> bool:
            members.update(each["name"] for each in await client.member_list())
            return True

        for name in self.store.names:
            await self.start(name)
        async with self.store.client(OPERATOR) as client:
            await self._until(listed)
        for name in self.store.names:
            if name not in members and name not in self.broken:
                await self._scrap(name)
            elif name not in self.store.running and name not in self.broken:
                await self.replace(name)  # it cannot start: its disk was damaged as the faults ended
        for name in self.store.names:
            await self.start(name)
        for name in sorted(self.broken):
            if name in self.store.names:
                await self._join(name)
