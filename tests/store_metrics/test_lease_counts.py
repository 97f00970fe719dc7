"""What happens to leases is counted as what was asked for, alone, numbered or within a transaction."""

from __future__ import annotations

from raftkube.store.server.machine import StoreMachine
from raftkube.types import LogIndex
from raftkube.wire.frames import pack
from raftkube.wire.store import (
    LeaseExpire,
    LeaseGrant,
    LeaseKeepAlive,
    LeaseRevoke,
    Once,
    Op,
    SessionOpen,
    Txn,
    op_to_wire,
)


def counted(*ops: Op) -> tuple[dict[str, int], float]:
    """By operation, and the sum of the TTLs that were granted."""
    machine = StoreMachine()
    for index, op in enumerate(ops, 1):
        machine.apply(LogIndex(index), pack([op_to_wire(op)]))
    activity = machine.activity
    return {cls.__name__: count for cls, count in activity.leases.items()}, activity.lease_ttl_s.sum


def test_a_grant_within_a_transaction_is_a_grant_although_a_lease_has_ended_before() -> None:
    counts, granted_s = counted(
        LeaseGrant(1, 10),
        LeaseRevoke(1),
        Txn((), (LeaseGrant(2, 20), LeaseKeepAlive(2)), ()),
        SessionOpen(7),
        Once(7, 1, 1, Txn((), (LeaseGrant(3, 30),))),
        Once(7, 1, 1, Txn((), (LeaseGrant(3, 30),))),  # a retry grants nothing
    )
    assert counts == {"LeaseGrant": 3, "LeaseRevoke": 1, "LeaseKeepAlive": 1}
    assert granted_s == 60


def test_an_expiry_that_a_renewal_voided_ended_nothing() -> None:
    counts, _ = counted(LeaseGrant(1, 10), LeaseKeepAlive(1), LeaseExpire(1, 0))
    assert counts == {"LeaseGrant": 1, "LeaseKeepAlive": 1}
    counts, _ = counted(LeaseGrant(1, 10), LeaseExpire(1, 0))
    assert counts == {"LeaseGrant": 1, "LeaseExpire": 1}
