"""Operations and changes in words, for the sentences of violations."""

from __future__ import annotations

from collections.abc import Iterable

from chaos.checkers.history import Change, Operation


def name(operation: Operation) -> str:
    """As in "put k=v (client 1, operation 2)"."""
    request = operation["request"]
    what = request.get("key", "") or str(request.get("lease", ""))
    if "value" in request:
        what += f"={request['value']}"
    told = f"{operation['kind']} {what} (client {operation['client']}, operation {operation['id']})"
    return told.replace("  ", " ")


def words(changes: Iterable[Change]) -> str:
    """As in "put a=1, delete b"."""
    return ", ".join(f"delete {c.key}" if c.value is None else f"put {c.key}={c.value}" for c in changes)
