"""What would make an operation of a transaction fail: asked before the first of them changes anything."""

from __future__ import annotations

from collections.abc import Callable

from raftkube.errors import InvalidRequest, KeyNotFound
from raftkube.store.core.keyspace import Keyspace
from raftkube.store.core.leases import LeaseTable, lease_exists, lease_not_found
from raftkube.wire.store import KeyValue, LeaseGrant, LeaseKeepAlive, Op, Put, Range


def check_branch(
    branch: tuple[Op, ...], keyspace: Keyspace, leases: LeaseTable, check_revision: Callable[[int], None]
) -> None:
    """Raise what any operation of it would fail with. No key is put twice in a branch, nor put and deleted:
    each operation finds its key as it is now."""
    granted: set[int] = set()
    for op in branch:
        match op:
            case Put():
                if op.lease and op.lease not in granted and op.lease not in leases:
                    raise lease_not_found(op.lease)
                if op.ignore_value or op.ignore_lease:
                    kept_by(op, keyspace)
            case Range():
                check_revision(op.revision)
            case LeaseGrant():
                check_grant(op, leases)
                if op.lease in granted:
                    raise lease_exists(op.lease)
                granted.add(op.lease)
            case LeaseKeepAlive() if op.lease not in granted and op.lease not in leases:
                raise lease_not_found(op.lease)


def kept_by(op: Put, keyspace: Keyspace) -> KeyValue:
    """What a put that keeps the value or lease of its key starts from. Raises KeyNotFound."""
    kv = keyspace.get(op.key)
    if kv is None:
        raise KeyNotFound(f"there is no key {op.key!r} whose value or lease could be kept", key=op.key)
    return kv


def check_grant(op: LeaseGrant, leases: LeaseTable) -> None:
    """Raises InvalidRequest, LeaseExists."""
    if not op.lease:
        raise InvalidRequest("a lease needs an id before it is proposed", field="lease")
    if op.lease in leases:
        raise lease_exists(op.lease)
