"""The scheduling loop: watch pods and nodes, decide for one pod after another, bind beside that.

It runs only while this process leads. The caches start with the leadership: their first list is newer than
every binding of the leader before, so no room is given away twice. A pod that is decided counts on its node
at once (assumed); its binding is written by a task of its own.
"""

from __future__ import annotations

from typing import Final

import structlog
import trio

from raftkube.api.quantity import QuantityError
from raftkube.client.endpoints import NODES, PODS, Object, object_key
from raftkube.client.events import EventRecorder
from raftkube.client.informer import Informer
from raftkube.client.rest import RestClient
from raftkube.clock import Clock
from raftkube.rng import Rng
from raftkube.scheduler.binding import Binder
from raftkube.scheduler.core.cluster_view import ClusterView
from raftkube.scheduler.core.decide import Placed, decide
from raftkube.scheduler.core.pod_info import PodInfo, wants_scheduling
from raftkube.scheduler.core.queue import SchedulingQueue
from raftkube.scheduler.metrics import SchedulerMetrics

log = structlog.get_logger(__name__)

_WRITES_AT_ONCE: Final = 16
COMPONENT: Final = "default-scheduler"


class Scheduler:
    """One leadership's worth of scheduling; `client` is fenced."""

    def __init__(self, client: RestClient, *, clock: Clock, rng: Rng, metrics: SchedulerMetrics) -> None:
        self._clock = clock
        self._rng = rng
        self._metrics = metrics
        self._view = ClusterView()
        self._queue = SchedulingQueue()
        self._wake = trio.lowlevel.ParkingLot()
        self._writes = trio.CapacityLimiter(_WRITES_AT_ONCE)
        self._events = EventRecorder(client, COMPONENT, clock=clock, rng=rng)
        self._binder = Binder(client, self._events, clock)
        self._pods = Informer(client, PODS, rng=rng)
        self._nodes = Informer(client, NODES, rng=rng)
        self._pods.on_change(self._pod_changed)
        self._nodes.on_change(self._node_changed)

    async def run(self) -> None:
        """Schedule until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._events.run)
            nursery.start_soon(self._nodes.run)
            nursery.start_soon(self._pods.run)
            await self._nodes.wait_for_sync()
            await self._pods.wait_for_sync()
            log.info("scheduling", nodes=len(self._nodes), pods=len(self._pods))
            while True:
                slot = object()  # taken before the look at the queue: nothing is decided on an old look
                await self._writes.acquire_on_behalf_of(slot)
                self._schedule(await self._next(), slot, nursery)

    # What changes ---------------------------------------------------------------------------

    def _pod_changed(self, old: Object | None, new: Object | None) -> None:
        key = object_key(new or old or {})
        if new is None:
            self._queue.remove(key)
            made_room = self._view.remove_pod(key)
        else:
            made_room = self._take_pod(key, new)
        if made_room:
            self._queue.cluster_changed(self._clock.monotonic())
        self._wake.unpark_all()

    def _take_pod(self, key: str, obj: Object) -> bool:
        try:
            pod = PodInfo.of(obj)
        except QuantityError as error:  # the API server refuses these: an object from elsewhere
            log.error("pod_not_understood", pod=key, error=str(error))
            return False
        made_room = self._view.set_pod(pod)
        if not wants_scheduling(obj):
            self._queue.remove(key)
        elif not self._view.is_assumed(pod):
            self._queue.add(pod, self._clock.monotonic())
        return made_room

    def _node_changed(self, old: Object | None, new: Object | None) -> None:
        if new is None:
            self._view.remove_node(object_key(old or {}))
            return
        try:
            changed = self._view.set_node(new)
        except QuantityError as error:
            log.error("node_not_understood", node=object_key(new), error=str(error))
            return
        if changed:
            self._queue.cluster_changed(self._clock.monotonic())
            self._wake.unpark_all()

    # What is done ---------------------------------------------------------------------------

    async def _next(self) -> PodInfo:
        await trio.lowlevel.checkpoint()
        while True:
            now = self._clock.monotonic()
            if (pod := self._queue.pop(now)) is not None:
                return pod
            self._count_pending()
            with trio.move_on_after(max(0.0, self._queue.next_due() - now)):
                await self._wake.park()

    def _schedule(self, pod: PodInfo, slot: object, nursery: trio.Nursery) -> None:
        decision = decide(pod, self._view.nodes(), self._rng)
        if isinstance(decision, Placed):
            self._view.assume(pod, decision.node_name)
            nursery.start_soon(self._bind, pod, decision.node_name, slot)
        else:
            self._metrics.attempts.labels("unschedulable").inc()
            self._queue.park(pod, self._clock.monotonic())
            log.info("unschedulable", pod=pod.key, message=decision.message)
            nursery.start_soon(self._explain, pod, decision.message, slot)

    async def _bind(self, pod: PodInfo, node_name: str, slot: object) -> None:
        try:
            outcome = await self._binder.bind(pod, node_name)
        finally:
            self._writes.release_on_behalf_of(slot)
        self._metrics.attempts.labels("scheduled" if outcome == "bound" else "error").inc()
        match outcome:
            case "bound":
                self._queue.remove(pod.key, pod.uid)
            case "gone":
                self._queue.remove(pod.key, pod.uid)
                self._give_back(pod)
            case "failed":
                self._queue.retry(pod, self._clock.monotonic())
                self._give_back(pod)

    def _give_back(self, pod: PodInfo) -> None:
        if self._view.forget(pod):
            self._queue.cluster_changed(self._clock.monotonic())
        self._wake.unpark_all()

    async def _explain(self, pod: PodInfo, message: str, slot: object) -> None:
        try:
            await self._binder.explain(pod, message)
        finally:
            self._writes.release_on_behalf_of(slot)

    def _count_pending(self) -> None:
        for queue, state in (("active", "ready"), ("backoff", "backoff"), ("unschedulable", "parked")):
            self._metrics.pending.labels(queue).set(self._queue.count(state))
