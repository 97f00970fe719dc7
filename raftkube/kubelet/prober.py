"""Runs the probes of running containers and keeps what they say.

Every probe is a task of its own, from the moment its container is seen running until it is dropped.
HTTPS probes only check that the port accepts: their certificates are nobody's.
Source: k8s.io/kubernetes/pkg/kubelet/prober.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

import structlog
import trio

from raftkube.errors import ConfigError
from raftkube.kubelet.core import pods
from raftkube.kubelet.core.pods import Container, Object
from raftkube.kubelet.core.probes import KINDS, ProbeCount, ProbeSpec, probe_spec
from raftkube.kubelet.runtimes.base import Runtime, StartFailed
from raftkube.net import Address, Network
from raftkube.net.http_client import HttpClient, HttpClientError

log = structlog.get_logger(__name__)

_STARTUP, _LIVENESS, _READINESS = KINDS
_OUTPUT_CHARS_MAX: Final = 500
OnFailure = Callable[[Object, str], None]
"""Called with the pod and a message for people."""


class _Subject(NamedTuple):
    pod: Object
    spec: Object
    container: Container
    node_ip: str


class _Watched(NamedTuple):
    counts: dict[str, ProbeCount]
    scope: trio.CancelScope


class Prober:
    """`attend` what runs, `drop` what does not; read `started`, `ready` and `failed`."""

    def __init__(
        self, runtime: Runtime, network: Network, on_change: Callable[[str], None], on_failure: OnFailure
    ) -> None:
        self._runtime = runtime
        self._network = network
        self._on_change = on_change
        self._on_failure = on_failure
        self._watched: dict[str, _Watched] = {}
        self._nursery: trio.Nursery | None = None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Probe until cancelled."""
        async with trio.open_nursery() as self._nursery:
            task_status.started()
            await trio.sleep_forever()

    def attend(self, pod: Object, spec: Object, container: Container, node_ip: str) -> None:
        """Begin to probe a running container, unless that goes on already or it has no probes."""
        if container.id in self._watched or not any(spec.get(kind) for kind in KINDS):
            return
        counts = {kind: ProbeCount(probe) for kind in KINDS if (probe := probe_spec(spec, kind)) is not None}
        watched = self._watched[container.id] = _Watched(counts, trio.CancelScope())
        assert self._nursery is not None, "the prober does not run"
        self._nursery.start_soon(self._probe_all, _Subject(pod, spec, container, node_ip), watched)

    def drop(self, container_ids: Iterable[str]) -> None:
        """These run no more."""
        for container_id in container_ids:
            if (watched := self._watched.pop(container_id, None)) is not None:
                watched.scope.cancel()

    def started(self, container: Container) -> bool:
        """Whether it runs and has passed its startup probe."""
        return container.running and self._verdict(container.id, _STARTUP, default=True) is True

    def ready(self, container: Container) -> bool:
        """Whether it may get traffic."""
        return self.started(container) and self._verdict(container.id, _READINESS, default=True) is True

    def failed(self, container: Container) -> bool:
        """Whether its startup or liveness probe has given it up."""
        return container.running and any(
            self._verdict(container.id, kind, default=None) is False for kind in (_STARTUP, _LIVENESS)
        )

    def _verdict(self, container_id: str, kind: str, *, default: bool | None) -> bool | None:
        """None while it is not known; `default` if there is no such probe."""
        watched = self._watched.get(container_id)
        if watched is None or kind not in watched.counts:
            return default
        return watched.counts[kind].verdict

    async def _probe_all(self, subject: _Subject, watched: _Watched) -> None:
        with watched.scope:
            startup = watched.counts.get(_STARTUP)
            if startup is not None:
                await self._probe(subject, startup, until=True)
            async with trio.open_nursery() as nursery:
                for kind in (_LIVENESS, _READINESS):
                    if (count := watched.counts.get(kind)) is not None:
                        nursery.start_soon(self._probe, subject, count)

    async def _probe(self, subject: _Subject, count: ProbeCount, until: bool | None = None) -> None:
        """Probe for ever, or until the verdict is `until`."""
        await trio.sleep(count.spec.initial_delay_s)
        while True:
            problem = await self._once(subject, count.spec)
            if problem is not None:
                what = count.spec.kind.removesuffix("Probe").capitalize()
                self._on_failure(subject.pod, f"{what} probe failed: {problem}")
            if count.add(problem is None):
                self._on_change(pods.uid(subject.pod))
            if until is not None and count.verdict == until:
                return
            await trio.sleep(count.spec.period_s)

    async def _once(self, subject: _Subject, spec: ProbeSpec) -> str | None:
        """One try: None, or what is wrong."""
        problem: str | None = f"command timed out after {spec.timeout_s:g}s"
        with trio.move_on_after(spec.timeout_s):
            try:
                problem = await self._act(subject, spec.action)
            except (OSError, ConfigError, HttpClientError, StartFailed) as error:
                problem = str(error)
        return problem

    async def _act(self, subject: _Subject, action: Object) -> str | None:
        if execute := action.get("exec"):
            exit_code, output = await self._runtime.execute(
                subject.container.id, [str(word) for word in execute.get("command") or ()]
            )
            return None if exit_code == 0 else output[:_OUTPUT_CHARS_MAX].decode("utf-8", "replace")
        for field in ("httpGet", "tcpSocket"):
            if where := action.get(field):
                host = str(where.get("host") or subject.node_ip)
                address = Address(host, _port(where.get("port"), subject.spec))
                if field == "httpGet" and where.get("scheme", "HTTP") == "HTTP":
                    return await self._http_get(address, where)
                await self._connect(address)
                return None
        return "the probe has no exec, httpGet or tcpSocket"

    async def _connect(self, address: Address) -> None:
        connection = await self._network.connect(address, None)
        connection.abort()

    async def _http_get(self, address: Address, where: Object) -> str | None:
        given = [(str(h["name"]), str(h["value"])) for h in where.get("httpHeaders") or ()]
        headers = [("User-Agent", "kube-probe"), ("Accept", "*/*"), *given]
        client = HttpClient(self._network, address, None)
        try:
            async with client.stream("GET", str(where.get("path") or "/"), headers=headers) as reply:
                status = reply.status
        finally:
            with trio.move_on_after(1, shield=True):
                await client.aclose()
        return None if 200 <= status < 400 else f"HTTP probe failed with statuscode: {status}"


def _port(port: object, container: Object) -> int:
    """A number, or the number of the container's port of this name. Raises ConfigError: no such port."""
    for named in container.get("ports") or ():
        if named.get("name") == port:
            return int(named["containerPort"])
    text = str(port)
    if text.isdigit() and 0 < int(text) < 65_536:
        return int(text)
    raise ConfigError(f"the probe's port {text!r} is not a port of the container")
