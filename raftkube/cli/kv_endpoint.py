"""`raftkube kv status` and `raftkube kv health`: each member asked by itself, as `etcdctl endpoint` does."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

import click

from raftkube.cli.kv_connect import KvCommand, output_format, target_of

if TYPE_CHECKING:
    from raftkube.net import Address
    from raftkube.store.client import StoreClient

_ANSWER_S: Final = 2.0
_UNKNOWN: Final = "-"
_STATUS_COLUMNS: Final = (
    "ENDPOINT", "ID", "VERSION", "DB SIZE", "IS LEADER", "IS LEARNER", "RAFT TERM", "RAFT INDEX",
    "RAFT APPLIED INDEX", "ERRORS",
)  # fmt: skip

Row = dict[str, Any]
Ask = Callable[["StoreClient", "Address"], Awaitable[Row]]


@click.command(cls=KvCommand)
@click.option(
    "--hash", "with_hash", is_flag=True, help="Also the revision of each member's state, and its hash."
)
def status(with_hash: bool) -> None:
    """What each member says of itself; exit code 1 if one does not answer."""
    from raftkube.cli.kv_print import write_json, write_table, write_text
    from raftkube.errors import Unreachable

    async def ask(client: StoreClient, address: Address) -> Row:
        row = {"endpoint": str(address)} | await client.status()
        if with_hash:
            row["hash"] = (await client.hash())["hash"]
        return row

    rows = _ask_each(ask)
    cells = [_status_cells(row, with_hash) for row in rows]
    if output_format() == "json":
        write_json(rows)
    elif output_format() == "table":
        write_table((*_STATUS_COLUMNS, *(("REVISION", "HASH") if with_hash else ())), cells)
    else:
        write_text(*(", ".join(each) for each in cells))
    silent = [row["endpoint"] for row in rows if "name" not in row]
    if silent:
        raise Unreachable(f"no answer from {', '.join(silent)}")


def _status_cells(row: Row, with_hash: bool) -> list[str]:
    size = row.get("db_size")
    shown = [
        row["endpoint"],
        row.get("id") or row.get("name", _UNKNOWN),
        row.get("version", _UNKNOWN),
        _UNKNOWN if size is None else human_bytes(size),
        _truth(row["role"] == "leader" if "role" in row else None),
        _truth(row.get("is_learner")),
        str(row.get("term", _UNKNOWN)),
        str(row.get("commit_index", _UNKNOWN)),
        str(row.get("applied_index", _UNKNOWN)),
        "; ".join([*map(str, row.get("errors", ())), *_alarms(row)]),
    ]
    if with_hash:
        shown += [str(row.get("revision", _UNKNOWN)), row.get("hash", _UNKNOWN)]
    return shown


def _truth(value: bool | None) -> str:
    return _UNKNOWN if value is None else str(value).lower()


def _alarms(row: Row) -> list[str]:
    """As etcdctl names them, each once: a row's alarms are names or (member, name)."""
    alarms = row.get("alarms") or ()
    return sorted({f"alarm:{each if isinstance(each, str) else each[-1]}" for each in alarms})


def human_bytes(count: int) -> str:
    """As etcdctl: 20 kB, 1.5 MB; two digits below ten, else none after the point."""
    size, units = float(count), iter(("B", "kB", "MB", "GB", "TB"))
    unit = next(units)
    while size >= 1000 and unit != "TB":
        size, unit = size / 1000, next(units)
    return f"{size:.1f} {unit}" if size < 10 and unit != "B" else f"{size:.0f} {unit}"


@click.command(cls=KvCommand)
def health() -> None:
    """Whether each member answers a linearizable read and no alarm is on; exit code 1 if not."""
    from raftkube.cli.kv_print import write_json, write_table, write_text
    from raftkube.clock import SystemClock
    from raftkube.errors import Unreachable

    clock = SystemClock()

    async def ask(client: StoreClient, address: Address) -> Row:
        started = clock.monotonic()
        await client.get(b"health")
        took_ms = (clock.monotonic() - started) * 1000
        problems = _alarms(await client.status())
        row = {"endpoint": str(address), "health": not problems, "took": f"{took_ms:.3f}ms"}
        return row | ({"error": ", ".join(problems)} if problems else {})

    rows = [row if "health" in row else _silent(row) for row in _ask_each(ask)]
    if output_format() == "json":
        write_json(rows)
    elif output_format() == "table":
        columns = ("endpoint", "health", "took", "error")
        cells = [[_cell(row.get(name, "")) for name in columns] for row in rows]
        write_table([name.upper() for name in columns], cells)
    else:
        write_text(*(_health_line(row) for row in rows))
    ill = [row["endpoint"] for row in rows if not row["health"]]
    if ill:
        raise Unreachable(f"unhealthy: {', '.join(ill)}")


def _silent(row: Row) -> Row:
    why = "; ".join(map(str, row["errors"]))
    return {"endpoint": row["endpoint"], "health": False, "took": _UNKNOWN, "error": why}


def _cell(value: Any) -> str:
    return _truth(value) if isinstance(value, bool) else str(value)


def _health_line(row: Row) -> str:
    if row["health"]:
        return f"{row['endpoint']} is healthy: a linearizable read was answered: took = {row['took']}"
    return f"{row['endpoint']} is unhealthy: {row['error']}"


def _ask_each(ask: Ask) -> list[Row]:
    """One row for each member, in the order given; where none came in time, with "errors" instead."""
    import trio

    target = target_of(click.get_current_context().ensure_object(dict))

    async def ask_all() -> list[Row]:
        rows: dict[Address, Row] = {}

        async def one(address: Address) -> None:
            rows[address] = await _ask_one(ask, address, target.tls)

        async with trio.open_nursery() as nursery:
            for address in target.addresses:
                nursery.start_soon(one, address)
        return [rows[address] for address in target.addresses]

    return trio.run(ask_all)


async def _ask_one(ask: Ask, address: Address, tls: Any) -> Row:
    import trio

    from raftkube.errors import StoreError
    from raftkube.net.tcp import TcpNetwork
    from raftkube.store.client import StoreClient

    why = f"no answer within {_ANSWER_S:g} s"
    with trio.move_on_after(_ANSWER_S):
        try:
            async with StoreClient.open(
                TcpNetwork(), [address], tls, name="raftkube-kv", pinned=True
            ) as client:
                return await ask(client, address)
        except StoreError as error:
            why = error.message
    return {"endpoint": str(address), "errors": [why]}
