"""Leader election by a Lease that the store itself expires, and whose create revision fences every write.

A candidate creates the Lease; whoever succeeds leads, and the Lease's create revision is its fencing token.
The leader renews; when it dies, the store deletes the Lease and the other candidates, who watch it, create
it anew at once. Safety never rests on this process' clock: a deposed leader that does not know it yet (it
was paused, or cut off) is refused by the check of the token inside each write's own transaction. That is
why the renew deadline may be longer than the lease, unlike upstream's: it only says when to give up.
Source: k8s.io/client-go/tools/leaderelection; M. Kleppmann, How to do distributed locking (2016).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

import structlog
import trio

from raftkube.api.status import ApiError
from raftkube.client.endpoints import LEASES, Object
from raftkube.client.errors import FencingTokenStale, IndefiniteApiError, LeadershipEnded
from raftkube.client.rest import FencingToken, RestClient
from raftkube.clock import Clock, rfc3339
from raftkube.errors import ConfigError
from raftkube.rng import Rng

log = structlog.get_logger(__name__)

STORE_LEASE_ANNOTATION: Final = "raftkube.dev/store-lease"
FENCING_TOKEN_ANNOTATION: Final = "raftkube.dev/fencing-token"
_CREATE_JITTER_S: Final = 0.05  # keeps candidates from meeting in the same transaction
_WATCH_TIMEOUT_S: Final = 60
_RELEASE_TIMEOUT_S: Final = 2.0

Work = Callable[[FencingToken], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class ElectionSettings:
    """Times in seconds. The Lease is renewed every third of its duration.

    Handover after a death takes the rest of the lease and one create: less than `lease_duration_s` and a
    little. `renew_deadline_s`: without a renewal for so long, leading stops. `retry_period_s`: the pause
    between attempts that failed.
    """

    lease_duration_s: int = 3
    renew_deadline_s: float = 10.0
    retry_period_s: float = 0.5

    def __post_init__(self) -> None:
        if self.lease_duration_s < 1:
            raise ConfigError("--leader-elect-lease-duration must be at least 1s")
        if self.retry_period_s <= 0:
            raise ConfigError("--leader-elect-retry-period must be more than 0s")
        if self.renew_deadline_s < self.retry_period_s:
            raise ConfigError(
                "--leader-elect-renew-deadline must be at least --leader-elect-retry-period "
                f"({self.retry_period_s:g}s)"
            )


async def run_elected(
    client: RestClient,
    name: str,
    identity: str,
    settings: ElectionSettings,
    work: Work,
    *,
    clock: Clock,
    rng: Rng,
    namespace: str = "kube-system",
) -> None:
    """Wait for the leadership `namespace/name`, then run `work(token)` for as long as it lasts.

    `work` makes its writes through `client.fenced(token)`. identity: unique for this process and start.
    Raises LeadershipEnded when the leadership is lost; `work` has been cancelled by then. Returns when
    `work` does. Cancelled, or `work` is over: the Lease is released, so that another leads at once.
    """
    elector = _Elector(client, name, namespace, identity, settings, clock, rng)
    await elector.acquire()
    await elector.lead(work)


class _Lost(Exception):
    """Definitely not the leader any more; the text says why."""


class _Elector:
    def __init__(
        self,
        client: RestClient,
        name: str,
        namespace: str,
        identity: str,
        settings: ElectionSettings,
        clock: Clock,
        rng: Rng,
    ) -> None:
        # A server that is silent for a third of the lease leaves time to renew through another one.
        self._client = client.impatient(max(settings.lease_duration_s / 3, settings.retry_period_s))
        self._name = name
        self._namespace = namespace
        self._identity = identity
        self._settings = settings
        self._clock = clock
        self._rng = rng
        self._lease: Object = {}
        self._renewed_at = 0.0
        self._transitions = 0
        self._ended_because = ""

    # Candidate ------------------------------------------------------------------------------

    async def acquire(self) -> None:
        """Wait until the Lease is ours."""
        while not self._lease:
            try:
                await self._try_create()
            except ApiError as error:
                if error.reason != "AlreadyExists":
                    log.warning("acquire_failed", lease=self._name, error=error.message)
                    await trio.sleep(self._settings.retry_period_s)
                    continue
                await self._await_turn()
        log.info("became_leader", lease=self._name, identity=self._identity, token=self._token_value())

    async def _try_create(self) -> None:
        sent_at = self._clock.monotonic()
        self._lease = await self._client.create(LEASES, self._new_lease())
        self._renewed_at = sent_at

    async def _await_turn(self) -> None:
        try:
            await self._wait_until_free()
        except ApiError as error:
            log.info("lease_watch_interrupted", lease=self._name, error=error.message)
            await trio.sleep(self._settings.retry_period_s)

    async def _wait_until_free(self) -> None:
        """Return when the Lease is (probably) gone, or turned out to be ours: a create whose answer was
        lost may have succeeded."""
        selector = f"metadata.name={self._name}"
        listed = await self._client.list(LEASES, self._namespace, field_selector=selector)
        for lease in listed.items:
            self._transitions = int(lease["spec"].get("leaseTransitions") or 0) + 1
            if self._holds(lease):
                await self._take_up()
                return
            if not _is_store_lease(lease):
                await self._outwait(lease)
                return
        if listed.items:
            await self._watch_until_deleted(selector, listed.resource_version)
            await trio.sleep(self._rng.uniform(0.0, _CREATE_JITTER_S))

    def _holds(self, lease: Object) -> bool:
        return bool(lease["spec"].get("holderIdentity") == self._identity)

    async def _take_up(self) -> None:
        """Read the token of our Lease: since it was listed it may have ended, and be another's now."""
        sent_at = self._clock.monotonic()
        lease = await self._client.get(LEASES, self._name, self._namespace)
        if self._holds(lease):
            self._lease = lease
            self._renewed_at = sent_at

    async def _watch_until_deleted(self, selector: str, resource_version: str) -> None:
        watch = self._client.watch(
            LEASES,
            self._namespace,
            resource_version=resource_version,
            field_selector=selector,
            timeout_s=_WATCH_TIMEOUT_S,
        )
        async with watch as events:
            async for event in events:
                if event.type == "DELETED":
                    return

    async def _outwait(self, lease: Object) -> None:
        """A Lease that nobody expires, as client-go makes them: remove it once it has stood unchanged for
        its duration."""
        await trio.sleep(float(lease["spec"].get("leaseDurationSeconds") or 15))
        metadata = lease["metadata"]
        await self._client.delete(
            LEASES,
            self._name,
            self._namespace,
            uid=metadata["uid"],
            resource_version=metadata["resourceVersion"],
        )

    def _new_lease(self) -> Object:
        now = rfc3339(self._clock.wall(), micros=True)
        return {
            "apiVersion": LEASES.api_version,
            "kind": LEASES.kind,
            "metadata": {
                "name": self._name,
                "namespace": self._namespace,
                "annotations": {STORE_LEASE_ANNOTATION: "true"},
            },
            "spec": {
                "holderIdentity": self._identity,
                "leaseDurationSeconds": self._settings.lease_duration_s,
                "acquireTime": now,
                "renewTime": now,
                "leaseTransitions": self._transitions,
            },
        }

    # Leader ---------------------------------------------------------------------------------

    async def lead(self, work: Work) -> None:
        """Run `work` and renew beside it."""
        token = FencingToken(self._token_value())
        self._client = self._client.fenced(token)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._renew_until_lost, nursery.cancel_scope)
                nursery.start_soon(self._heed_refusals, token, nursery.cancel_scope)
                await work(token)
                nursery.cancel_scope.cancel()
        finally:
            if not self._ended_because:
                await self._release()  # noqa: ASYNC102  # bounded and shielded there
        if self._ended_because:
            raise LeadershipEnded(f"leadership of {self._namespace}/{self._name}: {self._ended_because}")

    def _end(self, why: str, scope: trio.CancelScope) -> None:
        log.error("leadership_lost", lease=self._name, identity=self._identity, reason=why)
        self._ended_because = self._ended_because or why
        scope.cancel()

    async def _heed_refusals(self, token: FencingToken, scope: trio.CancelScope) -> None:
        await token.stale.wait()
        self._end("a write was refused with 409 FencingTokenStale: another process leads", scope)

    async def _renew_until_lost(self, scope: trio.CancelScope) -> None:
        """After a pause the renewal comes before the look at the clock: the refusal by the server is
        the proof, the clock only a guess."""
        pause_s = self._settings.lease_duration_s / 3
        while True:
            await trio.sleep(pause_s)
            sent_at = self._clock.monotonic()
            try:
                await self._renew()
            except _Lost as lost:
                return self._end(str(lost), scope)
            except ApiError as error:
                log.warning("renewal_failed", lease=self._name, error=error.message)
                pause_s = self._settings.retry_period_s
                silent_s = self._clock.monotonic() - self._renewed_at
                if silent_s > self._settings.renew_deadline_s:
                    return self._end(f"no renewal for {silent_s:.1f} s: {error.message}", scope)
            else:
                pause_s = self._settings.lease_duration_s / 3
                self._renewed_at = sent_at

    async def _renew(self) -> None:
        """One renewal; after a conflict or a missing answer the Lease is read again, and renewed if it
        still is the one that we created."""
        try:
            await self._put_renewal()
        except FencingTokenStale as error:
            raise _Lost(f"the renewal was refused with 409 FencingTokenStale: {error.message}") from error
        except ApiError as error:
            unclear = isinstance(error, IndefiniteApiError)
            if error.code not in (404, 409) and not unclear:
                raise
            await self._reread(error)
            await self._put_renewal()

    async def _put_renewal(self) -> None:
        metadata, spec = self._lease["metadata"], self._lease["spec"]
        stored = {k: v for k, v in metadata["annotations"].items() if k != FENCING_TOKEN_ANNOTATION}
        renewed = self._lease | {
            "metadata": metadata | {"annotations": stored},
            "spec": spec | {"renewTime": rfc3339(self._clock.wall(), micros=True)},
        }
        self._lease = await self._client.update(LEASES, renewed)

    async def _reread(self, cause: ApiError) -> None:
        """Raises _Lost: the Lease is gone, or another's."""
        try:
            lease = await self._client.get(LEASES, self._name, self._namespace)
        except ApiError as error:
            if error.code == 404:
                raise _Lost(f"the renewal was refused with {cause.code} and the Lease is gone") from error
            raise
        if lease["metadata"]["uid"] != self._lease["metadata"]["uid"]:
            holder = lease["spec"].get("holderIdentity")
            raise _Lost(f"the renewal was refused with {cause.code}: {holder} leads now")
        self._lease = lease

    async def _release(self) -> None:
        """Delete our Lease, best effort: if it fails, the store expires it."""
        with trio.move_on_after(_RELEASE_TIMEOUT_S, shield=True):
            try:
                await self._delete_lease()
            except ApiError as error:
                log.info("release_failed", lease=self._name, error=error.message)

    async def _delete_lease(self) -> None:
        try:
            await self._delete_once()
        except ApiError as error:
            if error.code != 409:
                raise
            try:
                await self._reread(error)  # a renewal in flight when we were cancelled
            except _Lost:
                return
            await self._delete_once()
        log.info("leadership_released", lease=self._name, identity=self._identity)

    async def _delete_once(self) -> None:
        metadata = self._lease["metadata"]
        await self._client.delete(
            LEASES,
            self._name,
            self._namespace,
            uid=metadata["uid"],
            resource_version=metadata["resourceVersion"],
        )

    def _token_value(self) -> str:
        annotations: dict[str, Any] = self._lease["metadata"].get("annotations") or {}
        token = annotations.get(FENCING_TOKEN_ANNOTATION)
        if not token:
            raise LeadershipEnded(
                f"the API server gave no {FENCING_TOKEN_ANNOTATION} for {self._namespace}/{self._name}: "
                "it does not fence leaders; use raftkube's own API server"
            )
        return str(token)


def _is_store_lease(lease: Object) -> bool:
    annotations = lease["metadata"].get("annotations") or {}
    return annotations.get(STORE_LEASE_ANNOTATION) == "true"
