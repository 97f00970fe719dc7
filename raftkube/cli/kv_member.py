"""`raftkube kv member`: who belongs to the store, and how that changes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from raftkube.cli.kv_connect import KvCommand, call, output_format

if TYPE_CHECKING:
    from raftkube.store.client import StoreClient

_PEER = click.option("--peer-address", metavar="HOST:PORT", help="Where the other members reach it.")
_CLIENT = click.option("--client-address", metavar="HOST:PORT", help="Where clients reach it.")
_LEARNER = click.option("--learner", is_flag=True, help="It does not vote until `kv member promote`.")


class _Members(click.Group):
    command_class = KvCommand


@click.group(cls=_Members)
def member() -> None:
    """The members of the store. One change at a time; for operators (O=raftkube:store-admin) only."""


@member.command("list")
@click.option(
    "--consistency",
    type=click.Choice(["l", "s"]),
    default="l",
    help="Linearizable, or serializable: what one member knows, for a store without a leader.",
)
def list_members(consistency: str) -> None:
    """Who belongs to the store, who votes, and who leads."""
    from raftkube.cli.kv_print import write_json, write_table

    members = call(lambda client: client.member_list(serializable=consistency == "s"))
    if output_format() == "json":
        write_json({"members": members})
        return
    write_table(
        ("ID", "NAME", "PEER ADDRESS", "CLIENT ADDRESS", "LEARNER", "VOTER", "LEADER"),
        [
            (
                each["id"],
                each["name"],
                each["peer_address"],
                each["client_address"] or "-",
                *("yes" if each[column] else "no" for column in ("learner", "voter", "leader")),
            )
            for each in members
        ],
    )


@member.command("add")
@click.argument("name")
@_PEER
@_CLIENT
@_LEARNER
def add(name: str, peer_address: str | None, client_address: str | None, learner: bool) -> None:
    """Add the member NAME as a learner. It votes once it has caught up."""
    from raftkube.errors import ConfigError

    if not peer_address:
        raise ConfigError("--peer-address is missing; write host:port, where the others reach the new member")
    id_ = call(lambda client: client.member_add(name, peer_address, client_address or "", learner=learner))
    _say({"id": id_, "name": name}, f"added {id_}", *_next_steps(name))


@member.command("remove")
@click.argument("member_id", metavar="ID|NAME")
def remove(member_id: str) -> None:
    """Remove a member; a leader hands over first. Its id never comes back, its process ends."""
    id_ = call(lambda client: client.member_remove(member_id))
    _say({"id": id_}, f"removed {id_}")


@member.command("promote")
@click.argument("member_id", metavar="ID|NAME")
def promote(member_id: str) -> None:
    """Let a learner that has caught up vote."""
    id_ = call(lambda client: client.member_promote(member_id))
    _say({"id": id_}, f"{id_} votes")


@member.command("update")
@click.argument("member_id", metavar="ID|NAME")
@_PEER
@_CLIENT
def update(member_id: str, peer_address: str | None, client_address: str | None) -> None:
    """Say where a member is reached from now on."""
    from raftkube.errors import ConfigError

    if peer_address is None and client_address is None:
        raise ConfigError("--peer-address or --client-address is missing; one of them must change")
    id_ = call(lambda client: client.member_update(member_id, peer_address, client_address))
    _say({"id": id_}, f"{id_} has moved")


@member.command("replace")
@click.argument("name")
@_PEER
@_CLIENT
@_LEARNER
def replace(name: str, peer_address: str | None, client_address: str | None, learner: bool) -> None:
    """Give the member NAME, whose disk is lost, a new id: remove the old one, add it as a learner at the
    same addresses (or at those given)."""

    async def ask(client: StoreClient) -> tuple[str, str]:
        return await _replace(client, name, peer_address, client_address, learner)

    old, new = call(ask)
    _say({"removed": old, "id": new, "name": name}, f"removed {old}, added {new}", *_next_steps(name))


async def _replace(
    client: StoreClient, name: str, peer: str | None, at: str | None, learner: bool
) -> tuple[str, str]:
    from raftkube.errors import ConfigError, RaftkubeError

    found = [each for each in await client.member_list() if name in (each["name"], each["id"])]
    if not found:
        raise ConfigError(f"there is no member {name!r}; add it: raftkube kv member add {name}")
    old, name = found[0], found[0]["name"]
    peer, at = peer or old["peer_address"], at or old["client_address"]
    await client.member_remove(old["id"])
    try:
        return str(old["id"]), await client.member_add(name, peer, at, learner=learner)
    except RaftkubeError as error:
        command = f"raftkube kv member add {name} --peer-address {peer} --client-address {at}"
        raise ConfigError(
            f"{old['id']} is removed, but not added again ({error}); finish: {command}"
        ) from None


def _next_steps(name: str) -> tuple[str, ...]:
    return (
        f"next: empty the data directory of {name} if it has one, and start it with",
        f"  raftkube store --name {name} --initial-cluster-state existing "
        "--initial-client-urls <the other members> ...",
        f"in a cluster that `raftkube up` started: raftkube start {name}",
    )


def _say(as_json: dict[str, Any], *lines: str) -> None:
    from raftkube.cli.kv_print import write_json, write_text

    if output_format() == "json":
        write_json(as_json)
    else:
        write_text(*lines)
