"""The store's operations, results and events: what a client asks, what the log holds, what apply answers.

Each is a NamedTuple and travels as a msgpack array; operations and results carry a leading number that
tells which they are. `range_end` follows etcd v3: b"" means the single `key`, b"\\x00" every key from
`key` on, anything else the half-open interval [key, range_end). `prefix_end` makes one for a prefix.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from raftkube.errors import InvalidRequest

PUT_EVENT: Final = 0
DELETE_EVENT: Final = 1


class KeyValue(NamedTuple):
    """One version of a key. `version` counts puts since its creation; `lease` 0 means none."""

    key: bytes
    value: bytes
    create_revision: int
    mod_revision: int
    version: int
    lease: int


class Event(NamedTuple):
    """A change. A delete's `kv` holds the key and, as mod_revision, the revision of the deletion."""

    type: int  # PUT_EVENT or DELETE_EVENT
    kv: KeyValue
    prev_kv: KeyValue | None


class Compare(NamedTuple):
    """A guard of a transaction. target: version|create|mod|value|lease; result: = != < >.

    An absent key compares as version 0, create 0, mod 0, lease 0; against `value` it never holds
    (etcd v3). With `range_end` every key of the range must hold.
    """

    key: bytes
    target: str
    result: str
    operand: int | bytes
    range_end: bytes = b""


class Put(NamedTuple):
    """`ignore_value`, `ignore_lease` keep what the key, which must exist, has; the field is then empty."""

    key: bytes
    value: bytes
    lease: int = 0
    prev_kv: bool = False
    ignore_value: bool = False
    ignore_lease: bool = False


class DeleteRange(NamedTuple):
    key: bytes
    range_end: bytes = b""
    prev_kv: bool = False


class Range(NamedTuple):
    """A read. revision 0: the newest; limit 0: no limit.

    Keys come in their own order unless `sort_order` (ascend|descend; "" is ascend) or `sort_target`
    (version|create|mod|value; "" is the key) say otherwise; equals stay in the order of their keys. The
    bounds on revisions, each inclusive and 0 for none, filter before the limit cuts. `count` in the
    result is that of the range without either (etcd v3).
    """

    key: bytes
    range_end: bytes = b""
    revision: int = 0
    limit: int = 0
    keys_only: bool = False
    count_only: bool = False
    sort_order: str = ""
    sort_target: str = ""
    min_mod_revision: int = 0
    max_mod_revision: int = 0
    min_create_revision: int = 0
    max_create_revision: int = 0


class Txn(NamedTuple):
    """If all compares hold, `success`, else `failure`: puts, deletes, ranges, and the lease operations
    LeaseGrant and LeaseKeepAlive (an extension: a lease and its key in one step). Not nested.
    All writes of a transaction share one revision.
    """

    compares: tuple[Compare, ...] = ()
    success: tuple[Any, ...] = ()
    failure: tuple[Any, ...] = ()


class Compact(NamedTuple):
    revision: int


class LeaseGrant(NamedTuple):
    """lease 0 asks the leader to choose an id before it proposes."""

    lease: int
    ttl_s: int


class LeaseRevoke(NamedTuple):
    lease: int


class LeaseKeepAlive(NamedTuple):
    """A renewal: replicated, so that a new leader knows of it. Raises the lease's renewal number."""

    lease: int


class LeaseExpire(NamedTuple):
    """Proposed by the leader alone; apply ignores it if the lease was renewed since `renewal`."""

    lease: int
    renewal: int


class LeaseTimeToLive(NamedTuple):
    lease: int
    keys: bool = False


class LeaseList(NamedTuple):
    pass


class SessionOpen(NamedTuple):
    """Begin a session, in which a client numbers its writes. session 0 asks the leader to choose an id
    before it proposes."""

    session: int = 0


class SessionClose(NamedTuple):
    """Forget a session: by its client, or by the leader when there are too many.

    `highest` of 0 or more: only if no write with a higher sequence was applied in it meanwhile.
    """

    session: int
    highest: int = -1


