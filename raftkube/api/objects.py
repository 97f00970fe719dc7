"""Plain JSON objects: copies, and members read, made or defaulted."""

from __future__ import annotations

from typing import Any


def copy_json(value: Any) -> Any:
    """A deep copy of a JSON value; several times faster than copy.deepcopy, which must handle cycles."""
    kind = type(value)
    if kind is dict:
        return {key: copy_json(item) for key, item in value.items()}
    if kind is list:
        return [copy_json(item) for item in value]
    return value


def setdefault_falsy(obj: dict[str, Any], key: str, value: Any) -> None:
    """Set what is absent, null, "" or 0, which Go's zero values cannot tell apart."""
    if not obj.get(key):
        obj[key] = value


def default(obj: dict[str, Any], key: str, value: Any) -> None:
    """Set what is absent or null (a pointer field in Go: an explicit 0 or false stays)."""
    if obj.get(key) is None:
        obj[key] = value


def child(obj: dict[str, Any], key: str) -> dict[str, Any]:
    """The object at `key`, made if absent or null."""
    found = obj.get(key)
    if found is None:
        found = obj[key] = {}
    assert isinstance(found, dict)
    return found


def section(obj: dict[str, Any], key: str) -> dict[str, Any]:
    """The object at `key` for reading; {} if absent or null."""
    found = obj.get(key)
    return found if isinstance(found, dict) else {}


def items(obj: dict[str, Any], key: str) -> list[Any]:
    """The list at `key` for reading; [] if absent or null."""
    found = obj.get(key)
    return found if isinstance(found, list) else []
