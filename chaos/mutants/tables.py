"""The tables of docs/MUTANTS.md, from what `python -m chaos mutants` wrote."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from chaos.mutants import MUTANTS
from chaos.mutants.examine import FAULTS_WANTED

Row = dict[str, Any]

_CAUGHT: Final = "| mutant | world | what it skips | faults | caught by | seed | runs | CPU s | faults left |"
_SEEN: Final = "| mutant | what it skips | seen by |"
_MISSED: Final = "| mutant | what it skips | tried: runs, CPU s | why, as far as we see |"


def with_tables(text: str, rows: Iterable[Row]) -> str:
    """The page with each table behind its mark, `<!-- caught -->` and so on, in the order of `MUTANTS`.

    Raises ValueError: a mark is missing.
    """
    known = {row["name"]: row for row in rows}
    ordered = [known[name] for name in MUTANTS if name in known]
    for mark, table in tables(ordered).items():
        before, found, after = text.partition(f"<!-- {mark} -->\n")
        if not found:
            raise ValueError(f"the page has no <!-- {mark} -->")
        text = before + found + "\n".join(table) + "\n\n" + after.partition("\n\n")[2]
    return text


def tables(rows: list[Row]) -> dict[str, list[str]]:
    """Lines of each table, by its mark."""
    return {
        "counts": [counts(rows)],
        "caught": _table(_CAUGHT, [row for row in rows if row["status"] == "caught"], _caught),
        "seen": _table(_SEEN, [row for row in rows if row["status"] == "seen without faults"], _seen),
        "missed": _table(_MISSED, [row for row in rows if row["status"] == "missed"], _missed),
    }


def counts(rows: list[Row]) -> str:
    """One line over all."""
    caught = [row for row in rows if row["status"] == "caught"]
    small = sum(row["faults"] <= FAULTS_WANTED for row in caught)
    slowest = max((row["cpu_s"] for row in caught), default=0.0)
    return (
        f"{len(rows)} mutants; {len(caught)} pass without faults and are caught, the slowest in {slowest:g} s"
        f" of processor; of {small} of these at most {FAULTS_WANTED} faults are left."
    )


def _table(head: str, rows: list[Row], cells: Callable[[Row], list[str]]) -> list[str]:
    columns = head.count("|") - 1
    return [head, "|" + "---|" * columns, *(f"| {' | '.join(cells(row))} |" for row in rows)]


def _named(row: Row) -> list[str]:
    return [f"`{row['name']}`", row["what"]]


def _caught(row: Row) -> list[str]:
    mutant = MUTANTS[row["name"]]
    return [
        f"`{row['name']}`", mutant.world, row["what"], mutant.faults.replace(",", ", "),
        ", ".join(row["invariants"]), str(row["seed"]), str(row["runs"]), f"{row['cpu_s']:g}",
        str(row["faults"]),
    ]  # fmt: skip


def _seen(row: Row) -> list[str]:
    return [*_named(row), ", ".join(row["invariants"])]


def _missed(row: Row) -> list[str]:
    return [*_named(row), f"{row['runs']}, {row['cpu_s']:g}", MUTANTS[row["name"]].doubt]