class Once(NamedTuple):
    """A write that is applied once, however often it is sent: `op` as number `sequence` of its session.

    The client has the results of all sequences below `acknowledged_below`, or wants them no more: the
    store forgets those results. The answer is that of `op`, the first time and each other time.
    """

    session: int
    sequence: int
    acknowledged_below: int
    op: Any  # Put, DeleteRange, Txn, Compact, LeaseGrant, LeaseRevoke or LeaseKeepAlive


class Alarm(NamedTuple):
    """Raise an alarm, which the store itself does, or disarm it. Alarms: NOSPACE. `member` is who raised
    it; to disarm, "" stands for whoever did."""

    active: bool
    alarm: str
    member: str = ""


class AlarmList(NamedTuple):
    pass


Op = (
    Put | DeleteRange | Range | Txn | Compact | LeaseGrant | LeaseRevoke | LeaseKeepAlive | LeaseExpire
    | LeaseTimeToLive | LeaseList | SessionOpen | SessionClose | Once | Alarm | AlarmList
)  # fmt: skip


class PutResult(NamedTuple):
    revision: int
    prev_kv: KeyValue | None = None


class DeleteRangeResult(NamedTuple):
    revision: int
    deleted: int
    prev_kvs: tuple[KeyValue, ...] = ()


class RangeResult(NamedTuple):
    """`revision` is the store's at evaluation; `count` ignores the limit; `more` says that it cut."""

    revision: int
    kvs: tuple[KeyValue, ...] = ()
    count: int = 0  # type: ignore[assignment]  # etcd's name; tuple.count is not used
    more: bool = False


class TxnResult(NamedTuple):
    revision: int
    succeeded: bool
    responses: tuple[Any, ...] = ()


class CompactResult(NamedTuple):
    revision: int


class LeaseResult(NamedTuple):
    """Of grant, revoke, keep-alive, expire and time-to-live. `remaining_s` is -1 where apply cannot know
    it (it has no clock); the serving leader fills it in. `keys` only where asked."""

    revision: int
    lease: int
    ttl_s: int
    renewal: int = 0
    remaining_s: float = -1.0
    keys: tuple[bytes, ...] = ()


class LeaseListResult(NamedTuple):
    revision: int
    leases: tuple[int, ...] = ()


class SessionResult(NamedTuple):
    """Of open and close. `open` says whether the session exists now."""

    revision: int
    session: int
    open: bool = True


class AlarmResult(NamedTuple):
    """(member, alarm) of those that were raised, disarmed or, by a list, are on."""

    revision: int
    alarms: tuple[tuple[str, str], ...] = ()


Result = (
    PutResult | DeleteRangeResult | RangeResult | TxnResult | CompactResult | LeaseResult | LeaseListResult
    | SessionResult | AlarmResult
)  # fmt: skip

PUT: Final = 1  # a Put's number
TXN: Final = 4

# The numbers on the wire and in the log: never reused.
_OPS: Final[dict[int, type[Any]]] = {
    PUT: Put, 2: DeleteRange, 3: Range, 4: Txn, 5: Compact, 6: LeaseGrant, 7: LeaseRevoke,
    8: LeaseKeepAlive, 9: LeaseExpire, 10: LeaseTimeToLive, 11: LeaseList, 12: SessionOpen,
    13: SessionClose, 14: Once, 15: Alarm, 16: AlarmList,
}  # fmt: skip
_RESULTS: Final[dict[int, type[Any]]] = {
    1: PutResult, 2: DeleteRangeResult, 3: RangeResult, 4: TxnResult, 5: CompactResult, 6: LeaseResult,
    7: LeaseListResult, 8: SessionResult, 9: AlarmResult,
}  # fmt: skip
_OP_NUMBERS: Final = {cls: number for number, cls in _OPS.items()}
_RESULT_NUMBERS: Final = {cls: number for number, cls in _RESULTS.items()}

