"""Leases: how long each is granted for, how often it was renewed, and which keys hang on it.

There is no clock here: when a lease ends, the leader proposes its expiry (LeaseExpire).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from raftkube.errors import LeaseExists, LeaseNotFound
from raftkube.types import LeaseId


class LeaseView(NamedTuple):
    """What the lease clock of a leader needs to know."""

    lease: LeaseId
    ttl_s: int
    renewal: int
    key_count: int


class Lease:
    """`renewal` rises with each keep-alive; an expiry that was proposed for an earlier one is void."""

    __slots__ = ("keys", "renewal", "ttl_s")

    def __init__(self, ttl_s: int, renewal: int = 0) -> None:
        self.ttl_s = ttl_s
        self.renewal = renewal
        self.keys: set[bytes] = set()


class LeaseTable:
    """The leases by id. A new one's `renewal` begins at `first_renewal`, above that of every lease that has
    ended: an expiry proposed for an ended lease is void for one granted later under its id."""

    __slots__ = ("_leases", "first_renewal")

    def __init__(self) -> None:
        self._leases: dict[int, Lease] = {}
        self.first_renewal = 0

    def __contains__(self, lease: int) -> bool:
        return lease in self._leases

    def ids(self) -> list[int]:
        """All ids, rising."""
        return sorted(self._leases)

    def find(self, lease: int) -> Lease | None:
        """None if there is no such lease."""
        return self._leases.get(lease)

    def get(self, lease: int) -> Lease:
        """Raises LeaseNotFound."""
        found = self._leases.get(lease)
        if found is None:
            raise lease_not_found(lease)
        return found

    def add(self, lease: int, ttl_s: int, renewal: int | None = None) -> Lease:
        """Raises LeaseExists."""
        if lease in self._leases:
            raise lease_exists(lease)
        added = Lease(ttl_s, self.first_renewal if renewal is None else renewal)
        self._leases[lease] = added
        return added

    def remove(self, lease: int) -> None:
        """Forget the lease; its keys must be gone already."""
        self.first_renewal = max(self.first_renewal, self._leases.pop(lease).renewal + 1)

    def move(self, key: bytes, old: int, new: int) -> None:
        """`key` leaves lease `old` for `new`; 0 stands for none."""
        if old == new:
            return
        if old:
            self._leases[old].keys.discard(key)
        if new:
            self._leases[new].keys.add(key)

    def views(self) -> Iterator[LeaseView]:
        """In order of their ids."""
        for lease in self.ids():
            held = self._leases[lease]
            yield LeaseView(LeaseId(lease), held.ttl_s, held.renewal, len(held.keys))


def lease_not_found(lease: int) -> LeaseNotFound:
    """The error, with its sentence and field."""
    return LeaseNotFound(f"lease {lease} does not exist or has ended", lease=lease)


def lease_exists(lease: int) -> LeaseExists:
    """The error, with its sentence and field."""
    return LeaseExists(f"lease {lease} exists already", lease=lease)
