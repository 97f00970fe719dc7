"""What an operation must satisfy whatever the state is: keys, sizes, the shape of a transaction.

The server asks before it proposes, so that a request that can never succeed costs no log entry; `apply`
asks again, so that it stands by itself. The limits are therefore part of what all members agree on.
"""

from __future__ import annotations

from typing import Any, Final

from raftkube.errors import DuplicateKey, InvalidRequest, RequestTooLarge, TooManyOperations
from raftkube.limits import KEY_BYTES_MAX, LEASE_TTL_MAX_S, REQUEST_BYTES_MAX, TXN_OPERATIONS_MAX
from raftkube.wire.store import (
    PUT,
    Alarm,
    Compact,
    Compare,
    DeleteRange,
    LeaseGrant,
    LeaseKeepAlive,
    LeaseRevoke,
    Once,
    Op,
    Put,
    Range,
    SessionClose,
    SessionOpen,
    Txn,
)

NOSPACE: Final = "NOSPACE"  # the one alarm there is, by etcd's name

_IN_TXN = (Put, DeleteRange, Range, LeaseGrant, LeaseKeepAlive)
_IN_ONCE = (Put, DeleteRange, Txn, Compact, LeaseGrant, LeaseRevoke, LeaseKeepAlive)
_SORT_ORDERS: Final = frozenset(("", "ascend", "descend"))
_SORT_TARGETS: Final = frozenset(("", "key", "version", "create", "mod", "value"))
_BOUNDS: Final = ("min_mod_revision", "max_mod_revision", "min_create_revision", "max_create_revision")


def validate(op: Op) -> int:
    """The bytes of keys and values in `op`. Raises InvalidRequest, RequestTooLarge, TooManyOperations or
    DuplicateKey if it can never succeed.

    Field types are taken to be right (raftkube.wire.store.op_from_wire sees to that). A LeaseGrant or
    SessionOpen may still lack its id: the leader chooses it after this check.
    """
    request_bytes = _validate(op)
    if request_bytes > REQUEST_BYTES_MAX:
        raise RequestTooLarge(
            f"the request has {request_bytes} bytes of keys and values; at most {REQUEST_BYTES_MAX}",
            bytes=request_bytes,
            bytes_max=REQUEST_BYTES_MAX,
        )
    return request_bytes


def is_plain_put(wire: Any) -> bool:
    """Whether `wire`, decoded from anywhere, is a Put with all its fields that `op_from_wire` and `validate`
    would both accept: one look for what most operations are."""
    if type(wire) is not list or len(wire) != 5:
        return False
    number, key, value, lease, prev_kv = wire
    return (
        type(number) is int
        and number == PUT
        and type(key) is bytes
        and type(value) is bytes
        and type(lease) is int
        and type(prev_kv) is bool
        and 0 < len(key) <= KEY_BYTES_MAX
        and len(key) + len(value) <= REQUEST_BYTES_MAX
        and -(2**63) <= lease < 2**63
    )


def _validate(op: Op) -> int:
    """Returns the bytes of keys and values in it."""
    match op:
        case Put():
            _check_key(op.key)
            if op.ignore_value or op.ignore_lease:
                _check_kept(op)
            return len(op.key) + len(op.value)
        case Range():
            _check_range(op)
            return len(op.key) + len(op.range_end)
        case DeleteRange():
            _check_key(op.key, op.range_end)
            return len(op.key) + len(op.range_end)
        case Txn():
            return _check_txn(op)
        case LeaseGrant():
            _check_grant(op)
        case Compact() if op.revision < 1:
            raise InvalidRequest("a compaction needs a revision of at least 1", field="revision")
        case Once():
            return _check_once(op)
        case SessionOpen() | SessionClose() if op.session < 0:
            raise InvalidRequest("a session id is above 0; 0 asks the store to choose", field="session")
        case Alarm() if op.alarm != NOSPACE:
            raise InvalidRequest(f"there is no alarm {op.alarm[:64]!r}; there is {NOSPACE}", field="alarm")
    return 0


