"""The first violation: which records are shown beside it, and the sentence."""

from __future__ import annotations

from typing import Any

import pytest
from report_histories import MS, fault, operation, role

from chaos.checkers.history import History, Watch
from chaos.checkers.verdict import Violation
from chaos.report.calls import read_run
from chaos.report.neighbours import (
    OVERLAPPING_MAX,
    SAME_KEY_EACH_SIDE,
    explanation,
    keys_of,
    neighbours,
)

Json = dict[str, Any]

LOST = operation(1, 1, 100, 110, key="/k/1", revision=7)


def shown(operations: list[Json], *broken: Json) -> list[tuple[Any, str]]:
    """(id, why) of each neighbour."""
    history = History({"format": 1}, operations)
    found = neighbours(history, Violation("S2", "lost", broken or (LOST,)))
    return [(item.record["id"], item.why) for item in found]


@pytest.mark.parametrize(
    ("other", "why"),
    [
        pytest.param(operation(2, 2, 105, 106, key="/k/1"), "same key", id="overlaps on the key"),
        pytest.param(operation(2, 2, 10, 20, key="/k/1"), "same key", id="before on the key"),
        pytest.param(operation(2, 2, 500, 510, "get", key="/k/1"), "same key", id="a later read of the key"),
        pytest.param(operation(2, 2, 105, 106, key="/k/2"), "overlaps", id="overlaps on another key"),
        pytest.param(operation(2, 2, 90, 100, key="/k/2"), "overlaps", id="ends as it begins"),
        pytest.param(operation(2, 2, 10, 20, key="/k/2"), None, id="nothing to do with it"),
        pytest.param(
            operation(2, 2, 10, 20, key="/k/2", revision=7), "same revision", id="was given its revision"
        ),
        pytest.param(
            operation(2, 2, 10, 20, "get", key="/k/2", revision=7), None, id="a read at its revision"
        ),
        pytest.param(operation(2, 2, 105, 105, "hash", key="/k/1"), None, id="a hash is no operation"),
    ],
)  # fmt: skip
def test_neighbours(other: Json, why: str | None) -> None:
    found = dict(shown([other, LOST]))
    assert found.pop(1) == "violation"
    assert found == ({2: why} if why else {})


def test_they_stand_in_order_and_are_limited() -> None:
    same = [operation(2, 1_000 + n, n, n + 1, key="/k/1") for n in range(50)]
    later = [operation(2, 2_000 + n, 200 + n, 201 + n, key="/k/1") for n in range(50)]
    beside = [operation(3 + n, 3_000 + n, 101, 109, key="/k/2") for n in range(50)]
    found = shown([*later, *beside, LOST, *same])
    whys = [why for _, why in found]
    assert (whys.count("same key"), whys.count("overlaps")) == (2 * SAME_KEY_EACH_SIDE, OVERLAPPING_MAX)
    assert [identity for identity, why in found if why == "same key"] == [
        *range(1_045, 1_050), *range(2_000, 2_005),
    ]  # fmt: skip
    assert whys.index("violation") == SAME_KEY_EACH_SIDE


def test_a_violation_of_two_operations_and_a_transaction() -> None:
    request = {
        "compares": [{"key": "/k/3", "target": "version"}],
        "success": [{"kind": "put", "key": "/k/4", "value": "v"}],
        "failure": [{"kind": "get", "key": "/k/5"}],
    }
    both = (LOST, operation(5, 9, 300, 310, "txn") | {"request": request})
    others = [operation(2, n, 10 * n, 10 * n + 1, key=f"/k/{n}") for n in range(2, 7)]
    found = dict(shown([*both, *others], *both))
    assert {number for number, why in found.items() if why == "same key"} == {3, 4, 5}
    assert (found[1], found[9]) == ("violation", "violation")


def test_a_range_is_of_no_single_key() -> None:
    asked = operation(1, 1, 0, 1, "range") | {"request": {"key": "/k/", "range_end": "/k0"}}
    assert keys_of(asked) == set()


