"""The rows of the cluster in a timeline: one a member or target, with who led and which fault hit it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Final

from chaos.report.leaders import Leadership

ROWS_MAX: Final = 14
OTHERS: Final = "others"
EVERYONE: Final = "all"


@dataclass(slots=True)
class Row:
    """`faults` are numbers, from 1, in the order of the run's faults."""

    name: str
    led: list[Leadership] = field(default_factory=list)
    faults: list[int] = field(default_factory=list)


def cluster_rows(members: list[str], led: list[Leadership], faults: list[dict[str, Any]]) -> list[Row]:
    """Members first, then other targets as they were first hit; what goes beyond ROWS_MAX shares one row."""
    rows = {name: Row(name) for name in [*members, *sorted({each.member for each in led} - set(members))]}
    for each in led:
        rows[each.member].led.append(each)
    for number, fault in enumerate(faults, 1):
        target = str(fault.get("target", "")) or OTHERS
        for name in _named(target, members if target == EVERYONE else list(rows)) or [
            target if len(rows) < ROWS_MAX else OTHERS
        ]:
            rows.setdefault(name, Row(name)).faults.append(number)
    return list(rows.values())


def _named(target: str, names: list[str]) -> list[str]:
    """Those of `names` that stand in `target` as whole words, such as
    `store-1,store-2` and `store-1 -> store-3`; all of them for `all`."""
    if target == EVERYONE:
        return names
    return [name for name in names if re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", target)]
