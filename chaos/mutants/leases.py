"""Mutants of leases: when they end, and what ends with them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from chaos.mutants.mutant import Mutant
from raftkube.store.core.leases import LeaseTable
from raftkube.store.core.machine import StateMachine
from raftkube.store.server.lease_clock import LeaseClock
from raftkube.wire.store import LeaseResult

Function = Callable[..., Any]


def _no_extension(original: Function) -> Function:
    def lead(self: LeaseClock, leases: Any) -> None:
        original(self, leases)
        self._due = {lease: (deadline - 0.8 * (deadline - self._clock.monotonic()), renewal)
                     for lease, (deadline, renewal) in self._due.items()}  # fmt: skip
        self._rebuild()

    return lead


class _WallClock:
    """Its monotonic time is the wall's."""

    def __init__(self, clock: Any) -> None:
        self.monotonic = self.wall = clock.wall


def _by_the_wall(original: Function) -> Function:
    def init(self: LeaseClock, settings: Any, clock: Any, **options: Any) -> None:
        original(self, settings, _WallClock(clock), **options)

    return init


def _count_the_stop(original: Function) -> Function:
    return lambda self, seconds: None


def _no_barrier(original: Function) -> Function:
    async def nothing() -> None:
        pass

    def init(self: LeaseClock, settings: Any, clock: Any, **options: Any) -> None:
        original(self, settings, clock, **(options | {"barrier": nothing}))

    return init


def _any_renewal(original: Function) -> Function:
    def expire(self: StateMachine, op: Any) -> LeaseResult:
        lease = self._leases.find(op.lease)
        return original(self, op if lease is None else op._replace(renewal=lease.renewal))  # type: ignore[no-any-return]

    return expire


def _half_after_a_retry(original: Function) -> Function:
    """The clock hears of renewals only while it stands by its term's first leases."""

    def observe(self: LeaseClock, result: LeaseResult) -> None:
        if result.ttl_s > 0 and result.renewal >= 4:
            result = result._replace(ttl_s=result.ttl_s / 2)  # type: ignore[arg-type]
        original(self, result)

    return observe


def _renewal_not_applied(original: Function) -> Function:
    def keep_alive(self: StateMachine, op: Any) -> LeaseResult:
        lease = self._leases.get(op.lease)
        result: LeaseResult = original(self, op)
        lease.renewal -= 1
        return result._replace(renewal=lease.renewal)

    return keep_alive


def _leave_the_last_key(original: Function) -> Function:
    def end_lease(self: StateMachine, lease: int, held: Any) -> None:
        if len(held.keys) > 1:
            held.keys.discard(max(held.keys))
        original(self, lease, held)

    return end_lease


def _move_from_the_gone(original: Function) -> Function:
    def move(self: LeaseTable, key: bytes, old: int, new: int) -> None:
        original(self, key, old if old in self else 0, new)

    return move


def _end_what_has_left(original: Function) -> Function:
    """A key stays on the lease that it was moved away from by a transaction."""

    def put(self: StateMachine, op: Any) -> Any:
        before = self._keyspace.get(op.key)
        result = original(self, op)
        if before is not None and before.lease and not op.lease and before.lease in self._leases:
            self._leases.get(before.lease).keys.add(op.key)
        return result

    return put


def _end_what_exists(original: Function) -> Function:
    def end_lease(self: StateMachine, lease: int, held: Any) -> None:
        held.keys = {key for key in held.keys if self._keyspace.get(key) is not None}
        original(self, lease, held)

    return end_lease


_LEASES: Final = {"hosts": 3, "workload": {"lease_clients": 1, "keys": 3, "think_s": 0.5}}
_MANY: Final = {"hosts": 3, "workload": {"lease_clients": 3, "candidates": 2, "think_s": 2.0, "clients": 1}}

MUTANTS: Final = (
    Mutant("leader-cuts-leases", "a new leader gives leases a fifth of their TTL instead of all of it",
           ((LeaseClock, "lead", _no_extension),), "kill,partition,transfer,pause", _MANY),
    Mutant("leases-by-the-wall", "the lease clock goes by the wall clock",
           ((LeaseClock, "__init__", _by_the_wall),), "clock", _MANY),
    Mutant("stop-counts", "a leader that stood still counts that time against leases",
           ((LeaseClock, "_extend", _count_the_stop),), "pause,slow-disk", _MANY,
           doubt="a renewal that had waited is drained by the barrier before anything ends"),
    Mutant("expiry-without-barrier", "a leader ends leases without looking for renewals that have arrived",
           ((LeaseClock, "__init__", _no_barrier),), "pause,slow-disk,partition", _MANY,
           doubt="a lease clock that wakes late has extended what it would end before it looks"),
    Mutant("any-renewal-expires", "the expiry of a lease that was renewed meanwhile ends it all the same",
           ((StateMachine, "_expire", _any_renewal),), "pause,partition,slow-link", _MANY),
    Mutant("fourth-renewal-halves", "the lease clock gives half of the TTL from the fourth renewal on",
           ((LeaseClock, "observe", _half_after_a_retry),), "kill,partition", _MANY),
    Mutant("renewal-not-applied", "a keep-alive is answered and changes nothing",
           ((StateMachine, "_keep_alive", _renewal_not_applied),), "kill", _MANY),
    Mutant("ended-lease-leaves-a-key", "the last of several keys stays when their lease ends",
           ((StateMachine, "_end_lease", _leave_the_last_key), (LeaseTable, "move", _move_from_the_gone)),
           "kill", _MANY),
    Mutant("lease-ends-what-has-left", "a key that a transaction took off a lease still ends with it",
           ((StateMachine, "_put", _end_what_has_left), (StateMachine, "_end_lease", _end_what_exists)),
           "kill,partition", _LEASES),
)  # fmt: skip
