"""What one member has done for its clients and its state, counted where it happens; `metrics` names it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any, Final

from raftkube.net.outbox import Outbox
from raftkube.store.raft.counters import Histogram
from raftkube.wire.store import LeaseExpire, LeaseGrant, LeaseResult, LeaseRevoke

# etcd's buckets of lease TTLs (server/lease/metrics.go): 1 s, doubled up to about 97 days.
TTL_BUCKETS_S: Final = tuple(float(2**power) for power in range(24))


class Activity:
    """Only ever rises, but for the counts of what is open now.

    applied: results of operations applied here, by class, those inside transactions included.
    leases: changes of leases applied here, by the operation's class.
    requests: requests of clients, by method.
    """

    def __init__(self) -> None:
        self.applied: Counter[type] = Counter()
        self.leases: Counter[type] = Counter()
        self.lease_ttl_s = Histogram(TTL_BUCKETS_S)
        self.requests: Counter[str] = Counter()
        self.refused_connections = 0
        self.received_bytes = 0
        self.ranges = 0
        self.watchers = 0
        self.catching_up = 0
        self.health_checks: Counter[str] = Counter()
        self._outboxes: set[Outbox] = set()
        self._sent_bytes_closed = 0

    def note_applied(self, results: Iterable[Any]) -> None:
        """These are the results of one log entry."""
        self.applied.update(map(type, results))

    def note_lease(self, op: Any, result: LeaseResult) -> None:
        """A lease changed by `op`, which may be a part of a transaction."""
        if type(op) is LeaseExpire and result.ttl_s:
            return  # it was renewed meanwhile, and lives
        self.leases[type(op)] += 1
        if type(op) is LeaseGrant:
            self.lease_ttl_s.observe(result.ttl_s)

    @property
    def leases_revoked(self) -> int:
        """Leases that ended, by a client's wish or by expiry."""
        return self.leases[LeaseRevoke] + self.leases[LeaseExpire]

    def opened(self, outbox: Outbox) -> None:
        """A client's connection is served from now on."""
        self._outboxes.add(outbox)

    def closed(self, outbox: Outbox) -> None:
        """It is over. Idempotent."""
        if outbox in self._outboxes:
            self._outboxes.discard(outbox)
            self._sent_bytes_closed += outbox.sent_bytes

    @property
    def connections(self) -> int:
        """Connections of clients that are served now."""
        return len(self._outboxes)

    @property
    def sent_bytes(self) -> int:
        """Bytes handed to the connections of clients, before encryption."""
        return self._sent_bytes_closed + sum([outbox.sent_bytes for outbox in self._outboxes])
