"""Lanes, dots, rates, quantiles, axes, leaders, rows: what is drawn, as tables."""

from __future__ import annotations

from typing import Any

import pytest
from report_histories import MS, fault, role, term

from chaos.report.calls import Call
from chaos.report.lanes import lanes, slow_ms
from chaos.report.leaders import Leadership, leaderships
from chaos.report.rows import OTHERS, ROWS_MAX, cluster_rows
from chaos.report.scale import LogScale, TimeScale, log_scale, ticks
from chaos.report.series import Dot, bucket_s, dots, percentile, quantiles, rates

Json = dict[str, Any]


def call(
    client: int, start_ms: float, end_ms: float | None, outcome: str = "ok", writes: bool = True
) -> Call:
    """One without an end lasts for a second, as if its client had called again then."""
    return_ns = None if end_ms is None else round(end_ms * MS)
    return Call(str(client), round(start_ms * MS), return_ns, outcome, writes, return_ns or 1_000 * MS)


@pytest.mark.parametrize(
    ("calls", "runs"),
    [
        pytest.param([], [], id="nobody"),
        pytest.param([call(1, 10, 29)], [{"ok": [(1, 2)]}], id="one call"),
        pytest.param(
            [call(1, 0, 5), call(1, 6, 9), call(1, 12, 15)], [{"ok": [(0, 2)]}], id="neighbours are one"
        ),
        pytest.param([call(1, 0, 5), call(1, 30, 35)], [{"ok": [(0, 1), (3, 1)]}], id="idle between"),
        pytest.param(
            [call(1, 0, 44), call(1, 20, 29, "unknown"), call(1, 22, 39, "fail")],
            [{"ok": [(0, 2), (4, 1)], "unknown": [(2, 1)], "fail": [(3, 1)]}],
            id="the worst of a column",
        ),
        pytest.param([call(1, 20, 69)], [{"slow": [(2, 5)]}], id="slow"),
        pytest.param([call(1, 20, None, "unknown")], [{"unknown": [(2, 8)]}], id="never came back"),
        pytest.param(
            [call(1, -50, 5), call(1, 95, 130)], [{"slow": [(0, 1)], "ok": [(9, 1)]}], id="cut at the edges"
        ),
        pytest.param([call(1, -50, -5), call(2, 101, 130)], [], id="out of sight"),
        pytest.param(
            [call(7, 0, 5), call(3, 90, 95)], [{"ok": [(9, 1)]}, {"ok": [(0, 1)]}], id="in order of ids"
        ),
    ],
)  # fmt: skip
def test_lanes(calls: list[Call], runs: list[Json]) -> None:
    """Ten columns of 10 ms; slow is more than 45 ms."""
    found = lanes(calls, 0, 100 * MS, columns=10, lanes_max=64, slow_from_ms=45)
    assert [lane.runs for lane in found] == runs


@pytest.mark.parametrize(
    ("clients", "labels"),
    [
        pytest.param(3, ["1", "2", "3"], id="few"),
        pytest.param(4, ["1", "2", "3", "4"], id="as many as there is room for"),
        pytest.param(10, ["1–3", "4–6", "7–9", "10"], id="neighbours share a lane"),
    ],
)
def test_more_clients_than_lanes(clients: int, labels: list[str]) -> None:
    calls = [call(client, 0, 5) for client in range(1, clients + 1)]
    found = lanes(calls, 0, 100 * MS, columns=10, lanes_max=4, slow_from_ms=40)
    assert [lane.label for lane in found] == labels


def test_slow_is_ten_medians_and_at_least_100_ms() -> None:
    assert slow_ms([]) == 100
    assert slow_ms([call(1, 0, 5), call(1, 0, 4), call(1, 0, 900, "fail")]) == 100
    assert slow_ms([call(1, 0, 20), call(1, 0, 30), call(1, 0, 40)]) == 300


