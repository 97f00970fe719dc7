"""`raftkube kv`: the store's own client, in etcdctl's manner."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import click

from raftkube.cli.kv_connect import CONNECTION_NAMES, KvCommand, call, connection_params, output_format

if TYPE_CHECKING:
    from raftkube.store.client import StoreClient


class _KvGroup(click.Group):
    command_class = KvCommand

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.extend(connection_params())

    def invoke(self, ctx: click.Context) -> Any:
        given = {name: ctx.params.pop(name) for name in CONNECTION_NAMES}
        ctx.ensure_object(dict).update({name: value for name, value in given.items() if value is not None})
        return super().invoke(ctx)


@click.group(cls=_KvGroup)
def command() -> None:
    """Read and write the store: get, put, del, txn, watch, lease, alarm, compact, status, member.

    Without --endpoints the cluster is the one that `raftkube up` started (--name).
    """


def _bytes(text: str) -> bytes:
    return os.fsencode(text)


def _range_end(key: bytes, end: str | None, prefix: bool, from_key: bool) -> tuple[bytes, bytes]:
    """The range that the arguments mean. Raises ConfigError: more than one way was used."""
    from raftkube.errors import ConfigError
    from raftkube.wire.store import prefix_end

    if (end is not None) + prefix + from_key > 1:
        raise ConfigError("RANGE_END, --prefix and --from-key exclude one another")
    if prefix:
        return (key, prefix_end(key)) if key else (b"\x00", b"\x00")
    if from_key:
        return key or b"\x00", b"\x00"
    return key, b"" if end is None else _bytes(end)


def _range_options(function: Any) -> Any:
    for option in (
        click.option("--from-key", is_flag=True, help="All keys from KEY on."),
        click.option("--prefix", is_flag=True, help="All keys that start with KEY."),
        click.argument("range_end", required=False),
        click.argument("key"),
    ):
        function = option(function)
    return function


# etcdctl's words, and the store's.
_SORT_TARGETS = {
    "": "",
    "KEY": "key",
    "VERSION": "version",
    "CREATE": "create",
    "MODIFY": "mod",
    "VALUE": "value",
}


def _order_options(function: Any) -> Any:
    orders = click.Choice(["ASCEND", "DESCEND"], case_sensitive=False)
    targets = click.Choice([name for name in _SORT_TARGETS if name], case_sensitive=False)
    for option in (
        click.option("--max-create-rev", default=0, help="Only keys created at or before this revision."),
        click.option("--min-create-rev", default=0, help="Only keys created at or after this revision."),
        click.option("--max-mod-rev", default=0, help="Only keys last changed at or before this revision."),
        click.option("--min-mod-rev", default=0, help="Only keys last changed at or after this revision."),
        click.option("--sort-by", type=targets, help="What to sort by.  [default: KEY]"),
        click.option("--order", type=orders, help="How to sort.  [default: ASCEND]"),
    ):
        function = option(function)
    return function


@command.command("get")
@_range_options
@click.option("--rev", default=0, help="The state at this revision.")
@click.option("--limit", default=0, help="At most so many keys.")
@click.option("--keys-only", is_flag=True, help="Leave the values out.")
@click.option("--count-only", is_flag=True, help="Only how many keys there are.")
@click.option("--print-value-only", is_flag=True, help="Leave the keys out.")
@click.option(
    "--consistency", type=click.Choice(["l", "s"]), default="l", help="Linearizable or serializable."
)
@_order_options
def get(
    key: str, range_end: str | None, prefix: bool, from_key: bool, rev: int, limit: int, keys_only: bool,
    count_only: bool, print_value_only: bool, consistency: str, order: str | None, sort_by: str | None,
    **bounds: int,
) -> None:  # fmt: skip
    """Print keys and their values."""
    from raftkube.cli.kv_print import write_result, write_text
    from raftkube.wire.store import Range

    start, end = _range_end(_bytes(key), range_end, prefix, from_key)
    op = Range(
        start, end, rev, limit, keys_only, count_only,
        (order or "").lower(), _SORT_TARGETS[(sort_by or "").upper()],
        bounds["min_mod_rev"], bounds["max_mod_rev"], bounds["min_create_rev"], bounds["max_create_rev"],
    )  # fmt: skip
    result = call(lambda client: client.range(op, serializable=consistency == "s"))
    if count_only and output_format() == "simple":
        write_text(str(result.count))
    else:
        write_result(result, output_format(), values_only=print_value_only)


@command.command("put")
@click.argument("key")
@click.argument("value", required=False)
@click.option("--lease", default="0", help="Attach the key to this lease (hexadecimal).")
@click.option("--prev-kv", is_flag=True, help="Print what was there before.")
@click.option("--ignore-value", is_flag=True, help="Keep the key's value; give none.")
@click.option("--ignore-lease", is_flag=True, help="Keep the key's lease; give none.")
def put(
    key: str, value: str | None, lease: str, prev_kv: bool, ignore_value: bool, ignore_lease: bool
) -> None:
    """Write a key; the value is read from standard input if it is not given."""
    from raftkube.cli.kv_print import write_result
    from raftkube.cli.kv_txn import parse_lease
    from raftkube.errors import ConfigError

    if ignore_value and value is not None:
        raise ConfigError("--ignore-value keeps the key's value; leave VALUE away")
    lease_id = parse_lease(lease)
    if ignore_lease and lease_id:
        raise ConfigError("--ignore-lease keeps the key's lease; leave --lease away")
    data = b"" if ignore_value else sys.stdin.buffer.read() if value is None else _bytes(value)

    async def write(client: StoreClient) -> Any:
        return await client.put(
            _bytes(key), data, lease_id, prev_kv, ignore_value=ignore_value, ignore_lease=ignore_lease
        )

    write_result(call(write), output_format())


@command.command("del")
@_range_options
@click.option("--prev-kv", is_flag=True, help="Print what was deleted.")
def delete(key: str, range_end: str | None, prefix: bool, from_key: bool, prev_kv: bool) -> None:
    """Delete keys; prints how many there were."""
    from raftkube.cli.kv_print import write_result

    start, end = _range_end(_bytes(key), range_end, prefix, from_key)
    write_result(call(lambda client: client.delete(start, end, prev_kv=prev_kv)), output_format())


@command.command("txn")
@click.option("-i", "--interactive", is_flag=True, help="Accepted for etcdctl's sake.")
def txn(interactive: bool) -> None:
    """Read a transaction from standard input: compares, blank line, success, blank line, failure."""
    from raftkube.cli.kv_print import write_result
    from raftkube.cli.kv_txn import parse_txn

    if interactive and sys.stdin.isatty():
        click.echo("compares, a blank line, success, a blank line, failure, then Ctrl-D:", err=True)
    parsed = parse_txn(os.fsdecode(sys.stdin.buffer.read()))
    write_result(call(lambda client: client.txn(parsed)), output_format())


@command.command("watch")
@_range_options
@click.option("--rev", default=0, help="From this revision on; 0 from now on.")
@click.option("--prev-kv", is_flag=True, help="Print what was there before, too.")
@click.option("--progress-notify", is_flag=True, help="Print a line now and then when nothing happens.")
@click.option("--max-events", default=0, help="Stop after so many events.")
def watch(
    key: str, range_end: str | None, prefix: bool, from_key: bool, rev: int, prev_kv: bool,
    progress_notify: bool, max_events: int,
) -> None:  # fmt: skip
    """Print changes until interrupted."""
    start, end = _range_end(_bytes(key), range_end, prefix, from_key)

    async def follow(client: StoreClient) -> None:
        left = max_events or float("inf")
        async with client.watch(start, end, rev, prev_kv, progress_notify) as watching:
            async for batch in watching:
                _print_batch(batch, left)
                left -= len(batch.events)
                if left <= 0:
                    return

    call(follow, forever=True)


def _print_batch(batch: Any, limit: float) -> None:
    from raftkube.cli.kv_print import event_json, write_bytes, write_json, write_text
    from raftkube.wire.store import PUT_EVENT

    events = batch.events if limit == float("inf") else batch.events[: int(limit)]
    if output_format() == "json":
        write_json({"Header": {"revision": batch.revision}, "Events": [event_json(e) for e in events]})
    elif not events:
        write_text(f"progress notify: {batch.revision}")
    for event in events if output_format() != "json" else ():
        write_text("PUT" if event.type == PUT_EVENT else "DELETE")
        if event.prev_kv is not None:
            write_bytes(event.prev_kv.key, event.prev_kv.value)
        write_bytes(event.kv.key, event.kv.value)


@command.command("compact")
@click.argument("revision", type=int)
def compact(revision: int) -> None:
    """Forget what reads at or above REVISION do not need."""
    from raftkube.cli.kv_print import result_json, write_json, write_text

    result = call(lambda client: client.compact(revision))
    if output_format() == "json":
        write_json(result_json(result))
    else:
        write_text(f"compacted revision {revision}")


from raftkube.cli import kv_alarm, kv_cluster, kv_endpoint, kv_lease, kv_member, kv_snapshot  # noqa: E402

command.add_command(kv_alarm.alarm)
command.add_command(kv_lease.lease)
command.add_command(kv_endpoint.status)
command.add_command(kv_endpoint.health)
command.add_command(kv_member.member)
command.add_command(kv_cluster.move_leader)
command.add_command(kv_snapshot.snapshot)
