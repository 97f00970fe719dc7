"""Who looks on in a simulated cluster and writes down what they see: the complete log from the store, and
what watches of the API show."""

from __future__ import annotations

from typing import Any, Final

import structlog
import trio

from chaos.checkers.objects import Objects
from chaos.recording import MemoryRecorder
from chaos.sim.clock import SimClock
from chaos.sim.cluster_world import ClusterWorld
from chaos.sim.trio_private import HOST
from raftkube.client.endpoints import PODS, Object
from raftkube.client.reflector import Reflector, Scope
from raftkube.client.watch import WatchEvent
from raftkube.errors import StoreError
from raftkube.rng import seeded_rng
from raftkube.store.client import StoreClient
from raftkube.wire.store import PUT_EVENT, Event, Range, prefix_end

REGISTRY: Final = b"/registry/"
_PODS_PREFIX: Final = "/registry/core/pods/"
_CATCH_UP_S: Final = 20.0
_LOOK_S: Final = 0.1


class LogObserver:
    """Follows all of /registry/ from the first revision on; `objects` is how far it is."""

    def __init__(self, world: ClusterWorld) -> None:
        self._world = world
        self.objects = Objects()
        self.watched_up_to = 0

    async def run(self) -> None:
        """Until cancelled."""
        HOST.set("observer")
        world = self._world
        network = world.network.host("observer")
        rng = seeded_rng(f"observer-{world.seed}")
        addresses = list(world.store_clients.values())
        world.recorder.write(
            {"type": "watch", "watch": 1, "key": "/registry/", "range_end": "/registry0", "start_revision": 1,
             "log": True}
        )  # fmt: skip
        async with StoreClient.open(
            network, addresses, name="observer", clock=SimClock(), rng=rng
        ) as self.client:
            async with self.client.watch(REGISTRY, prefix_end(REGISTRY), 1) as watch:
                async for batch in watch:
                    for event in batch.events:
                        self._take(event)
                    self.watched_up_to = max(self.watched_up_to, batch.revision)

    def _take(self, event: Event) -> None:
        put = event.type == PUT_EVENT
        record: dict[str, Any] = {
            "type": "event",
            "watch": 1,
            "kind": "put" if put else "delete",
            "key": event.kv.key.decode(),
            "revision": event.kv.mod_revision,
            "value": event.kv.value.decode() if put else None,
            "recv_ns": self._world.recorder.now_ns(),
        }
        self._world.recorder.write(record)
        self.objects.take(record)

    async def catch_up(self) -> None:
        """Wait, for a while, until everything that is committed now has been seen."""
        with trio.move_on_after(_CATCH_UP_S):
            revision = (await self.client.range(Range(REGISTRY, count_only=True))).revision
            for _ in range(int(_CATCH_UP_S / _LOOK_S)):
                if self.watched_up_to >= revision:
                    return
                await trio.sleep(_LOOK_S)

    async def compact(self) -> bool:
        """Forget what came before what was seen here; whether the store did."""
        if not self.watched_up_to:
            return False
        try:
            with trio.fail_after(5.0):
                await self.client.compact(self.watched_up_to)
        except (StoreError, trio.TooSlowError):
            return False
        return True


class ShownPods:
    """A client that follows all pods through the API, and writes down what it is shown."""

    def __init__(self, world: ClusterWorld, name: str) -> None:
        self._world, self._name = world, name

    async def run(self) -> None:
        """Until cancelled."""
        HOST.set(self._name)
        rng = seeded_rng(f"reflector-{self._name}-{self._world.seed}")
        client = self._world.user(self._name)
        await Reflector(client, Scope(PODS), self, rng).run()

    # Sink of the reflector

    def replace(self, objects: list[Object], resource_version: str) -> None:
        shown = {_key(obj): int(obj["metadata"]["resourceVersion"]) for obj in objects}
        self._note("replace", revision=int(resource_version), objects=shown)

    def apply(self, event: WatchEvent) -> None:
        revision = int(event.object["metadata"]["resourceVersion"])
        self._note("apply", revision=revision, key=_key(event.object), present=event.type != "DELETED")

    def progress(self, resource_version: str) -> None:
        self._note("progress", revision=int(resource_version))

    def _note(self, change: str, **facts: Any) -> None:
        self._world.observe("seen", watch=self._name, prefix=_PODS_PREFIX, change=change, **facts)


def _key(pod: Object) -> str:
    return f"{_PODS_PREFIX}{pod['metadata']['namespace']}/{pod['metadata']['name']}"


def bugs_only(recorder: MemoryRecorder) -> dict[str, Any]:
    """Settings of structlog: an exception at a boundary is written down as an observation `bug`, nothing
    else is logged."""

    def note(_: Any, __: str, event: dict[str, Any]) -> dict[str, Any]:
        if event.get("exc_info"):
            import sys

            error = sys.exc_info()[1]
            recorder.write(
                {
                    "type": "observe",
                    "kind": "bug",
                    "time_ns": recorder.now_ns(),
                    "host": HOST.get(),
                    "text": f"{event.get('event')}: {type(error).__name__}: {error}",
                }
            )
        raise structlog.DropEvent

    return {"processors": [note], "wrapper_class": structlog.make_filtering_bound_logger(40)}
