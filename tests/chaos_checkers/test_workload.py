"""The workload on whole simulated members, with kills: it repeats itself and exercises all that is judged."""

from __future__ import annotations

from collections import Counter
from typing import Any

import orjson
import trio

from chaos.checkers.history import read_history
from chaos.checkers.judge import judge
from chaos.checkers.verdict import Verdict
from chaos.operations import run_operation
from chaos.recording import MemoryRecorder
from chaos.sim.clock import SimClock, run_simulation
from chaos.sim.simulated_store import SimulatedStore
from chaos.watching import PREFIX, record_watch
from chaos.workload import Workload, WorkloadOptions
from raftkube.rng import seeded_rng
from raftkube.store.client import StoreClient

Json = dict[str, Any]

OPTIONS = {"clients": 4, "first_client": 1, "keys": 12, "watches": 3, "think_s": 0.05,
           "compact_every_s": 3.0, "compact_age_s": 6.0}  # fmt: skip


async def record(seed: int, duration_s: float, *, kills: bool) -> list[Json]:
    """One history; with kills, each member in turn is down for two seconds."""
    async with trio.open_nursery() as members:
        store = SimulatedStore(seed, members)
        await store.start_all()
        recorder = MemoryRecorder(trio.current_time)
        numbered = StoreClient.open(
            store.network.host("numbered"), list(store.clients.values()), name="numbered",
            clock=SimClock(), rng=seeded_rng(f"numbered-{seed}"), exactly_once=True,
        )  # fmt: skip
        async with store.client("load") as plain, numbered as once, trio.open_nursery() as nursery:
            log_reached = [0]
            nursery.start_soon(_watch_all, plain, recorder, log_reached)
            workload = Workload(plain, recorder, WorkloadOptions(seed=seed, **OPTIONS), numbered=once)
            done = trio.Event()
            nursery.start_soon(_run, workload, done)
            if kills:
                for name in store.names:
                    await trio.sleep(duration_s / 6)
                    await store.kill(name)
                    await trio.sleep(2)
                    await store.start(name)
                await trio.sleep(duration_s / 2 - 6)
            else:
                await trio.sleep(duration_s)
            workload.stopping.set()
            await done.wait()
            request = {"key": PREFIX + "barrier", "value": "barrier"}
            with trio.fail_after(60):
                barrier = await run_operation(plain, recorder, 99, 1, "put", request, barrier=True)
                while log_reached[0] < barrier["revision"]:
                    await trio.sleep(0.1)
            nursery.cancel_scope.cancel()
        members.cancel_scope.cancel()
    return recorder.records


async def _watch_all(store: StoreClient, recorder: MemoryRecorder, reached: list[int]) -> None:
    def note(revision: int) -> None:
        reached[0] = max(reached[0], revision)

    await record_watch(store, recorder, 0, "\0", "\0", 1, log=True, on_revision=note)


async def _run(workload: Workload, done: trio.Event) -> None:
    await workload.run()
    done.set()


def history(seed: int, duration_s: float, *, kills: bool) -> list[bytes]:
    async def run() -> list[Json]:
        return await record(seed, duration_s, kills=kills)

    header = {"format": 1, "prefix": PREFIX, "lease_slack_s": 10.0, "compaction": "clients"}
    return [orjson.dumps(line) for line in (header, *run_simulation(seed, run))]


def judged(lines: list[bytes]) -> Verdict:
    verdict = judge(read_history(lines))
    assert verdict.word == "valid", (verdict.violations[:3], verdict.unknown_because)
    return verdict


def test_kills_leave_valid_histories_that_have_everything_in_them() -> None:
    kinds: Counter[str] = Counter()
    checked: Counter[str] = Counter()
    for seed in range(2):
        lines = history(seed, 36, kills=True)
        checked.update(judged(lines).checked)
        operations = [each for line in lines[1:] if (each := orjson.loads(line))["type"] == "op"]
        values = [value for line in operations for value in _values(line)]
        assert len(values) == len(set(values))
        for line in operations:
            kinds.update(_shapes(line))
    assert kinds.keys() >= {
        "put", "get", "delete", "txn", "range", "range delete", "large txn", "numbered", "compact",
        "lease_grant", "lease_keep_alive", "lease_revoke", "fence held", "fence lost",
    }  # fmt: skip
    for what in ("watches resumed", "watches refused as compacted", "leases"):
        assert checked[what] >= 2, what
    assert checked["keys judged by the second opinion"] >= 24


def _shapes(operation: Json) -> list[str]:
    """What an acknowledged operation is an example of."""
    request = operation["request"]
    if operation["outcome"] != "ok":
        return []
    shapes = [operation["kind"]]
    if operation["kind"] == "delete" and "range_end" in request:
        shapes.append("range delete")
    if len(request.get("success", [])) >= 4:
        shapes.append("large txn")
    if "fence" in operation:
        shapes.append("fence held" if operation["response"]["succeeded"] else "fence lost")
    return shapes + ["numbered"] * ("numbered" in operation)


def _values(operation: Json) -> list[str]:
    request = operation["request"]
    items = [request, *request.get("success", []), *request.get("failure", [])]
    return [item["value"] for item in items if "value" in item]


def test_one_seed_gives_one_history() -> None:
    assert history(7, 12, kills=True) == history(7, 12, kills=True)
    assert history(7, 2, kills=False) != history(8, 2, kills=False)


def test_two_thirds_of_what_clients_of_keys_do_may_write() -> None:
    lines = [orjson.loads(line) for line in history(3, 25, kills=False)[1:]]
    kinds = [line["kind"] for line in lines if line["type"] == "op" and line["client"] <= 4]
    writes = sum(kind in ("put", "delete", "txn") for kind in kinds)
    assert 0.6 <= writes / len(kinds) <= 0.7


async def test_a_cancelled_operation_is_written_down_as_unknown(autojump_clock: trio.abc.Clock) -> None:
    class NeverAnswers:
        async def put(self, *_: object, **__: object) -> None:
            await trio.sleep_forever()

    recorder = MemoryRecorder(trio.current_time)
    with trio.move_on_after(1):
        await run_operation(
            NeverAnswers(),
            recorder,
            1,
            1,
            "put",
            {"key": "k", "value": "v"},  # type: ignore[arg-type]
        )
    assert [line["outcome"] for line in recorder.records] == ["unknown"]
    assert recorder.records[0]["error"] == "cancelled"
