"""Members agree: S4, equal state hashes at equal points of the log (leases and sessions change without a new
revision); and at the end every member has everything."""

from __future__ import annotations

from chaos.checkers.history import History
from chaos.checkers.verdict import Verdict


def check_members(history: History, verdict: Verdict) -> None:
    """Judge the `hash` operations and that every member was read after the barrier."""
    hashes: dict[tuple[int, int | None], dict[str, str]] = {}
    for operation in history.operations:
        if operation["kind"] == "hash" and operation["outcome"] == "ok":
            response = operation["response"]
            point = (operation["revision"], response.get("applied_index"))
            hashes.setdefault(point, {})[operation["request"]["member"]] = response["hash"]
    for (revision, _), by_member in hashes.items():
        verdict.count("member hashes", len(by_member))
        if len(set(by_member.values())) > 1:
            told = ", ".join(f"{member} {value}" for member, value in sorted(by_member.items()))
            verdict.add("S4", f"members differ at revision {revision}: {told}")
    _check_final_reads(history, verdict)


def _check_final_reads(history: History, verdict: Verdict) -> None:
    if history.barrier is None:
        return
    barrier = history.barrier["revision"]
    read = {
        operation.get("read_from", operation["request"]["member"])
        for operation in history.operations
        if "final" in operation and operation["outcome"] == "ok" and operation["revision"] >= barrier
    }
    missing = set(history.header.get("members", [])) - read
    if missing:
        verdict.unknown_because.append(f"no read after the barrier from {', '.join(sorted(missing))}")
