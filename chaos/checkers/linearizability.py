"""The second opinion: Wing and Gong's search with Lowe's memo, for each key by itself. It trusts no revision.

Wing and Gong, "Testing and verifying concurrent objects" (1993); Lowe, "Testing for linearizability"
(2017). Calls and returns stand in a doubly linked list in the order of time. A call before the first return
may come next: if the state allows it, it is lifted out with its return and the search goes on from the head;
at a return nothing before it fits, and the last one lifted is put back. A state that was reached with the
same set of operations (a bitset) before leads nowhere new. An operation of unknown outcome has no return: it
may be left out.

A history of more than 20,000 operations is judged on its first 20,000, and a key with more than 200 on its
first 200: up to any moment a linearizable history is linearizable, and what had not returned by then may be
left out. A search that takes more than `STEPS_MAX` steps says nothing of its key, and casts no doubt on the
verdict: it is counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from chaos.checkers.history import History
from chaos.checkers.projection import Mark, State, Step, project
from chaos.checkers.verdict import Verdict
from chaos.checkers.wording import name

OPERATIONS_MAX: Final = 200
STEPS_MAX: Final = 100_000
_STEPS_IN_ALL: Final = 1_000_000
_HISTORY_MAX: Final = 20_000

Opinion = Literal["linearizable", "not linearizable", "undecided"]


def check_linearizability(history: History, verdict: Verdict) -> None:
    """Judge each key that appears in single operations."""
    until_ns = _until(history)
    left = _STEPS_IN_ALL
    for key, steps in sorted(project(history, until_ns).items()):
        first = first_steps(steps, OPERATIONS_MAX, until_ns)
        opinion, used = search(first, min(STEPS_MAX, left))
        left -= used
        if opinion == "undecided":
            verdict.count("keys undecided by the second opinion")
            continue
        verdict.count("keys judged by the second opinion")
        if opinion == "not linearizable":
            blame(key, first, verdict)


def _until(history: History) -> int:
    """What was called from this moment on is too much."""
    calls = sorted([operation["call_ns"] for operation in history.operations])
    return int(calls[_HISTORY_MAX]) if len(calls) > _HISTORY_MAX else 1 << 63


def first_steps(steps: list[Step], at_most: int, until_ns: int = 1 << 63) -> list[Step]:
    """Those that were called up to a moment; what returned after it may be left out. If there are too many,
    reads of ranges are the first to go."""
    if len(steps) > at_most:
        steps = [step for step in steps if step.operation is None or step.operation["kind"] != "range"]
    if len(steps) > at_most:
        until_ns = min(until_ns, sorted(step.call_ns for step in steps)[at_most])
    kept = [step for step in steps if step.call_ns < until_ns]
    return _observed([step if _returned(step, until_ns) else _open(step) for step in kept])


def _observed(steps: list[Step]) -> list[Step]:
    """Without the puts of unknown outcome that nothing saw: whoever came next would have, so that at most
    other operations of unknown outcome came before the next write. Steps that know of presence alone would
    have noticed without seeing."""
    if any(step.seen is Mark.ANY and step.exists is not None for step in steps):
        return steps
    seen = {step.seen for step in steps} | {None}
    return [step for step in steps if step.return_ns is not None or step.leaves in seen]


def _returned(step: Step, until_ns: int) -> bool:
    return step.return_ns is None or step.return_ns < until_ns


def _open(step: Step) -> Step:
    """As if its answer had not been seen."""
    seen = Mark.ANY if step.operation is not None else step.seen
    return Step(step.call_ns, None, seen, step.leaves, None, step.operation)


def blame(key: str, steps: list[Step], verdict: Verdict) -> None:
    """Name the first answer that cannot be: all before it can be explained, with it they cannot."""
    returned = sorted(step.return_ns for step in steps if step.return_ns is not None)
    low, high = 0, len(returned) - 1
    while low < high:
        middle = (low + high) // 2
        part = [
            step if _returned(step, returned[middle] + 1) else _open(step)
            for step in steps
            if step.call_ns <= returned[middle]
        ]
        if search(part, STEPS_MAX)[0] == "not linearizable":
            high = middle
        else:
            low = middle + 1
    culprit = next(step for step in steps if step.return_ns == returned[low])
    assert culprit.operation is not None
    verdict.add(
        "S1b",
        f"no order of the operations on {key} explains {name(culprit.operation)}, answered "
        f"{culprit.operation['response']}",
        culprit.operation,
    )


@dataclass(slots=True, eq=False)
class _Entry:
    """A call or a return in the list. `number` is the bit of its step."""

    step: Step
    number: int
    returns: _Entry | None  # of a call: its return
    is_call: bool
    before: _Entry | None = None
    after: _Entry | None = None

    def unlink(self) -> None:
        assert self.before is not None
        self.before.after = self.after
        if self.after is not None:
            self.after.before = self.before

    def relink(self) -> None:
        assert self.before is not None
        self.before.after = self
        if self.after is not None:
            self.after.before = self


def _linked(steps: list[Step]) -> _Entry:
    """The head of the list; at equal times calls come first (concurrent)."""
    timed: list[tuple[int, int, int, _Entry]] = []
    for number, step in enumerate(steps):
        returns = None
        if step.return_ns is not None:
            returns = _Entry(step, number, None, False)
            timed.append((step.return_ns, 1, number, returns))
        timed.append((step.call_ns, 0, number, _Entry(step, number, returns, True)))
    timed.sort(key=lambda each: each[:3])
    head = last = _Entry(Step(0, None, Mark.ANY, Mark.KEEP), -1, None, False)
    for *_, entry in timed:
        last.after, entry.before = entry, last
        last = entry
    return head


def search(steps: list[Step], steps_max: int, initial: State = None) -> tuple[Opinion, int]:
    """Whether some order explains all answers, and how many steps it took to know."""
    head = _linked(steps)
    waiting = sum(step.return_ns is not None for step in steps)
    state, done = initial, 0
    reached: set[tuple[int, State]] = set()
    lifted: list[tuple[_Entry, State]] = []
    entry = head.after
    for used in range(steps_max):
        if not waiting:
            return "linearizable", used
        if entry is not None and entry.is_call:
            bits = done | 1 << entry.number
            after = entry.step.after(state)
            idle = entry.returns is None and after == state  # left out as well
            if isinstance(after, Mark) or idle or (bits, after) in reached:
                entry = entry.after
                continue
            reached.add((bits, after))
            lifted.append((entry, state))
            entry.unlink()
            if entry.returns is not None:
                entry.returns.unlink()
                waiting -= 1
            state, done, entry = after, bits, head.after
        elif not lifted:
            return "not linearizable", used
        else:
            last, state = lifted.pop()
            if last.returns is not None:
                last.returns.relink()
                waiting += 1
            last.relink()
            done &= ~(1 << last.number)
            entry = last.after
    return "undecided", steps_max
