"""A watch as a history has it: what was asked, every event in order of arrival, and how it ended."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from chaos.operations import Json, key_value
from chaos.recording import Recorder
from raftkube.errors import Compacted, StoreError
from raftkube.store.client import StoreClient, WatchBatch
from raftkube.wire.store import PUT_EVENT, Event

PREFIX: Final = "/chaos/"
PREFIX_END: Final = "/chaos0"


async def record_watch(
    store: StoreClient,
    recorder: Recorder,
    watch: int,
    key: str,
    range_end: str,
    start_revision: int,
    *,
    log: bool = False,
    resumes: int | None = None,
    resume: bool = True,
    on_revision: Callable[[int], None] | None = None,
) -> None:
    """Watch until cancelled and write every event down; on_revision(revision) after each batch.

    Returns when the watch was refused or has ended, which is written down. `resume`: the client goes on by
    itself after a lost connection. `resumes`: the watch from whose end this one goes on.
    """
    asked: Json = {
        "type": "watch", "watch": watch, "key": key, "range_end": range_end,
        "start_revision": start_revision, "call_ns": recorder.now_ns(), "log": log,
    }  # fmt: skip
    recorder.write(asked if resumes is None else asked | {"resumes": resumes})
    try:
        async with store.watch(
            key.encode(), range_end.encode(), start_revision,
            prev_kv=True, progress_notify=True, resume=resume,
        ) as events:  # fmt: skip
            async for batch in events:
                _record_batch(recorder, watch, batch)
                if on_revision is not None:
                    on_revision(batch.revision)
    except Compacted as error:
        oldest = int(error.fields.get("compact_revision", 0))
        _observe(recorder, "compacted", watch=watch, compact_revision=oldest)
    except StoreError as error:
        _observe(recorder, "watch_ended", watch=watch, error=error.code)


def _observe(recorder: Recorder, kind: str, **fields: Any) -> None:
    recorder.write({"type": "observe", "kind": kind, "time_ns": recorder.now_ns(), **fields})


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
        record["prev"] = key_value(event.prev_kv)
        if is_put:
            record["create"], record["version"] = event.kv.create_revision, event.kv.version
    else:
        record["value"] = ""
    return record
