"""List, then watch, for ever: keeps a sink in step with one resource of the API.

A watch that ends or breaks is resumed from the last resourceVersion seen, on whichever server answers
(events and bookmarks move it on). 410 means that version is gone: list again. Servers never answer from
before the version that they are asked for, so going on elsewhere neither loses nor repeats a state.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

import structlog
import trio

from raftkube.api.status import ApiError
from raftkube.client.endpoints import Endpoint, Object
from raftkube.client.rest import RestClient
from raftkube.client.watch import WatchEvent
from raftkube.rng import Rng

log = structlog.get_logger(__name__)

_BACKOFF_BASE_S: Final = 0.1
_BACKOFF_MAX_S: Final = 10.0
_WATCH_TIMEOUT_S: Final = (300, 600)  # client-go's minWatchTimeout, drawn between it and its double


class Sink(Protocol):
    """Where a reflector puts what it sees. The calls come from one task, one at a time."""

    def replace(self, objects: list[Object], resource_version: str) -> None:
        """The whole state at `resource_version`."""
        ...

    def apply(self, event: WatchEvent) -> None:
        """One ADDED, MODIFIED or DELETED."""
        ...

    def progress(self, resource_version: str) -> None:
        """Everything up to `resource_version` has been applied."""
        ...


@dataclass(frozen=True, slots=True)
class Scope:
    """What to follow: one resource, of one namespace or of all, by selectors."""

    endpoint: Endpoint
    namespace: str = ""
    label_selector: str = ""
    field_selector: str = ""


class Reflector:
    """Follows `scope` into `sink`. `run` goes on until cancelled; errors of the API are logged and
    tried again with backoff."""

    def __init__(self, client: RestClient, scope: Scope, sink: Sink, rng: Rng) -> None:
        self._client = client
        self._scope = scope
        self._sink = sink
        self._rng = rng
        self._resource_version = ""
        self._failures = 0

    async def run(self) -> None:
        while True:
            try:
                if not self._resource_version:
                    await self._list()
                await self._watch()
            except ApiError as error:
                await self._back_off(error)

    async def _list(self) -> None:
        scope = self._scope
        listed = await self._client.list(
            scope.endpoint,
            scope.namespace,
            label_selector=scope.label_selector,
            field_selector=scope.field_selector,
        )
        self._sink.replace(listed.items, listed.resource_version)
        self._resource_version = listed.resource_version
        self._failures = 0

    async def _watch(self) -> None:
        scope = self._scope
        watch = self._client.watch(
            scope.endpoint,
            scope.namespace,
            resource_version=self._resource_version,
            label_selector=scope.label_selector,
            field_selector=scope.field_selector,
            timeout_s=self._rng.randint(*_WATCH_TIMEOUT_S),
        )
        seen = 0
        async with watch as events:
            async for event in events:
                self._take(event)
                seen += 1
                self._failures = 0
        if not seen:  # a server that ends every watch at once is not asked in a tight loop
            await trio.sleep(self._rng.uniform(0.5, 1.0))

    def _take(self, event: WatchEvent) -> None:
        resource_version = str(event.object["metadata"]["resourceVersion"])
        if event.type == "BOOKMARK":
            self._sink.progress(resource_version)
        else:
            self._sink.apply(event)
        self._resource_version = resource_version

    async def _back_off(self, error: ApiError) -> None:
        """Wait longer with each failure in a row; after 410 the next round lists."""
        expired = error.code == 410
        if expired:
            self._resource_version = ""
        log.info(
            "relisting" if expired else "watch_interrupted",
            resource=self._scope.endpoint.plural,
            resource_version=self._resource_version,
            error=error.message,
        )
        if self._failures:  # the first failure is answered at once: another server may be well
            delay = min(_BACKOFF_BASE_S * 2.0 ** min(self._failures, 30), _BACKOFF_MAX_S)
            await trio.sleep(delay * self._rng.uniform(0.5, 1.0))
        else:
            await trio.lowlevel.checkpoint()
        self._failures += 1
