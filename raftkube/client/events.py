"""Events for people (`kubectl describe`): best effort, bounded, repeated ones counted in one object.

Recording never waits and never fails: when the queue is full the event is dropped and counted.
Source: k8s.io/client-go/tools/record.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final, NamedTuple

import structlog
import trio

from raftkube.api.status import ApiError
from raftkube.client.endpoints import EVENTS, Object
from raftkube.client.rest import RestClient
from raftkube.clock import Clock, rfc3339
from raftkube.rng import Rng

log = structlog.get_logger(__name__)

_QUEUE_MAX: Final = 1_000
_REMEMBERED_MAX: Final = 4_096
_MESSAGE_CHARS_MAX: Final = 1_024  # upstream's limit for note/message


class _Recorded(NamedTuple):
    about: Object  # an ObjectReference
    type: str
    reason: str
    message: str
    wall_s: float

    @property
    def series(self) -> tuple[str, ...]:
        """Events with the same series are one object with a count."""
        reference = self.about
        return (
            str(reference.get("uid")), str(reference.get("name")), str(reference.get("fieldPath", "")),
            self.type, self.reason, self.message,
        )  # fmt: skip


class EventRecorder:
    """`run` it in a nursery and `record` from any task. `component` is the events' source."""

    def __init__(self, client: RestClient, component: str, *, clock: Clock, rng: Rng, host: str = "") -> None:
        self._client = client
        self._source = {"component": component} | ({"host": host} if host else {})
        self._clock = clock
        self._rng = rng
        self._send, self._receive = trio.open_memory_channel[_Recorded](_QUEUE_MAX)
        self._known: OrderedDict[tuple[str, ...], Object] = OrderedDict()
        self.dropped = 0

    def normal(self, about: Object, reason: str, message: str, *, field_path: str = "") -> None:
        """Something went as it should. about: the object (with apiVersion and kind)."""
        self.record(about, "Normal", reason, message, field_path=field_path)

    def warning(self, about: Object, reason: str, message: str, *, field_path: str = "") -> None:
        """Something did not."""
        self.record(about, "Warning", reason, message, field_path=field_path)

    def record(self, about: Object, type: str, reason: str, message: str, *, field_path: str = "") -> None:
        """Queue one event about an object."""
        text = message[:_MESSAGE_CHARS_MAX]
        recorded = _Recorded(_reference(about, field_path), type, reason, text, self._clock.wall())
        try:
            self._send.send_nowait(recorded)
        except trio.WouldBlock:
            self.dropped += 1

    async def run(self) -> None:
        """Write what is recorded, one after another, until cancelled."""
        async for recorded in self._receive:
            try:
                await self._write(recorded)
            except ApiError as error:
                self.dropped += 1
                log.debug("event_dropped", reason=recorded.reason, error=error.message)

    async def _write(self, recorded: _Recorded) -> None:
        event = await self._counted(recorded)
        if event is None:
            event = await self._client.create(EVENTS, self._event(recorded))
        self._remember(recorded, event)

    async def _counted(self, recorded: _Recorded) -> Object | None:
        """The event of this series with its count moved on; None if there is none (any more)."""
        known = self._known.get(recorded.series)
        if known is None:
            return None
        patch = {"count": int(known.get("count") or 1) + 1, "lastTimestamp": rfc3339(recorded.wall_s)}
        metadata = known["metadata"]
        try:
            return await self._client.patch(EVENTS, metadata["name"], patch, metadata["namespace"])
        except ApiError as error:
            if error.code != 404:
                raise
            return None

    def _remember(self, recorded: _Recorded, event: Object) -> None:
        self._known[recorded.series] = event
        self._known.move_to_end(recorded.series)
        if len(self._known) > _REMEMBERED_MAX:
            self._known.popitem(last=False)

    def _event(self, recorded: _Recorded) -> Object:
        about = recorded.about
        at = rfc3339(recorded.wall_s)
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {
                # By time first, as upstream's: events of one second are listed in the order of their names.
                "name": f"{about['name']}.{round(recorded.wall_s * 1e9):016x}{self._rng.getrandbits(16):04x}",
                "namespace": about.get("namespace") or "default",
            },
            "involvedObject": about,
            "reason": recorded.reason,
            "message": recorded.message,
            "type": recorded.type,
            "source": self._source,
            "reportingComponent": self._source["component"],
            "reportingInstance": self._source.get("host", ""),
            "firstTimestamp": at,
            "lastTimestamp": at,
            "count": 1,
        }


def _reference(obj: Object, field_path: str) -> Object:
    metadata = obj["metadata"]
    reference = {
        "apiVersion": obj.get("apiVersion"),
        "kind": obj.get("kind"),
        "namespace": metadata.get("namespace"),
        "name": metadata["name"],
        "uid": metadata.get("uid"),
        "resourceVersion": metadata.get("resourceVersion"),
        "fieldPath": field_path,
    }
    return {name: value for name, value in reference.items() if value}
