"""The naive store that the checkers replay into: a dict of keys. Written from etcd v3's documented
semantics, not from any implementation."""

from __future__ import annotations

from typing import Any, NamedTuple

from chaos.checkers.history import Change

Json = dict[str, Any]


class Version(NamedTuple):
    """A key's value and its numbers."""

    value: str
    create: int
    mod: int
    version: int

    def described(self, key: str) -> list[Any]:
        """As histories write a key-value: [key, value, create, mod, version]."""
        return [key, self.value, self.create, self.mod, self.version]


class Model:
    """The state after a revision."""

    def __init__(self) -> None:
        self.keys: dict[str, Version] = {}

    def apply(self, revision: int, changes: list[Change]) -> None:
        """Move to `revision`."""
        for change in changes:
            self._change(revision, change)

    def _change(self, revision: int, change: Change) -> None:
        old = self.keys.get(change.key)
        if change.value is None:
            self.keys.pop(change.key, None)
        elif old is None:
            self.keys[change.key] = Version(change.value, revision, revision, 1)
        else:
            self.keys[change.key] = Version(change.value, old.create, revision, old.version + 1)

    def get(self, key: str) -> list[Any] | None:
        """The key-value as histories write it."""
        found = self.keys.get(key)
        return found.described(key) if found else None

    def range(self, key: str, range_end: str) -> list[list[Any]]:
        """All of [key, range_end) in order; range_end "" is the single key, "\\0" has no upper bound."""
        if not range_end:
            one = self.get(key)
            return [one] if one else []
        names = sorted(k for k in self.keys if key <= k and (range_end == "\0" or k < range_end))
        return [self.keys[name].described(name) for name in names]

    def holds(self, compare: Json) -> bool:
        """Whether one compare of a transaction holds now."""
        found = self.keys.get(compare["key"])
        target, operand = compare["target"], compare["operand"]
        if target == "value":
            if found is None:
                return False
            actual: Any = found.value
        else:
            actual = getattr(found, target) if found else 0
        return _compare(actual, compare["result"], operand)

    def run(self, revision: int, operations: list[Json]) -> list[Json]:
        """Carry out a transaction's branch at `revision`; the response of each operation."""
        return [self._run(revision, operation) for operation in operations]

    def _run(self, revision: int, operation: Json) -> Json:
        kind, key = operation["kind"], operation["key"]
        if kind == "put":
            before = self.get(key)
            self._change(revision, Change(key, operation["value"]))
            return {"prev": before}
        if kind == "delete":
            before = self.get(key)
            self._change(revision, Change(key, None))
            return {"deleted": 1 if before else 0, "prev": before}
        if kind == "get":
            return {"kv": self.get(key)}
        return {"kvs": self.range(key, operation["range_end"])}


def _compare(actual: Any, result: str, operand: Any) -> bool:
    if result == "=":
        return bool(actual == operand)
    if result == "!=":
        return bool(actual != operand)
    return bool(actual < operand) if result == "<" else bool(actual > operand)


def changes_of(operations: list[Json], keys_present: set[str]) -> list[Change]:
    """What a list of puts and deletes writes, in order; a delete of an absent key writes nothing."""
    present = set(keys_present)
    changes = []
    for operation in operations:
        if operation["kind"] == "put":
            present.add(operation["key"])
            changes.append(Change(operation["key"], operation["value"]))
        elif operation["kind"] == "delete" and operation["key"] in present:
            present.discard(operation["key"])
            changes.append(Change(operation["key"], None))
    return changes
