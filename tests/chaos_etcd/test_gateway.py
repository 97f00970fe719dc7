"""etcd's JSON as the store's operations and results; only what etcd says it did not do is definite."""

from __future__ import annotations

import base64
from typing import Any

import orjson
import pytest

from chaos.etcd.gateway import (
    error_of,
    events_of,
    request_of,
    result_of,
    watch_request,
)
from raftkube.errors import Indefinite, LeaseNotFound, Unsupported
from raftkube.wire.store import (
    Compact,
    CompactResult,
    Compare,
    DeleteRange,
    DeleteRangeResult,
    Event,
    KeyValue,
    LeaseGrant,
    LeaseKeepAlive,
    LeaseResult,
    LeaseRevoke,
    LeaseTimeToLive,
    Put,
    PutResult,
    Range,
    RangeResult,
    SessionOpen,
    Txn,
    TxnResult,
)

HEADER = {"cluster_id": "1", "member_id": "2", "revision": "7", "raft_term": "3"}
KV = {
    "key": "L2E=",
    "value": "eA==",
    "create_revision": "2",
    "mod_revision": "7",
    "version": "3",
    "lease": "9",
}
KEY_VALUE = KeyValue(b"/a", b"x", 2, 7, 3, 9)


def asked(op: Any) -> tuple[str, dict[str, Any]]:
    path, body = request_of(op)
    return path, {name: value for name, value in orjson.loads(body).items() if value}


def answered(op: Any, **fields: Any) -> Any:
    return result_of(op, orjson.dumps({"header": HEADER, **fields}))


def test_requests() -> None:
    assert asked(Put(b"/a", b"\xff", 5, prev_kv=True)) == (
        "/v3/kv/put", {"key": "L2E=", "value": "/w==", "lease": 5, "prev_kv": True},
    )  # fmt: skip
    assert asked(DeleteRange(b"/a", b"/b")) == ("/v3/kv/deleterange", {"key": "L2E=", "range_end": "L2I="})
    path, body = asked(Range(b"/a", sort_order="descend", sort_target="mod", limit=3, revision=4))
    assert path == "/v3/kv/range"
    assert body == {"key": "L2E=", "sort_order": "DESCEND", "sort_target": "MOD", "limit": 3, "revision": 4}
    assert orjson.loads(request_of(Range(b"/a"), serializable=True)[1])["serializable"] is True
    assert asked(Compact(6)) == ("/v3/kv/compaction", {"revision": 6})
    assert asked(LeaseGrant(8, 10)) == ("/v3/lease/grant", {"ID": 8, "TTL": 10})


@pytest.mark.parametrize(
    ("compare", "field", "value"),
    [
        (Compare(b"/a", "version", ">", 2), "version", 2),
        (Compare(b"/a", "create", "=", 3), "create_revision", 3),
        (Compare(b"/a", "mod", "<", 4), "mod_revision", 4),
        (Compare(b"/a", "value", "!=", b"x"), "value", "eA=="),
        (Compare(b"/a", "lease", "=", 5, b"/b"), "lease", 5),
    ],
)
def test_compares(compare: Compare, field: str, value: object) -> None:
    _, body = asked(Txn((compare,), (Put(b"/a", b"y"),), (Range(b"/a"),)))
    (told,) = body["compare"]
    assert told[field] == value
    assert told["target"] == compare.target.upper()
    assert told["result"] == {"=": "EQUAL", "!=": "NOT_EQUAL", "<": "LESS", ">": "GREATER"}[compare.result]
    assert base64.b64decode(told["range_end"]) == compare.range_end
    assert body["success"][0]["request_put"]["value"] == "eQ=="
    assert body["failure"][0]["request_range"]["key"] == "L2E="


def test_results() -> None:
    assert answered(Put(b"/a", b"")) == PutResult(7, None)
    assert answered(Put(b"/a", b""), prev_kv=KV) == PutResult(7, KEY_VALUE)
    assert answered(DeleteRange(b"/a")) == DeleteRangeResult(7, 0, ())
    assert answered(DeleteRange(b"/a"), deleted="1", prev_kvs=[KV]) == DeleteRangeResult(7, 1, (KEY_VALUE,))
    assert answered(Range(b"/a"), kvs=[KV], count="4", more=True) == RangeResult(7, (KEY_VALUE,), 4, True)
    assert answered(Compact(3)) == CompactResult(7)


