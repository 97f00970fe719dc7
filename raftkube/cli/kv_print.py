"""What `raftkube kv` prints: etcdctl's simple lines, its JSON (keys and values in base64), or a table."""

from __future__ import annotations

import base64
import sys
from collections.abc import Sequence
from typing import Any

from raftkube.wire.store import (
    PUT_EVENT,
    DeleteRangeResult,
    Event,
    KeyValue,
    LeaseResult,
    PutResult,
    RangeResult,
    TxnResult,
)


def write_bytes(*parts: bytes) -> None:
    """Each part with a newline behind it, on stdout."""
    sys.stdout.buffer.write(b"".join([part + b"\n" for part in parts]))
    sys.stdout.buffer.flush()


def write_text(*lines: str) -> None:
    """Each line on stdout."""
    write_bytes(*(line.encode("utf-8", "surrogateescape") for line in lines))


def write_json(value: Any) -> None:
    """One line of JSON."""
    import orjson

    write_bytes(orjson.dumps(value))


def write_table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """A table with a rule under its head."""
    cells = [[str(cell) for cell in row] for row in (columns, *rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(columns))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    ]
    write_text(lines[0], "  ".join("-" * width for width in widths), *lines[1:])


def key_value_json(kv: KeyValue) -> dict[str, Any]:
    """etcdctl's field names; zero fields are left out, as it does."""
    shown = {
        "key": base64.b64encode(kv.key).decode(),
        "create_revision": kv.create_revision,
        "mod_revision": kv.mod_revision,
        "version": kv.version,
        "value": base64.b64encode(kv.value).decode(),
        "lease": kv.lease,
    }
    return {name: value for name, value in shown.items() if value}


def event_json(event: Event) -> dict[str, Any]:
    """A PUT has no `type`, as in etcdctl's JSON."""
    shown: dict[str, Any] = {} if event.type == PUT_EVENT else {"type": 1}
    shown["kv"] = key_value_json(event.kv)
    if event.prev_kv is not None:
        shown["prev_kv"] = key_value_json(event.prev_kv)
    return shown


def result_json(result: Any) -> dict[str, Any]:
    """A result in etcdctl's shape, with the revision in `header`."""
    shown: dict[str, Any] = {"header": {"revision": result.revision}}
    if isinstance(result, RangeResult):
        shown |= {"kvs": [key_value_json(kv) for kv in result.kvs], "count": result.count}
        shown |= {"more": True} if result.more else {}
    elif isinstance(result, PutResult):
        shown |= {} if result.prev_kv is None else {"prev_kv": key_value_json(result.prev_kv)}
    elif isinstance(result, DeleteRangeResult):
        shown["deleted"] = result.deleted
        shown |= {"prev_kvs": [key_value_json(kv) for kv in result.prev_kvs]} if result.prev_kvs else {}
    elif isinstance(result, TxnResult):
        shown |= {
            "succeeded": result.succeeded,
            "responses": [_response_json(part) for part in result.responses],
        }
    elif isinstance(result, LeaseResult):
        shown |= {"id": result.lease, "ttl": result.ttl_s}
    return shown


def _response_json(result: Any) -> dict[str, Any]:
    names = {PutResult: "response_put", DeleteRangeResult: "response_delete_range"}
    name = names.get(type(result), "response_range")
    return {name: {key: value for key, value in result_json(result).items() if key != "header"}}


def write_result(result: Any, output: str, *, values_only: bool = False) -> None:
    """A put, delete, range or transaction."""
    if output == "json":
        write_json(result_json(result))
    elif output == "table" and isinstance(result, RangeResult):
        write_key_values_table(result.kvs)
    else:
        _write_simple(result, values_only)


def write_key_values_table(kvs: Sequence[KeyValue]) -> None:
    """Key-values with their revisions."""
    columns = ("KEY", "VALUE", "CREATE", "MOD", "VERSION", "LEASE")
    rows = [
        (_text(kv.key), _text(kv.value), kv.create_revision, kv.mod_revision, kv.version, f"{kv.lease:x}")
        for kv in kvs
    ]
    write_table(columns, rows)


def _text(data: bytes) -> str:
    return data.decode("utf-8", "backslashreplace")


def _write_simple(result: Any, values_only: bool) -> None:
    if isinstance(result, PutResult):
        write_text("OK")
        if result.prev_kv is not None:
            write_bytes(result.prev_kv.key, result.prev_kv.value)
    elif isinstance(result, DeleteRangeResult):
        write_text(str(result.deleted))
        for kv in result.prev_kvs:
            write_bytes(kv.key, kv.value)
    elif isinstance(result, RangeResult):
        for kv in result.kvs:
            write_bytes(*((kv.value,) if values_only else (kv.key, kv.value)))
    elif isinstance(result, TxnResult):
        write_text("SUCCESS" if result.succeeded else "FAILURE")
        for part in result.responses:
            write_text("")
            _write_simple(part, values_only)
    else:
        write_text(str(result))
