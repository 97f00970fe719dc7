"""One operation of the store as a history has it: carried out, timed and written down.

A request is JSON, by its kind:

    put            {key, value} and, if there is one, {lease}
    delete         {key} or {key, range_end}
    get, range     {key} or {key, range_end}; `member` reads one member's own state
    txn            {compares: [{key, target, result, operand}], success: [...], failure: [...]},
                   each item with its `kind`, one of the above
    compact        {revision}
    lease_grant    {lease, ttl_s}
    lease_keep_alive, lease_revoke   {lease}
"""

from __future__ import annotations

from typing import Any, Final

import trio

from chaos.recording import Recorder
from raftkube.errors import StoreError
from raftkube.store.client import StoreClient
from raftkube.wire.store import Compare, DeleteRange, KeyValue, Put, Range, Txn

Json = dict[str, Any]

OPERATION_TIMEOUT_S: Final = 5.0


async def run_operation(
    store: StoreClient,
    recorder: Recorder,
    client: int,
    number: int | str,
    kind: str,
    request: Json,
    **marks: Any,
) -> Json:
    """Carry out one operation and write it down; returns the record. `marks` are added to it.

    Cancelled: it is written down as unknown.
    """
    record: Json = {
        "type": "op", "client": client, "id": number, "kind": kind, "request": request,
        "call_ns": recorder.now_ns(), "outcome": "unknown", "error": "cancelled", **marks,
    }  # fmt: skip
    try:
        with trio.fail_after(OPERATION_TIMEOUT_S):
            record["revision"], record["response"] = await _send(store, kind, request)
        record["outcome"], record["error"] = "ok", None
    except trio.TooSlowError:
        record["error"] = "timeout"
    except StoreError as error:
        record["outcome"] = "fail" if error.definite else "unknown"
        record["error"] = error.code
    finally:
        record["return_ns"] = recorder.now_ns()
        recorder.write(record)
    return record


async def _send(store: StoreClient, kind: str, request: Json) -> tuple[int, Json]:
    if kind.startswith("lease_"):
        return await _send_lease(store, kind, request)
    if kind == "compact":
        return (await store.compact(request["revision"])).revision, {}
    if kind == "txn":
        result = await store.txn(_transaction(request))
        branch = request["success" if result.succeeded else "failure"]
        answers = [_answer(item, each) for item, each in zip(branch, result.responses, strict=True)]
        return result.revision, {"succeeded": result.succeeded, "responses": answers}
    item = {**request, "kind": kind}
    answer: Any
    if kind == "put":
        lease = request.get("lease", 0)
        answer = await store.put(request["key"].encode(), request["value"].encode(), lease, prev_kv=True)
    elif kind == "delete":
        answer = await store.delete(
            request["key"].encode(), request.get("range_end", "").encode(), prev_kv=True
        )
    else:
        answer = await store.range(
            Range(request["key"].encode(), request.get("range_end", "").encode()),
            serializable="member" in request,
            member=request.get("member"),
        )
    return answer.revision, _answer(item, answer)


async def _send_lease(store: StoreClient, kind: str, request: Json) -> tuple[int, Json]:
    lease = request["lease"]
    if kind == "lease_grant":
        result = await store.lease_grant(request["ttl_s"], lease)
    elif kind == "lease_keep_alive":
        result = await store.lease_keep_alive(lease)
    else:
        result = await store.lease_revoke(lease)
    return result.revision, {"lease": result.lease, "ttl_s": result.ttl_s}


def _transaction(request: Json) -> Txn:
    compares = tuple(
        Compare(item["key"].encode(), item["target"], item["result"], item["operand"])
        for item in request["compares"]
    )
    return Txn(compares, _branch(request["success"]), _branch(request["failure"]))


def _branch(items: list[Json]) -> tuple[Put | DeleteRange | Range, ...]:
    branch: list[Put | DeleteRange | Range] = []
    for item in items:
        key, range_end = item["key"].encode(), item.get("range_end", "").encode()
        if item["kind"] == "put":
            branch.append(Put(key, item["value"].encode(), item.get("lease", 0), prev_kv=True))
        elif item["kind"] == "delete":
            branch.append(DeleteRange(key, range_end, prev_kv=True))
        else:
            branch.append(Range(key, range_end))
    return tuple(branch)


def _answer(item: Json, result: Any) -> Json:
    """The answer to a put, delete, get or range."""
    if item["kind"] == "put":
        return {"prev": key_value(result.prev_kv)}
    if item["kind"] == "delete":
        gone = [key_value(kv) for kv in result.prev_kvs]
        if item.get("range_end"):
            return {"deleted": result.deleted, "prevs": gone}
        return {"deleted": result.deleted, "prev": gone[0] if gone else None}
    found = [key_value(kv) for kv in result.kvs]
    return {"kvs": found} if item["kind"] == "range" else {"kv": found[0] if found else None}


def key_value(kv: KeyValue | None) -> list[Any] | None:
    """As histories write it: [key, value, create, mod, version]."""
    if kv is None:
        return None
    return [kv.key.decode(), kv.value.decode(), kv.create_revision, kv.mod_revision, kv.version]
