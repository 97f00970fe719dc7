"""Leases, as far as a history tells of them: who was granted and renewed when, and what hangs on whom.

The store counts a TTL from when it applied the grant or the renewal, which is not before the call. So:

L1  A lease whose keys went, as known at time t, before (call of its last acknowledged renewal) + TTL ended
    early. So did one that was refused as not found before then.
L4  The same, if a change of the store's leader was seen in between: it must extend TTLs, not end leases.
L2  A lease must be gone by (return of its last renewal) + TTL + the header's `lease_slack_s`; each leader
    seen meanwhile gives one TTL more. Not judged if a renewal of it is of unknown outcome.

A lease that was granted twice under one id is not judged.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Final

from chaos.checkers.history import History, Operation
from chaos.checkers.verdict import Verdict
from chaos.checkers.wording import name

# Times are rounded to ns from a clock in seconds.
_ROUNDING_NS: Final = 1_000


@dataclass(slots=True)
class Lease:
    """What was asked of one lease. `renewals`: acknowledged, the grant among them."""

    lease: int
    ttl_ns: int = 0
    grants: list[Operation] = field(default_factory=list)
    renewals: list[Operation] = field(default_factory=list)
    doubts: list[Operation] = field(default_factory=list)  # renewals of unknown outcome
    revokes: list[Operation] = field(default_factory=list)  # but for those that were refused
    refused: list[Operation] = field(default_factory=list)  # renewals: there is no such lease
    keys: set[str] = field(default_factory=set)

    @property
    def judged(self) -> bool:
        """Whether it is known what was granted."""
        return len(self.grants) == 1

    @property
    def due_ns(self) -> int:
        """It cannot end by itself before."""
        return self.renewed_ns + self.ttl_ns

    @property
    def renewed_ns(self) -> int:
        """The call of its last acknowledged renewal, or of its grant."""
        return max(int(op["call_ns"]) for op in (*self.grants, *self.renewals))


class Leases:
    """All leases of a history. `attach` and `detach` follow the replay."""

    def __init__(self, history: History, verdict: Verdict) -> None:
        self._verdict = verdict
        self._slack_s = history.header.get("lease_slack_s")
        self._by_id: dict[int, Lease] = {}
        self._of_key: dict[str, Lease] = {}
        self._revoked_at: dict[int, list[Lease]] = defaultdict(list)
        self._elections = sorted(
            {
                (seen["term"], seen["time_ns"])
                for seen in history.observations
                if seen["kind"] == "term" or (seen["kind"] == "role" and seen["role"] == "leader")
            }
        )
        for operation in history.operations:
            if operation["kind"].startswith("lease_"):
                self._note(operation)

    def __bool__(self) -> bool:
        return bool(self._by_id)

    def _note(self, operation: Operation) -> None:
        lease_id, kind, outcome = operation["request"]["lease"], operation["kind"], operation["outcome"]
        lease = self._by_id.setdefault(lease_id, Lease(lease_id))
        if kind == "lease_revoke":
            if outcome != "fail":
                lease.revokes.append(operation)
            if outcome == "ok":
                self._revoked_at[operation["revision"]].append(lease)
        elif outcome == "fail":
            if operation["error"] == "lease_not_found":
                lease.refused.append(operation)
        else:
            (lease.renewals if outcome == "ok" else lease.doubts).append(operation)
            if kind == "lease_grant":
                lease.grants.append(operation)
                lease.ttl_ns = int(operation["request"]["ttl_s"] * 1e9)

    # The replay.

    def attach(self, revision: int, key: str, lease_id: int, writer: Operation) -> None:
        """A put at `revision` hangs `key` on a lease (0: on none)."""
        self.detach(key)
        if not lease_id:
            return
        lease = self._by_id.setdefault(lease_id, Lease(lease_id))
        lease.keys.add(key)
        self._of_key[key] = lease
        revoked = [op["revision"] for op in lease.revokes if op["outcome"] == "ok"]
        if lease.judged and revoked and min(revoked) < revision:
            self._verdict.add(
                "S1",
                f"{name(writer)} at revision {revision} hangs on lease {lease_id}, which was revoked at "
                f"revision {min(revoked)}",
                writer,
                lease.revokes[0],
            )

    def detach(self, key: str) -> None:
        """The key is gone or put anew."""
        if key in self._of_key:
            self._of_key.pop(key).keys.discard(key)

    def holding(self, keys: set[str]) -> Lease | None:
        """The lease on which these keys hang and no others."""
        lease = self._of_key.get(next(iter(keys)))
        return lease if lease is not None and lease.keys == keys else None

    def revoked(self, revision: int, lease: Lease) -> bool:
        """Whether an acknowledged revoke of `lease` was given `revision`."""
        return lease in self._revoked_at.get(revision, ())

    def check_revoked(self, revision: int) -> None:
        """After `revision` was applied: nothing hangs on what was revoked then."""
        if revision not in self._revoked_at:
            return
        for lease in self._revoked_at[revision]:
            if lease.keys:
                self._verdict.add(
                    "S2",
                    f"lease {lease.lease} was revoked at revision {revision}, and {min(lease.keys)} "
                    f"is still there",
                    *lease.revokes,
                )

    # Times.

    def may_have_expired(self, lease: Lease, known_ns: int | None) -> bool:
        """Whether it can have ended by itself by `known_ns`, the time by which it was seen ended."""
        if not lease.judged or known_ns is None:
            return True
        return known_ns + _ROUNDING_NS >= lease.due_ns

    def blame_early(self, lease: Lease, known_ns: int, what: str, *shown: Operation) -> None:
        """`lease` ended before its TTL; `what` tells by what it is known."""
        changed = any(lease.renewed_ns <= time_ns <= known_ns for _, time_ns in self._elections)
        early_s = (lease.due_ns - known_ns) / 1e9
        self._verdict.add(
            "L4" if changed else "L1",
            f"lease {lease.lease} ended at least {early_s:.3f} s early"
            f"{' after a change of leader' if changed else ''}: {what}",
            *lease.renewals[-1:],
            *shown,
        )

    def check_late(self, lease: Lease, not_before_ns: int) -> None:
        """Keys that hang on `lease` were still there at `not_before_ns`."""
        if self._slack_s is None or not lease.judged or lease.doubts or not lease.renewals:
            return
        renewed_ns = max(op["return_ns"] for op in lease.renewals)
        terms = {term for term, time_ns in self._elections if lease.renewed_ns <= time_ns <= not_before_ns}
        bound_ns = lease.ttl_ns * (1 + len(terms)) + int(self._slack_s * 1e9)
        if not_before_ns > renewed_ns + bound_ns:
            late_s = (not_before_ns - renewed_ns - bound_ns) / 1e9
            self._verdict.add(
                "L2",
                f"lease {lease.lease} was not renewed any more, and its keys were still there {late_s:.3f} s "
                f"after its TTL of {lease.ttl_ns / 1e9:g} s, {len(terms)} changes of leader and the slack",
                *lease.renewals[-1:],
            )

    def finish(self, barrier: Operation) -> None:
        """After the replay: what should have ended, and what was refused too early."""
        for lease in self._by_id.values():
            self._verdict.count("leases")
            if lease.keys:
                self.check_late(lease, barrier["call_ns"])
            if lease.judged and not lease.revokes:
                for operation in lease.refused:
                    self._check_refused(lease, operation)

    def _check_refused(self, lease: Lease, operation: Operation) -> None:
        """A renewal that had returned before the call keeps the lease for its TTL from its own call on."""
        before = [op["call_ns"] for op in lease.renewals if op["return_ns"] < operation["call_ns"]]
        if before and operation["return_ns"] + _ROUNDING_NS < max(before) + lease.ttl_ns:
            known = operation["return_ns"]
            self.blame_early(lease, known, f"{name(operation)} was answered that there is none", operation)
