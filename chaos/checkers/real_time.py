"""Real time: what had returned before a call bounds the place of what was called.

pos = 2·revision for writes and 2·revision + 1 for reads, failed compares and deletes of nothing. An
operation's floor is the largest pos among those that returned before its call: a read needs pos ≥ floor,
a write pos > floor.
"""

from __future__ import annotations

from bisect import bisect_left
from itertools import accumulate
from operator import itemgetter

from chaos.checkers.history import Operation
from chaos.checkers.verdict import Verdict
from chaos.checkers.wording import name

Placed = tuple[int, int, Operation]  # return_ns, pos, operation


class RealTime:
    """The floors that acknowledged operations set."""

    def __init__(self, placed: list[Placed]) -> None:
        """`placed`: all acknowledged operations but those that are free of real time."""
        self._placed = sorted(placed, key=itemgetter(0))
        self._returns = [each[0] for each in self._placed]
        self._highest = [0, *accumulate((each[1] for each in self._placed), max)]

    def floor(self, call_ns: int) -> int:
        """The largest pos that had returned strictly before `call_ns`; equal times are concurrent."""
        return self._highest[bisect_left(self._returns, call_ns)]

    def check(self, verdict: Verdict) -> None:
        """Name each operation that lies before what it came after."""
        returns, highest = self._returns, self._highest
        for _, position, operation in self._placed:
            floor = highest[bisect_left(returns, operation["call_ns"])]
            if position + (position & 1) <= floor:
                if operation["kind"] == "lease_revoke" and position + 2 > floor:
                    continue  # without keys it changes nothing: it may lie behind its revision
                self.blame(verdict, operation, position)

    def blame(self, verdict: Verdict, operation: Operation, position: int) -> None:
        """`operation` lies at `position`, below its floor."""
        floor = self.floor(operation["call_ns"])
        newest = next(each[2] for each in self._placed if each[1] == floor)
        verdict.add(
            "S1",
            f"{name(operation)} at revision {position // 2} was called after "
            f"{name(newest)} had returned revision {floor // 2}: time went back",
            operation,
            newest,
        )
