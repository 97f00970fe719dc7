"""etcd's HTTP/JSON gateway as data: requests from the store's operations, results from answers.

Integers of 64 bits travel as text, bytes as base64, and a field that is zero is left out.
Source: etcd 3.5, api/etcdserverpb/rpc.proto and its gateway annotations.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any, Final

import orjson

from raftkube.errors import (
    Compacted,
    DuplicateKey,
    FutureRevision,
    Indefinite,
    InvalidRequest,
    KeyNotFound,
    LeaseExists,
    LeaseNotFound,
    Overloaded,
    ProposalTimeout,
    RequestTooLarge,
    StoreError,
    TooManyOperations,
    Unreachable,
    Unsupported,
)
from raftkube.wire.store import (
    DELETE_EVENT,
    PUT_EVENT,
    Compact,
    CompactResult,
    Compare,
    DeleteRange,
    DeleteRangeResult,
    Event,
    KeyValue,
    LeaseGrant,
    LeaseKeepAlive,
    LeaseList,
    LeaseListResult,
    LeaseResult,
    LeaseRevoke,
    LeaseTimeToLive,
    Put,
    PutResult,
    Range,
    RangeResult,
    Result,
    Txn,
    TxnResult,
)

Json = dict[str, Any]

_TARGETS: Final = {"version": "version", "create": "create_revision", "mod": "mod_revision",
                   "value": "value", "lease": "lease"}  # fmt: skip
_RESULTS: Final = {"=": "EQUAL", "!=": "NOT_EQUAL", "<": "LESS", ">": "GREATER"}
_ORDERS: Final = {"": "NONE", "ascend": "ASCEND", "descend": "DESCEND"}
_SORT_TARGETS: Final = {"": "KEY", "version": "VERSION", "create": "CREATE", "mod": "MOD", "value": "VALUE"}

# What etcd says only of what it did not do and never will; all else that fails is indefinite. "database space
# exceeded" is not here: etcd says it of a put that it has applied, too (quotaApplierV3.Put).
_DEFINITE: Final[tuple[tuple[str, type[StoreError]], ...]] = (
    ("required revision has been compacted", Compacted),
    ("required revision is a future revision", FutureRevision),
    ("requested lease not found", LeaseNotFound),
    ("lease already exists", LeaseExists),
    ("too large lease TTL", InvalidRequest),
    ("key is not provided", InvalidRequest),
    ("key not found", KeyNotFound),
    ("duplicate key given in txn request", DuplicateKey),
    ("too many operations in txn request", TooManyOperations),
    ("request is too large", RequestTooLarge),
    ("too many requests", Overloaded),
    # The member's own connection from its gateway to its gRPC server: nothing was sent over it yet.
    ("Error while dialing", Unreachable),
)


def request_of(op: Any, *, serializable: bool = False) -> tuple[str, bytes]:
    """(path, body) of an operation. Raises Unsupported: etcd has no such operation."""
    if type(op) not in _REQUESTS:
        raise Unsupported(f"etcd has no {type(op).__name__}")
    path, body = _REQUESTS[type(op)]
    fields = body(op) | ({"serializable": True} if serializable else {})
    return path, orjson.dumps(fields)


def result_of(op: Any, answer: bytes) -> Result:
    """The result of `op` from the body of a 200. Raises LeaseNotFound: etcd tells that one by a TTL;
    Indefinite: this is no answer of etcd's."""
    try:
        told = orjson.loads(answer)
        if isinstance(op, LeaseKeepAlive):
            told = told["result"]
        return _result(op, told, _int(told["header"], "revision"))
    except (orjson.JSONDecodeError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise Indefinite(f"no answer of etcd's: {type(error).__name__}: {error}") from error


def error_of(body: bytes) -> StoreError:
    """The error that an answer other than 200 tells; in doubt, indefinite."""
    try:
        told = orjson.loads(body)
        message = str(told.get("message") or told["error"])
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
        message = body[:200].decode(errors="replace")
    return error_from_message(message)


def error_from_message(message: str) -> StoreError:
    """The same from etcd's sentence alone."""
    for sentence, kind in _DEFINITE:
        if sentence in message:
            return kind(message)
    return ProposalTimeout(message) if "request timed out" in message else Indefinite(message)


def watch_request(
    key: bytes, range_end: bytes, start_revision: int, *, prev_kv: bool, progress_notify: bool
) -> bytes:
    """The body that creates one watch; start_revision 0: from now on."""
    create = {
        "key": _text(key), "range_end": _text(range_end), "start_revision": start_revision,
        "prev_kv": prev_kv, "progress_notify": progress_notify,
    }  # fmt: skip
    return orjson.dumps({"create_request": create})


def events_of(response: Json) -> tuple[Event, ...]:
    """The events of a watch's answer, in order."""
    return tuple(_event(item) for item in response.get("events", ()))


def header_revision(response: Json) -> int:
    """The revision that the member had when it answered."""
    return _int(response.get("header", {}), "revision")


def compact_revision(response: Json) -> int:
    """Of a watch that was cancelled because its start is gone; else 0."""
    return _int(response, "compact_revision")


def _event(item: Json) -> Event:
    kind = DELETE_EVENT if item.get("type") == "DELETE" else PUT_EVENT
    return Event(kind, _key_value(item["kv"]), _maybe_key_value(item.get("prev_kv")))


def _put(op: Put) -> Json:
    return {
        "key": _text(op.key), "value": _text(op.value), "lease": op.lease, "prev_kv": op.prev_kv,
        "ignore_value": op.ignore_value, "ignore_lease": op.ignore_lease,
    }  # fmt: skip


def _delete(op: DeleteRange) -> Json:
    return {"key": _text(op.key), "range_end": _text(op.range_end), "prev_kv": op.prev_kv}


def _range(op: Range) -> Json:
    return {
        "key": _text(op.key), "range_end": _text(op.range_end), "revision": op.revision, "limit": op.limit,
        "keys_only": op.keys_only, "count_only": op.count_only,
        "sort_order": _ORDERS[op.sort_order], "sort_target": _SORT_TARGETS[op.sort_target],
        "min_mod_revision": op.min_mod_revision, "max_mod_revision": op.max_mod_revision,
        "min_create_revision": op.min_create_revision, "max_create_revision": op.max_create_revision,
    }  # fmt: skip


def _txn(op: Txn) -> Json:
    return {
        "compare": [_compare(item) for item in op.compares],
        "success": [_branch_item(item) for item in op.success],
        "failure": [_branch_item(item) for item in op.failure],
    }


def _compare(compare: Compare) -> Json:
    operand = _text(compare.operand) if isinstance(compare.operand, bytes) else compare.operand
    return {
        "key": _text(compare.key), "range_end": _text(compare.range_end),
        "target": _TARGETS[compare.target].removesuffix("_revision").upper(),
        "result": _RESULTS[compare.result], _TARGETS[compare.target]: operand,
    }  # fmt: skip


def _branch_item(op: Any) -> Json:
    if isinstance(op, Put):
        return {"request_put": _put(op)}
    if isinstance(op, DeleteRange):
        return {"request_delete_range": _delete(op)}
    if isinstance(op, Range):
        return {"request_range": _range(op)}
    raise Unsupported(f"etcd has no {type(op).__name__} in a transaction")


_REQUESTS: Final[dict[type[Any], tuple[str, Callable[[Any], Json]]]] = {
    Put: ("/v3/kv/put", _put),
    DeleteRange: ("/v3/kv/deleterange", _delete),
    Range: ("/v3/kv/range", _range),
    Txn: ("/v3/kv/txn", _txn),
    Compact: ("/v3/kv/compaction", lambda op: {"revision": op.revision}),
    LeaseGrant: ("/v3/lease/grant", lambda op: {"ID": op.lease, "TTL": op.ttl_s}),
    LeaseRevoke: ("/v3/lease/revoke", lambda op: {"ID": op.lease}),
    LeaseKeepAlive: ("/v3/lease/keepalive", lambda op: {"ID": op.lease}),
    LeaseTimeToLive: ("/v3/lease/timetolive", lambda op: {"ID": op.lease, "keys": op.keys}),
    LeaseList: ("/v3/lease/leases", lambda op: {}),
}


def _result(op: Any, told: Json, revision: int) -> Result:
    if isinstance(op, Put):
        return PutResult(revision, _maybe_key_value(told.get("prev_kv")))
    if isinstance(op, DeleteRange):
        prev_kvs = tuple(_key_value(kv) for kv in told.get("prev_kvs", ()))
        return DeleteRangeResult(revision, _int(told, "deleted"), prev_kvs)
    if isinstance(op, Range):
        kvs = tuple(_key_value(kv) for kv in told.get("kvs", ()))
        return RangeResult(revision, kvs, _int(told, "count"), bool(told.get("more")))
    if isinstance(op, Txn):
        return _txn_result(op, told, revision)
    if isinstance(op, Compact):
        return CompactResult(revision)
    if isinstance(op, LeaseList):
        return LeaseListResult(revision, tuple(_int(item, "ID") for item in told.get("leases", ())))
    return _lease_result(op, told, revision)


def _txn_result(op: Txn, told: Json, revision: int) -> TxnResult:
    succeeded = bool(told.get("succeeded"))
    branch, answers = op.success if succeeded else op.failure, told.get("responses", [])
    if len(branch) != len(answers):
        raise ValueError(f"{len(answers)} responses to {len(branch)} operations")
    inner = [next(iter(answer.values())) for answer in answers]
    responses = tuple(_result(item, one, revision) for item, one in zip(branch, inner, strict=True))
    return TxnResult(revision, succeeded, responses)


def _lease_result(op: Any, told: Json, revision: int) -> LeaseResult:
    """etcd gives no error for a lease that is gone: a keep-alive tells TTL 0, a time-to-live -1."""
    ttl_s = _int(told, "TTL")
    if isinstance(op, LeaseRevoke):
        return LeaseResult(revision, op.lease, 0)
    if isinstance(op, LeaseTimeToLive):
        if ttl_s < 0:
            raise LeaseNotFound("the lease has ended", lease=op.lease)
        keys = tuple(base64.b64decode(key) for key in told.get("keys", ()))
        return LeaseResult(revision, op.lease, _int(told, "grantedTTL"), remaining_s=float(ttl_s), keys=keys)
    if ttl_s <= 0:
        raise LeaseNotFound("the lease has ended", lease=op.lease)
    return LeaseResult(revision, _int(told, "ID"), ttl_s)


def _key_value(told: Json) -> KeyValue:
    return KeyValue(
        base64.b64decode(told.get("key", "")),
        base64.b64decode(told.get("value", "")),
        _int(told, "create_revision"),
        _int(told, "mod_revision"),
        _int(told, "version"),
        _int(told, "lease"),
    )


def _maybe_key_value(told: Json | None) -> KeyValue | None:
    return None if told is None else _key_value(told)


def _int(told: Json, name: str) -> int:
    return int(told.get(name, 0))


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
