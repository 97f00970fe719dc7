"""The naive store that the checkers replay into: a dict of keys. Written from etcd v3's documented
semantics, not from any implementation.

A key-value is the list that histories hold: [key, value, create revision, mod revision, version]. It is
never changed, a change makes a new one.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from typing import Any, Final

from chaos.checkers.history import Change

Json = dict[str, Any]
KeyValue = list[Any]

_FIELDS: Final = {"value": 1, "create": 2, "mod": 3, "version": 4}


class Model:
    """The state after a revision."""

    def __init__(self) -> None:
        self.keys: dict[str, KeyValue] = {}
        self._names: list[str] = []  # the keys, sorted

    def change(self, revision: int, key: str, value: str | None) -> KeyValue | None:
        """Put, or with None delete; the key-value before."""
        before = self.keys.get(key)
        if value is None:
            if before is not None:
                self._forget(key)
        elif before is None:
            self.keys[key] = [key, value, revision, revision, 1]
            insort(self._names, key)
        else:
            self.keys[key] = [key, value, before[2], revision, before[4] + 1]
        return before

    def _forget(self, key: str) -> None:
        del self.keys[key]
        del self._names[bisect_left(self._names, key)]

    def _restore(self, key: str, before: KeyValue | None) -> None:
        if before is not None:
            if key not in self.keys:
                insort(self._names, key)
            self.keys[key] = before
        elif key in self.keys:
            self._forget(key)

    def get(self, key: str) -> KeyValue | None:
        """None: there is no such key."""
        return self.keys.get(key)

    def names(self, key: str, range_end: str) -> list[str]:
        """The keys of [key, range_end) in order; range_end "" is the single key, "\\0" has no upper bound."""
        if not range_end:
            return [key] if key in self.keys else []
        first = bisect_left(self._names, key)
        last = len(self._names) if range_end == "\0" else bisect_left(self._names, range_end)
        return self._names[first:last]

    def range(self, key: str, range_end: str) -> list[KeyValue]:
        """The key-values of `names`."""
        keys = self.keys
        return [keys[name] for name in self.names(key, range_end)]

    def holds(self, compare: Json) -> bool:
        """Whether one compare of a transaction holds now."""
        found = self.keys.get(compare["key"])
        target = compare["target"]
        if found is None and target == "value":
            return False
        actual = found[_FIELDS[target]] if found else 0
        return _compare(actual, compare["result"], compare["operand"])

    def answer(self, revision: int, kind: str, request: Json) -> tuple[Json, list[Change]]:
        """What an operation is to be answered at `revision`, and what it changes. The state stays."""
        if kind == "put":
            key = request["key"]
            return {"prev": self.keys.get(key)}, [Change(key, request["value"])]
        if kind == "get":
            return {"kv": self.keys.get(request["key"])}, []
        if kind == "range":
            return {"kvs": self.range(request["key"], request["range_end"])}, []
        if kind == "delete":
            return self._deletion(request)
        succeeded = all(self.holds(compare) for compare in request["compares"])
        responses, changes = self._branch(revision, request["success" if succeeded else "failure"])
        return {"succeeded": succeeded, "responses": responses}, changes

    def _deletion(self, request: Json) -> tuple[Json, list[Change]]:
        key, range_end = request["key"], request.get("range_end", "")
        gone = self.range(key, range_end)
        changes = [Change(kv[0], None) for kv in gone]
        if range_end:
            return {"deleted": len(gone), "prevs": gone}, changes
        return {"deleted": len(gone), "prev": gone[0] if gone else None}, changes

    def _branch(self, revision: int, items: list[Json]) -> tuple[list[Json], list[Change]]:
        """Each operation sees those before it."""
        seen = {item["key"] for item in items}
        if len(seen) < len(items) or any("range_end" in item for item in items):
            return self._branch_in_steps(revision, items)
        get = self.keys.get  # no key twice: each finds its own as it was
        responses: list[Json] = []
        changes: list[Change] = []
        for item in items:
            kind, key = item["kind"], item["key"]
            before = get(key)
            if kind == "put":
                responses.append({"prev": before})
                changes.append(Change(key, item["value"]))
            elif kind == "get":
                responses.append({"kv": before})
            else:
                responses.append({"deleted": 1 if before else 0, "prev": before})
                if before:
                    changes.append(Change(key, None))
        return responses, changes

    def _branch_in_steps(self, revision: int, items: list[Json]) -> tuple[list[Json], list[Change]]:
        """Do one after the other; then put all back."""
        responses: list[Json] = []
        changes: list[Change] = []
        undo: list[tuple[str, KeyValue | None]] = []
        for item in items:
            response, made = self.answer(revision, item["kind"], item)
            responses.append(response)
            undo += [(key, self.change(revision, key, value)) for key, value in made]
            changes += made
        for key, before in reversed(undo):
            self._restore(key, before)
        return responses, changes


def _compare(actual: Any, result: str, operand: Any) -> bool:
    if result == "=":
        return bool(actual == operand)
    if result == "!=":
        return bool(actual != operand)
    return bool(actual < operand) if result == "<" else bool(actual > operand)