_NOT_IN_TXN: Final = frozenset((4, 5, 7, 9, 10, 11, 12, 13, 14, 15, 16))
_ONCE: Final = frozenset((1, 2, 4, 5, 6, 7, 8))
# Fields that came later are left out where they say nothing: short, and older members read it.
_LATER_FIELDS: Final[dict[type[Any], tuple[int, tuple[Any, ...]]]] = {
    Put: (4, (False, False)),
    Range: (6, ("", "", 0, 0, 0, 0)),
}
_COMPARE_TARGETS: Final = frozenset(("version", "create", "mod", "value", "lease"))
_COMPARE_RESULTS: Final = frozenset(("=", "!=", "<", ">"))
_FIELD_TYPES: Final[dict[str, type]] = {
    "key": bytes, "value": bytes, "range_end": bytes, "lease": int, "prev_kv": bool, "revision": int,
    "limit": int, "keys_only": bool, "count_only": bool, "ttl_s": int, "renewal": int, "keys": bool,
    "ignore_value": bool, "ignore_lease": bool, "sort_order": str, "sort_target": str,
    "min_mod_revision": int, "max_mod_revision": int, "min_create_revision": int,
    "max_create_revision": int, "session": int, "highest": int, "sequence": int,
    "acknowledged_below": int, "active": bool, "alarm": str, "member": str,
}  # fmt: skip


def prefix_end(prefix: bytes) -> bytes:
    """The `range_end` of all keys that start with `prefix` (b"\\x00" if there is no upper bound)."""
    for position in range(len(prefix) - 1, -1, -1):
        if prefix[position] < 0xFF:
            return prefix[:position] + bytes([prefix[position] + 1])
    return b"\x00"


def op_to_wire(op: Op) -> list[Any]:
    """Shape: [number, *fields]; a transaction's compares and branches are nested arrays, as is the
    operation of a Once."""
    cls = type(op)
    if cls is Put or cls is Range:
        kept, later = _LATER_FIELDS[cls]
        return [_OP_NUMBERS[cls], *(op[:kept] if op[kept:] == later else op)]
    if type(op) is Once:
        return [14, op.session, op.sequence, op.acknowledged_below, op_to_wire(op.op)]
    if type(op) is Txn:
        return [
            4,
            [list(compare) for compare in op.compares],
            [op_to_wire(item) for item in op.success],
            [op_to_wire(item) for item in op.failure],
        ]
    return [_OP_NUMBERS[cls], *op]


def op_from_wire(wire: Any) -> Op:
    """The operation of `op_to_wire`'s shape. Raises InvalidRequest naming the field that is wrong."""
    if not isinstance(wire, list) or not wire or type(wire[0]) is not int or wire[0] not in _OPS:
        raise InvalidRequest("an operation is an array that starts with a known number", field="op")
    cls = _OPS[wire[0]]
    fields = wire[1:]
    if cls is Txn:
        return _txn_from_wire(fields)
    if cls is Once:
        return _once_from_wire(fields)
    required = len(cls._fields) - len(cls._field_defaults)
    if not required <= len(fields) <= len(cls._fields):
        raise InvalidRequest(f"{cls.__name__} takes {', '.join(cls._fields)}", field="op")
    for name, value in zip(cls._fields, fields, strict=False):
        wanted = _FIELD_TYPES[name]
        if type(value) is not wanted:
            raise InvalidRequest(f"{cls.__name__}.{name} must be {wanted.__name__}", field=name)
        if type(value) is int and not -(2**63) <= value < 2**63:
            raise InvalidRequest(f"{cls.__name__}.{name} does not fit in 64 bits", field=name)
    return cls(*fields)  # type: ignore[no-any-return]


def _txn_from_wire(fields: list[Any]) -> Txn:
    if len(fields) != 3 or not all(isinstance(part, list) for part in fields):
        raise InvalidRequest("Txn takes compares, success, failure, each an array", field="txn")
    branches = [tuple(_txn_op_from_wire(item) for item in part) for part in fields[1:]]
    return Txn(tuple(_compare_from_wire(item) for item in fields[0]), branches[0], branches[1])


