"""The main checker: the store says at which revision everything happened, so the order is given.

Every write has a revision of its own and every answer carries the revision at which it was evaluated.
The complete watch since revision 1 is the log. Then:

1. Each revision of the log has exactly one explanation: an acknowledged write, a write of unknown
   outcome found by its unique value, a delete of unknown outcome, or (lease expiry) the system.
2. An acknowledged write that is not in the log is lost (S2). A write in the log that the store said it
   had not done, a write in the log twice, and one that nobody asked for are violations (S6, S1).
3. In real time nothing goes back (S1): pos = 2·revision for writes and 2·revision + 1 for reads; at each
   call a read needs pos ≥ the largest pos of what had returned, a write pos > it.
4. The log is replayed and every field of every answer is compared (S1).

Near-linear in the length of the history. A write of unknown outcome that is not in the log is dropped,
which is sound once the barrier write has succeeded; without it the verdict is unknown.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any, Final

from chaos.checkers.history import Change, History
from chaos.checkers.model import Model, changes_of
from chaos.checkers.verdict import VIOLATIONS_SHOWN, Verdict

Operation = dict[str, Any]
Log = dict[int, list[Change]]

_WRITES: Final = frozenset(("put", "delete", "txn"))


def check_revision_order(history: History, verdict: Verdict) -> Log:
    """Judge the operations; return the log (revision -> changes) for the other checkers."""
    return _RevisionOrder(history, verdict).run()


class _RevisionOrder:
    def __init__(self, history: History, verdict: Verdict) -> None:
        self._history = history
        self._verdict = verdict
        self._log: Log = {}
        # The operation that explains each revision.
        self._explained: dict[int, Operation] = {}

    def run(self) -> Log:
        if not self._read_log():
            return self._log
        self._verdict.count("operations", len(self._history.operations))
        self._verdict.count("revisions", len(self._log))
        self._claim_acknowledged()
        self._explain_the_rest()
        self._check_real_time()
        self._replay()
        return self._log

    def _add(self, invariant: str, sentence: str, *operations: Operation) -> None:
        if len(self._verdict.violations) < VIOLATIONS_SHOWN * 10:
            self._verdict.add(invariant, sentence, *operations)

    def _read_log(self) -> bool:
        """Take the log from the complete watch; False if it cannot be judged."""
        watch = self._history.log_watch
        barrier = self._barrier_revision()
        if watch is None or barrier is None:
            missing = "complete watch" if watch is None else "barrier write"
            self._verdict.unknown_because.append(f"the history has no {missing}")
            return False
        # Keys outside the workload's prefix belong to others (the control plane): they take revisions.
        prefix = self._history.header.get("prefix", "")
        for event in watch.events:
            if event["kind"] in ("put", "delete"):
                changes = self._log.setdefault(event["revision"], [])
                if event["key"].startswith(prefix):
                    value = event["value"] if event["kind"] == "put" else None
                    changes.append(Change(event["key"], value))
        last = max(self._log, default=1)
        if last < barrier:
            self._verdict.unknown_because.append(
                f"the complete watch ends at revision {last}, before the barrier's {barrier}"
            )
            return False
        self._check_dense(last)
        return True

    def _barrier_revision(self) -> int | None:
        barriers = [op for op in self._history.operations if op.get("barrier") and op["outcome"] == "ok"]
        return max((op["revision"] for op in barriers), default=None)

    def _check_dense(self, last: int) -> None:
        """Revisions have no holes: a hole is a lost write or a gap of the complete watch (W7)."""
        missing = [revision for revision in range(2, last) if revision not in self._log]
        if missing:
            self._add(
                "S3",
                f"{len(missing)} revisions are missing from the complete watch, the first is {missing[0]}",
            )

    def _claim_acknowledged(self) -> None:
        for operation in self._history.operations:
            if operation["outcome"] == "ok" and _wrote(operation):
                self._claim(operation)

    def _claim(self, operation: Operation) -> None:
        revision = operation["revision"]
        found = self._log.get(revision)
        wanted = _wanted_changes(operation)
        if found is None or not _same(found, wanted):
            there = _words(found) if found else "nothing of the workload's"
            self._add(
                "S2",
                f"lost write: {_name(operation)} was acknowledged at revision {revision}, "
                f"where the log has {there}",
                operation,
            )
            return
        other = self._explained.setdefault(revision, operation)
        if other is not operation:
            self._add(
                "S1",
                f"{_name(operation)} and {_name(other)} were both given revision {revision}",
                operation,
                other,
            )

    def _explain_the_rest(self) -> None:
        by_value = self._unacknowledged_by_value()
        deletes = self._unknown_deletes()
        used: dict[int, int] = {}
        for revision, changes in self._log.items():
            if revision in self._explained or not changes:
                continue
            operation = self._explanation(changes, by_value, deletes)
            if operation is None:
                if not all(change.value is None for change in changes) or not self._history.header.get(
                    "leases"
                ):
                    self._add("S1", f"revision {revision} has {_words(changes)}, which nobody asked for")
                continue
            self._explained[revision] = operation
            if operation["outcome"] == "fail":
                self._add(
                    "S6",
                    f"{_name(operation)} was refused as not done ({operation['error']}), "
                    f"but the log has it at revision {revision}",
                    operation,
                )
            before = used.setdefault(id(operation), revision)
            if before != revision:
                self._add(
                    "S6", f"{_name(operation)} is in the log twice, at {before} and at {revision}", operation
                )

    def _unacknowledged_by_value(self) -> dict[str, Operation]:
        """Unique value -> the operation that would have written it; acknowledged ones included, so that
        a write applied twice is found."""
        found = {}
        for operation in self._history.operations:
            if operation["kind"] in _WRITES:
                for value in _values(operation):
                    found[value] = operation
        return found

    def _unknown_deletes(self) -> dict[str, list[Operation]]:
        found: dict[str, list[Operation]] = defaultdict(list)
        for operation in self._history.operations:
            if operation["outcome"] == "unknown" and operation["kind"] in ("delete", "txn"):
                for key in _deleted_keys(operation):
                    found[key].append(operation)
        return found

    def _explanation(
        self, changes: list[Change], by_value: dict[str, Operation], deletes: dict[str, list[Operation]]
    ) -> Operation | None:
        for change in changes:
            if change.value is not None:
                operation = by_value.get(change.value)
                if operation is not None and operation["outcome"] == "ok" and _wrote(operation):
                    self._add(
                        "S6",
                        f"{_name(operation)} was acknowledged at revision {operation['revision']} "
                        f"and is in the log a second time",
                        operation,
                    )
                return operation
        candidates = deletes.get(changes[0].key, [])
        return candidates.pop(0) if candidates else None

    def _check_real_time(self) -> None:
        """One sweep over calls and returns in time order; at equal times calls come first (concurrent)."""
        sweep: list[tuple[int, int, int, Operation]] = []
        for operation, position in self._positions():
            sweep.append((operation["call_ns"], 0, position, operation))
            if operation["outcome"] == "ok" and operation["return_ns"] is not None:
                sweep.append((operation["return_ns"], 1, position, operation))
        sweep.sort(key=lambda item: (item[0], item[1]))
        highest = 0
        newest: Operation | None = None
        for _, is_return, position, operation in sweep:
            if is_return:
                if position > highest:
                    highest, newest = position, operation
            elif newest is not None and position + (position & 1) <= highest:
                self._add(
                    "S1",
                    f"{_name(operation)} at revision {position // 2} was called after "
                    f"{_name(newest)} had returned revision {highest // 2}: time went back",
                    operation,
                    newest,
                )

    def _positions(self) -> list[tuple[Operation, int]]:
        """Every operation that has a place in the order; serializable reads are free of real time."""
        positions = [
            (operation, 2 * operation["revision"] + (0 if _wrote(operation) else 1))
            for operation in self._history.operations
            if operation["outcome"] == "ok" and "revision" in operation and not operation.get("serializable")
        ]
        for revision, operation in self._explained.items():
            if operation["outcome"] == "unknown":
                positions.append((operation, 2 * revision))
        return positions

    def _replay(self) -> None:
        """Compare every answer with the model at its revision."""
        reads: dict[int, list[Operation]] = defaultdict(list)
        for operation in self._history.operations:
            if operation["outcome"] == "ok" and not _wrote(operation) and "revision" in operation:
                reads[operation["revision"]].append(operation)
        model = Model()
        self._check_reads(model, reads.pop(1, []))
        for revision in sorted(self._log):
            writer = self._explained.get(revision)
            if writer is not None and writer["outcome"] == "ok":
                self._check_write(model, revision, writer)
            model.apply(revision, self._log[revision])
            self._check_reads(model, reads.pop(revision, []))
        for revision, left in reads.items():
            for operation in left:
                self._add(
                    "S1", f"{_name(operation)} saw revision {revision}, which is not in the log", operation
                )

    def _check_write(self, model: Model, revision: int, operation: Operation) -> None:
        request, response = operation["request"], operation["response"]
        scratch = Model()
        scratch.keys = dict(model.keys)
        if operation["kind"] == "txn":
            succeeded = all(scratch.holds(compare) for compare in request["compares"])
            expected: Any = {
                "succeeded": succeeded,
                "responses": scratch.run(revision, request["success" if succeeded else "failure"]),
            }
        else:
            expected = scratch.run(revision, [{"kind": operation["kind"], **request}])[0]
        self._compare(operation, response, expected)

    def _check_reads(self, model: Model, operations: list[Operation]) -> None:
        for operation in operations:
            request, kind = operation["request"], operation["kind"]
            if kind == "hash":
                continue
            if kind == "txn":
                succeeded = all(model.holds(compare) for compare in request["compares"])
                branch = request["success" if succeeded else "failure"]
                expected: Any = {
                    "succeeded": succeeded,
                    "responses": model.run(operation["revision"], branch),
                }
            else:
                expected = model.run(operation["revision"], [{"kind": kind, **request}])[0]
            self._compare(operation, operation["response"], expected)

    def _compare(self, operation: Operation, actual: Any, expected: Any) -> None:
        if actual != expected:
            self._add(
                "S1",
                f"{_name(operation)} at revision {operation['revision']} answered {actual}, "
                f"the log gives {expected}",
                operation,
            )


def _wrote(operation: Operation) -> bool:
    """Whether an acknowledged operation changed the store: it was given a revision of its own."""
    kind, response = operation["kind"], operation.get("response") or {}
    if kind == "put":
        return True
    if kind == "delete":
        return bool(response.get("deleted"))
    if kind != "txn":
        return False
    branch = operation["request"]["success" if response.get("succeeded") else "failure"]
    answers = response.get("responses", [])
    return any(
        item["kind"] == "put" or (item["kind"] == "delete" and answer.get("deleted"))
        for item, answer in zip(branch, answers, strict=False)
    )


def _wanted_changes(operation: Operation) -> list[Change]:
    request, response = operation["request"], operation["response"]
    if operation["kind"] == "put":
        return [Change(request["key"], request["value"])]
    if operation["kind"] == "delete":
        return [Change(request["key"], None)]
    branch = request["success" if response["succeeded"] else "failure"]
    deleted = {
        item["key"]
        for item, answer in zip(branch, response["responses"], strict=False)
        if item["kind"] == "delete" and answer.get("deleted")
    }
    return changes_of(branch, deleted)


def _same(found: list[Change], wanted: list[Change]) -> bool:
    """Equal as sets of final values: a revision's changes have no two of one key."""
    return sorted(found, key=lambda change: change.key) == sorted(wanted, key=lambda change: change.key)


def _branches(operation: Operation) -> list[Operation]:
    request = operation["request"]
    if operation["kind"] == "txn":
        return [*request["success"], *request["failure"]]
    return [{"kind": operation["kind"], **request}]


def _values(operation: Operation) -> list[str]:
    return [item["value"] for item in _branches(operation) if item["kind"] == "put"]


def _deleted_keys(operation: Operation) -> list[str]:
    return [item["key"] for item in _branches(operation) if item["kind"] == "delete"]


def _name(operation: Operation) -> str:
    request = operation["request"]
    what = request.get("key", "")
    if "value" in request:
        what += f"={request['value']}"
    return f"{operation['kind']} {what} (client {operation['client']}, operation {operation['id']})".replace(
        "  ", " "
    )


def _words(changes: list[Change]) -> str:
    return ", ".join(f"delete {c.key}" if c.value is None else f"put {c.key}={c.value}" for c in changes)