@pytest.mark.parametrize(
    ("calls", "expected"),
    [
        pytest.param([call(1, 0, 1)], [Dot(0, 0, "ok", 0)], id="lowest"),
        pytest.param([call(1, 99, 199)], [Dot(9, 2, "ok", 0)], id="highest"),
        pytest.param([call(1, 50, 5_000)], [Dot(5, 2, "ok", 0)], id="above the axis"),
        pytest.param([call(1, 0, 2), call(2, 1, 3)], [Dot(0, 0, "ok", 1)], id="two in a cell"),
        pytest.param([call(n, 0, 2) for n in range(5)], [Dot(0, 0, "ok", 2)], id="five in a cell"),
        pytest.param(
            [call(1, 0, 2), call(2, 1, 3, "unknown")],
            [Dot(0, 0, "ok", 0), Dot(0, 0, "unknown", 0)],
            id="outcomes are apart",
        ),
        pytest.param(
            [call(1, 10, None, "unknown")], [Dot(1, 2, "unknown", 0)], id="no answer: the upper edge"
        ),
        pytest.param([call(1, -1, 2), call(1, 101, 102)], [], id="out of sight"),
    ],
)
def test_dots(calls: list[Call], expected: list[Dot]) -> None:
    """Ten columns of 10 ms, three rows from 1 to 100 ms."""
    assert dots(calls, 0, 100 * MS, columns=10, rows=3, low_ms=1, high_ms=100) == expected


