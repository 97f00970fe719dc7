"""The checkers accept every clean history and name what is wrong with every planted one."""

from __future__ import annotations

import random
from functools import cache
from typing import Any

import orjson
import pytest
from planted import MUTANT_STORES, PLANTED, Plant
from valid_histories import PREFIX, ValidStore, recorded

from chaos.checkers import control_loops
from chaos.checkers.history import HistoryError, read_history
from chaos.checkers.judge import INVARIANTS, judge
from chaos.checkers.verdict import Verdict

Json = dict[str, Any]


@cache
def clean(seed: int) -> bytes:
    return b"\n".join(orjson.dumps(line) for line in recorded(seed, 300))


def lines_of(seed: int) -> list[Json]:
    """A copy of its own for each test."""
    return [orjson.loads(line) for line in clean(seed).split(b"\n")]


def judged(lines: list[Json]) -> Verdict:
    return judge(read_history(orjson.dumps(line) for line in lines))


def broken(lines: list[Json]) -> set[str]:
    return {violation.invariant for violation in judged(lines).violations}


@pytest.mark.parametrize("seed", range(300))
def test_a_clean_history_is_valid(seed: int) -> None:
    verdict = judged(lines_of(seed))
    assert verdict.word == "valid", (verdict.violations[:2], verdict.unknown_because)
    for what in ("watch events", "watches resumed", "leases", "leaders seen"):
        assert verdict.checked[what] > 0, what
    assert verdict.checked["operations"] >= 300
    assert verdict.checked["keys judged by the second opinion"] >= 5


@pytest.mark.parametrize(("plant", "invariant"), PLANTED, ids=lambda item: getattr(item, "__name__", item))
@pytest.mark.parametrize("seed", range(8))
def test_a_planted_fault_is_found(plant: Plant, invariant: str, seed: int) -> None:
    lines = lines_of(seed)
    plant(lines, random.Random(seed))
    assert invariant in broken(lines)


@pytest.mark.parametrize(
    ("kind", "invariant"), MUTANT_STORES, ids=lambda item: getattr(item, "__name__", item)
)
@pytest.mark.parametrize("seed", range(8))
def test_a_store_with_a_defect_is_found(kind: type[ValidStore], invariant: str, seed: int) -> None:
    assert invariant in broken(recorded(seed, 1_500, kind))


def test_every_invariant_is_planted_against() -> None:
    planted = {name for _, name in PLANTED} | {name for _, name in MUTANT_STORES} | {"L4"}
    assert planted == set(INVARIANTS) - (
        set(control_loops.INVARIANTS) - {"L3"}
    )  # those have tests of their own


@pytest.mark.parametrize("seed", range(6))
def test_a_lease_that_ends_early_after_a_change_of_leader_has_a_name_of_its_own(seed: int) -> None:
    store, invariant = MUTANT_STORES[0]
    lines = recorded(seed, 1_000, store)
    assert "L4" not in broken(lines)
    end_ns = max(line["return_ns"] for line in lines if line.get("type") == "op")
    for term, time_ns in enumerate(range(10**9, end_ns, 10**8), 10):  # ten a second
        seen = {"kind": "role", "member": "a", "role": "leader", "term": term, "time_ns": time_ns}
        lines.append({"type": "observe"} | seen)
    assert invariant not in broken(lines)
    assert "L4" in broken(lines)


def test_a_renewal_refused_before_its_time_is_a_lease_that_ended_early() -> None:
    lines = lines_of(1)
    renewal = next(
        line for line in lines
        if line.get("kind") == "lease_keep_alive" and line["outcome"] == "ok"
    )  # fmt: skip
    later = {"call_ns": renewal["return_ns"] + 1, "return_ns": renewal["return_ns"] + 2, "client": 50}
    refused = renewal | later | {"outcome": "fail", "error": "lease_not_found"}
    lease = renewal["request"]["lease"]
    lines = [
        line for line in lines
        if not (line.get("kind") == "lease_revoke" and line["request"]["lease"] == lease)
    ]  # fmt: skip
    assert "L1" in broken([*lines, refused])


def test_a_late_lease_is_not_judged_without_a_stated_bound() -> None:
    lines = recorded(1, 1_000, MUTANT_STORES[1][0])
    del lines[0]["lease_slack_s"]
    assert broken(lines) == set()


def test_nothing_hangs_on_a_lease_after_its_revoke() -> None:
    lines = lines_of(1)
    put = next(op for op in lines if op.get("kind") == "put" and "lease" in op.get("request", {}))
    revoke = {"kind": "lease_revoke", "request": {"lease": put["request"]["lease"]}, "revision": 1}
    times = {"call_ns": put["call_ns"] - 1, "return_ns": put["call_ns"], "id": 1, "client": 50}
    lines.append({"type": "op", "outcome": "ok", "error": None, "response": {}} | revoke | times)
    assert "S1" in broken(lines)


