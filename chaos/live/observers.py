"""What the harness sees of the cluster's inner life, written into the history: terms, resets, silence,
members that fall behind or fail, writes that stall, holders of leases.

A fault counts as effective only by one of these consequences, never because a signal was sent.
"""

from __future__ import annotations

import statistics
from collections import deque
from typing import Any, Final

import orjson
import trio

from chaos.live.cluster import LiveCluster
from chaos.recording import Recorder
from chaos.workload import PREFIX, run_operation
from raftkube.errors import StoreError
from raftkube.net.http_client import HttpClient, HttpClientError
from raftkube.net.tcp import TcpNetwork
from raftkube.store.client import StoreClient

_POLL_S: Final = 0.1
SILENT_S: Final = 1.0  # no answer for so long is silence; no acknowledged write, a stall
_BEHIND_NS: Final = 1_000_000_000
_BEHIND_ENTRIES: Final = 10
_FRESH_NS: Final = 1_000_000_000
_PROBE_CLIENT: Final = 9_001
_LEASES: Final = {"scheduler": "kube-scheduler", "controller-manager": "kube-controller-manager"}


class Observers:
    """Watches a cluster from outside; everything seen is written and kept in `seen`. `statuses` holds each
    store member's last answer and when it came."""

    def __init__(self, cluster: LiveCluster, recorder: Recorder) -> None:
        self._cluster = cluster
        self._recorder = recorder
        self._network = TcpNetwork()
        self.seen: list[dict[str, Any]] = []
        self.leader: str | None = None
        self.term = 0
        self.holders: dict[str, tuple[str, int]] = {}
        self.statuses: dict[str, tuple[int, dict[str, Any]]] = {}
        self._furthest: deque[tuple[int, int]] = deque(maxlen=1_000)  # when which was seen
        self._behind: set[str] = set()
        self._lives: dict[str, bool] = {}  # by API server, at its last answer or silence
        self._write_ms: deque[tuple[int, float]] = deque(maxlen=500)

    async def run(self, store: StoreClient) -> None:
        """Until cancelled. `store` reaches all members; small writes go over it."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._probe, store)
            for member in self._cluster.named("store"):
                nursery.start_soon(self._watch_member, member)
            for server in self._cluster.named("apiserver"):
                nursery.start_soon(self._watch_connection, server)
                nursery.start_soon(self._watch_health, server)
            if self._cluster.named("apiserver"):
                nursery.start_soon(self._watch_holders)

    def now_ns(self) -> int:
        """The clock of the history."""
        return self._recorder.now_ns()

    def see(self, kind: str, **fields: Any) -> None:
        """Write down what was seen."""
        record = {"type": "observe", "kind": kind, "time_ns": self.now_ns(), **fields}
        self.seen.append(record)
        self._recorder.write(record)

    # The members of the store.

    async def _watch_member(self, member: str) -> None:
        """Poll one member's status over one connection; its loss is a reset, no answer is silence."""
        address, tls = self._cluster.address(member), self._cluster.store_tls
        while True:
            connected = False
            try:
                async with StoreClient.open(
                    self._network, [address], tls, name="chaos-observer", pinned=True
                ) as store:
                    while True:
                        with trio.fail_after(SILENT_S):
                            self._on_status(member, await store.status())
                        connected = True
                        await trio.sleep(_POLL_S)
            except trio.TooSlowError:
                self._on_silence(member, connected)
            except StoreError as error:
                if connected:
                    self.see("reset", component=member, error=type(error).__name__)
            await trio.sleep(_POLL_S)

    def _on_silence(self, component: str, answered: bool) -> None:
        if answered:
            self.see("silent", component=component, ms=round(SILENT_S * 1000))

    def _on_status(self, member: str, status: dict[str, Any]) -> None:
        before = self.statuses.get(member, (0, status | {"role": ""}))[1]
        self.statuses[member] = (self.now_ns(), status)
        term, leader = status["term"], status["leader"]
        if leader and (term > self.term or (term == self.term and leader != self.leader)):
            self.term, self.leader = term, leader
            self.see("term", term=term, leader=leader, told_by=member)
        if status["role"] == "leader" and (before["role"], before["term"]) != ("leader", term):
            self.see("role", member=member, role="leader", term=term)
        if failures(status) and failures(status) != failures(before):
            self.see("disk", component=member, error=failures(status)[0])
        if status["id"] != before["id"]:
            self.see("id", component=member, id=status["id"], before=before["id"])
        self._on_applied(member, status["applied_index"])

    def _on_applied(self, member: str, applied: int) -> None:
        """A member that lacks what others had applied 1 s ago has fallen behind."""
        now = self.now_ns()
        if not self._furthest or applied > self._furthest[-1][1]:
            self._furthest.append((now, applied))
        lacks = self._furthest_before(now - _BEHIND_NS) - applied
        if lacks < _BEHIND_ENTRIES:
            self._behind.discard(member)
        elif member not in self._behind:
            self._behind.add(member)
            self.see("behind", component=member, entries=lacks)

    def _furthest_before(self, time_ns: int) -> int:
        """The highest applied index that was seen by then."""
        return max((applied for at_ns, applied in self._furthest if at_ns <= time_ns), default=0)

    def troubles(self) -> list[str]:
        """Why the cluster is not whole: what does not answer, has failed, does not vote, or lags."""
        found = [f"{server} does not answer" for server, lives in self._lives.items() if not lives]
        now = self.now_ns()
        for member in self._cluster.named("store"):
            at_ns, status = self.statuses.get(member, (0, {}))
            if now - at_ns > _FRESH_NS:
                found.append(f"{member} does not answer")
            elif failures(status):
                found.append(f"{member} {failures(status)[0]}")
            elif not status["leader"] or status["is_learner"] or status["role"] == "recovering":
                found.append(f"{member} knows no leader, or does not vote")
            elif member in self._behind:
                found.append(f"{member} is behind")
        return found

    # Writes.

    async def _probe(self, store: StoreClient) -> None:
        """A small write again and again, like any client's, to see when none is acknowledged."""
        number = 0
        while True:
            number += 1
            request = {"key": PREFIX + "probe", "value": f"probe-{number}"}
            started_ns = self.now_ns()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._expect)
                record = await run_operation(store, self._recorder, _PROBE_CLIENT, number, "put", request)
                nursery.cancel_scope.cancel()
            took_ms = (self.now_ns() - started_ns) / 1e6
            self._write_ms.append((self.now_ns(), took_ms))
            if record["outcome"] == "ok" and took_ms > SILENT_S * 1000:
                self.see("flow", ms=round(took_ms))
            await trio.sleep(_POLL_S)

    async def _expect(self) -> None:
        await trio.sleep(SILENT_S)
        self.see("stall", ms=round(SILENT_S * 1000))

    def write_ms(self, since_ns: int, until_ns: int) -> float:
        """The median time of the small writes that returned between the two; 0 if none did."""
        took = [ms for at_ns, ms in self._write_ms if since_ns <= at_ns < until_ns]
        return statistics.median(took) if took else 0.0

    # API servers and leases.

    async def _watch_connection(self, server: str) -> None:
        """Hold a watch open on one API server; when it is cut, that is a reset."""
        path = "/api/v1/namespaces/default/configmaps?watch=1&timeoutSeconds=3600"
        client = HttpClient(self._network, self._cluster.address(server), self._cluster.api_tls)
        while True:
            opened = False
            try:
                async with client.stream("GET", path) as stream:
                    opened = stream.status == 200
                    async for _ in stream:
                        pass
            except HttpClientError:
                pass
            if opened:
                self.see("reset", component=server, error="watch ended")
            await trio.sleep(_POLL_S)

    async def _watch_health(self, server: str) -> None:
        """Ask one API server whether it lives; no answer is silence."""
        client = HttpClient(self._network, self._cluster.address(server), self._cluster.api_tls)
        while True:
            lives = False
            with trio.move_on_after(SILENT_S) as patience:
                try:
                    lives = (await client.request("GET", "/livez")).status == 200
                except HttpClientError:
                    lives = False
            if patience.cancelled_caught:
                self._on_silence(server, self._lives.get(server, False))
            self._lives[server] = lives
            await trio.sleep(2 * _POLL_S)

    async def _watch_holders(self) -> None:
        """Poll the two leases through any API server that answers."""
        clients = [
            HttpClient(self._network, self._cluster.address(server), self._cluster.api_tls)
            for server in self._cluster.named("apiserver")
        ]
        while True:
            for kind, lease in _LEASES.items():
                for client in clients:
                    found = await _get_lease(client, lease)
                    if found is not None:
                        self._on_lease(kind, found)
                        break
            await trio.sleep(_POLL_S)

    def _on_lease(self, kind: str, lease: dict[str, Any]) -> None:
        holder = str(lease.get("spec", {}).get("holderIdentity") or "")
        token = int(lease["metadata"].get("annotations", {}).get("raftkube.dev/fencing-token", 0))
        if holder and self.holders.get(kind) != (holder, token):
            self.holders[kind] = (holder, token)
            self.see("holder", lease=kind, holder=holder, token=token)


def failures(status: dict[str, Any]) -> list[str]:
    """What a member says of its disk."""
    return [error for error in status.get("errors", ()) if error.startswith("failed: ")]


async def _get_lease(client: HttpClient, lease: str) -> dict[str, Any] | None:
    path = f"/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/{lease}"
    with trio.move_on_after(2):
        try:
            response = await client.request("GET", path)
        except HttpClientError:
            return None
        if response.status == 200:
            loaded: dict[str, Any] = orjson.loads(response.body)
            return loaded
    return None
