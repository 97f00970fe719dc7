"""Histograms against counting by hand; notes of slowness that do not flood; where they come from."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest
import structlog
import trio
from hypothesis import given
from hypothesis import strategies as st
from monitored import members

from raftkube.store.raft.counters import DURATION_BUCKETS_S, Histogram, SlowNotes
from raftkube.store.server.activity import TTL_BUCKETS_S
from raftkube.store.server.runtime import GC_BUCKETS_S, Runtime

FINITE = st.floats(0, 1e9, allow_nan=False)


@given(
    bounds=st.lists(FINITE, min_size=1, max_size=10, unique=True).map(sorted).map(tuple),
    values=st.lists(FINITE, max_size=60),
)
def test_a_histogram_counts_what_lies_at_or_below_each_bound(
    bounds: tuple[float, ...], values: list[float]
) -> None:
    histogram = Histogram(bounds)
    for value in [*values, *bounds]:
        histogram.observe(value)
    observed = [*values, *bounds]
    expected = [(bound, sum(value <= bound for value in observed)) for bound in (*bounds, float("inf"))]
    assert histogram.cumulative() == expected
    assert histogram.total == len(observed)
    assert histogram.sum == pytest.approx(sum(observed))


def test_buckets_are_etcds() -> None:
    assert DURATION_BUCKETS_S[0] == 0.001
    assert DURATION_BUCKETS_S[-1] == 8.192
    assert TTL_BUCKETS_S[:4] == (1.0, 2.0, 4.0, 8.0)
    assert TTL_BUCKETS_S[-1] == 8_388_608.0
    assert list(GC_BUCKETS_S) == sorted(GC_BUCKETS_S)


def test_notes_come_once_a_second_with_what_was_left_out() -> None:
    notes = SlowNotes("slow_thing", 0.1)
    with structlog.testing.capture_logs() as logs:
        for now in (10.0, 10.2, 10.9, 11.1, 11.2):
            notes.note(now, 0.25, index=7)
    assert [(line["event"], line["suppressed"]) for line in logs] == [("slow_thing", 0), ("slow_thing", 2)]
    assert logs[0] == {
        "event": "slow_thing", "log_level": "warning", "took_s": 0.25, "expected_s": 0.1, "suppressed": 0,
        "index": 7,
    }  # fmt: skip
    assert notes.count == 5


async def test_the_runtime_sees_collections_and_leaves_no_callback_behind() -> None:
    runtime, before = Runtime(1.0), list(gc.callbacks)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(runtime.run)
        await trio.testing.wait_all_tasks_blocked()
        gc.collect()
        assert runtime.gc_pause_s.total >= 1
        nursery.cancel_scope.cancel()
    assert gc.callbacks == before


async def test_a_late_loop_is_measured_and_noted(autojump_clock: trio.testing.MockClock) -> None:
    runtime = Runtime(0.5)
    with structlog.testing.capture_logs() as logs:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(runtime.run)
            await trio.sleep(1.1)
            assert runtime.loop_lag_s.cumulative()[0][1] == runtime.loop_lag_s.total == 4
            autojump_clock.jump(2.0)  # the process was stopped for two seconds
            await trio.sleep(0.1)
            nursery.cancel_scope.cancel()
    assert runtime.loop_lag_s.sum == pytest.approx(1.85, abs=0.01)
    assert [line["event"] for line in logs] == ["event_loop_late"]


@pytest.mark.parametrize(
    ("event", "change"),
    [("slow_apply", {"slow_apply_s": -1.0}), ("slow_fsync", {"slow_fsync_s": -1.0})],
)
async def test_what_takes_longer_than_its_threshold_is_logged(
    event: str, change: dict[str, float], tmp_path: Path
) -> None:
    from raftkube.store.raft.settings import RaftSettings

    with structlog.testing.capture_logs() as logs:
        async with members(tmp_path, raft=RaftSettings(**change)) as running, running.client() as client:
            await client.put(b"k", b"v")
    found = [line for line in logs if line["event"] == event]
    assert found
    for line in found:
        assert line["log_level"] == "warning"
        assert {"took_s", "expected_s", "suppressed"} <= line.keys()
