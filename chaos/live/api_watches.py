"""Watches through the API servers, and somebody who changes what they watch.

Each watch begins at one API server; when it is cut, it goes on at the next one from the resourceVersion that
it had reached, which is a revision of the store. So what came can be held against the store's own log
(`chaos.checkers.api_watches`): nothing may be missing, twice, or out of order, whichever server it came from.
"""

from __future__ import annotations

import random
from typing import Any, Final

import orjson
import trio

from chaos.live.cluster import LiveCluster
from chaos.live.observers import Observers
from chaos.recording import Recorder
from raftkube.net.http_client import ClientStream, HttpClient, HttpClientError
from raftkube.net.tcp import TcpNetwork

_PATH: Final = "/api/v1/namespaces/default/configmaps"
_KEYS: Final = "/registry/core/configmaps/default/"
_OBJECTS: Final = 5
_WATCHES_PER_SERVER: Final = 2
_WRITE_EVERY_S: Final = 0.15
_ANSWER_S: Final = 2.0
_RETRY_S: Final = 0.1


class ApiWatches:
    """Of one cluster; events are written down, cuts and resumptions seen."""

    def __init__(self, cluster: LiveCluster, observers: Observers, recorder: Recorder, seed: int) -> None:
        self._cluster, self._observers, self._recorder = cluster, observers, recorder
        self._rng = random.Random(f"{seed}/api")
        self._servers = cluster.named("apiserver")
        self._watches = 0

    async def run(self) -> None:
        """Until cancelled; at once where there are no API servers."""
        async with trio.open_nursery() as nursery:
            for number in range(_WATCHES_PER_SERVER * len(self._servers)):
                nursery.start_soon(self._watch, number)
            if self._servers:
                nursery.start_soon(self._write)

    def _client(self, number: int) -> HttpClient:
        server = self._servers[number % len(self._servers)]
        return HttpClient(TcpNetwork(), self._cluster.address(server), self._cluster.api_tls)

    async def _write(self) -> None:
        """Create, replace and delete a few ConfigMaps through all servers; refusals are as good as writes."""
        clients = [self._client(number) for number in range(len(self._servers))]
        number = 0
        while True:
            number += 1
            name = f"chaos-{self._rng.randrange(_OBJECTS)}"
            meta = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}}
            body = orjson.dumps(meta | {"data": {"write": str(number)}})
            method = self._rng.choice(("POST", "PUT", "DELETE"))
            path = _PATH if method == "POST" else f"{_PATH}/{name}"
            with trio.move_on_after(_ANSWER_S):
                try:
                    headers = [("content-type", "application/json")]
                    sent = b"" if method == "DELETE" else body
                    await self._rng.choice(clients).request(method, path, headers=headers, body=sent)
                except HttpClientError:
                    pass  # whether it was done, the log will tell
            await trio.sleep(_WRITE_EVERY_S)

    async def _watch(self, number: int) -> None:
        """One watch after another; each goes on from server to server until its revision is compacted."""
        at = number
        while True:
            revision = await self._list(at)
            if revision:
                self._watches += 1
                at = await self._follow(self._watches, revision, at)
            at += 1
            await trio.sleep(_RETRY_S)

    async def _list(self, at: int) -> int:
        """The revision of the objects as they are; 0: no answer."""
        with trio.move_on_after(_ANSWER_S):
            try:
                response = await self._client(at).request("GET", _PATH)
                if response.status == 200:
                    return int(orjson.loads(response.body)["metadata"]["resourceVersion"])
            except HttpClientError:
                pass
        return 0

    async def _follow(self, watch: int, revision: int, at: int) -> int:
        """Until 410; where it ended."""
        self._note("api-watch", watch=watch, keys=_KEYS, revision=revision)
        cut_from = ""
        while True:
            query = f"watch=1&allowWatchBookmarks=true&resourceVersion={revision}"
            server = self._servers[at % len(self._servers)]
            try:
                async with self._client(at).stream("GET", f"{_PATH}?{query}") as stream:
                    if stream.status == 410:
                        return at
                    if stream.status == 200:
                        if cut_from:
                            self._observers.see("resumed", component=cut_from, to=server, revision=revision)
                        cut_from = server
                        async for event in _lines(stream):
                            if event["type"] == "ERROR":
                                return at
                            revision = self._on_event(watch, event)
            except HttpClientError:
                pass
            at += 1
            await trio.sleep(_RETRY_S)

    def _on_event(self, watch: int, event: dict[str, Any]) -> int:
        """Write it down; the revision that the watch has reached."""
        meta = event["object"]["metadata"]
        revision = int(meta["resourceVersion"])
        if event["type"] != "BOOKMARK":
            kind = "delete" if event["type"] == "DELETED" else "put"
            self._note("api-event", watch=watch, event=kind, key=_KEYS + meta["name"], revision=revision)
        return revision

    def _note(self, kind: str, **fields: Any) -> None:
        now_ns = self._recorder.now_ns()
        self._recorder.write({"type": "observe", "kind": kind, "time_ns": now_ns, **fields})


async def _lines(stream: ClientStream) -> Any:
    """The watch's events. Raises HttpClientError: the stream was cut; half a line is no event."""
    rest = b""
    async for data in stream:
        *whole, rest = (rest + data).split(b"\n")
        for line in whole:
            if line.strip():
                yield orjson.loads(line)
