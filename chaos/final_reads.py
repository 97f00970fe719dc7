"""The end of a recorded run: a barrier write, then everything from every member, and every member's hash.

What was of unknown outcome before the barrier succeeded is decided by then.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Final

import trio

from chaos.recording import Record, Recorder
from chaos.workload import PREFIX, PREFIX_END, run_operation
from raftkube.errors import StoreError
from raftkube.store.client import StoreClient

HARNESS_CLIENT: Final = 9_000
_PAUSE_S: Final = 0.2

OpenPinned = Callable[[str], AbstractAsyncContextManager[StoreClient]]


async def write_barrier(store: StoreClient, recorder: Recorder) -> int:
    """Write until it succeeds; its revision."""
    number = 0
    while True:
        number += 1
        request = {"key": PREFIX + "barrier", "value": f"barrier-{number}"}
        record = await run_operation(store, recorder, HARNESS_CLIENT, number, "put", request, barrier=True)
        if record["outcome"] == "ok":
            return int(record["revision"])
        await trio.sleep(_PAUSE_S)


async def read_member(open_pinned: OpenPinned, member: str, barrier: int, recorder: Recorder) -> None:
    """Read the workload's keys from `member` alone, until it has everything up to the barrier."""
    request = {"key": PREFIX, "range_end": PREFIX_END, "member": member}
    while True:
        with contextlib.suppress(StoreError):
            async with open_pinned(member) as store:
                record = await run_operation(
                    store, recorder, HARNESS_CLIENT, f"final-{member}", "range", request,
                    final=True, serializable=True, read_from=member,
                )  # fmt: skip
                if record["outcome"] == "ok" and record["revision"] >= barrier:
                    return
        await trio.sleep(_PAUSE_S)


async def read_hashes(store: StoreClient, members: list[str], recorder: Recorder) -> None:
    """Until all members gave theirs at one point of the log: leases may still run out."""
    while True:
        with contextlib.suppress(StoreError):
            told = {member: await store.hash(member) for member in members}
            for member in members:
                about = {"hash": str(told[member]["hash"]), "applied_index": told[member]["applied_index"]}
                recorder.write(hash_record(recorder.now_ns(), member, told[member]["revision"], about))
            if len({each["applied_index"] for each in told.values()}) == 1:
                return
        await trio.sleep(_PAUSE_S)


def hash_record(now_ns: int, member: str, revision: int, response: dict[str, Any]) -> Record:
    """What a member said of its state at a revision, as an operation of a history."""
    return {
        "type": "op", "client": HARNESS_CLIENT, "id": f"hash-{member}", "kind": "hash",
        "request": {"member": member}, "call_ns": now_ns, "return_ns": now_ns, "outcome": "ok",
        "error": None, "revision": revision, "serializable": True, "response": response,
    }  # fmt: skip
