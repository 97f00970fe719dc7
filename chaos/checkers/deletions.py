"""Who deleted: a revision of deletes alone that no acknowledged operation claims.

A delete carries no unique value, so that several things may explain it. A history is blamed only if none
can, and nothing is used up that another revision may need:

1. a lease on which just these keys hang: revoked, or due by the time at which it is known to be gone;
2. a range delete or transaction of unknown outcome that would delete just these keys now;
3. a delete of unknown outcome of this very key, each for one revision: of those that may lie here, one is
   as good as another, for what may lie here may lie at every later revision, too.
"""

from __future__ import annotations

from collections import defaultdict

from chaos.checkers.history import Change, History, Operation
from chaos.checkers.leases import Lease, Leases
from chaos.checkers.log import KnownTimes
from chaos.checkers.model import Model
from chaos.checkers.real_time import RealTime
from chaos.checkers.verdict import Verdict
from chaos.checkers.wording import words


class Deletions:
    """What may have deleted, and what of it is used up."""

    def __init__(
        self, history: History, last: int, model: Model, leases: Leases, real_time: RealTime, verdict: Verdict
    ) -> None:
        """`last`: the last revision of the log."""
        self._model = model
        self._leases = leases
        self._real_time = real_time
        self._verdict = verdict
        self._history = history
        self._last = last
        self._known: KnownTimes | None = None
        self._singles: dict[str, list[Operation]] = defaultdict(list)
        self._others: list[Operation] = []
        for operation in history.operations:
            if operation["outcome"] == "unknown":
                self._note(operation)

    @property
    def _times(self) -> KnownTimes:
        """Worked out when first asked for."""
        if self._known is None:
            self._known = KnownTimes(self._history, self._last)
        return self._known

    def _note(self, operation: Operation) -> None:
        request, kind = operation["request"], operation["kind"]
        if kind == "delete":
            if request.get("range_end"):
                self._others.append(operation)
            else:
                self._singles[request["key"]].append(operation)
        elif kind == "txn" and any(_deletes_only(request[branch]) for branch in ("success", "failure")):
            self._others.append(operation)

    def explain(self, revision: int, changes: list[Change], not_before_ns: int) -> None:
        """Find who deleted at `revision`, or name the violation; `not_before_ns`: it happened later."""
        keys = {change.key for change in changes}
        lease = self._leases.holding(keys) if self._leases else None
        if lease is not None and self._by_lease(lease, revision):
            self._leases.check_late(lease, not_before_ns)
        elif not (self._by_any(revision, changes) or self._by_single(revision, changes)):
            self._blame(revision, changes, lease)

    def _by_lease(self, lease: Lease, revision: int) -> bool:
        if self._leases.revoked(revision, lease):
            return True
        if any(op["outcome"] == "unknown" and self._may_lie(op, revision) for op in lease.revokes):
            return True
        return self._leases.may_have_expired(lease, self._times.latest_ns(revision))

    def _by_any(self, revision: int, changes: list[Change]) -> bool:
        wanted = sorted(changes)
        return any(
            self._may_lie(op, revision)
            and sorted(self._model.answer(revision, op["kind"], op["request"])[1]) == wanted
            for op in self._others
        )

    def _by_single(self, revision: int, changes: list[Change]) -> bool:
        candidates = self._singles.get(changes[0].key, []) if len(changes) == 1 else []
        for index, operation in enumerate(candidates):
            if self._may_lie(operation, revision):
                del candidates[index]
                return True
        return False

    def _may_lie(self, operation: Operation, revision: int) -> bool:
        return self._real_time.floor(operation["call_ns"]) < 2 * revision

    def _blame(self, revision: int, changes: list[Change], lease: Lease | None) -> None:
        known = self._times.latest_ns(revision)
        if lease is not None and known is not None:
            self._leases.blame_early(lease, known, f"revision {revision} has {words(changes)}")
        else:
            self._verdict.add("S1", f"revision {revision} has {words(changes)}, which nobody asked for")


def _deletes_only(branch: list[Operation]) -> bool:
    kinds = {item["kind"] for item in branch}
    return "delete" in kinds and "put" not in kinds