def test_deletes_of_unknown_outcome_explain_as_many_as_there_were() -> None:
    """Two deletes without an answer may explain two deletes in the log, not three."""

    def delete(client: int, call_ns: int) -> Json:
        times = {"call_ns": call_ns, "return_ns": call_ns + 1}
        return {"type": "op", "client": client, "id": 1, "kind": "delete", "request": {"key": "k"},
                "outcome": "unknown", "error": "timeout", **times}  # fmt: skip

    def put(number: int, value: str, prev: list[Any] | None = None, **marks: Any) -> Json:
        return {"type": "op", "client": 1, "id": number, "kind": "put", "call_ns": 100 * number,
                "request": {"key": "k", "value": value}, "return_ns": 100 * number + 1, "outcome": "ok",
                "error": None, "revision": 2 * number, "response": {"prev": prev}, **marks}  # fmt: skip

    watch = {"type": "watch", "watch": 0, "key": "\0", "range_end": "\0", "start_revision": 1, "log": True}
    log: list[Json] = [
        {"type": "event", "watch": 0, "kind": "put" if revision % 2 == 0 else "delete", "key": "k",
         "value": f"v{revision}" if revision % 2 == 0 else None, "revision": revision}
        for revision in range(2, 9)
    ]  # fmt: skip
    puts = [put(number, f"v{2 * number}", barrier=number == 4) for number in range(1, 5)]
    header: Json = {"format": 1}
    three = [delete(2, 150), delete(3, 50), delete(4, 350)]
    assert broken([header, watch, *log, *puts, *three]) == set()
    assert broken([header, watch, *log, *puts, *three[:2]]) == {"S1", "S1b"}
    # Of those that can lie there the first two are called after the delete at revision 3 was overwritten.
    late = [delete(2, 250), delete(3, 251), delete(4, 350)]
    assert "S1" in broken([header, watch, *log, *puts, *late])


def test_a_lease_that_ends_between_two_hashes_is_no_difference() -> None:
    """It changes the state and not the revision: only hashes of one point of the log must be equal."""
    lines = lines_of(1)
    hashes = [line["response"] for line in lines if line.get("kind") == "hash"]
    hashes[0].update(applied_index=8, hash="later")
    assert broken(lines) == set()
    hashes[0]["applied_index"] = 7
    assert broken(lines) == {"S4"}


def test_without_the_barrier_nothing_is_claimed() -> None:
    verdict = judged([line for line in lines_of(1) if not line.get("barrier")])
    assert (verdict.word, verdict.exit_code) == ("unknown", 2)


def test_a_member_that_was_not_read_leaves_a_doubt() -> None:
    verdict = judged([line for line in lines_of(1) if line.get("request", {}).get("member") != "b"])
    assert verdict.unknown_because == ["no read after the barrier from b"]


def test_one_flood_hides_no_other_violation() -> None:
    verdict = Verdict()
    for number in range(1_000):
        verdict.add("S1", str(number))
    verdict.add("W7", "a gap")
    assert verdict.by_invariant(INVARIANTS)["S1"] == 200
    assert verdict.violations[-1].invariant == "W7"


def test_an_older_history_can_still_be_read() -> None:
    """Without call times of watches, create revisions of events, or a prefix."""
    lines = lines_of(1)
    for line in lines:
        for name in ("create", "version", "recv_ns", "resumes"):
            line.pop(name, None)
        if line.get("type") == "watch":
            line.pop("call_ns")
    header = {"format": 1, "seed": 0, "members": ["a", "b"], "prefix": PREFIX, "leases": True}
    assert broken([header, *lines[1:]]) == set()


@pytest.mark.parametrize("line", [b"", b"{", b"[]", b'{"format": 9}'])
def test_a_file_that_is_no_history_is_named(line: bytes) -> None:
    with pytest.raises(HistoryError, match="line 1"):
        read_history([line])


@pytest.mark.parametrize(
    "line",
    [
        {"type": "op", "client": 1, "id": 1, "kind": "get", "request": {}, "call_ns": 1, "return_ns": 2},
        {"type": "event", "watch": 3, "kind": "put", "key": "k", "value": "v", "revision": 2},
        {"type": "surprise"},
        {"type": "op", "client": 1, "id": 1, "kind": "get", "request": {}, "call_ns": 1, "return_ns": 2,
         "outcome": "ok"},
    ],
    ids=["no outcome", "no watch", "no type", "no answer"],
)  # fmt: skip
def test_a_record_that_cannot_be_judged_is_named(line: Json) -> None:
    with pytest.raises(HistoryError, match=r"line 2|'surprise' is not known"):
        read_history([b'{"format": 1}', orjson.dumps(line)])


def test_what_is_shown_first_has_each_broken_promise_once_before_any_twice() -> None:
    verdict = Verdict()
    for invariant, sentence in (("S1b", "a"), ("S1b", "b"), ("V2", "c"), ("S1b", "d")):
        verdict.add(invariant, sentence)
    assert [violation.sentence for violation in verdict.first(3)] == ["a", "c", "b"]


@pytest.mark.parametrize("seed", range(12))
def test_a_lost_write_is_named_though_the_log_breaks_off(seed: int) -> None:
    whole = lines_of(seed)
    lines = [line for line in whole if "barrier" not in line]
    assert broken(lines) == set()
    written = [
        line for line in lines
        if line.get("kind") == "put" and line.get("outcome") == "ok" and line.get("type") == "op"
    ]  # fmt: skip
    lost = written[len(written) // 2]
    # Another write stands where it was acknowledged: the store lost it, and used its revision again.
    other = {"value": "of another life of the store"}
    changed = [
        line | other
        if line.get("type") == "event" and line["revision"] == lost["revision"] and line["kind"] == "put"
        else line
        for line in lines
    ]
    verdict = judged(changed)
    sentences = [each.sentence for each in verdict.violations if each.invariant == "S2"]
    assert any(text.startswith("lost write: put ") for text in sentences), verdict.violations
