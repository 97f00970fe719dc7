"""Objects in the storage: read, create, change, each write one transaction with all its guards.

A change starts from the watch cache, which may lag. So nothing that would be refused or skipped because of
a cached state is: the state is read anew first (as upstream's GuaranteedUpdate).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

import structlog
import trio

from raftkube.api.resource import Object, Resource
from raftkube.api.status import ApiError, already_exists, not_found
from raftkube.apiserver.cache import WatchCache
from raftkube.apiserver.errors import store_errors
from raftkube.apiserver.storage import Storage
from raftkube.apiserver.stored import Stored, decode, encode, has_store_lease
from raftkube.apiserver.transaction import Check, Guard, Stale, Write, build, holds, raise_failure
from raftkube.errors import LeaseNotFound, StoreError
from raftkube.wire.store import DeleteRange, KeyValue, Put, Range, TxnResult

log = structlog.get_logger(__name__)

EVENT_TTL_S: Final = 3600
_EVENT_LEASE_REUSE_S: Final = 300.0
_CREATE_ATTEMPTS: Final = 8


@dataclass(frozen=True, slots=True)
class Change:
    """What to do with an object. obj: what to store, or with `remove` what the client is shown.

    checks and writes go into the same transaction.
    """

    obj: Object
    remove: bool = False
    checks: tuple[Check, ...] = ()
    writes: tuple[Write, ...] = ()


@dataclass(frozen=True, slots=True)
class Changed:
    """What was done: the object as it is now, or as it last was if `removed`."""

    stored: Stored
    removed: bool = False


Decide = Callable[[Stored], Change | None]
Propose = Callable[[], Awaitable[Change]]


class ObjectStore:
    """Reads are linearizable. Errors of the storage come out as ApiError."""

    def __init__(self, storage: Storage, cache: WatchCache) -> None:
        self._storage = storage
        self._cache = cache
        self._event_lease = (0, float("-inf"))

    async def read(self, resource: Resource, namespace: str, name: str) -> Stored:
        """The newest state. Raises ApiError 404."""
        found = await self.find(resource.key(namespace, name).encode())
        if found is None:
            raise not_found(resource.group, resource.plural, name)
        return found

    async def find(self, key: bytes) -> Stored | None:
        """The newest state of a store key; None if there is none."""
        found = await self.find_raw(key)
        return decode(found) if found else None

    async def find_raw(self, key: bytes) -> KeyValue | None:
        """As `find`, not decoded."""
        with store_errors():
            result = await self._storage.range(Range(key))
        return result.kvs[0] if result.kvs else None

    async def create(
        self, resource: Resource, namespace: str, name: str, propose: Propose, guard: Guard
    ) -> Stored:
        """Store a new object. `propose` is asked again when one of its checks did not hold.

        Raises ApiError: 409 the name is taken, and what the checks refuse with.
        """
        key = resource.key(namespace, name).encode()
        for _ in range(_CREATE_ATTEMPTS):
            change = await propose()
            try:
                return await self._insert(resource, key, change, guard.plus(*change.checks))
            except Stale as stale:
                if stale.current is not None:
                    raise already_exists(resource.group, resource.plural, name) from stale
        raise ApiError(409, "Conflict", f"{resource.plural} {name!r} could not be created: try again")

    async def change(
        self, resource: Resource, namespace: str, name: str, decide: Decide, guard: Guard
    ) -> Changed:
        """Carry out what `decide` makes of the object, again and again until it was decided on the newest
        state; None from it leaves the object alone. Raises ApiError 404, and what `decide` raises."""
        try:
            return await self._change(resource, namespace, name, decide, guard)
        except ApiError as error:
            if error.code < 500:  # an unknown outcome must stay one
                await self._refuse_first(guard)
            raise

    async def _change(
        self, resource: Resource, namespace: str, name: str, decide: Decide, guard: Guard
    ) -> Changed:
        key = resource.key(namespace, name).encode()
        stored, fresh = self._cache.of(resource).get(key), False
        while True:
            if stored is None:
                stored, fresh = await self.read(resource, namespace, name), True
            try:
                change = decide(stored)
                if change is not None or fresh:
                    return await self._carry_out(stored, change, guard)
                stored = None
            except ApiError:
                if fresh:
                    raise
                stored = None
            except Stale as stale:
                if stale.current is None:
                    raise not_found(resource.group, resource.plural, name) from stale
                stored, fresh = decode(stale.current), True
                await trio.lowlevel.checkpoint()

    async def _refuse_first(self, guard: Guard) -> None:
        """Before any other refusal: a deposed leader must hear that it is one, whatever else is wrong."""
        for check in guard.checks:
            found = await self.find_raw(check.compare.key)
            if not holds(check.compare, found) and (error := check.refuse(found)) is not None:
                raise error

    async def _carry_out(self, stored: Stored, change: Change | None, guard: Guard) -> Changed:
        if change is None or guard.dry_run:
            await self._verify(stored, guard)
            if change is None:
                return Changed(stored)
            return Changed(_as_stored(stored, change.obj, stored.revision), change.remove)
        guard.check_client()
        checks = (*guard.checks, *change.checks)
        if change.remove:
            writes: tuple[Write, ...] = (DeleteRange(stored.key), *change.writes)
            result = await self._commit(stored.key, stored.revision, writes, checks)
            return Changed(_as_stored(stored, change.obj, result.revision), removed=True)
        put = Put(stored.key, encode(change.obj), stored.lease)
        if _renews(stored, change.obj):
            result = await self._renew(stored, put, checks)
        else:
            result = await self._commit(stored.key, stored.revision, (put, *change.writes), checks)
        return Changed(_as_stored(stored, change.obj, result.revision))

    async def _verify(self, stored: Stored, guard: Guard) -> None:
        """A write that changes nothing is still refused to a deposed leader."""
        if guard.checks and not guard.dry_run:
            await self._commit(stored.key, stored.revision, (), guard.checks)

    async def _insert(self, resource: Resource, key: bytes, change: Change, guard: Guard) -> Stored:
        value = encode(change.obj)
        if guard.dry_run:
            found = await self.find(key)
            if found is not None:
                raise Stale(KeyValue(key, b"", 0, 0, 0, 0))
            return Stored(key, change.obj, 0, 0, 0)
        lease = await self._lease_for(resource, change.obj)
        guard.check_client()
        try:
            writes = (Put(key, value, lease), *change.writes)
            result = await self._commit(key, 0, writes, guard.checks)
        except (ApiError, Stale) as error:
            if lease and resource.plural == "leases":
                await self._drop_lease(lease, error)
            raise
        return decode(KeyValue(key, value, result.revision, result.revision, 1, lease))

    async def _drop_lease(self, lease: int, error: ApiError | Stale) -> None:
        """Of an object that was certainly not created; else, or if this fails, it expires by itself."""
        if isinstance(error, ApiError) and error.code == 504:
            return
        try:
            await self._storage.lease_revoke(lease)
        except StoreError as failure:
            log.debug("lease_left_to_expire", lease=lease, error=failure.message)

    async def _commit(
        self, key: bytes, revision: int, writes: tuple[Write, ...], checks: tuple[Check, ...]
    ) -> TxnResult:
        with store_errors():
            try:
                result = await self._storage.txn(build(key, revision, writes, checks))
            except LeaseNotFound as error:
                self._event_lease = (0, float("-inf"))
                raise Stale(None) from error
        if not result.succeeded:
            raise_failure(result, checks)
        return result

    async def _renew(self, stored: Stored, put: Put, checks: tuple[Check, ...]) -> TxnResult:
        request = build(stored.key, stored.revision, (put,), checks)
        with store_errors():
            try:
                result = await self._storage.renew(stored.lease, request.compares, put)
            except LeaseNotFound as error:
                raise Stale(None) from error  # it expired, and the object with it
            if not result.succeeded:
                result = await self._storage.txn(request._replace(success=()))
                if not result.succeeded:
                    raise_failure(result, checks)
                raise Stale(await self.find_raw(stored.key))
        return result

    async def _lease_for(self, resource: Resource, obj: Object) -> int:
        """The store lease that a new object hangs on; 0 for none."""
        with store_errors():
            if resource.plural == "leases" and has_store_lease(obj):
                return await self._storage.lease_grant(int(obj["spec"]["leaseDurationSeconds"]))
            if resource.plural == "events":
                return await self._lease_of_events()
        return 0

    async def _lease_of_events(self) -> int:
        """Events of a few minutes share a lease (upstream's lease manager does the same)."""
        lease, since = self._event_lease
        if trio.current_time() - since > _EVENT_LEASE_REUSE_S:
            lease = await self._storage.lease_grant(EVENT_TTL_S + int(_EVENT_LEASE_REUSE_S))
            self._event_lease = (lease, trio.current_time())
        return lease


def _renews(stored: Stored, new: Object) -> bool:
    """Whether an update renews the store lease behind a Lease object."""
    if not (stored.lease and has_store_lease(stored.obj)):
        return False
    old_spec, spec = stored.obj.get("spec") or {}, new.get("spec") or {}
    return bool(spec.get("renewTime") != old_spec.get("renewTime"))


def _as_stored(old: Stored, obj: Object, revision: int) -> Stored:
    """`obj` as the store has it now, without reading it back."""
    kv = KeyValue(old.key, encode(obj), old.create_revision, revision, 0, old.lease)
    return decode(kv)
