"""The store's operations as methods, by etcd's names; how they are sent is another's business."""

from __future__ import annotations

import abc
from typing import Final, TypeVar

from raftkube.wire.store import (
    Alarm,
    AlarmList,
    AlarmResult,
    Compact,
    CompactResult,
    DeleteRange,
    DeleteRangeResult,
    KeyValue,
    LeaseGrant,
    LeaseKeepAlive,
    LeaseList,
    LeaseListResult,
    LeaseResult,
    LeaseRevoke,
    LeaseTimeToLive,
    Op,
    Put,
    PutResult,
    Range,
    RangeResult,
    Txn,
    TxnResult,
)

READS: Final = (Range, LeaseTimeToLive, LeaseList, AlarmList)
NUMBERED: Final = (Put, DeleteRange, Txn, Compact, LeaseGrant, LeaseRevoke, LeaseKeepAlive)
_Result = TypeVar("_Result")


class Operations(abc.ABC):
    """What a client can ask of the store. Each raises definite and indefinite StoreErrors."""

    @abc.abstractmethod
    async def _op(self, op: Op, kind: type[_Result]) -> _Result: ...

    async def put(
        self,
        key: bytes,
        value: bytes,
        lease: int = 0,
        prev_kv: bool = False,
        *,
        ignore_value: bool = False,
        ignore_lease: bool = False,
    ) -> PutResult:
        """Raises LeaseNotFound, RequestTooLarge, InvalidRequest, NoSpace, KeyNotFound (there is nothing to
        keep); indefinite: ConnectionLost and others."""
        return await self._op(Put(key, value, lease, prev_kv, ignore_value, ignore_lease), PutResult)

    async def delete(self, key: bytes, range_end: bytes = b"", prev_kv: bool = False) -> DeleteRangeResult:
        """Delete a key or range; `deleted` says how many there were."""
        return await self._op(DeleteRange(key, range_end, prev_kv), DeleteRangeResult)

    async def get(self, key: bytes) -> KeyValue | None:
        """The newest version of `key` (linearizable), None if there is none."""
        result = await self._op(Range(key), RangeResult)
        return result.kvs[0] if result.kvs else None

    async def txn(self, op: Txn) -> TxnResult:
        """All or nothing, in one revision."""
        return await self._op(op, TxnResult)

    async def compact(self, revision: int) -> CompactResult:
        """Forget what reads at or above `revision` do not need. Raises Compacted, FutureRevision."""
        return await self._op(Compact(revision), CompactResult)

    async def lease_grant(self, ttl_s: int, lease: int = 0) -> LeaseResult:
        """lease 0: the store chooses the id. Raises LeaseExists."""
        return await self._op(LeaseGrant(lease, ttl_s), LeaseResult)

    async def lease_revoke(self, lease: int) -> LeaseResult:
        """End a lease and delete its keys. Raises LeaseNotFound."""
        return await self._op(LeaseRevoke(lease), LeaseResult)

    async def lease_keep_alive(self, lease: int) -> LeaseResult:
        """Renew for its whole TTL. Raises LeaseNotFound: it has ended."""
        return await self._op(LeaseKeepAlive(lease), LeaseResult)

    async def lease_time_to_live(self, lease: int, keys: bool = False) -> LeaseResult:
        """What is left of it, by the leader's clock, and on request its keys."""
        return await self._op(LeaseTimeToLive(lease, keys), LeaseResult)

    async def leases(self) -> LeaseListResult:
        """The ids of all leases."""
        return await self._op(LeaseList(), LeaseListResult)

    async def alarms(self) -> AlarmResult:
        """(member, alarm) of those that are on."""
        return await self._op(AlarmList(), AlarmResult)

    async def alarm_disarm(self, alarm: str = "NOSPACE", member: str = "") -> AlarmResult:
        """Put an alarm out, of one member or of all; those that were on. Raises PermissionDenied."""
        return await self._op(Alarm(False, alarm, member), AlarmResult)
