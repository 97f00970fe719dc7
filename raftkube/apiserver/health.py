"""/livez, /readyz and /healthz, with `?verbose`, `?exclude=` and single checks as paths below them.

Source: k8s.io/apiserver/pkg/server/healthz/healthz.go.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final
from urllib.parse import parse_qs

import trio

from raftkube.apiserver.cache import WatchCache
from raftkube.apiserver.storage import Storage
from raftkube.errors import StoreError
from raftkube.net.http import Response

_TEXT: Final = "text/plain; charset=utf-8"
_STORE_TIMEOUT_S: Final = 2.0
Check = Callable[[], Awaitable[str]]  # "" is good, else why not


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
            return await self._single(checks, segments[1])
        params = parse_qs(query, keep_blank_values=True)
        excluded = {name for value in params.get("exclude", []) for name in value.split(",")}
        return await self._all(segments[0], checks, excluded, verbose="verbose" in params)

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

    async def _single(self, checks: dict[str, Check], name: str) -> Response:
        check = checks.get(name)
        if check is None:
            return Response(404, b"404 page not found\n", _TEXT)
        why = await check()
        return Response(500, f"internal server error: {why}\n".encode(), _TEXT) if why else _ok()

    async def _all(
        self, endpoint: str, checks: dict[str, Check], excluded: set[str], *, verbose: bool
    ) -> Response:
        lines, failed = [], False
        for name, check in checks.items():
            if name in excluded:
                lines.append(f"[+]{name} excluded: ok")
                continue
            why = await check()
            failed = failed or bool(why)
            lines.append(f"[-]{name} failed: {why}" if why else f"[+]{name} ok")
        if failed:
            lines.append(f"{endpoint} check failed")
            return Response(500, ("\n".join(lines) + "\n").encode(), _TEXT)
        if not verbose:
            return _ok()
        lines.append(f"{endpoint} check passed")
        return Response(200, ("\n".join(lines) + "\n").encode(), _TEXT)

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


def _ok() -> Response:
    return Response(200, b"ok", _TEXT)