def test_rates() -> None:
    calls = [
        call(1, 0, 5), call(1, 0, 9.9, writes=False), call(1, 0, 10), call(1, 1, 2, "fail"), call(1, 0, 24),
        call(1, 0, None, "unknown"), call(1, 0, 25),
    ]  # fmt: skip
    found = rates(calls, 0, 25 * MS, 0.01)
    assert [(each.start_ns // MS, each.writes, each.reads) for each in found] == [
        (0, 100, 100), (10, 100, 0), (20, 200, 0),  # the last bucket is 5 ms long
    ]  # fmt: skip


def test_quantiles() -> None:
    calls = [call(1, 0, took) for took in range(1, 101)] + [call(1, 5, 900, "fail"), call(1, 31, 33)]
    found = quantiles(calls, 0, 100 * MS, 0.01)
    assert [(each.start_ns // MS, each.p50_ms, each.p99_ms) for each in found] == [(0, 50, 99), (30, 2, 2)]


@pytest.mark.parametrize(("share", "expected"), [(0, 1), (0.5, 2), (0.51, 3), (0.75, 3), (0.99, 4), (1, 4)])
def test_percentile(share: float, expected: int) -> None:
    assert percentile([1, 2, 3, 4], share) == expected


@pytest.mark.parametrize(
    ("length_s", "expected"), [(0, 0.01), (1, 0.01), (60, 1), (264, 5), (7_200, 300), (10**7, 3600)]
)
def test_bucket_s(length_s: float, expected: float) -> None:
    assert bucket_s(length_s, 100) == expected


@pytest.mark.parametrize(
    ("low", "high", "about", "expected"),
    [
        (0, 10, 5, [0, 2, 4, 6, 8, 10]),
        (13.841, 13.862, 5, [13.845, 13.85, 13.855, 13.86]),
        (0, 23.2, 12, [0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22]),
        (0, 0, 5, []),
        (3, 9, 0, []),
        (0.4, 0.6, 1, [0.4, 0.6]),
    ],
)
def test_ticks(low: float, high: float, about: int, expected: list[float]) -> None:
    assert ticks(low, high, about) == expected


@pytest.mark.parametrize(
    ("values", "low", "high"),
    [
        ([], 1, 10), ([3, 70], 2, 100), ([0.3, 5_123], 0.2, 10_000), ([7], 5, 50), ([0, 12], 10, 100),
        ([1, 10], 1, 10),
    ],
)  # fmt: skip
def test_log_scale(values: list[float], low: float, high: float) -> None:
    scale = log_scale(values, 0, 100)
    assert (scale.low, scale.high) == pytest.approx((low, high))


def test_places_on_axes() -> None:
    time = TimeScale(100, 200, left=10, width=50)
    assert [time.x(at) for at in (100, 150, 200, 0, 900)] == [10, 35, 60, 10, 60]
    assert [time.holds(*span) for span in ((0, 99), (0, 100), (150, 150), (200, 300), (201, 300))] == [
        False, True, True, True, False,
    ]  # fmt: skip
    scale = LogScale(1, 1_000, top=0, bottom=90)
    assert [round(scale.y(value), 6) for value in (1, 10, 100, 1_000, 0, 10**6)] == [90, 60, 30, 0, 90, 0]
    assert scale.decades() == [1, 10, 100, 1_000]


@pytest.mark.parametrize(
    ("observations", "expected"),
    [
        pytest.param([], [], id="nothing"),
        pytest.param(
            [term(1, 1, "a"), term(5, 2, "b")],
            [("a", 1, 1, 5), ("b", 2, 5, 9)],
            id="a live run: until the next is seen",
        ),
        pytest.param(
            [role(1, "a", 1, "leader"), role(4, "b", 2, "leader"), role(6, "a", 2, "follower")],
            [("a", 1, 1, 6), ("b", 2, 4, 9)],
            id="a simulation: two at once",
        ),
        pytest.param(
            [role(1, "a", 1, "candidate"), role(2, "a", 1, "leader"), role(3, "b", 1, "follower")],
            [("a", 1, 2, 9)],
            id="only leaders lead",
        ),
        pytest.param(
            [role(1, "a", 1, "leader"), role(2, "a", 1, "leader"), role(4, "b", 2, "leader")],
            [("a", 1, 1, 4), ("b", 2, 4, 9)],
            id="a simulation that tells beginnings only, and twice",
        ),
        pytest.param(
            [term(1, 1, "a"), term(2, 1, "a"), term(6, 2, "a")],
            [("a", 1, 1, 6), ("a", 2, 6, 9)],
            id="several told it",
        ),
        pytest.param(
            [role(5, "a", 3, "leader"), role(2, "a", 1, "leader")],
            [("a", 1, 2, 5), ("a", 3, 5, 9)],
            id="in order of time, whatever the file's",
        ),
        pytest.param([{"kind": "holder", "time_ns": MS, "lease": "scheduler"}], [], id="other observations"),
    ],
)
def test_leaderships(observations: list[Json], expected: list[tuple[str, int, int, int]]) -> None:
    wanted = [Leadership(member, number, start * MS, end * MS) for member, number, start, end in expected]
    assert leaderships(observations, 9 * MS) == wanted


def test_rows_are_members_and_targets() -> None:
    faults = [
        fault("kill", "store-2", 0, 1), fault("cut", "store-1 -> store-3", 0, 1),
        fault("kill", "apiserver-1", 0, 1),
        fault("power", "all", 0, 1), fault("kill", "store-22", 0, 1), fault("kill", "store-2", 0, 1),
    ]  # fmt: skip
    led = [Leadership("store-3", 1, 0, 1), Leadership("store-9", 2, 0, 1)]
    rows = cluster_rows(["store-1", "store-2", "store-3"], led, faults)
    assert [(row.name, row.faults) for row in rows] == [
        ("store-1", [2, 4]), ("store-2", [1, 4, 6]), ("store-3", [2, 4]), ("store-9", []),
        ("apiserver-1", [3]), ("store-22", [5]),
    ]  # fmt: skip
    assert [[each.term for each in row.led] for row in rows[2:4]] == [[1], [2]]


def test_many_targets_share_a_row() -> None:
    faults = [fault("kill", f"node-{number}", 0, 1) for number in range(40)]
    rows = cluster_rows([], [], faults)
    assert len(rows) == ROWS_MAX + 1
    assert (rows[-1].name, len(rows[-1].faults)) == (OTHERS, 40 - ROWS_MAX)
