"""What all controllers share: caches, the recorder of events, and workers that take keys off a queue.

A controller is any object with a name, a queue and `reconcile(key)`. It is level-based: a key says only
where to look. What fails is tried again with backoff; a refused fencing token ends all work.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import structlog
import trio

from raftkube.api.status import ApiError
from raftkube.client.cache import INDEXES
from raftkube.client.endpoints import Endpoint
from raftkube.client.errors import FencingTokenStale, causes_of
from raftkube.client.events import EventRecorder
from raftkube.client.informer import Informer
from raftkube.client.rest import RestClient
from raftkube.client.work_queue import WorkQueue
from raftkube.clock import Clock
from raftkube.controllers.metrics import ControllerMetrics
from raftkube.controllers.tracked import EXTRA_INDEXES, Tracked
from raftkube.rng import Rng

log = structlog.get_logger(__name__)

_WRITES_AT_ONCE: Final = 16


class Controller(Protocol):
    """One control loop."""

    name: str
    queue: WorkQueue[Any]

    async def reconcile(self, key: Any) -> None:
        """Bring what `key` names one step nearer to what is wanted. Raises ApiError: again, later."""
        ...


@dataclass(slots=True)
class Context:
    """What controllers are made of. `client` carries the fencing token."""

    client: RestClient
    clock: Clock
    rng: Rng
    metrics: ControllerMetrics
    _tracked: dict[Endpoint, Tracked] = field(default_factory=dict)
    _recorders: list[EventRecorder] = field(default_factory=list)

    def recorder(self, component: str) -> EventRecorder:
        """A recorder whose events are from `component`; it writes once `run_recorders` runs."""
        made = EventRecorder(self.client, component, clock=self.clock, rng=self.rng)
        self._recorders.append(made)
        return made

    async def run_recorders(self) -> None:
        """Write events until cancelled."""
        async with trio.open_nursery() as nursery:
            for recorder in self._recorders:
                nursery.start_soon(recorder.run)

    def tracked(self, endpoint: Endpoint) -> Tracked:
        """The one cache of this resource, shared by all controllers; it fills once `run_caches` runs."""
        found = self._tracked.get(endpoint)
        if found is None:
            informer = Informer(self.client, endpoint, rng=self.rng, indexes={**INDEXES, **EXTRA_INDEXES})
            found = self._tracked[endpoint] = Tracked(self.client, informer)
        return found

    def all_tracked(self) -> list[Tracked]:
        """Every resource that somebody asked for."""
        return [*self._tracked.values()]

    async def run_caches(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Fill all caches at once and keep them; `started` when all are complete."""
        async with trio.open_nursery() as nursery:
            for tracked in self.all_tracked():
                nursery.start_soon(tracked.informer.run)
            for tracked in self.all_tracked():
                await tracked.informer.wait_for_sync()
            task_status.started()


async def run_workers(controller: Controller, workers: int, metrics: ControllerMetrics) -> None:
    """Reconcile with so many workers until cancelled."""
    metrics.watch_queue(controller.name, controller.queue)
    async with trio.open_nursery() as nursery:
        for _ in range(workers):
            nursery.start_soon(_work, controller, metrics)


async def _work(controller: Controller, metrics: ControllerMetrics) -> None:
    queue = controller.queue
    while True:
        key = await queue.get()
        try:
            result = await _reconcile(controller, key)
        finally:
            queue.done(key)
        metrics.reconciled.labels(controller.name, result).inc()
        if result == "success":
            queue.forget(key)
        else:
            queue.add_rate_limited(key)


async def _reconcile(controller: Controller, key: Any) -> str:
    """The boundary of one key: what is wrong with it stops neither others nor the controller."""
    try:
        await controller.reconcile(key)
    except FencingTokenStale:
        await trio.sleep_forever()  # whoever runs us has been told, and cancels
    except ApiError as error:
        level = log.debug if error.code in (404, 409) else log.warning
        level("reconcile_failed", controller=controller.name, key=str(key), error=error.message)
        return "conflict" if error.code == 409 else "error"
    except Exception:
        log.exception("reconcile_crashed", controller=controller.name, key=str(key))
        return "crash"
    return "success"


async def carry_out(steps: Sequence[Callable[[], Awaitable[None]]]) -> ApiError | None:
    """Run independent writes side by side, a bounded number at once; the first error if there was one.

    Raises FencingTokenStale at once.
    """
    limit = trio.CapacityLimiter(_WRITES_AT_ONCE)
    errors: list[ApiError] = []

    async def one(step: Callable[[], Awaitable[None]]) -> None:
        async with limit:
            try:
                await step()
            except ApiError as error:
                errors.append(error)

    async with trio.open_nursery() as nursery:
        for step in steps:
            nursery.start_soon(one, step)
    stale = next((error for error in errors if isinstance(error, FencingTokenStale)), None)
    if stale is not None:
        raise stale
    return errors[0] if errors else None


def namespace_ends(error: ApiError) -> bool:
    """Whether something could not be created because its namespace is being deleted."""
    return any(cause.get("reason") == "NamespaceTerminating" for cause in causes_of(error.details))
