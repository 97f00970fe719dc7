"""How a member with a blank data directory finds its place in a cluster that exists: it asks the others'
client ports for the member list until a learner of its name stands there that was never started, as far as
all of them know who answer."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Final

import structlog
import trio

from raftkube.errors import ConfigError, RaftkubeError, from_wire
from raftkube.net import Address, Connection, Network, TlsFiles
from raftkube.rng import Rng
from raftkube.store.raft.identity import Identity, bootstrap
from raftkube.store.raft.membership import Configuration, MemberAddresses
from raftkube.wire import rpc
from raftkube.wire.frames import FrameError, FrameReader, unpack

log = structlog.get_logger(__name__)

_ANSWER_S: Final = 3.0
_RETRY_S: Final = 1.0
_TRIES_MAX: Final = 120


async def find_place(
    name: str, token: str, others: Mapping[str, Address], *, network: Network, tls: TlsFiles | None, rng: Rng
) -> Identity:
    """The identity that `name` takes on. Raises ConfigError: nobody added it in time."""
    if not others:
        raise ConfigError(
            "--initial-cluster-state existing needs --initial-client-urls with the client addresses of other"
            " members, for this data directory is empty"
        )
    why = "no member answered"
    for _ in range(_TRIES_MAX):
        answers: list[tuple[str, list[dict[str, Any]]]] = []
        for other, address in sorted(others.items()):
            answer = await _ask(other, address, network, tls)
            if isinstance(answer, str):
                why = answer
            else:
                answers.append(answer)
        if answers:
            found = place_in(name, [members for _, members in answers])
            if isinstance(found, int):
                cluster_id, members = answers[found]
                log.info("store_joins", member=name, answers=len(answers))
                return bootstrap(name, token, cluster_id, _configuration(members), rng)
            why = found
        log.warning("store_waits_for_its_place", member=name, reason=why)
        await trio.sleep(_RETRY_S)
    raise ConfigError(f"member {name!r} found no place in the cluster: {why}")


def place_in(name: str, answers: list[list[dict[str, Any]]]) -> int | str:
    """Which of the members' lists, one at least, `name` may begin by with an empty disk; or why by none.

    A member may not have met the id yet: if one of them knows it to be at work, it is. Lists of before a
    change, which show another id of that name, hold nobody up.
    """
    refusals = [unfit(name, members) for members in answers]
    free = [at for at, refusal in enumerate(refusals) if refusal is None]
    if not free:
        return str(refusals[0])
    ids = {str(member["id"]) for at in free for member in answers[at] if member["name"] == name}
    if len(ids) > 1:
        return f"the members do not agree yet which id is free: {', '.join(sorted(ids))}"
    for members, refusal in zip(answers, refusals, strict=True):
        if refusal is not None and any(member["id"] in ids and _at_work(member) for member in members):
            return refusal
    return free[0]


def _find(name: str, members: list[dict[str, Any]]) -> dict[str, Any] | None:
    return next((member for member in members if member["name"] == name), None)


def unfit(name: str, members: list[dict[str, Any]]) -> str | None:
    """Why `name` may not begin as one of `members` with an empty disk; None if it may."""
    mine = _find(name, members)
    if mine is None:
        return f"there is no member {name!r}; add it: raftkube kv member add {name} --peer-address ..."
    if _at_work(mine):
        return (
            f"{mine['id']} is at work with another data directory, and this one is empty; it must rejoin "
            f"under a new id: raftkube kv member replace {name}"
        )
    if not mine["committed"]:
        return f"the change that adds {mine['id']} is not known to be committed yet"
    return None


def _at_work(member: dict[str, Any]) -> bool:
    return not member["learner"] or bool(member["started"])


def _configuration(members: list[dict[str, Any]]) -> Configuration:
    def of(learners: bool) -> dict[str, MemberAddresses]:
        return {
            str(member["id"]): MemberAddresses(str(member["peer_address"]), str(member["client_address"]))
            for member in members
            if member["learner"] == learners
        }

    return Configuration(of(False), of(True))


async def _ask(
    name: str, address: Address, network: Network, tls: TlsFiles | None
) -> tuple[str, list[dict[str, Any]]] | str:
    """The cluster's id and members, or why there was no answer."""
    tls = None if tls is None else dataclasses.replace(tls, server_name=name)
    with trio.move_on_after(_ANSWER_S):
        try:
            connection = await network.connect(address, tls)
            try:
                return await _member_list(connection)
            finally:
                connection.abort()
        except (OSError, RaftkubeError, trio.BrokenResourceError, trio.ClosedResourceError) as error:
            return f"{name} ({address}): {str(error) or type(error).__name__}"
    return f"{name} ({address}) did not answer"


async def _member_list(connection: Connection) -> tuple[str, list[dict[str, Any]]]:
    reader = FrameReader()
    await connection.send_all(
        rpc.client_hello("store-peer") + rpc.request(1, rpc.MEMBER_LIST, [], deadline_ms=0)
    )
    cluster_id: str | None = None
    while data := await connection.receive_some():
        for body in reader.feed(data):
            message = unpack(body)
            if isinstance(message, list) and message[:1] == [rpc.ERROR]:
                raise from_wire(message[2])
            if cluster_id is None:
                cluster_id = rpc.parse_member_hello(message).cluster_id
            else:
                return cluster_id, list(message[2])
    raise FrameError("the connection was closed before the answer")
