"""What is refused before it is proposed, and that `apply` refuses it too."""

from __future__ import annotations

from typing import Any

import pytest

from raftkube.errors import DuplicateKey, InvalidRequest, RequestTooLarge, StoreError, TooManyOperations
from raftkube.limits import KEY_BYTES_MAX, LEASE_TTL_MAX_S, REQUEST_BYTES_MAX, TXN_OPERATIONS_MAX
from raftkube.store.core import StateMachine, validate
from raftkube.wire import store as w

LONG = b"k" * (KEY_BYTES_MAX + 1)
FULL = b"v" * (REQUEST_BYTES_MAX - 1)
EMPTY_KEY = w.Compare(b"", "version", "=", 0)
PUTS = tuple(w.Put(b"k%d" % i, b"") for i in range(TXN_OPERATIONS_MAX + 1))
COMPARES = tuple(w.Compare(b"k", "version", "=", 0) for _ in PUTS)

WRONG: list[tuple[str, w.Op, type[StoreError], dict[str, Any]]] = [
    ("put-empty-key", w.Put(b"", b"x"), InvalidRequest, {"field": "key"}),
    ("range-empty-key", w.Range(b"", b"\x00"), InvalidRequest, {"field": "key"}),
    ("delete-empty-key", w.DeleteRange(b""), InvalidRequest, {"field": "key"}),
    ("compare-empty-key", w.Txn((EMPTY_KEY,)), InvalidRequest, {"field": "key"}),
    ("txn-empty-key", w.Txn((), (), (w.Put(b"", b""),)), InvalidRequest, {"field": "key"}),
    ("negative-revision", w.Range(b"k", revision=-1), InvalidRequest, {"field": "revision"}),
    ("negative-limit", w.Range(b"k", limit=-1), InvalidRequest, {"field": "limit"}),
    ("compact-zero", w.Compact(0), InvalidRequest, {"field": "revision"}),
    ("negative-lease", w.LeaseGrant(-1, 5), InvalidRequest, {"field": "lease"}),
    ("sort-order", w.Range(b"k", sort_order="up"), InvalidRequest, {"field": "sort_order"}),
    ("sort-target", w.Range(b"k", sort_target="lease"), InvalidRequest, {"field": "sort_target"}),
    *(
        (name, w.Range(b"k")._replace(**{name: -1}), InvalidRequest, {"field": name})
        for name in ("min_mod_revision", "max_mod_revision", "min_create_revision", "max_create_revision")
    ),
    ("value-ignored", w.Put(b"k", b"v", ignore_value=True), InvalidRequest, {"field": "value"}),
    ("lease-ignored", w.Put(b"k", b"", 7, ignore_lease=True), InvalidRequest, {"field": "lease"}),
    ("negative-session", w.SessionOpen(-1), InvalidRequest, {"field": "session"}),
    ("no-such-alarm", w.Alarm(False, "CORRUPT"), InvalidRequest, {"field": "alarm"}),
    ("numbered-read", w.Once(1, 1, 1, w.Range(b"k")), InvalidRequest, {"field": "op"}),
    ("numbered-twice", w.Once(1, 1, 1, w.Once(1, 2, 1, PUTS[0])), InvalidRequest, {"field": "op"}),
    ("sequence-zero", w.Once(1, 0, 0, PUTS[0]), InvalidRequest, {"field": "sequence"}),
    ("no-session", w.Once(0, 1, 1, PUTS[0]), InvalidRequest, {"field": "session"}),
    ("acknowledged-later", w.Once(1, 1, 2, PUTS[0]), InvalidRequest, {"field": "acknowledged_below"}),
    ("once-in-txn", w.Txn((), (w.Once(1, 1, 1, PUTS[0]),)), InvalidRequest, {"field": "txn"}),
    ("no-ttl", w.LeaseGrant(1, 0), InvalidRequest, {"field": "ttl_s"}),
    ("ttl-too-long", w.LeaseGrant(1, LEASE_TTL_MAX_S + 1), InvalidRequest, {"field": "ttl_s"}),
    ("txn-in-txn", w.Txn((), (w.Txn(),)), InvalidRequest, {"field": "txn"}),
    ("revoke-in-txn", w.Txn((), (), (w.LeaseRevoke(1),)), InvalidRequest, {"field": "txn"}),
    ("ttl-in-txn", w.Txn((), (w.LeaseTimeToLive(1),)), InvalidRequest, {"field": "txn"}),
    ("bad-range-in-txn", w.Txn((), (w.Range(b"k", limit=-1),)), InvalidRequest, {"field": "limit"}),
    ("duplicate-put", w.Txn((), (PUTS[0], PUTS[0])), DuplicateKey, {"key": b"k0"}),
    ("put-then-delete", w.Txn((), (PUTS[1], w.DeleteRange(b"k", b"\x00"))), DuplicateKey, {"key": b"k1"}),
    ("delete-then-put", w.Txn((), (), (w.DeleteRange(b"k", b"l"), PUTS[1])), DuplicateKey, {"key": b"k1"}),
    (
        "long-key", w.Put(LONG, b""), RequestTooLarge,
        {"bytes": KEY_BYTES_MAX + 1, "bytes_max": KEY_BYTES_MAX},
    ),
    (
        "long-end", w.Range(b"k", LONG), RequestTooLarge,
        {"bytes": KEY_BYTES_MAX + 1, "bytes_max": KEY_BYTES_MAX},
    ),
    (
        "large-value", w.Put(b"kk", FULL), RequestTooLarge,
        {"bytes": REQUEST_BYTES_MAX + 1, "bytes_max": REQUEST_BYTES_MAX},
    ),
    (
        "large-txn", w.Txn((w.Compare(b"k", "value", "=", b"v"),), (w.Put(b"a", FULL),)), RequestTooLarge,
        {"bytes": REQUEST_BYTES_MAX + 2, "bytes_max": REQUEST_BYTES_MAX},
    ),
    *(
        (f"too-many-{name}", op, TooManyOperations, {"operations": 129, "operations_max": 128})
        for name, op in [
            ("compares", w.Txn(COMPARES)), ("success", w.Txn((), PUTS)), ("failure", w.Txn((), (), PUTS)),
        ]
    ),
]  # fmt: skip

