"""The workload of one process: clients that put, get, delete, run transactions and watch, and write down
what they asked, what they were told, and when.

Every value is unique, so that a write of unknown outcome can be found in the log.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any, Final

import trio

from chaos.recording import Recorder
from raftkube.errors import Compacted, StoreError
from raftkube.store.client import StoreClient, WatchBatch
from raftkube.wire.store import (
    PUT_EVENT,
    Compare,
    DeleteRange,
    DeleteRangeResult,
    Event,
    KeyValue,
    Put,
    PutResult,
    Range,
    RangeResult,
    Txn,
    TxnResult,
)

Json = dict[str, Any]

PREFIX: Final = "/chaos/"
PREFIX_END: Final = "/chaos0"
OPERATION_TIMEOUT_S: Final = 5.0
# Kinds and their shares: 65 % may write.
_MIX: Final = (("put", 40), ("get", 25), ("txn", 15), ("delete", 10), ("range", 10))


@dataclass(frozen=True, slots=True)
class WorkloadOptions:
    """`clients` tasks over `keys` keys; `first_client` makes ids unique over processes."""

    clients: int
    first_client: int
    keys: int
    watches: int
    seed: int
    think_s: float = 0.008


class Workload:
    """Runs until cancelled or `stopping` is set; in-flight operations are finished first."""

    def __init__(self, store: StoreClient, recorder: Recorder, options: WorkloadOptions) -> None:
        self._store = store
        self._recorder = recorder
        self._options = options
        self.stopping = trio.Event()

    async def run(self) -> None:
        """All clients and watches; returns when the clients have finished after `stopping`."""
        async with trio.open_nursery() as watches:
            for number in range(self._options.watches):
                watches.start_soon(self._watch, number)
            async with trio.open_nursery() as clients:
                for number in range(self._options.clients):
                    clients.start_soon(self._client, self._options.first_client + number)
            watches.cancel_scope.cancel()

    async def _client(self, client: int) -> None:
        rng = random.Random(f"{self._options.seed}/{client}")
        number = 0
        while not self.stopping.is_set():
            number += 1
            kind = rng.choices([kind for kind, _ in _MIX], [share for _, share in _MIX])[0]
            request = self._request(kind, client, number, rng)
            await run_operation(self._store, self._recorder, client, number, kind, request)
            await trio.sleep(rng.uniform(0, 2 * self._options.think_s))

    def _request(self, kind: str, client: int, number: int, rng: random.Random) -> Json:
        key = self._key(rng)
        value = f"c{client}-{number}"
        if kind == "put":
            return {"key": key, "value": value}
        if kind == "range":
            return {"key": PREFIX, "range_end": PREFIX_END}
        if kind != "txn":
            return {"key": key}
        other = self._key(rng)
        success: list[Json] = [{"kind": "put", "key": key, "value": value + "-a"}]
        if other != key:
            extra: Json = {"kind": "delete", "key": other}
            if rng.random() < 0.7:
                extra = {"kind": "put", "key": other, "value": value + "-b"}
            success.append(extra)
        compare = {"key": key, "target": "version", "result": ">", "operand": rng.randrange(3)}
        return {"compares": [compare], "success": success, "failure": [{"kind": "get", "key": key}]}

    def _key(self, rng: random.Random) -> str:
        return f"{PREFIX}{rng.randrange(self._options.keys):02d}"

    async def _watch(self, number: int) -> None:
        """Watch a slice of the keys from the current revision on, or everything from an older one."""
        rng = random.Random(f"{self._options.seed}/watch/{self._options.first_client + number}")
        while True:
            watch = self._options.first_client * 1_000_000 + number
            number += self._options.watches
            low = rng.randrange(self._options.keys)
            key, range_end = f"{PREFIX}{low:02d}", f"{PREFIX}{min(low + 10, self._options.keys):02d}"
            start = max(1, await self._revision() - rng.randrange(50))
            with trio.move_on_after(rng.uniform(5, 15)):
                await record_watch(self._store, self._recorder, watch, key, range_end, start)

    async def _revision(self) -> int:
        while True:
            try:
                with trio.fail_after(OPERATION_TIMEOUT_S):
                    return (await self._store.range(Range(b"\0", b"\0", count_only=True))).revision
            except (StoreError, trio.TooSlowError):
                await trio.sleep(0.1)


async def record_watch(
    store: StoreClient,
    recorder: Recorder,
    watch: int,
    key: str,
    range_end: str,
    start_revision: int,
    *,
    log: bool = False,
    on_revision: Any = None,
) -> None:
    """Watch until cancelled and write every event down; on_revision(revision) after each batch."""
    asked = {
        "type": "watch",
        "watch": watch,
        "key": key,
        "range_end": range_end,
        "start_revision": start_revision,
    }
    recorder.write(asked | {"call_ns": recorder.now_ns(), "log": log})
    try:
        async with store.watch(
            key.encode(), range_end.encode(), start_revision, prev_kv=True, progress_notify=True
        ) as events:
            async for batch in events:
                _record_batch(recorder, watch, batch)
                if on_revision is not None:
                    on_revision(batch.revision)
    except Compacted:
        recorder.write({"type": "observe", "kind": "compacted", "watch": watch, "time_ns": recorder.now_ns()})


def _record_batch(recorder: Recorder, watch: int, batch: WatchBatch) -> None:
    received = recorder.now_ns()
    for event in batch.events:
        recorder.write(_event(watch, event) | {"recv_ns": received})
    if not batch.events:
        recorder.write(
            {
                "type": "event",
                "watch": watch,
                "kind": "progress",
                "revision": batch.revision,
                "recv_ns": received,
            }
        )


def _event(watch: int, event: Event) -> Json:
    key = event.kv.key.decode(errors="replace")
    is_put = event.type == PUT_EVENT
    record: Json = {"type": "event", "watch": watch, "kind": "put" if is_put else "delete", "key": key}
    record["revision"] = event.kv.mod_revision
    if key.startswith(PREFIX):  # the control plane's own objects are not the workload's
        record["value"] = event.kv.value.decode() if is_put else None
        record["prev"] = _key_value(event.prev_kv)
    else:
        record["value"] = ""
    return record


async def run_operation(
    store: StoreClient,
    recorder: Recorder,
    client: int,
    number: int | str,
    kind: str,
    request: Json,
    **marks: Any,
) -> Json:
    """Carry out one operation and write it down; returns the record. `marks` are added to it."""
    record: Json = {
        "type": "op", "client": client, "id": number, "kind": kind, "request": request,
        "call_ns": recorder.now_ns(), "error": None, **marks,
    }  # fmt: skip
    try:
        with trio.fail_after(OPERATION_TIMEOUT_S):
            record["revision"], record["response"] = await _send(store, kind, request)
        record["outcome"] = "ok"
    except trio.TooSlowError:
        record["outcome"], record["error"] = "unknown", "timeout"
    except StoreError as error:
        record["outcome"] = "fail" if error.definite else "unknown"
        record["error"] = error.code
    record["return_ns"] = recorder.now_ns()
    recorder.write(record)
    return record


async def _send(store: StoreClient, kind: str, request: Json) -> tuple[int, Json]:
    key = request.get("key", "").encode()
    if kind == "put":
        put = await store.put(key, request["value"].encode(), prev_kv=True)
        return put.revision, _answer(put)
    if kind == "delete":
        deleted = await store.delete(key, prev_kv=True)
        return deleted.revision, _answer(deleted)
    if kind == "get":
        got = await store.range(Range(key))
        return got.revision, {"kv": _key_value(got.kvs[0] if got.kvs else None)}
    if kind == "range":
        ranged = await store.range(
            Range(key, request["range_end"].encode()),
            serializable="member" in request,
            member=request.get("member"),
        )
        return ranged.revision, {"kvs": [_key_value(kv) for kv in ranged.kvs]}
    result = await store.txn(_transaction(request))
    return result.revision, _txn_answer(result)


def _transaction(request: Json) -> Txn:
    compares = tuple(
        Compare(item["key"].encode(), item["target"], item["result"], item["operand"])
        for item in request["compares"]
    )
    return Txn(compares, _branch(request["success"]), _branch(request["failure"]))


def _branch(items: list[Json]) -> tuple[Put | DeleteRange | Range, ...]:
    branch: list[Put | DeleteRange | Range] = []
    for item in items:
        key = item["key"].encode()
        if item["kind"] == "put":
            branch.append(Put(key, item["value"].encode(), prev_kv=True))
        elif item["kind"] == "delete":
            branch.append(DeleteRange(key, prev_kv=True))
        else:
            branch.append(Range(key))
    return tuple(branch)


def _txn_answer(result: TxnResult) -> Json:
    return {"succeeded": result.succeeded, "responses": [_answer(item) for item in result.responses]}


def _answer(result: Any) -> Json:
    if isinstance(result, PutResult):
        return {"prev": _key_value(result.prev_kv)}
    if isinstance(result, DeleteRangeResult):
        prev = result.prev_kvs[0] if result.prev_kvs else None
        return {"deleted": result.deleted, "prev": _key_value(prev)}
    assert isinstance(result, RangeResult)
    return {"kv": _key_value(result.kvs[0] if result.kvs else None)}


def _key_value(kv: KeyValue | None) -> list[Any] | None:
    """As histories write it: [key, value, create, mod, version]."""
    if kv is None:
        return None
    return [kv.key.decode(), kv.value.decode(), kv.create_revision, kv.mod_revision, kv.version]
