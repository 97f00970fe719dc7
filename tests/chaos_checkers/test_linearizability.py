"""The search agrees with brute force on tiny histories, and gives up in words on large ones."""

from __future__ import annotations

from itertools import combinations, permutations

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st
from valid_histories import recorded

from chaos.checkers.history import read_history
from chaos.checkers.linearizability import first_steps, search
from chaos.checkers.projection import Mark, State, Step, project

VALUES: tuple[State, ...] = ("a", "b", None)


@st.composite
def steps(draw: st.DrawFn) -> list[Step]:
    """Up to six steps on one key; a third of them without an answer."""
    found = []
    for _ in range(draw(st.integers(1, 6))):
        call = draw(st.integers(0, 12))
        answered = draw(st.integers(0, 2)) > 0
        seen: State | Mark = draw(st.sampled_from((*VALUES, Mark.ANY)))
        leaves: State | Mark = draw(st.sampled_from((*VALUES, Mark.KEEP)))
        exists = draw(st.sampled_from((None, None, None, True, False)))
        return_ns = call + draw(st.integers(1, 8)) if answered else None
        found.append(Step(call, return_ns, seen, leaves, exists))
    return found


def explained(order: tuple[Step, ...]) -> bool:
    """Whether this order respects real time and each step fits behind the one before."""
    state: State = None
    for index, step in enumerate(order):
        if any(later.return_ns is not None and later.return_ns < step.call_ns for later in order[index:]):
            return False
        after = step.after(state)
        if isinstance(after, Mark):
            return False
        state = after
    return True


def by_force(history: list[Step]) -> bool:
    """Every order of the answered ones with every choice of the others."""
    sure = [step for step in history if step.return_ns is not None]
    open_ = [step for step in history if step.return_ns is None]
    return any(
        explained(order)
        for size in range(len(open_) + 1)
        for chosen in combinations(open_, size)
        for order in permutations([*sure, *chosen])
    )


@settings(max_examples=400, deadline=None)
@given(steps())
def test_agrees_with_brute_force(history: list[Step]) -> None:
    opinion, _ = search(history, 100_000)
    assert opinion == ("linearizable" if by_force(history) else "not linearizable")


@settings(max_examples=400, deadline=None)
@given(steps())
def test_leaving_out_what_nobody_saw_changes_nothing(history: list[Step]) -> None:
    """Every answered write saw what was before it, as in a store."""
    for step in history:
        if step.return_ns is not None and step.seen is Mark.ANY:
            step.seen = None
    opinion, _ = search(first_steps(history, 200), 100_000)
    assert opinion == ("linearizable" if by_force(history) else "not linearizable")


@settings(max_examples=200, deadline=None)
@given(steps(), st.integers(1, 4))
def test_a_beginning_of_what_is_linearizable_is_so_too(history: list[Step], at_most: int) -> None:
    if by_force(history):
        assert search(first_steps(history, at_most), 100_000)[0] == "linearizable"


def test_a_search_without_steps_left_is_undecided() -> None:
    history = [Step(1, 2, None, "a"), Step(3, 4, "a", Mark.KEEP)]
    assert search(history, 1) == ("undecided", 1)
    assert search(history, 10)[0] == "linearizable"


def test_most_searches_take_few_steps() -> None:
    lines = [orjson.dumps(line) for line in recorded(5, 600)]
    for each in project(read_history(lines), 1 << 63).values():
        opinion, used = search(first_steps(each, 200), 100_000)
        assert opinion == "linearizable"
        assert used < 5_000


def test_a_transaction_shows_what_it_compared() -> None:
    """Presence alone, and only if it is the one compare that failed."""

    def txn(succeeded: bool, *compares: dict[str, object]) -> list[Step]:
        operation = {
            "type": "op", "client": 1, "id": 1, "kind": "txn", "call_ns": 1, "return_ns": 2, "outcome": "ok",
            "revision": 2, "request": {"compares": compares, "success": [], "failure": []},
            "response": {"succeeded": succeeded, "responses": []},
        }  # fmt: skip
        return project(read_history([b'{"format": 1}', orjson.dumps(operation)]), 1 << 63).get("k", [])

    absent = {"key": "k", "target": "create", "result": "=", "operand": 0}
    newer = {"key": "k", "target": "version", "result": ">", "operand": 3}
    same = {"key": "k", "target": "value", "result": "=", "operand": "v"}
    assert [step.exists for step in txn(True, absent)] == [False]
    assert [step.exists for step in txn(False, absent)] == [True]
    assert [step.exists for step in txn(True, newer)] == [True]
    assert [step.exists for step in txn(True, same)] == [True]
    assert txn(False, newer) == []
    assert txn(False, same) == []
    assert txn(False, absent, same) == []
