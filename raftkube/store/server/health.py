"""/livez, /readyz and etcd's /health of one member.

Live: this process answers. Ready: a linearizable read comes back in time, no alarm is on, nothing has
failed. `/health` answers as etcd's does, so that its probes and dashboards go on working.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import parse_qs

import orjson
import trio

from raftkube.errors import StoreError
from raftkube.net.health import Check, not_found, respond, respond_single
from raftkube.net.http import Response
from raftkube.store.server.service import Service
from raftkube.wire.store import Range

_KEY: Final = b"health"


class Health:
    """The checks of one member; each read waits at most `timeout_s`. `leaving`: it sends its clients away."""

    def __init__(
        self, service: Service, timeout_s: float, *, leaving: Callable[[], bool] = lambda: False
    ) -> None:
        self._service, self._leaving = service, leaving
        self._timeout_s = timeout_s
        self._counts = service.machine.activity.health_checks
        live: dict[str, Check] = {"ping": self._ping, "serializable_read": self._serializable_read}
        self._checks: dict[str, dict[str, Check]] = {
            "livez": live,
            "readyz": {
                **live,
                "member": self._member,
                "shutdown": self._not_leaving,
                "alarms": self._no_alarm,
                "linearizable_read": self._linearizable_read,
            },
        }

    async def respond(self, path: str, query: str) -> Response | None:
        """The answer at `path`, or None: it is no health path."""
        segments = path.strip("/").split("/")
        if segments == ["health"]:
            response = await self._etcd_health(parse_qs(query))
        elif segments[0] not in self._checks:
            return None
        elif len(segments) == 1:
            response = await respond(segments[0], self._checks[segments[0]], query)
        elif len(segments) == 2:
            response = await respond_single(self._checks[segments[0]], segments[1])
        else:
            return not_found()
        self._counts["ok" if response.status == 200 else "failed"] += 1
        return response

    async def _etcd_health(self, query: Mapping[str, list[str]]) -> Response:
        """Source: etcd 3.5, server/etcdserver/api/etcdhttp/metrics.go."""
        excluded = {name for value in query.get("exclude", []) for name in value.split(",")}
        alarms = [alarm for alarm in alarms_on(self._service.status()) if alarm not in excluded]
        serializable = query.get("serializable") == ["true"]
        reason = f"ALARM {alarms[0]}" if alarms else await self._member()
        if not reason and not serializable and not self._service.consensus.view().leader:
            reason = "RAFT NO LEADER"
        if not reason:
            why = await (self._serializable_read() if serializable else self._linearizable_read())
            reason = f"QGET ERROR:{why}" if why else ""
        body = orjson.dumps({"health": "false" if reason else "true", "reason": reason})
        return Response(503 if reason else 200, body)

    async def _ping(self) -> str:
        await trio.lowlevel.checkpoint()
        return ""

    async def _serializable_read(self) -> str:
        await trio.lowlevel.checkpoint()
        try:
            self._service.suspension.check_reads()
            self._service.machine.core.read(Range(_KEY, keys_only=True))
        except StoreError as error:
            return error.message
        return ""

    async def _linearizable_read(self) -> str:
        answered = trio.Event()
        outcome: list[StoreError | None] = []

        def done(error: StoreError | None) -> None:
            outcome.append(error)
            answered.set()

        self._service.reads.submit(done)
        with trio.move_on_after(self._timeout_s):
            await answered.wait()
        if not outcome:
            return f"no leader confirmed a read within {self._timeout_s:g} s"
        return "" if outcome[0] is None else outcome[0].message

    async def _member(self) -> str:
        await trio.lowlevel.checkpoint()
        return "; ".join(self._service.consensus.view().errors)

    async def _not_leaving(self) -> str:
        await trio.lowlevel.checkpoint()
        return "this member is shutting down" if self._leaving() else ""

    async def _no_alarm(self) -> str:
        await trio.lowlevel.checkpoint()
        return ", ".join(alarms_on(self._service.status()))


def alarms_on(status: Mapping[str, Any]) -> list[str]:
    """The names of the alarms in a member's status: each is a name or (member, name)."""
    alarms = status.get("alarms") or ()
    return sorted({alarm if isinstance(alarm, str) else str(alarm[-1]) for alarm in alarms})
