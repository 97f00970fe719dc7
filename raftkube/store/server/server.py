"""A member's client port: everything of the outer half, wired."""

from __future__ import annotations

from typing import Final

import structlog
import trio

from raftkube.clock import Clock
from raftkube.errors import Stopped, StoreError
from raftkube.net import Address, Connection, Listener
from raftkube.net.tcp import serve
from raftkube.rng import Rng
from raftkube.store.server.compaction import HistoryWindow
from raftkube.store.server.consensus import Consensus, ReadGate
from raftkube.store.server.hub import Hub
from raftkube.store.server.lease_clock import LeaseClock
from raftkube.store.server.machine import StoreMachine
from raftkube.store.server.service import Identity, Service, Suspension
from raftkube.store.server.session import Session
from raftkube.store.server.settings import ServerSettings
from raftkube.wire.store import Compact, Op, SessionClose, op_to_wire

log = structlog.get_logger(__name__)

_TRIM_REVISIONS: Final = 256  # freed in one step, about a millisecond
_TRIMS_MAX: Final = 256  # in a row; a snapshot being taken forbids them for a while
_CLOSED_AT_ONCE: Final = 64  # sessions
_DISCARD_KEYS: Final = 1_024  # of a state that a snapshot replaced: about a millisecond


class StoreServer:
    """Serves `machine`, which `consensus` drives. `run` must be running before anything is applied."""

    def __init__(
        self,
        identity: Identity,
        machine: StoreMachine,
        consensus: Consensus,
        *,
        clock: Clock,
        rng: Rng,
        settings: ServerSettings | None = None,
    ) -> None:
        self._settings = settings or ServerSettings()
        self._identity = identity
        self._machine = machine
        self._consensus = consensus
        self._clock = clock
        self._rng = rng
        self._leading = self._leaving = False
        self._sessions: dict[Session, None] = {}  # in the order of coming, whatever their hashes
        self._listener: Listener | None = None
        self._drained = trio.Event()
        self._suspension = Suspension()
        self._running: Service | None = None
        self._hub = Hub(self._settings, clock, machine.core.revision)
        self._leases = LeaseClock(
            self._settings, clock, barrier=consensus.read_index, propose=self._propose_own
        )
        self._window = HistoryWindow(self._settings)
        machine.observe(events=self._hub.publish, lease=self._leases.observe, restored=self._state_replaced)

    def set_identity(self, identity: Identity) -> None:
        """Who this member is and who the others are, from now on."""
        self._identity = identity
        if self._running is not None:
            self._running.identity = identity

    def set_leading(self, leading: bool) -> None:
        """This member has become leader, or is none any more."""
        if leading == self._leading:
            return
        self._leading = leading
        if leading:
            self._window.clear()
            self._leases.lead(self._machine.core.leases())
        else:
            self._leases.follow()

    async def run(
        self,
        listener: Listener,
        roles: frozenset[str],
        *,
        task_status: trio.TaskStatus[Address] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve until cancelled; `started` gives the bound address. `roles` are the certificate
        organizations that may speak here; empty: whoever connects (only without TLS)."""
        async with trio.open_nursery() as nursery:
            service = self._running = self._service(nursery)
            self._hub.confirm = service.reads.submit

            async def handle(connection: Connection) -> None:
                session = Session(connection, service, self._settings, roles)
                self._sessions[session] = None
                if self._leaving:
                    session.leave()
                try:
                    await session.run()
                finally:
                    self._sessions.pop(session, None)

            async def accept(*, task_status: trio.TaskStatus[Address]) -> None:
                await serve(listener, handle, task_status=task_status)
                self._drained.set()

            self._listener = listener
            nursery.start_soon(self._hub.run)
            nursery.start_soon(self._leases.run)
            nursery.start_soon(self._compact_by_window)
            task_status.started(await nursery.start(accept))

    def suspend(self, why: str, *, blank: bool) -> None:
        """Nothing is applied here any more: watches go elsewhere; `status`, hash and serializable reads go
        on, the latter two unless the member is `blank` and holds no state at all."""
        self._suspension.watches = Stopped(why)
        self._suspension.reads = Stopped(why) if blank else None
        for session in list(self._sessions):
            session.end_watches()

    async def drain(self) -> None:
        """Accept no more clients, tell all of them to go, and return when each has its answers and went.

        Cancelled: those that have not gone are still served.
        """
        self._leaving = True
        if self._listener is not None:
            await self._listener.aclose()
            for session in list(self._sessions):
                session.leave()
            await self._drained.wait()

    @property
    def leaving(self) -> bool:
        """Whether it sends its clients away."""
        return self._leaving

    @property
    def service(self) -> Service:
        """What answers clients; only once `run` has started."""
        assert self._running is not None
        return self._running

    def _service(self, nursery: trio.Nursery) -> Service:
        return Service(
            self._identity,
            self._machine,
            self._hub,
            self._leases,
            self._consensus,
            ReadGate(self._consensus, nursery),
            clock=self._clock,
            rng=self._rng,
            suspension=self._suspension,
            quota_bytes=self._settings.quota_bytes,
        )

    def _state_replaced(self) -> None:
        self._hub.reset(self._machine.core.revision)
        if self._leading:
            self._leases.lead(self._machine.core.leases())

    async def _propose_own(self, op: Op) -> object:
        """Propose an operation of the store's own. Raises StoreError."""
        result = await self._consensus.propose(op_to_wire(op))
        if isinstance(result, StoreError):
            raise result
        return result

    async def _compact_by_window(self) -> None:
        while True:
            await trio.sleep(self._settings.compaction_interval_s)
            core = self._machine.core
            if self._leading:
                target = self._window.target(self._clock.monotonic(), core.revision)
                if target > core.compact_revision:
                    await self._propose_by_itself(Compact(target))
                for view in core.oldest_sessions(beyond=self._settings.sessions_max)[:_CLOSED_AT_ONCE]:
                    await self._propose_by_itself(SessionClose(view.session, view.highest))
            for _ in range(_TRIMS_MAX):
                if self._machine.core.trim(_TRIM_REVISIONS):
                    break
                await trio.lowlevel.checkpoint()
            for _ in range(_TRIMS_MAX):
                if self._machine.discard(_DISCARD_KEYS):
                    break
                await trio.lowlevel.checkpoint()

    async def _propose_by_itself(self, op: Compact | SessionClose) -> None:
        try:
            await self._propose_own(op)
        except StoreError as error:
            log.info("upkeep_deferred", operation=repr(op), error=error.message)
