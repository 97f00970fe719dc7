"""What a fault cost, worked out by hand over small histories and compared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from report_histories import MS, fault, operation, role, term

from chaos.checkers.history import History
from chaos.report.calls import read_run
from chaos.report.figures import FaultFigures, Figures

Json = dict[str, Any]


def costs(
    operations: list[Json], faults: list[Json], observations: Sequence[Json] = ()
) -> list[FaultFigures]:
    """Of each fault; the run starts at 0."""
    history = History({"format": 1, "started_ns": 0}, operations, faults=faults)
    return Figures(read_run(history, faults), observations).of_faults()


def steady(start_ms: int, end_ms: int, every_ms: int = 10, took_ms: int = 4, kind: str = "put") -> list[Json]:
    """One client that calls every `every_ms` and is answered after `took_ms`; the last answer is at
    `end_ms`."""
    return [
        operation(1, at, at, at + took_ms, kind) for at in range(start_ms, end_ms - took_ms + 1, every_ms)
    ]


def reset(at_ms: int, component: str) -> Json:
    return {"type": "observe", "kind": "reset", "time_ns": at_ms * MS, "component": component}


# A leader is killed at 2 s: one more answer of the dying leader, nothing for 300 ms, then as before.
KILLED = [
    *steady(0, 2_000), operation(2, 1, 1_999, 2_003), operation(3, 1, 2_001, 2_303), *steady(2_306, 8_000),
]  # fmt: skip
KILL = fault("kill-store-leader", "store-1", 2_000, 4_000)


def test_a_killed_leader() -> None:
    seen = [
        term(5, 1, "store-1"),
        reset(2_012, "store-1"),
        term(2_140, 2, "store-2"),
    ]
    (cost,) = costs(KILLED, [KILL], seen)
    assert (cost.detect_ms, cost.elect_ms) == (12, 140)
    # Not the answer at 2,003, which the dying leader still gave.
    assert cost.first_write_ms == 303
    assert (cost.unavailable_ms, cost.unavailable_from_ns) == (300, 2_003 * MS)
    assert cost.full_rate_ms == 303
    assert cost.until_ns == 8_000 * MS  # the last answer


def test_rates_and_latencies_before_during_and_after() -> None:
    (cost,) = costs(KILLED, [KILL])
    assert (cost.before.length_s, cost.before.rate) == (2, 100)
    assert (cost.before.p50_ms, cost.before.p99_ms, cost.before.max_ms) == (4, 4, 4)
    assert (cost.during.p50_ms, cost.during.max_ms) == (4, 302)
    # Answered in [2 s, 4 s): 169 of the steady ones (2,310 to 3,990, each 10 ms) and both others.
    assert cost.during.rate == round((169 + 2) / 2, 1)
    assert (cost.after.length_s, cost.after.max_ms) == (4, 4)


@pytest.mark.parametrize(
    ("observations", "effect", "detected"),
    [
        pytest.param([], None, None, id="nothing was seen"),
        pytest.param([], {"kind": "holder", "time_ns": 2_500 * MS}, 500, id="its consequence"),
        pytest.param(
            [reset(2_009, "store-1")],
            {"kind": "term", "time_ns": 2_100 * MS},
            9,
            id="its connection was lost earlier",
        ),
        pytest.param([reset(2_009, "store-0")], None, None, id="another's connection"),
        pytest.param([reset(1_990, "store-1")], None, None, id="before the fault"),
    ],
)  # fmt: skip
def test_detected(observations: list[Json], effect: Json | None, detected: float | None) -> None:
    (cost,) = costs(KILLED, [KILL | {"effect": effect}], observations)
    assert cost.detect_ms == detected


def test_detected_as_the_harness_says_without_an_effect_in_full() -> None:
    (cost,) = costs(KILLED, [KILL | {"detect_ms": 73}])
    assert cost.detect_ms == 73


@pytest.mark.parametrize(
    ("observations", "elected"),
    [
        pytest.param([], None, id="nobody told"),
        pytest.param([term(0, 4, "a"), term(2_300, 4, "b")], None, id="the same term"),
        pytest.param([term(0, 4, "a"), term(2_300, 5, "b"), term(2_500, 6, "c")], 300, id="a later term"),
        pytest.param([term(0, 4, "a"), term(8_001, 5, "b")], None, id="after the load"),
        pytest.param(
            [role(0, "a", 1, "leader"), role(2_100, "b", 2, "candidate"), role(2_200, "b", 2, "leader")],
            200,
            id="a simulation's roles",
        ),
        pytest.param([role(2_100, "b", 2, "candidate")], None, id="a candidate is no leader"),
    ],
)
def test_elected(observations: list[Json], elected: float | None) -> None:
    (cost,) = costs(KILLED, [KILL], observations)
    assert cost.elect_ms == elected


def test_an_election_belongs_to_the_fault_before_it() -> None:
    seen = [term(0, 1, "store-1"), term(5_100, 2, "store-2")]
    first, second = costs(KILLED, [KILL, fault("kill", "store-1", 5_000, 5_500)], seen)
    assert (first.elect_ms, second.elect_ms) == (None, 100)
    assert first.until_ns == 5_000 * MS


def test_a_fault_that_stops_nothing() -> None:
    (cost,) = costs(steady(0, 8_000), [fault("kill-apiserver", "apiserver-1", 2_000, 3_000)])
    assert cost.first_write_ms == 4
    assert cost.full_rate_ms == 0
    assert cost.unavailable_ms == 10


def test_reads_alone_are_no_availability_of_writes() -> None:
    reading = [operation(4, at, at, at + 2, "get") for at in range(2_000, 6_000, 10)]
    operations = [*steady(0, 2_000), *reading, *steady(6_000, 8_000)]
    (cost,) = costs(operations, [fault("no-space", "all", 2_000, 5_000)])
    assert (cost.first_write_ms, cost.unavailable_ms) == (4_004, 4_004)


def test_what_was_not_acknowledged_is_no_availability() -> None:
    refused = [operation(4, at, at, at + 2, "put", "fail") for at in range(2_000, 3_000, 10)]
    doubtful = [operation(5, at, at, at + 2, "put", "unknown") for at in range(2_000, 3_000, 20)]
    operations = [*steady(0, 2_000), *refused, *doubtful, *steady(3_000, 8_000)]
    (cost,) = costs(operations, [fault("majority-loss", "all", 2_000, 2_900)])
    assert cost.unavailable_ms == 1_004
    assert (cost.during.failed, cost.during.unknown, cost.during.rate) == (91, 46, 0)


def test_no_write_until_the_next_fault() -> None:
    faults = [fault("kill", "store-1", 2_000, 2_500), fault("kill", "store-2", 3_000, 3_500)]
    first, second = costs([*steady(0, 2_000), *steady(4_000, 8_000)], faults)
    assert (first.first_write_ms, first.full_rate_ms, first.unavailable_ms) == (None, None, 1_000)
    assert (second.first_write_ms, second.unavailable_ms) == (1_004, 1_004)
    assert second.before.rate == 0
    # Nothing was answered in the half second before, so there is no rate that could come back.
    assert second.full_rate_ms is None


def test_the_full_rate_is_not_there_while_it_is_slow() -> None:
    slow = steady(2_000, 4_000, every_ms=50)
    operations = [*steady(0, 2_000), *slow, *steady(4_000, 8_000)]
    (cost,) = costs(operations, [fault("slow-disk", "store-1", 2_000, 3_000)])
    assert cost.full_rate_ms is not None
    # A second holds 90 answers at the earliest when it begins some 130 ms before the slow time ends.
    assert 1_800 <= cost.full_rate_ms <= 2_004


def test_overlapping_faults_and_one_without_an_end() -> None:
    faults = [
        fault("cut", "a", 1_000, 3_000), fault("crash", "b", 2_000, 2_500),
        fault("slow-disk", "c", 5_000, None),
    ]  # fmt: skip
    cut, crash, slow = costs(steady(0, 8_000), faults)
    assert (cut.until_ns, crash.until_ns, slow.until_ns) == (5_000 * MS, 5_000 * MS, 7_994 * MS)
    # While another fault is on there is nothing to compare with: the calm beginning stands in for the rate.
    assert crash.before.rate is None
    assert crash.full_rate_ms == 0
    assert (slow.after.rate, slow.after.length_s) == (None, 0)
    assert slow.before.length_s == 2


def test_a_call_that_never_came_back_counts_once() -> None:
    operations = [*steady(0, 8_000), operation(9, 1, 2_100, None, "put", "unknown")]
    (cost,) = costs(operations, [fault("kill", "store-1", 2_000, 3_000)])
    assert (cost.before.unknown, cost.during.unknown, cost.after.unknown) == (0, 1, 0)


@pytest.mark.parametrize(
    ("operations", "faults"),
    [
        pytest.param([], [fault("kill", "store-1", 10, 20)], id="no operation"),
        pytest.param(steady(0, 1_000), [fault("kill", "store-1", 5_000, 6_000)], id="after the load"),
        pytest.param(steady(0, 1_000), [fault("kill", "store-1", 0, 0)], id="at once, for no time"),
        pytest.param(steady(0, 1_000), [fault("kill", "store-1", 500, 400)], id="ends before it begins"),
    ],
)
def test_odd_histories_have_figures_too(operations: list[Json], faults: list[Json]) -> None:
    (cost,) = costs(operations, faults)
    assert cost.unavailable_ms is None or cost.unavailable_ms >= 0
    assert cost.until_ns >= faults[0]["start_ns"]


def test_what_the_harness_asks_at_the_end_is_no_load() -> None:
    barrier = operation(9_000, 1, 20_000, 20_010, barrier=True)
    final = operation(9_000, 2, 21_000, 21_010, "range", final=True)
    hashes = operation(9_000, 3, 22_000, 22_000, "hash")
    history = History({"format": 1}, [*steady(100, 1_000), barrier, final, hashes])
    run = read_run(history, [])
    assert [call.client for call in run.harness] == ["9000"] * 3
    assert (run.clients, run.start_ns, run.load_end_ns) == (["1"], 100 * MS, 994 * MS)
    assert run.end_ns == 22_000 * MS


def test_a_call_that_never_came_back_lasts_until_its_client_calls_again() -> None:
    operations = [
        operation(1, 1, 100, None, outcome="unknown"), operation(2, 1, 110, 120), operation(1, 2, 500, 600),
        operation(2, 2, 700, None, outcome="unknown"), operation(3, 1, 890, 900),
    ]  # fmt: skip
    run = read_run(History({"format": 1, "started_ns": 0}, operations), [])
    assert [call.until_ns // MS for call in run.calls] == [500, 120, 600, 900, 900]
    assert [call.call_ns // MS for call in run.between(450 * MS, 650 * MS)] == [100, 500]
    assert [call.call_ns // MS for call in run.between(601 * MS, 699 * MS)] == []
    assert [call.call_ns // MS for call in run.between(800 * MS, 880 * MS)] == [700]


def test_the_kubernetes_api_has_reads_too() -> None:
    operations = [
        operation(1, number, number, number + 1, "user", request={"verb": verb})
        for number, verb in enumerate(("get", "list", "create", "delete"))
    ]
    assert [call.writes for call in read_run(History({"format": 1}, operations), []).calls] == [
        False, False, True, True,
    ]  # fmt: skip


def test_any_of_several_targets_shows_it() -> None:
    killed = fault("kill-majority", "store-1,store-2", 2_000, 4_000)
    (cost,) = costs(KILLED, [killed], [reset(2_030, "store-2")])
    assert cost.detect_ms == 30


def test_a_control_plane_has_users_and_its_own_parts_as_clients() -> None:
    def asked(user: str, method: str) -> Json:
        return operation(0, 1, 5, 6, "api", request={"user": user, "method": method, "path": "/api/v1/pods"})

    operations = [
        operation(12, 1, 1, 9, "user", request={"verb": "create", "name": "a/b", "key": "/k"}),
        operation(3, 1, 1, 9, "user", request={"verb": "get", "name": "a/b", "key": "/k"}),
        asked("kubernetes-admin", "POST"), asked("system:kube-scheduler", "POST"),
        asked("system:node:n1", "GET"),
        operation(0, 0, 7, 8, "write", request={"api": 1, "puts": ["/k"], "deletes": [], "compares": []}),
    ]  # fmt: skip
    run = read_run(History({"format": 1}, operations), [])
    assert run.clients == ["3", "12", "kube-scheduler", "node:n1"]
    assert [(call.client, call.writes) for call in run.calls] == [
        ("12", True), ("3", False), ("kube-scheduler", True), ("node:n1", False),
    ]  # fmt: skip