def _check_key(key: bytes, range_end: bytes = b"") -> None:
    if not key:
        raise InvalidRequest("key is empty; for every key use key and range_end b'\\x00'", field="key")
    longest = max(len(key), len(range_end))
    if longest > KEY_BYTES_MAX:
        raise RequestTooLarge(
            f"a key has {longest} bytes; at most {KEY_BYTES_MAX}", bytes=longest, bytes_max=KEY_BYTES_MAX
        )


def _check_range(op: Range) -> None:
    _check_key(op.key, op.range_end)
    if op.revision < 0:
        raise InvalidRequest("revision is negative; 0 reads the newest", field="revision")
    if op.limit < 0:
        raise InvalidRequest("limit is negative; 0 sets none", field="limit")
    if op.sort_order not in _SORT_ORDERS:
        raise InvalidRequest("sort_order is ascend or descend", field="sort_order")
    if op.sort_target not in _SORT_TARGETS:
        raise InvalidRequest("sort_target is key, version, create, mod or value", field="sort_target")
    for name, bound in zip(_BOUNDS, op[8:], strict=True):
        if bound < 0:
            raise InvalidRequest(f"{name} is negative; 0 sets none", field=name)


def _check_kept(op: Put) -> None:
    """What is kept cannot be given as well (etcd: ErrValueProvided, ErrLeaseProvided)."""
    if op.ignore_value and op.value:
        raise InvalidRequest("ignore_value keeps the value; leave value empty", field="value")
    if op.ignore_lease and op.lease:
        raise InvalidRequest("ignore_lease keeps the lease; leave lease 0", field="lease")


def _check_once(op: Once) -> int:
    if op.session < 1:
        raise InvalidRequest("a numbered write needs the id of its session", field="session")
    if op.sequence < 1:
        raise InvalidRequest("sequences start at 1", field="sequence")
    if not 0 <= op.acknowledged_below <= op.sequence:
        raise InvalidRequest("acknowledged_below lies above the sequence", field="acknowledged_below")
    if not isinstance(op.op, _IN_ONCE):
        raise InvalidRequest(f"{type(op.op).__name__} cannot be a numbered write", field="op")
    return _validate(op.op)


def _check_grant(op: LeaseGrant) -> None:
    if op.lease < 0:
        raise InvalidRequest("a lease id is above 0; 0 asks the store to choose", field="lease")
    if not 1 <= op.ttl_s <= LEASE_TTL_MAX_S:
        raise InvalidRequest(f"ttl_s must lie between 1 and {LEASE_TTL_MAX_S}", field="ttl_s")


def _check_txn(op: Txn) -> int:
    operations = max(len(op.compares), len(op.success), len(op.failure))
    if operations > TXN_OPERATIONS_MAX:
        raise TooManyOperations(
            f"a transaction has {operations} operations; at most {TXN_OPERATIONS_MAX}",
            operations=operations,
            operations_max=TXN_OPERATIONS_MAX,
        )
    return sum(map(_check_compare, op.compares)) + _check_branch(op.success) + _check_branch(op.failure)


def _check_compare(compare: Compare) -> int:
    _check_key(compare.key, compare.range_end)
    operand_bytes = len(compare.operand) if isinstance(compare.operand, bytes) else 0
    return len(compare.key) + len(compare.range_end) + operand_bytes


def _check_branch(branch: tuple[Op, ...]) -> int:
    request_bytes = 0
    for op in branch:
        if not isinstance(op, _IN_TXN):
            raise InvalidRequest(f"{type(op).__name__} cannot stand in a transaction", field="txn")
        request_bytes += _validate(op)
    _check_duplicates(branch)
    return request_bytes


def _check_duplicates(branch: tuple[Op, ...]) -> None:
    """No key is put twice, nor put and deleted, in any order (etcd: checkIntervals)."""
    deletes = [op for op in branch if type(op) is DeleteRange]
    keys: set[bytes] = set()
    for op in branch:
        if type(op) is not Put:
            continue
        if op.key in keys or any(_covers(delete, op.key) for delete in deletes):
            raise DuplicateKey(
                f"duplicate key given in txn request: one branch changes {op.key!r} twice", key=op.key
            )
        keys.add(op.key)


def _covers(op: DeleteRange, key: bytes) -> bool:
    if not op.range_end:
        return key == op.key
    return op.key <= key and (op.range_end == b"\x00" or key < op.range_end)