def test_a_transactions_responses_belong_to_the_branch_that_ran() -> None:
    txn = Txn((), (Put(b"/a", b"x"), DeleteRange(b"/b")), (Range(b"/a"),))
    inner = [{"response_put": {"header": {"revision": "7"}, "prev_kv": KV}}, {"response_delete_range": {}}]
    assert answered(txn, succeeded=True, responses=inner) == TxnResult(
        7, True, (PutResult(7, KEY_VALUE), DeleteRangeResult(7, 0, ()))
    )
    ranged = [{"response_range": {"kvs": [KV], "count": "1"}}]
    assert answered(txn, responses=ranged) == TxnResult(7, False, (RangeResult(7, (KEY_VALUE,), 1),))
    with pytest.raises(Indefinite):
        answered(txn, succeeded=True, responses=ranged)


def test_a_lease_that_is_gone_is_an_error() -> None:
    alive = orjson.dumps({"result": {"header": HEADER, "ID": "8", "TTL": "10"}})
    assert result_of(LeaseKeepAlive(8), alive) == LeaseResult(7, 8, 10)
    with pytest.raises(LeaseNotFound):
        result_of(LeaseKeepAlive(8), orjson.dumps({"result": {"header": HEADER, "ID": "8"}}))
    with pytest.raises(LeaseNotFound):
        answered(LeaseTimeToLive(8), TTL="-1")
    left = answered(LeaseTimeToLive(8, True), TTL="4", grantedTTL="10", keys=["L2E="])
    assert left == LeaseResult(7, 8, 10, remaining_s=4.0, keys=(b"/a",))
    assert answered(LeaseRevoke(8)) == LeaseResult(7, 8, 0)


def test_events() -> None:
    gone = {"key": "L2E=", "mod_revision": "8"}
    told = events_of({"events": [{"kv": KV}, {"type": "DELETE", "kv": gone, "prev_kv": KV}]})
    assert told == (Event(0, KEY_VALUE, None), Event(1, KeyValue(b"/a", b"", 0, 8, 0, 0), KEY_VALUE))
    assert events_of({}) == ()


def test_a_watchs_request() -> None:
    body = orjson.loads(watch_request(b"/a", b"/b", 4, prev_kv=True, progress_notify=True))
    assert body["create_request"] == {
        "key": "L2E=", "range_end": "L2I=", "start_revision": 4, "prev_kv": True, "progress_notify": True,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("etcdserver: mvcc: required revision has been compacted", "compacted"),
        ("etcdserver: mvcc: required revision is a future revision", "future_revision"),
        ("etcdserver: requested lease not found", "lease_not_found"),
        ("etcdserver: lease already exists", "lease_exists"),
        ("etcdserver: duplicate key given in txn request", "duplicate_key"),
        ("etcdserver: too many requests", "overloaded"),
        (
            'connection error: desc = "transport: Error while dialing dial tcp 127.0.0.1:1: refused"',
            "unreachable",
        ),
    ],
)
def test_definite_errors(message: str, code: str) -> None:
    error = error_of(orjson.dumps({"error": message, "code": 9, "message": message}))
    assert (error.code, error.definite) == (code, True)


@pytest.mark.parametrize(
    "body",
    [
        b'{"error":"etcdserver: request timed out","code":14,"message":"etcdserver: request timed out"}',
        b'{"error":"etcdserver: leader changed","code":14,"message":"etcdserver: leader changed"}',
        # Said of a put that was applied, too.
        b'{"message":"etcdserver: mvcc: database space exceeded","code":8}',
        b'{"message":"raft proposal dropped","code":2}',
        b'{"message":"transport is closing","code":14}',
        b"<html>",
        b"[]",
        b"{}",
        b"",
    ],
)
def test_in_doubt_indefinite(body: bytes) -> None:
    error = error_of(body)
    assert isinstance(error, Indefinite)
    assert not error.definite


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"header":{"revision":"x"}}', b'{"header":[]}'])
def test_no_answer_of_etcds_is_indefinite(body: bytes) -> None:
    with pytest.raises(Indefinite):
        result_of(Put(b"/a", b""), body)


def test_what_etcd_has_not_is_refused_before_it_is_sent() -> None:
    with pytest.raises(Unsupported):
        request_of(SessionOpen())
    with pytest.raises(Unsupported):
        request_of(Txn((), (LeaseGrant(0, 5),)))
