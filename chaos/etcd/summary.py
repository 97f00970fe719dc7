"""A run in a few lines, and the file that keeps the runs: `python -m chaos.etcd.summary FILE OUT...`

FILE is written anew from the `summary.json` of each OUT folder.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Any

import orjson

from chaos.checkers.history import History
from chaos.checkers.verdict import Verdict
from chaos.etcd.confirmation import members_differ

Json = dict[str, Any]


def summarize(history: History, verdict: Verdict, faults: list[Json]) -> Json:
    """What was done, what the checkers found, and whether the members' own words confirm it."""
    difference = members_differ(history)
    options = history.header["options"]
    return {
        "target": history.header["target"],
        "seed": history.header["seed"],
        "commit": history.header["commit"],
        "workload": options["workload"],
        "duration_s": options["duration_s"],
        "faults": dict(Counter(record["name"] for record in faults)),
        "faults_effective": sum(record.get("effect") is not None for record in faults),
        "operations": len(history.operations),
        "verdict": verdict.word,
        "says": _sentence(history, verdict, difference),
        "confirmed": difference,
        "unknown_because": verdict.unknown_because,
        "violations": _violations(verdict),
    }


def _sentence(history: History, verdict: Verdict, difference: str | None) -> str:
    if difference:
        return f"{verdict.word}, confirmed: {difference}"
    hashed = any(op["kind"] == "hash" and op["outcome"] == "ok" for op in history.operations)
    told = "the members' hashes and reads are equal" if hashed else "no member's hash was read"
    return f"{verdict.word}, not confirmed: {told}" if verdict.violations else f"{verdict.word}; {told}"


def _violations(verdict: Verdict) -> list[Json]:
    """Of each invariant how many, and the first one's sentence."""
    found: dict[str, Json] = {}
    for violation in verdict.violations:
        row = found.setdefault(
            violation.invariant,
            {"invariant": violation.invariant, "count": 0, "first": violation.sentence[:600]},
        )
        row["count"] += 1
    return list(found.values())


def main(arguments: list[str]) -> None:
    """Wrong arguments are one sentence and exit code 2."""
    if len(arguments) < 2:
        sys.exit("usage: python -m chaos.etcd.summary FILE OUT...")
    rows = [orjson.loads((Path(folder) / "summary.json").read_bytes()) for folder in arguments[1:]]
    Path(arguments[0]).write_bytes(orjson.dumps(rows, option=orjson.OPT_INDENT_2) + b"\n")


if __name__ == "__main__":
    main(sys.argv[1:])
