"""/livez, /readyz and /healthz, with `?verbose`, `?exclude=` and single checks as paths below them."""

from __future__ import annotations

from typing import Final

import trio

from raftkube.apiserver.cache import WatchCache
from raftkube.apiserver.storage import Storage
from raftkube.errors import StoreError
from raftkube.net.health import Check, respond, respond_single
from raftkube.net.http import Response

_STORE_TIMEOUT_S: Final = 2.0


class Health:
    """The checks of one API server."""

    def __init__(self, storage: Storage, cache: WatchCache, stop: trio.Event) -> None:
        self._storage = storage
        self._cache = cache
        self._stop = stop
        self.bootstrapped = trio.Event()

    async def respond(self, path: str, query: str) -> Response | None:
        """The answer at `path`, or None: it is no health path."""
        segments = path.strip("/").split("/")
        checks = self._checks(segments[0])
        if checks is None or len(segments) > 2:
            return None
        if len(segments) == 2:
            return await respond_single(checks, segments[1])
        return await respond(segments[0], checks, query)

    def _checks(self, endpoint: str) -> dict[str, Check] | None:
        live: dict[str, Check] = {"ping": self._ping}
        ready = {
            **live,
            "store": self._store_answers,
            "watch-cache": self._cache_loaded,
            "poststarthook/bootstrap": self._bootstrap_done,
            "shutdown": self._not_stopping,
        }
        healthy = {**live, "store": self._store_answers}
        return {"livez": live, "readyz": ready, "healthz": healthy}.get(endpoint)

    async def _ping(self) -> str:
        await trio.lowlevel.checkpoint()
        return ""

    async def _store_answers(self) -> str:
        try:
            with trio.fail_after(_STORE_TIMEOUT_S):
                await self._storage.current_revision()
        except trio.TooSlowError:
            return f"the store did not answer within {_STORE_TIMEOUT_S:g} s"
        except StoreError as error:
            return error.message
        return ""

    async def _cache_loaded(self) -> str:
        await trio.lowlevel.checkpoint()
        return "" if self._cache.ready.is_set() else "the watch cache is not loaded yet"

    async def _bootstrap_done(self) -> str:
        await trio.lowlevel.checkpoint()
        return "" if self.bootstrapped.is_set() else "the system namespaces are not there yet"

    async def _not_stopping(self) -> str:
        await trio.lowlevel.checkpoint()
        return "this server is shutting down" if self._stop.is_set() else ""