RIGHT: list[tuple[str, w.Op]] = [
    ("lease-id-to-be-chosen", w.LeaseGrant(0, 5)),
    ("full-request", w.Put(b"k", FULL)),
    ("full-key", w.Put(LONG[1:], b"")),
    ("full-txn", w.Txn(COMPARES[1:], PUTS[1:], PUTS[1:])),
    ("delete-beside-put", w.Txn((), (w.DeleteRange(b"a", b"k"), w.Put(b"k", b""), w.DeleteRange(b"l")))),
    ("empty-interval-over-put", w.Txn((), (w.DeleteRange(b"z", b"a"), w.Put(b"k", b"")))),
    ("overlapping-deletes", w.Txn((), (w.DeleteRange(b"a"), w.DeleteRange(b"a", b"\x00")))),
    ("same-key-in-both-branches", w.Txn((), (PUTS[0],), (PUTS[0],))),
    ("unknown-lease", w.LeaseKeepAlive(99)),
]


@pytest.mark.parametrize(("op", "error", "fields"), [case[1:] for case in WRONG], ids=[c[0] for c in WRONG])
def test_refuses(op: w.Op, error: type[StoreError], fields: dict[str, Any]) -> None:
    with pytest.raises(error) as caught:
        validate(op)
    assert caught.value.fields == fields
    machine = StateMachine()
    before = machine.state_hash()
    answer = machine.apply(op)
    assert type(answer) is error
    assert answer.fields == fields
    assert machine.state_hash() == before


@pytest.mark.parametrize("op", [case[1] for case in RIGHT], ids=[c[0] for c in RIGHT])
def test_lets_pass(op: w.Op) -> None:
    validate(op)


@pytest.mark.parametrize(
    "op", [w.Range(b""), w.Range(b"k", revision=-1), w.Range(LONG)], ids=["empty", "negative", "long"]
)
def test_read_refuses_too(op: w.Range) -> None:
    with pytest.raises((InvalidRequest, RequestTooLarge)):
        StateMachine().read(op)
