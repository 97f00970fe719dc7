"""`raftkube kv lease …`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from raftkube.cli.kv_connect import KvCommand, call, output_format

if TYPE_CHECKING:
    from raftkube.store.client import StoreClient


class _Leases(click.Group):
    command_class = KvCommand


@click.group(cls=_Leases)
def lease() -> None:
    """Grant, renew, inspect and revoke leases. Ids are hexadecimal."""


def _show(result: Any, sentence: str) -> None:
    from raftkube.cli.kv_print import result_json, write_json, write_text

    if output_format() == "json":
        write_json(result_json(result))
    else:
        write_text(sentence)


def _id(text: str) -> int:
    from raftkube.cli.kv_txn import parse_lease

    return parse_lease(text)


@lease.command("grant")
@click.argument("ttl", type=int)
def grant(ttl: int) -> None:
    """A new lease of TTL seconds."""
    result = call(lambda client: client.lease_grant(ttl))
    _show(result, f"lease {result.lease:016x} granted with TTL({result.ttl_s}s)")


@lease.command("revoke")
@click.argument("lease_id")
def revoke(lease_id: str) -> None:
    """End a lease and delete its keys."""
    number = _id(lease_id)
    result = call(lambda client: client.lease_revoke(number))
    _show(result, f"lease {number:016x} revoked")


@lease.command("keep-alive")
@click.argument("lease_id")
@click.option("--once", is_flag=True, help="Renew once and return.")
def keep_alive(lease_id: str, once: bool) -> None:
    """Renew a lease, and go on renewing it until interrupted."""
    import trio

    number = _id(lease_id)

    async def renew(client: StoreClient) -> None:
        while True:
            result = await client.lease_keep_alive(number)
            _show(result, f"lease {number:016x} keepalived with TTL({result.ttl_s})")
            if once:
                return
            await trio.sleep(result.ttl_s / 3)

    call(renew, forever=not once)


@lease.command("timetolive")
@click.argument("lease_id")
@click.option("--keys", is_flag=True, help="Also the keys that are attached.")
def time_to_live(lease_id: str, keys: bool) -> None:
    """What is left of a lease."""
    import base64

    from raftkube.cli.kv_print import write_json, write_text

    number = _id(lease_id)
    result = call(lambda client: client.lease_time_to_live(number, keys=keys))
    if output_format() == "json":
        shown = {"id": number, "ttl": int(result.remaining_s), "granted-ttl": result.ttl_s}
        write_json(shown | {"keys": [base64.b64encode(key).decode() for key in result.keys]})
        return
    attached = " ".join(key.decode("utf-8", "backslashreplace") for key in result.keys)
    tail = f", attached keys([{attached}])" if keys else ""
    write_text(
        f"lease {number:016x} granted with TTL({result.ttl_s}s), remaining({int(result.remaining_s)}s){tail}"
    )


@lease.command("list")
def list_leases() -> None:
    """The ids of all leases."""
    from raftkube.cli.kv_print import write_json, write_text

    result = call(lambda client: client.leases())
    if output_format() == "json":
        write_json({"header": {"revision": result.revision}, "leases": [{"id": n} for n in result.leases]})
    else:
        write_text(f"found {len(result.leases)} leases", *(f"{number:016x}" for number in result.leases))