def _once_from_wire(fields: list[Any]) -> Once:
    if len(fields) != 4:
        raise InvalidRequest("Once takes session, sequence, acknowledged_below, op", field="op")
    for name, value in zip(Once._fields, fields[:3], strict=False):
        if type(value) is not int or not 0 <= value < 2**63:
            raise InvalidRequest(f"Once.{name} must be an integer of 63 bits", field=name)
    inner = fields[3]
    # Refused before it is looked into: a deep nest must not exhaust the stack.
    if not (isinstance(inner, list) and inner and type(inner[0]) is int and inner[0] in _ONCE):
        raise InvalidRequest("Once takes a write, which is not itself a Once", field="op")
    return Once(fields[0], fields[1], fields[2], op_from_wire(inner))


def _txn_op_from_wire(wire: Any) -> Op:
    # Refused before it is looked into: a deep nest of transactions must not exhaust the stack.
    if isinstance(wire, list) and wire and type(wire[0]) is int and wire[0] in _NOT_IN_TXN:
        raise InvalidRequest(f"{_OPS[wire[0]].__name__} cannot stand in a transaction", field="txn")
    return op_from_wire(wire)


def _compare_from_wire(wire: Any) -> Compare:
    if not isinstance(wire, list) or not 4 <= len(wire) <= 5:
        raise InvalidRequest("a compare is [key, target, result, operand, range_end]", field="compares")
    compare = Compare(*wire)  # the fields' types are checked below
    if type(compare.key) is not bytes or type(compare.range_end) is not bytes:
        raise InvalidRequest("a compare's key and range_end must be bytes", field="compares")
    if type(compare.target) is not str or compare.target not in _COMPARE_TARGETS:
        raise InvalidRequest("a compare's target is version, create, mod, value or lease", field="compares")
    if type(compare.result) is not str or compare.result not in _COMPARE_RESULTS:
        raise InvalidRequest("a compare's result is =, !=, < or >", field="compares")
    wanted = bytes if compare.target == "value" else int
    if type(compare.operand) is not wanted:
        raise InvalidRequest(f"compare by {compare.target} needs {wanted.__name__}", field="compares")
    return compare


def result_to_wire(result: Result) -> list[Any]:
    """Shape: [number, *fields]; key-values and events are plain arrays."""
    if type(result) is TxnResult:
        return [4, result.revision, result.succeeded, [result_to_wire(item) for item in result.responses]]
    return [_RESULT_NUMBERS[type(result)], *result]


def result_from_wire(wire: list[Any]) -> Result:
    """The result of `result_to_wire`'s shape (trusted: it comes from a member of the store)."""
    cls = _RESULTS[wire[0]]
    fields = wire[1:]
    if cls is TxnResult:
        return TxnResult(fields[0], fields[1], tuple(result_from_wire(item) for item in fields[2]))
    if cls is RangeResult:
        fields[1] = tuple(KeyValue(*kv) for kv in fields[1])
    elif cls is DeleteRangeResult:
        fields[2] = tuple(KeyValue(*kv) for kv in fields[2])
    elif cls is PutResult:
        fields[1] = key_value_from_wire(fields[1])
    elif cls is LeaseResult:
        fields[5] = tuple(fields[5])
    elif cls is LeaseListResult:
        fields[1] = tuple(fields[1])
    elif cls is AlarmResult:
        fields[1] = tuple([(member, alarm) for member, alarm in fields[1]])
    return cls(*fields)  # type: ignore[no-any-return]


def key_value_from_wire(wire: list[Any] | None) -> KeyValue | None:
    """None stays None: there was no such key."""
    return None if wire is None else KeyValue(*wire)


def event_from_wire(wire: list[Any]) -> Event:
    """Shape: [type, key_value, key_value or None]."""
    return Event(wire[0], KeyValue(*wire[1]), key_value_from_wire(wire[2]))
