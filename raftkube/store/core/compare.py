"""The guards of a transaction."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any, Final

from raftkube.wire.store import Compare, KeyValue

_RESULTS: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    ">": operator.gt,
}
_TARGETS: Final[dict[str, Callable[[KeyValue], Any]]] = {
    "version": operator.attrgetter("version"),
    "create": operator.attrgetter("create_revision"),
    "mod": operator.attrgetter("mod_revision"),
    "value": operator.attrgetter("value"),
    "lease": operator.attrgetter("lease"),
}
_ABSENT: Final = KeyValue(b"", b"", 0, 0, 0, 0)


def holds(compare: Compare, kvs: Sequence[KeyValue]) -> bool:
    """Whether it holds for every existing key of its range.

    With none of them, the numbers compare as 0, and a value compares as nothing at all: false
    (etcd: applyCompare).
    """
    if not kvs:
        if compare.target == "value":
            return False
        kvs = (_ABSENT,)
    target, result = _TARGETS[compare.target], _RESULTS[compare.result]
    return all(result(target(kv), compare.operand) for kv in kvs)
