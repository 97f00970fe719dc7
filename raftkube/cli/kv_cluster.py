"""`raftkube kv status` and `raftkube kv member list`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from raftkube.cli.kv_connect import KvCommand, call, output_format, target_of

if TYPE_CHECKING:
    from raftkube.store.client import StoreClient


@click.command(cls=KvCommand)
@click.option("--hash", "with_hash", is_flag=True, help="Also a hash of each member's state.")
def status(with_hash: bool) -> None:
    """What each member says of itself; exit code 1 if one does not answer."""
    from raftkube.cli.kv_print import write_json, write_table
    from raftkube.errors import Unreachable

    addresses = target_of(click.get_current_context().ensure_object(dict)).addresses

    async def ask(client: StoreClient) -> list[dict[str, Any]]:
        return [await _status_of(client, address, with_hash) for address in addresses]

    rows = call(ask)
    if output_format() == "json":
        write_json(rows)
    else:
        names = [
            "endpoint",
            "name",
            "role",
            "term",
            "revision",
            "compact_revision",
            "applied_index",
            "errors",
        ]
        names += ["hash"] * with_hash
        write_table(
            [name.upper().replace("_", " ") for name in names],
            [[_cell(row.get(name, "")) for name in names] for row in rows],
        )
    silent = [row["endpoint"] for row in rows if not row.get("name")]
    if silent:
        raise Unreachable(f"no answer from {', '.join(silent)}")


async def _status_of(client: StoreClient, address: Any, with_hash: bool) -> dict[str, Any]:
    import trio

    from raftkube.errors import StoreError

    row: dict[str, Any] = {"endpoint": str(address)}
    with trio.move_on_after(2):
        try:
            row |= await client.status(member=address)
            if with_hash:
                row["hash"] = (await client.hash(member=address))["hash"]
        except StoreError as error:
            row["errors"] = [error.message]
    return row


def _cell(value: Any) -> str:
    return "; ".join(map(str, value)) if isinstance(value, list) else str(value)


@click.command("move-leader", cls=KvCommand)
@click.argument("name", required=False)
def move_leader(name: str | None) -> None:
    """Make the member NAME lead; without NAME the one that lags least. For operators only."""
    from raftkube.cli.kv_print import write_json, write_text

    leader = call(lambda client: client.move_leader(name))
    if output_format() == "json":
        write_json({"leader": leader})
    else:
        write_text(f"{leader} leads")


class _Members(click.Group):
    command_class = KvCommand


@click.group(cls=_Members)
def member() -> None:
    """The members of the store. (Adding and removing members is not possible yet.)"""


@member.command("list")
def list_members() -> None:
    """Who belongs to the store, and who leads."""
    from raftkube.cli.kv_print import write_json, write_table

    members = call(lambda client: client.member_list())
    if output_format() == "json":
        write_json({"members": members})
        return
    write_table(
        ("NAME", "PEER ADDRESS", "CLIENT ADDRESS", "LEADER"),
        [
            (
                each["name"],
                each["peer_address"],
                each["client_address"] or "-",
                "yes" if each["leader"] else "no",
            )
            for each in members
        ],
    )
