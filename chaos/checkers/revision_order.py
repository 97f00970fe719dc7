"""The main checker: the store says at which revision everything happened, so the order is given.

Every write has a revision of its own and every answer carries the revision at which it was evaluated.
The complete watch since revision 1 is the log. Then:

1. An acknowledged write that is not in the log at its revision is lost (S2).
2. In real time nothing goes back (S1): see `real_time`.
3. The log is replayed, and every field of every answer is compared (S1). A revision that nobody claims
   needs an explanation: a write of unknown outcome found by its unique value, which must then have written
   all that it would have (S1) and not beside its fence (L3); for deletes see `deletions`. What the store
   said it had not done, or what is in the log twice, is S6; what nobody asked for is S1.

Near-linear in the length of the history. A write of unknown outcome that is not in the log is dropped,
which is sound once the barrier write has succeeded; without it the verdict is unknown.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any, Final

from chaos.checkers.deletions import Deletions
from chaos.checkers.history import Change, History, Operation
from chaos.checkers.leases import Leases
from chaos.checkers.log import Log
from chaos.checkers.model import KeyValue, Model
from chaos.checkers.real_time import Placed, RealTime
from chaos.checkers.verdict import Verdict
from chaos.checkers.wording import name, words

# key -> revision -> the key-value before and after that change, in order of revisions.
Versions = dict[str, dict[int, tuple[KeyValue | None, KeyValue | None]]]

_new: Final = tuple.__new__  # a named tuple without detours
_READS: Final = frozenset(("get", "range"))
_WRITES: Final = frozenset(("put", "delete", "txn"))
# They answer with something that the model does not know.
_NOT_REPLAYED: Final = frozenset(("hash", "compact", "lease_grant", "lease_keep_alive", "lease_revoke"))


def check_revision_order(history: History, log: Log, verdict: Verdict) -> Versions:
    """Judge the operations against the log; return its versions for the other checkers."""
    verdict.count("operations", len(history.operations))
    verdict.count("revisions", len(log))
    order = _RevisionOrder(history, log, verdict)
    order.place()
    return order.replay()


def check_claims(history: History, log: Log, verdict: Verdict) -> None:
    """What a log without its end still tells: an acknowledged write is where it was acknowledged, or lost."""
    order = _RevisionOrder(history, log, verdict)
    last = max(log, default=0)  # of which a part may be missing
    for operation in history.operations:
        if operation["outcome"] == "ok" and operation["kind"] in _WRITES:
            changes, revision = acknowledged_changes(operation), operation["revision"]
            if changes and revision in log and revision < last:
                order.claim(operation, revision, changes)


class _RevisionOrder:
    def __init__(self, history: History, log: Log, verdict: Verdict) -> None:
        self._history = history
        self._log = log
        self._verdict = verdict
        # The operation that explains each revision.
        self._explained: dict[int, Operation] = {}
        self._reads: dict[int, list[Operation]] = defaultdict(list)
        self._placed: list[Placed] = []
        self._used: dict[int, int] = {}  # id of an operation without acknowledgement -> its revision
        self._by_value: dict[str, Operation] = {}
        self._model = Model()
        self._versions: Versions = defaultdict(dict)

    def place(self) -> None:
        """Give every acknowledged operation its place, and check real time."""
        placed = self._placed
        log, explained, reads = self._log, self._explained, self._reads
        for operation in self._history.operations:
            if operation["outcome"] != "ok":
                continue
            revision, kind, request = operation["revision"], operation["kind"], operation["request"]
            if kind == "put":
                is_read = 0
                # Most writes are puts that are where they should be: without detours.
                wanted = [(request["key"], request["value"])]
                if log.get(revision) == wanted and revision not in explained:
                    explained[revision] = operation
                else:
                    self.claim(operation, revision, acknowledged_changes(operation))
            elif kind in _READS:
                is_read = 1
                reads[revision].append(operation)
            else:
                is_read = self._place_other(operation, revision, kind)
            if "serializable" not in operation:
                placed.append((operation["return_ns"], 2 * revision + is_read, operation))
        self._real_time = RealTime(placed)
        self._real_time.check(self._verdict)

    def _place_other(self, operation: Operation, revision: int, kind: str) -> int:
        """Whether it has the place of a read. A revoke of a lease without keys changes nothing."""
        changes = acknowledged_changes(operation)
        if changes:
            self.claim(operation, revision, changes)
        elif kind not in _NOT_REPLAYED:
            self._reads[revision].append(operation)
        return not changes and kind != "lease_revoke"

    def claim(self, operation: Operation, revision: int, wanted: list[Change]) -> None:
        """An acknowledged write says that `revision` is its own."""
        found = self._log.get(revision)
        # A revision's changes have no two of one key.
        if found is None or not (found == wanted or sorted(found, key=_key) == sorted(wanted, key=_key)):
            there = words(found) if found else "nothing of the workload's"
            self._verdict.add(
                "S2",
                f"lost write: {name(operation)} was acknowledged at revision {revision}, "
                f"where the log has {there}",
                operation,
            )
            return
        other = self._explained.setdefault(revision, operation)
        if other is not operation:
            self._verdict.add(
                "S1",
                f"{name(operation)} and {name(other)} were both given revision {revision}",
                operation,
                other,
            )

    # The replay.

    def replay(self) -> Versions:
        """Compare every answer with the model at its revision, and explain what nobody claims."""
        self._by_value = self._unclaimed_values()
        leases = Leases(self._history, self._verdict)
        last = max(self._log)
        deletions = Deletions(self._history, last, self._model, leases, self._real_time, self._verdict)
        not_before_ns = 0
        self._check_reads(self._reads.pop(1, []))
        for revision in sorted(self._log):
            changes = self._log[revision]
            writer = self._explained.get(revision)
            if writer is not None:
                self._check_acknowledged(revision, writer)
            elif changes and all(change.value is None for change in changes):
                deletions.explain(revision, changes, not_before_ns)
            elif changes:
                writer = self._explain(revision, changes)
            if writer is not None and writer["call_ns"] > not_before_ns:
                not_before_ns = writer["call_ns"]
            self._apply(revision, changes)
            if leases:
                self._attach(leases, revision, changes, writer)
            if revision in self._reads:
                self._check_reads(self._reads.pop(revision))
        self._blame_left_over()
        barrier = self._history.barrier
        if leases and barrier is not None:
            leases.finish(barrier)
        return dict(self._versions)

    def _apply(self, revision: int, changes: list[Change]) -> None:
        keys, versions = self._model.keys, self._versions
        for key, value in changes:
            before = keys.get(key)
            if before is not None and value is not None:  # most of what is applied: without detours
                keys[key] = updated = [key, value, before[2], revision, before[4] + 1]
                after: KeyValue | None = updated
            else:
                self._model.change(revision, key, value)
                after = keys.get(key)
            versions[key][revision] = (before, after)

    def _attach(self, leases: Leases, revision: int, changes: list[Change], writer: Operation | None) -> None:
        for change in changes:
            leases.detach(change.key)
        if writer is not None and (writer["kind"] == "txn" or "lease" in writer["request"]):
            for item in _items(writer):
                if item.get("lease") and Change(item["key"], item.get("value")) in changes:
                    leases.attach(revision, item["key"], item["lease"], writer)
        leases.check_revoked(revision)

    def _check_acknowledged(self, revision: int, operation: Operation) -> None:
        if operation["kind"] == "put":  # most of what is judged: without detours
            expected: Any = {"prev": self._model.keys.get(operation["request"]["key"])}
            if operation["response"] != expected:
                self._blame_answer(operation, expected)
            return
        expected, _ = self._model.answer(revision, operation["kind"], operation["request"])
        if operation["response"] != expected:
            self._blame_answer(operation, expected)
        if "fence" in operation and operation["response"]["succeeded"]:
            self._check_fence(revision, operation)

    def _check_fence(self, revision: int, operation: Operation) -> bool:
        """Whether the write's token is that of the holder at its revision."""
        fence = operation["fence"]
        held = self._model.get(fence["key"])
        if held is not None and held[2] == fence["create_revision"]:
            return True
        now = "is gone" if held is None else f"was created at {held[2]}"
        self._verdict.add(
            "L3",
            f"{name(operation)} succeeded at revision {revision} with the token {fence['create_revision']}, "
            f"though {fence['key']} {now}",
            operation,
        )
        return False

    def _check_reads(self, operations: list[Operation]) -> None:
        answer, keys = self._model.answer, self._model.keys
        for operation in operations:
            if operation["kind"] == "get" and operation["response"] == {
                "kv": keys.get(operation["request"]["key"])
            }:
                continue
            expected, _ = answer(operation["revision"], operation["kind"], operation["request"])
            if operation["response"] != expected:
                self._blame_answer(operation, expected)

    def _blame_answer(self, operation: Operation, expected: Any) -> None:
        self._verdict.add(
            "S1",
            f"{name(operation)} at revision {operation['revision']} answered {operation['response']}, "
            f"the log gives {expected}",
            operation,
        )

    def _blame_left_over(self) -> None:
        for revision, left in self._reads.items():
            for operation in left:
                self._verdict.add(
                    "S1", f"{name(operation)} saw revision {revision}, which is not in the log", operation
                )

    # Writes that nobody claims.

    def _unclaimed_values(self) -> dict[str, Operation]:
        """The value of an unclaimed put -> who would have written it; acknowledged ones included, so that a
        write applied twice is found."""
        wanted = {
            change.value
            for revision, changes in self._log.items()
            if revision not in self._explained
            for change in changes
        }
        found: dict[str, Operation] = {}
        if wanted - {None}:
            for operation in self._history.operations:
                if operation["kind"] == "put":
                    if operation["request"]["value"] in wanted:
                        found[operation["request"]["value"]] = operation
                elif operation["kind"] == "txn":
                    for item in _items(operation):
                        if item["kind"] == "put" and item["value"] in wanted:
                            found[item["value"]] = operation
        return found

    def _explain(self, revision: int, changes: list[Change]) -> Operation | None:
        value = next(change.value for change in changes if change.value is not None)
        operation = self._by_value.get(value)
        if operation is None:
            self._verdict.add("S1", f"revision {revision} has {words(changes)}, which nobody asked for")
        elif operation["outcome"] == "ok":
            self._explain_acknowledged(revision, operation)
        else:
            self._explain_unacknowledged(revision, changes, operation)
        return operation

    def _explain_acknowledged(self, revision: int, operation: Operation) -> None:
        if self._explained.get(operation["revision"]) is operation:
            self._verdict.add(
                "S6",
                f"{name(operation)} was acknowledged at revision {operation['revision']} "
                f"and is in the log a second time, at {revision}",
                operation,
            )

    def _explain_unacknowledged(self, revision: int, changes: list[Change], operation: Operation) -> None:
        before = self._used.setdefault(id(operation), revision)
        if before != revision:
            self._verdict.add(
                "S6", f"{name(operation)} is in the log twice, at {before} and at {revision}", operation
            )
        elif operation["outcome"] == "fail":
            self._verdict.add(
                "S6",
                f"{name(operation)} was refused as not done ({operation['error']}), "
                f"but the log has it at revision {revision}",
                operation,
            )
        else:
            self._check_unknown(revision, changes, operation)

    def _check_unknown(self, revision: int, changes: list[Change], operation: Operation) -> None:
        """A write of unknown outcome happened: at a possible time, whole, and within its fence."""
        if 2 * revision <= self._real_time.floor(operation["call_ns"]):
            self._real_time.blame(self._verdict, operation, 2 * revision)
        if "fence" in operation and not self._check_fence(revision, operation):
            return
        _, wanted = self._model.answer(revision, operation["kind"], operation["request"])
        if sorted(changes, key=_key) != sorted(wanted, key=_key):
            self._verdict.add(
                "S1",
                f"{name(operation)} is in the log at revision {revision} as {words(changes)}; "
                f"whole it would be {words(wanted) or 'nothing'}",
                operation,
            )


def acknowledged_changes(operation: Operation) -> list[Change]:
    """What an acknowledged operation says that it changed; if anything, it has a revision of its own."""
    kind, request, response = operation["kind"], operation["request"], operation["response"]
    if kind == "put":
        return [_new(Change, (request["key"], request["value"]))]
    if kind == "delete":
        return _deleted(request, response)
    if kind != "txn":
        return []
    changes: list[Change] = []
    branch = request["success" if response["succeeded"] else "failure"]
    for item, answer in zip(branch, response["responses"], strict=False):
        if item["kind"] == "put":
            changes.append(_new(Change, (item["key"], item["value"])))
        elif item["kind"] == "delete":
            changes += _deleted(item, answer)
    return changes


def _deleted(request: Operation, response: Operation) -> list[Change]:
    if "prevs" in response:
        return [Change(kv[0], None) for kv in response["prevs"]]
    return [Change(request["key"], None)] if response["deleted"] else []


def _items(operation: Operation) -> list[Operation]:
    """What an operation may do, one by one."""
    request = operation["request"]
    if operation["kind"] == "txn":
        return [*request["success"], *request["failure"]]
    if operation["kind"] == "put":
        return [{**request, "kind": "put"}]
    return []


def _key(change: Change) -> str:
    return change.key
