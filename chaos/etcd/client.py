"""A client of etcd with the methods of raftkube's StoreClient that workloads use.

Failover is the same, too: a write is sent again only when it certainly did not happen, a read always, until
the caller's deadline. A member that does not answer in time is turned from.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar, cast

import orjson
import trio

from chaos.etcd.gateway import error_of, request_of, result_of
from chaos.etcd.watch import EtcdWatch
from raftkube.errors import (
    ConfigError,
    ConnectionLost,
    Indefinite,
    InvalidRequest,
    Overloaded,
    Unreachable,
)
from raftkube.net import Address, Network
from raftkube.net.http_client import ClientLimits, ConnectError, HttpClient, ResponseLost
from raftkube.store.client.operations import READS, Operations
from raftkube.wire.store import Op, Range, RangeResult

_LIMITS: Final = ClientLimits(idle_connections_max=64, connect_timeout_s=2.0)
# A read that a member leaves unanswered for so long is asked of the next one.
_READ_PATIENCE_S: Final = 2.0
_BACKOFF_MIN_S: Final = 0.02
_BACKOFF_MAX_S: Final = 0.3
_Result = TypeVar("_Result")
OnAttach = Callable[[bytes, Address, int], None]


class EtcdClient(Operations):
    """Use `async with EtcdClient.open(...) as client`. Any number of tasks may call it."""

    def __init__(
        self,
        network: Network,
        addresses: Sequence[Address],
        *,
        rng: random.Random,
        pinned: bool,
        on_attach: OnAttach | None,
    ) -> None:
        if not addresses:
            raise ConfigError("an etcd client needs the address of at least one member")
        self._members = [HttpClient(network, address, None, limits=_LIMITS) for address in addresses]
        self._preferred = 0
        self._pinned = pinned
        self._rng = rng
        self._on_attach = on_attach

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        network: Network,
        addresses: Sequence[Address],
        *,
        rng: random.Random,
        pinned: bool = False,
        on_attach: OnAttach | None = None,
    ) -> AsyncIterator[EtcdClient]:
        """The first address is asked first. `pinned`: it alone, and nothing is tried again.

        `on_attach` is told of each watch at each member: its key, the member, the revision asked for.
        """
        client = cls(network, addresses, rng=rng, pinned=pinned, on_attach=on_attach)
        try:
            yield client
        finally:
            with trio.move_on_after(2, shield=True):
                for member in client._members:
                    await member.aclose()

    async def range(
        self, op: Range, *, serializable: bool = False, member: Address | str | None = None
    ) -> RangeResult:
        """Read. `serializable`: from one member's own state, which may lag. `member`: its address."""
        path, body = request_of(op, serializable=serializable)
        answer = await self._call(path, body, write=False, member=member)
        result = result_of(op, answer)
        assert isinstance(result, RangeResult)
        return result

    async def status(self, member: Address | str | None = None) -> dict[str, Any]:
        """etcd's own words for one member: header, leader, raftTerm, raftAppliedIndex, dbSize, version."""
        body = await self._call("/v3/maintenance/status", b"{}", write=False, member=member)
        return cast(dict[str, Any], orjson.loads(body))

    @asynccontextmanager
    async def watch(
        self,
        key: bytes,
        range_end: bytes = b"",
        start_revision: int = 0,
        prev_kv: bool = False,
        progress_notify: bool = False,
        *,
        resume: bool = True,
    ) -> AsyncIterator[EtcdWatch]:
        """Watch a key or range from `start_revision` on (0: what happens after entering).

        On entering, a member has accepted the watch. It goes on at the next member when one is lost, unless
        not asked to `resume`. Raises Compacted: that revision is gone.
        """
        watch = EtcdWatch(
            self._watch_member, key, range_end, start_revision,
            prev_kv=prev_kv, progress_notify=progress_notify, resume=resume, on_attach=self._on_attach,
        )  # fmt: skip
        try:
            await watch.attach()
            yield watch
        finally:
            with trio.move_on_after(2, shield=True):
                await watch.detach()

    async def back_off(self, attempt: int) -> None:
        """The first turns cost nothing: another member is tried."""
        if attempt < len(self._members):
            await trio.lowlevel.checkpoint()
            return
        longest = min(_BACKOFF_MAX_S, _BACKOFF_MIN_S * 2 ** min(attempt - len(self._members), 10))
        await trio.sleep(longest * self._rng.uniform(0.5, 1.0))

    async def _watch_member(self, attempt: int) -> HttpClient:
        await self.back_off(attempt)
        return self._members[(self._preferred + attempt) % len(self._members)]

    async def _op(self, op: Op, kind: type[_Result]) -> _Result:
        path, body = request_of(op)
        result = result_of(op, await self._call(path, body, write=not isinstance(op, READS)))
        assert isinstance(result, kind)
        return result

    async def _call(
        self, path: str, body: bytes, *, write: bool, member: Address | str | None = None
    ) -> bytes:
        if member is not None or self._pinned:
            return await _ask(self._find(member), path, body)
        attempt = 0
        while True:
            target = self._preferred
            try:
                return await self._try(target, path, body, write=write)
            except (Unreachable, Overloaded, Indefinite) as error:
                self._turn_from(target)
                if write and not error.definite:
                    raise
            attempt += 1
            await self.back_off(attempt)

    async def _try(self, target: int, path: str, body: bytes, *, write: bool) -> bytes:
        """One attempt; a member that was silent when the caller gave up is not asked first again."""
        try:
            with trio.move_on_after(float("inf") if write else _READ_PATIENCE_S):
                return await _ask(self._members[target], path, body)
        except trio.Cancelled:
            self._turn_from(target)
            raise
        raise Indefinite(f"no answer within {_READ_PATIENCE_S:g} s")

    def _turn_from(self, target: int) -> None:
        if self._preferred == target:
            self._preferred = (target + 1) % len(self._members)

    def _find(self, member: Address | str | None) -> HttpClient:
        if member is None:
            return self._members[0]
        for known in self._members:
            if member in (known.address, str(known.address)):
                return known
        raise InvalidRequest(f"no member at {str(member)!r}", field="member")


async def _ask(member: HttpClient, path: str, body: bytes) -> bytes:
    """The body of a 200. Raises Unreachable (nothing was sent), ConnectionLost, and what etcd answered."""
    try:
        response = await member.request("POST", path, body=body)
    except ConnectError as error:
        raise Unreachable(str(error)) from error
    except ResponseLost as error:
        raise ConnectionLost(str(error)) from error
    if response.status != 200:
        raise error_of(response.body)
    return response.body