def test_an_event_has_its_watch_around_it() -> None:
    events = [
        {
            "type": "event", "watch": 3, "kind": "put", "key": "/k/1", "value": "v", "revision": n,
            "recv_ns": n * MS,
        }
        for n in range(1, 11)
    ]  # fmt: skip
    history = History(
        {"format": 1}, [operation(1, 1, 4.5, 6, key="/k/1"), operation(1, 2, 90, 91, key="/k/2")]
    )
    history.watches[3] = Watch(3, "/k/", "/k0", 1, events=events)
    found = neighbours(history, Violation("W2", "went back", (events[4],)))
    assert [(item.record.get("revision"), item.why) for item in found] == [
        (2, "same watch"), (3, "same watch"), (4, "same watch"), (None, "same key"), (5, "violation"),
        (6, "same watch"), (7, "same watch"), (8, "same watch"),
    ]  # fmt: skip


def test_an_observation_has_what_was_asked_meanwhile_around_it() -> None:
    both = [role(104, "store-1", 3, "leader"), role(107, "store-2", 3, "leader")]
    history = History({"format": 1, "started_ns": 0}, [LOST, operation(2, 2, 400, 410)])
    violation = Violation("S5", "both lead in term 3", tuple(both))
    found = neighbours(history, violation)
    assert [(item.record["kind"], item.why) for item in found] == [
        ("put", "overlaps"), ("role", "violation"), ("role", "violation"),
    ]  # fmt: skip
    told = explanation(violation, read_run(history, []))
    assert told == "0.104 s into the run, which had no fault: both lead in term 3"


def test_what_the_log_has_in_its_place() -> None:
    taken = {"type": "event", "watch": 0, "kind": "delete", "key": "/k/9", "revision": 7, "recv_ns": 120 * MS}
    history = History({"format": 1}, [LOST])
    history.watches[0] = Watch(0, "\0", "\0", 1, log=True, events=[taken])
    found = neighbours(history, Violation("S2", "lost", (LOST,)))
    assert [(item.record.get("key"), item.why) for item in found] == [
        (None, "violation"), ("/k/9", "same revision"),
    ]  # fmt: skip


def test_a_violation_without_records_has_no_neighbours() -> None:
    assert neighbours(History({"format": 1}, [LOST]), Violation("S4", "members differ")) == []


@pytest.mark.parametrize(
    ("faults", "sentence"),
    [
        pytest.param([], "0.100 s into the run, which had no fault: lost", id="no fault"),
        pytest.param(
            [fault("kill", "a", 60, 90), fault("cut", "b", 95, 300)],
            "0.100 s into the run, 0.005 s after fault 2 (cut on b) began: lost",
            id="during",
        ),
        pytest.param(
            [fault("kill", "a", 60, 90), fault("cut", "b", 150, 300)],
            "0.100 s into the run, 0.010 s after the end of fault 1 (kill on a): lost",
            id="after",
        ),
        pytest.param(
            [fault("kill", "a", 0, 10), fault("cut", "b", 104, 300)],
            "0.100 s into the run, 0.004 s before fault 2 (cut on b): lost",
            id="before",
        ),
        pytest.param(
            [fault("slow", "c", 20, None)],
            "0.100 s into the run, 0.080 s after fault 1 (slow on c) began: lost",
            id="one without an end",
        ),
    ],
)  # fmt: skip
def test_one_sentence(faults: list[Json], sentence: str) -> None:
    history = History({"format": 1, "started_ns": 0}, [LOST, operation(2, 2, 400, 410)])
    assert explanation(Violation("S2", "lost", (LOST,)), read_run(history, faults)) == sentence


def test_without_records_the_sentence_is_the_checkers() -> None:
    run = read_run(History({"format": 1}, [LOST]), [])
    assert explanation(Violation("S4", "members differ at revision 9"), run) == "members differ at revision 9"
