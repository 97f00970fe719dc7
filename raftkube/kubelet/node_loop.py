"""Keeps one node alive in the API: registers it, renews its Lease, and mends its status.

The Lease says "alive" every ten seconds; the status is written when somebody changed it or every five
minutes, as upstream.
"""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Final, NamedTuple, Protocol

import structlog
import trio

from raftkube.api.status import ApiError
from raftkube.clock import Clock
from raftkube.kubelet.core.node import (
    LEASE_NAMESPACE,
    Machine,
    NodeSpec,
    is_due,
    make_lease,
    make_node,
    node_status,
)
from raftkube.kubelet.core.pods import Object
from raftkube.rng import Rng

log = structlog.get_logger(__name__)

_RETRY_BASE_S: Final = 0.2
_RETRY_MAX_S: Final = 7.0
_ARCHITECTURES: Final = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}


class NodeTimes(NamedTuple):
    """Seconds between renewals, between looks at the status, and between writes of an unchanged one."""

    lease_s: float = 10.0
    status_s: float = 10.0
    report_s: float = 300.0


class Nodes(Protocol):
    """The API's side; see `raftkube.kubelet.api_access.ApiNodes`."""

    async def register(self, node: Object) -> Object: ...
    async def patch(self, name: str, patch: Object, *, subresource: str = "") -> Object: ...
    async def renew(self, lease: Object) -> Object: ...
    async def lease(self, namespace: str, name: str) -> Object | None: ...


class NodeCache(Protocol):
    """The Node as last seen (an informer)."""

    def get(self, name: str) -> Object | None: ...


class NodeLoop:
    """One node."""

    def __init__(
        self,
        spec: NodeSpec,
        api: Nodes,
        cache: NodeCache,
        *,
        clock: Clock,
        rng: Rng,
        times: NodeTimes = NodeTimes(),  # noqa: B008  immutable
    ) -> None:
        self._spec = spec
        self._api = api
        self._cache = cache
        self._clock = clock
        self._rng = rng
        self._times = times
        self._uid = ""
        self._lease: Object | None = None
        self._written_at = 0.0

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until cancelled. `started`: the node is registered and Ready."""
        await self._register()
        task_status.started()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._every, self._times.lease_s, self._renew)
            nursery.start_soon(self._every, self._times.status_s, self._mend)

    async def _register(self) -> None:
        failures = 0
        while True:
            try:
                node = await self._api.register(make_node(self._spec, self._clock.wall()))
                self._uid = str(node["metadata"].get("uid") or "")
                await self._write(node)
                log.info("node_registered", node=self._spec.name)
                return
            except ApiError as error:
                delay_s = min(_RETRY_BASE_S * 2.0 ** min(failures, 10), _RETRY_MAX_S)
                log.info("node_not_registered", node=self._spec.name, error=error.message, retry_in_s=delay_s)
                failures += 1
                await trio.sleep(delay_s * self._rng.uniform(0.5, 1.0))

    async def _every(self, period_s: float, act: object) -> None:
        """`act` now and then once a period (with jitter); a failure is tried again a little later."""
        assert callable(act)
        while True:
            try:
                await act()
                wait_s = period_s * self._rng.uniform(0.96, 1.04)
            except ApiError as error:
                wait_s = min(period_s, 1.0)
                log.info("node_heartbeat_failed", node=self._spec.name, error=error.message)
            await trio.sleep(wait_s)

    async def _renew(self) -> None:
        if self._lease is None:
            self._lease = await self._api.lease(LEASE_NAMESPACE, self._spec.name)
        renewed = make_lease(self._spec.name, self._lease, self._uid, self._clock.wall())
        self._lease = None  # unless this succeeds, look again before the next renewal
        self._lease = await self._api.renew(renewed)

    async def _mend(self) -> None:
        node = self._cache.get(self._spec.name)
        now = self._clock.wall()
        if node is not None and is_due(self._spec, node, now, self._written_at, self._times.report_s):
            await self._write(node)

    async def _write(self, node: Object) -> None:
        """Labels first if some are missing, then the status."""
        name, now = self._spec.name, self._clock.wall()
        labels = make_node(self._spec, now)["metadata"]["labels"]
        held = node["metadata"].get("labels") or {}
        if missing := {label: value for label, value in labels.items() if held.get(label) != value}:
            await self._api.patch(name, {"metadata": {"labels": missing}})
        status = node_status(self._spec, node.get("status") or {}, now)
        await self._api.patch(name, {"status": status}, subresource="status")
        self._written_at = now


def this_machine(path: str) -> Machine:
    """What this machine is; `path` tells which disk."""
    import psutil

    return Machine(
        cpus=os.cpu_count() or 1,
        memory_bytes=psutil.virtual_memory().total,
        disk_bytes=psutil.disk_usage(path).total,
        architecture=_ARCHITECTURES.get(platform.machine(), platform.machine()),
        kernel=platform.release(),
        os_image=_os_image(),
        machine_id=_first_line("/etc/machine-id") or "unknown",
        boot_id=_first_line("/proc/sys/kernel/random/boot_id") or "unknown",
    )


def _os_image() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", "Linux")
    except OSError:
        return "Linux"


def _first_line(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""
