"""`raftkube repair`: a store with a damaged, failed or lost disk starts anew from the other members.

Its data directory is moved aside, never deleted; its old id is removed, so that it can never speak again
for what that disk had promised; under a new id it learns everything from the others and votes once it has.
Each step says what it does, finds what an interrupted repair has done already, and goes on from there.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import trio

from raftkube.cluster.control import ask
from raftkube.cluster.plan import HOST
from raftkube.cluster.state import ClusterState
from raftkube.errors import ConfigError, Indefinite, MembershipRefused, StoreError
from raftkube.net import Network, TlsFiles, parse_address
from raftkube.store.client import StoreClient

_ANSWER_S: Final = 2.0
_STEP_S: Final = 30.0
_POLL_S: Final = 0.2

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class _Store:
    """A store of the cluster by its row of `raftkube status`."""

    name: str
    client: str
    peer: str


class Repair:
    """Of the store `name` in the running cluster `state`."""

    def __init__(self, state: ClusterState, name: str, network: Network, progress: Progress) -> None:
        self._state, self._name, self._network, self._progress = state, name, network, progress
        files = state.read_json("store-admin.json")
        self._tls = TlsFiles(files["cacert"], files["cert"], files["key"])

    async def run(self, *, force: bool, timeout_s: float) -> None:
        """Raises ConfigError: the reason, and how far it came; saying it again goes on from there."""
        mine, others = await self._stores()
        await self._check(mine, others, force=force)
        self._progress(f"stopping {mine.name}")
        await ask(self._state, {"verb": "stop", "component": mine.name})
        async with self._client(*others) as client:
            await self._leader_among_others(client)
            self._move_aside()
            await self._new_id(client, mine)
            self._progress(f"starting {mine.name}; it learns everything from the others")
            await ask(self._state, {"verb": "start", "component": mine.name})
            await self._until_voter(client, mine, timeout_s)

    async def _stores(self) -> tuple[_Store, list[_Store]]:
        rows = (await ask(self._state, {"verb": "status"}))["components"]
        stores = {
            row["name"]: _Store(
                row["name"], f"{HOST}:{row['ports']['client']}", f"{HOST}:{row['ports']['peer']}"
            )
            for row in rows
            if row["kind"] == "store"
        }
        mine = stores.pop(self._name, None)
        if mine is None:
            there = ", ".join(stores)
            raise ConfigError(
                f"there is no store {self._name!r} in cluster {self._state.name!r}; there are {there}"
            )
        if not stores:
            raise ConfigError(
                f"{self._name} is the only store: there is no other to learn from; restore a snapshot:"
                " raftkube kv snapshot restore"
            )
        return mine, list(stores.values())

    async def _check(self, mine: _Store, others: list[_Store], *, force: bool) -> None:
        """Nothing is touched unless the others can do without it, and it cannot be helped otherwise."""
        status = await self._status(mine)
        if status is not None and not force and not _failed(status):
            raise ConfigError(
                f"{mine.name} answers and its disk has not failed; to rebuild it all the same: --force"
            )
        answers = {other.name: await self._status(other) for other in others}
        sound = [name for name, answer in answers.items() if answer is not None and not _failed(answer)]
        if not sound:
            raise ConfigError(
                f"no store but {mine.name} answers; nothing was touched. Start the others first"
            )
        async with self._client(*(other for other in others if other.name in sound)) as client:
            # From one of them alone: whether they could decide on another is what is to be found out.
            listed = partial(client.member_list, serializable=True)
            members = await self._bounded(listed, "the list of members")
        voters = {member["name"] for member in members if member["voter"]}
        needed = len(voters) // 2 + 1
        if len(voters.intersection(sound)) < needed:
            raise ConfigError(
                f"without {mine.name} the store has no quorum: {needed} of its {len(voters)} voters must"
                f" answer, and of the others only {', '.join(sound)} does; nothing was touched. Start the"
                " others first"
            )

    async def _leader_among_others(self, client: StoreClient) -> None:
        async def leads() -> bool:
            return bool((await client.status())["leader"])

        await self._until(leads, "a leader among the other stores")

    def _move_aside(self) -> None:
        directory = self._state.data_of(self._name)
        if not directory.exists():
            self._progress(f"{directory} does not exist: nothing to keep")
            return
        aside = next(
            path
            for number in range(1, 10_000)
            if not (path := directory.with_name(f"{directory.name}.damaged-{number}")).exists()
        )
        try:
            directory.rename(aside)
        except OSError as error:
            raise ConfigError(f"{directory} cannot be moved aside: {error.strerror}; move it away yourself, "
                              f"then say `raftkube repair {self._name}` again") from error  # fmt: skip
        self._progress(f"kept the old data as {aside}")

    async def _new_id(self, client: StoreClient, mine: _Store) -> None:
        members = await self._bounded(client.member_list, "the list of members")
        known = next((member for member in members if member["name"] == mine.name), None)
        if known is not None and known["learner"] and not known["started"]:
            self._progress(f"{known['id']} was added before and is still blank")
            return
        peer, at = mine.peer, mine.client
        if known is not None:
            peer, at = known["peer_address"], known["client_address"] or at
            await self._change(lambda: client.member_remove(known["id"]), f"removing {known['id']}")
            self._progress(f"removed {known['id']}")
        added = await self._change(lambda: client.member_add(mine.name, peer, at), f"adding {mine.name}")
        self._progress(f"added {added}, a learner until it has caught up")

    async def _change(self, change: Callable[[], Awaitable[str]], what: str) -> str:
        """A change of members; refused ones (another is under way) are tried until the time is up."""
        why = "no answer"
        with trio.move_on_after(_STEP_S):
            while True:
                try:
                    return await change()
                except MembershipRefused as error:
                    why = error.message
                except Indefinite as error:
                    why = f"{error.message}; it may have been carried out"
                    break
                await trio.sleep(_POLL_S)
        raise ConfigError(f"{what}: {why}. Say `raftkube repair {self._name}` again")

    async def _until_voter(self, client: StoreClient, mine: _Store, timeout_s: float) -> None:
        seen = ""

        async def votes() -> bool:
            nonlocal seen
            members = await client.member_list()
            member = next((each for each in members if each["name"] == mine.name), None)
            if member is None or not member["voter"]:
                return False
            status = await self._status(mine)
            seen = "" if status is None else "; ".join(status["errors"])
            return status is not None and not status["errors"]

        await self._until(votes, f"{mine.name} to vote again", timeout_s, lambda: seen)
        self._progress(f"{mine.name} is a voter again")

    async def _until(
        self,
        holds: Callable[[], Awaitable[bool]],
        what: str,
        timeout_s: float = _STEP_S,
        why: Callable[[], str] = str,
    ) -> None:
        with trio.move_on_after(timeout_s):
            while True:
                try:
                    if await holds():
                        return
                except StoreError:
                    pass
                await trio.sleep(_POLL_S)
        reason = f" ({why()})" if why() else ""
        raise ConfigError(
            f"waited {timeout_s:g} s for {what} in vain{reason}; see raftkube logs {self._name}, then say"
            f" `raftkube repair {self._name}` again"
        )

    async def _bounded(self, call: Callable[[], Awaitable[Any]], what: str) -> Any:
        with trio.move_on_after(_STEP_S):
            return await call()
        raise ConfigError(f"the other stores did not answer within {_STEP_S:g} s ({what})")

    async def _status(self, store: _Store) -> dict[str, Any] | None:
        """What it says of itself; None: it does not answer."""
        with trio.move_on_after(_ANSWER_S):
            try:
                async with self._client(store, pinned=True) as client:
                    status: dict[str, Any] = await client.status()
                    return status
            except (StoreError, OSError):
                return None
        return None

    def _client(self, *stores: _Store, pinned: bool = False) -> Any:
        addresses = [parse_address(store.client) for store in stores]
        return StoreClient.open(self._network, addresses, self._tls, name="raftkube-repair", pinned=pinned)


def _failed(status: dict[str, Any]) -> bool:
    return any(error.startswith("failed: ") for error in status["errors"])
