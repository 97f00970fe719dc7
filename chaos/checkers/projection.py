"""A history as single keys see it, without a revision: what each operation found there and left there.

If a history of many keys is strictly serializable, each key's part of it is linearizable, so that leaving
things out is sound and only weakens: create and mod revisions, versions, compares that say nothing of
presence, ranges inside transactions.

A transaction that was answered takes part on each key of the branch that it took; the outcome of its
compares is given, not judged, but that a compare of presence alone must agree. One of unknown outcome may
have taken any branch.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from chaos.checkers.history import History, Operation, covers


class Mark(Enum):
    """What is no value."""

    ANY = 0  # not observed
    KEEP = 1  # not changed


State = str | None  # a key's value; None: there is no such key
_KINDS: Final = frozenset(("put", "get", "delete", "range", "txn"))


@dataclass(slots=True)
class Step:
    """One operation on one key. `return_ns` None: it may never have happened."""

    call_ns: int
    return_ns: int | None
    seen: State | Mark
    leaves: State | Mark
    exists: bool | None = None  # what it knows of the key's presence beside `seen`
    operation: Operation | None = None  # None: a lease that ends

    def after(self, state: State) -> State | Mark:
        """The state that it leaves behind `state`; ANY if it cannot stand there."""
        if self.seen is not Mark.ANY and self.seen != state:
            return Mark.ANY
        if self.exists is not None and self.exists != (state is not None):
            return Mark.ANY
        return state if self.leaves is Mark.KEEP else self.leaves


def project(history: History, until_ns: int) -> dict[str, list[Step]]:
    """key -> its steps that were called before `until_ns`, in the order of the history. Keys are those that
    single operations name."""
    steps: dict[str, list[Step]] = defaultdict(list)
    ranged: list[Operation] = []
    for operation in history.operations:
        kind, request = operation["kind"], operation["request"]
        if kind not in _KINDS or operation["outcome"] == "fail" or operation["call_ns"] >= until_ns:
            continue
        if operation.get("serializable"):
            continue
        if kind == "range" or request.get("range_end"):
            ranged.append(operation)
        else:
            for key, step in _single(operation):
                steps[key].append(step)
    for operation in ranged:
        _spread(operation, steps)
    return steps


def _single(operation: Operation) -> Iterator[tuple[str, Step]]:
    request, answered = operation["request"], operation["outcome"] == "ok"
    if operation["kind"] != "txn":
        item = {**request, "kind": operation["kind"]}
        yield from _item(operation, item, operation["response"] if answered else None)
    elif answered:
        yield from _answered_txn(operation)
    else:
        for branch in ("success", "failure"):
            for item in request[branch]:
                yield from _item(operation, item, None)


def _item(operation: Operation, item: Operation, answer: dict[str, Any] | None) -> Iterator[tuple[str, Step]]:
    """What a put, get or delete of one key does there; and the end of the lease that a put hangs it on."""
    kind, key = item["kind"], item["key"]
    if kind == "range" or item.get("range_end") or (answer is None and kind == "get"):
        return
    leaves: State | Mark = item["value"] if kind == "put" else None if kind == "delete" else Mark.KEEP
    if answer is None:
        yield key, Step(operation["call_ns"], None, Mark.ANY, leaves, operation=operation)
    else:
        found = answer["kv" if kind == "get" else "prev"]
        seen = found[1] if found else None
        yield key, Step(operation["call_ns"], operation["return_ns"], seen, leaves, operation=operation)
    if item.get("lease"):
        yield key, Step(operation["call_ns"], None, item["value"], None)


def _answered_txn(operation: Operation) -> Iterator[tuple[str, Step]]:
    request, response = operation["request"], operation["response"]
    presence = _presence(request["compares"], response["succeeded"])
    branch = request["success" if response["succeeded"] else "failure"]
    done: set[str] = set()
    for item, answer in zip(branch, response["responses"], strict=False):
        if item["key"] in done:
            continue  # it sees what the one before it left
        done.add(item["key"])
        for key, step in _item(operation, item, answer):
            if step.return_ns is not None:
                step.exists = presence.get(key)
            yield key, step
    for key, exists in presence.items():
        if key not in done:
            times = operation["call_ns"], operation["return_ns"]
            yield key, Step(*times, Mark.ANY, Mark.KEEP, exists, operation)


def _presence(compares: list[Operation], succeeded: bool) -> dict[str, bool]:
    """What the outcome says of keys: all compares held, or the only one did not."""
    known: dict[str, bool] = {}
    if succeeded or len(compares) == 1:
        for compare in compares:
            means = _means_presence(compare)
            if means is not None and (succeeded or _is_presence(compare)):
                known[compare["key"]] = means is succeeded
    return known


def _means_presence(compare: Operation) -> bool | None:
    """Whether the key is there if the compare holds; None if that is open."""
    target, result, operand = compare["target"], compare["result"], compare["operand"]
    if target in ("value", "lease"):
        return True if target == "value" else None
    if result == "=":
        return bool(operand != 0)
    if result == ">":
        return True if operand >= 0 else None
    return True if result == "!=" and operand == 0 else None


def _is_presence(compare: Operation) -> bool:
    """Whether the compare says just that the key is there, or just that it is not."""
    return bool(compare["operand"] == 0 and compare["result"] in ("=", ">", "!="))


def _spread(operation: Operation, steps: dict[str, list[Step]]) -> None:
    """A range reads, or deletes, each key in it."""
    request = operation["request"]
    leaves = None if operation["kind"] == "delete" else Mark.KEEP
    answered = operation["outcome"] == "ok"
    if not answered and leaves is Mark.KEEP:
        return
    found: dict[str, str] = {}
    if answered:
        response = operation["response"]
        found = {kv[0]: kv[1] for kv in response["prevs" if "prevs" in response else "kvs"]}
    for key, known in steps.items():
        if covers(request["key"], request.get("range_end", ""), key):
            seen = found.get(key) if answered else Mark.ANY
            return_ns = operation["return_ns"] if answered else None
            known.append(Step(operation["call_ns"], return_ns, seen, leaves, operation=operation))
