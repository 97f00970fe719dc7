"""An API server over memory storage on loopback TLS, with clients of any identity. Used by the tests here."""

from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import trio
import yaml

from raftkube.apiserver.cache import HISTORY_EVENTS
from raftkube.apiserver.memory_storage import MemoryStorage
from raftkube.apiserver.server import ApiServerConfig, run
from raftkube.apiserver.storage import Storage
from raftkube.clock import SystemClock
from raftkube.cluster.certificates import Authority
from raftkube.net import Address, TlsFiles
from raftkube.net.http_client import ClientResponse, ClientStream, HttpClient
from raftkube.net.tcp import TcpNetwork
from raftkube.rng import seeded_rng

KUBECTL = Path(__file__).resolve().parents[2] / ".venv" / "bin" / "kubectl"
Json = dict[str, Any]


@dataclass(slots=True)
class Answer:
    """A response with its JSON."""

    code: int
    body: Any
    headers: dict[str, str]
    raw: bytes

    @property
    def reason(self) -> str:
        return str(self.body.get("reason", "")) if isinstance(self.body, dict) else ""


class Watch:
    """The lines of a watch as objects."""

    def __init__(self, stream: ClientStream) -> None:
        self.stream = stream
        self._buffer = b""

    async def next(self) -> Json:
        with trio.fail_after(20):
            while b"\n" not in self._buffer:
                self._buffer += await anext(self.stream)
        line, _, self._buffer = self._buffer.partition(b"\n")
        event: Json = orjson.loads(line)
        return event

    async def names(self, count: int) -> list[tuple[str, str]]:
        """(type, name) of the next `count` events."""
        events = [await self.next() for _ in range(count)]
        return [(event["type"], event["object"]["metadata"]["name"]) for event in events]

    async def at_end(self) -> bool:
        with trio.fail_after(20):
            async for data in self.stream:
                self._buffer += data
        return not self._buffer


@dataclass(slots=True)
class Client:
    """JSON requests of one identity to one server."""

    http: HttpClient
    headers: dict[str, str] = field(default_factory=dict)

    async def request(
        self, method: str, target: str, body: Any = None, *, content_type: str = "", **headers: str
    ) -> Answer:
        sent = {**self.headers, **{name.replace("_", "-"): value for name, value in headers.items()}}
        if content_type:
            sent["Content-Type"] = content_type
        data = body if isinstance(body, bytes) else b"" if body is None else orjson.dumps(body)
        with trio.fail_after(20):
            response = await self.http.request(method, target, headers=list(sent.items()), body=data)
        return _answer(response)

    async def get(self, target: str, **headers: str) -> Answer:
        return await self.request("GET", target, **headers)

    async def post(self, target: str, body: Any, **headers: str) -> Answer:
        return await self.request("POST", target, body, **headers)

    async def put(self, target: str, body: Any, **headers: str) -> Answer:
        return await self.request("PUT", target, body, **headers)

    async def delete(self, target: str, body: Any = None, **headers: str) -> Answer:
        return await self.request("DELETE", target, body, **headers)

    async def patch(self, target: str, body: Any, kind: str = "merge-patch+json", **headers: str) -> Answer:
        return await self.request("PATCH", target, body, content_type=f"application/{kind}", **headers)

    @asynccontextmanager
    async def watch(self, target: str, **headers: str) -> AsyncIterator[Watch]:
        joined = f"{target}{'&' if '?' in target else '?'}watch=1"
        async with self.http.stream("GET", joined, headers=list(headers.items())) as stream:
            assert stream.status == 200, await stream.read(1000)
            yield Watch(stream)


def _answer(response: ClientResponse) -> Answer:
    body: Any = None
    if response.headers.get("content-type", "").startswith("application/json") and response.body:
        body = orjson.loads(response.body)
    return Answer(response.status, body, response.headers, response.body)


class World:
    """Servers that share one storage, and their clients."""

    def __init__(self, directory: Path, storage: Storage, nursery: trio.Nursery) -> None:
        self.directory = directory
        self.storage = storage
        self.network = TcpNetwork()
        self.addresses: list[Address] = []
        self.history_events = HISTORY_EVENTS
        self._nursery = nursery
        self._authority = Authority.create("test-ca", SystemClock())
        self.ca = self._authority.write(directory, "ca")
        self._server = self._authority.issue(
            "kube-apiserver", hosts=("127.0.0.1", "localhost"), server=True
        ).write(directory, "server")

    async def start(self, *, storage: Storage | None = None, stop: trio.Event | None = None) -> Address:
        """One more server."""
        config = ApiServerConfig(
            name=f"apiserver-{len(self.addresses) + 1}",
            bind=Address("127.0.0.1", 0),
            tls=TlsFiles(self.ca, *self._server, require_peer=False),
            kubelet_tls=self.tls("kube-apiserver-kubelet-client", "system:masters"),
            history_events=self.history_events,
        )

        async def serve(*, task_status: trio.TaskStatus[Address]) -> None:
            await run(
                config, network=self.network, clock=SystemClock(), rng=seeded_rng(len(self.addresses)),
                storage=storage or self.storage, stop=stop, task_status=task_status,
            )  # fmt: skip

        address: Address = await self._nursery.start(serve)
        self.addresses.append(address)
        return address

    def tls(self, user: str, *groups: str) -> TlsFiles:
        """Client TLS of an identity."""
        name = user.replace(":", "_")
        if not (self.directory / f"{name}.crt").exists():
            self._authority.issue(user, organizations=groups).write(self.directory, name)
        paths = (str(self.directory / f"{name}.crt"), str(self.directory / f"{name}.key"))
        return TlsFiles(self.ca, *paths)

    def server_tls(self, user: str) -> TlsFiles:
        """TLS of another server, that of a kubelet."""
        paths = self._authority.issue(user, hosts=("127.0.0.1",), server=True).write(self.directory, user)
        return TlsFiles(self.ca, *paths)

    def client(self, user: str = "admin", *groups: str, server: int = 0, token: int = 0) -> Client:
        """token: a fencing token for every request."""
        groups = groups or (("system:masters",) if user == "admin" else ())
        headers = {"Raftkube-Fencing-Token": str(token)} if token else {}
        http = HttpClient(self.network, self.addresses[server], self.tls(user, *groups))
        return Client(http, headers)

    def anonymous(self) -> Client:
        return Client(HttpClient(self.network, self.addresses[0], TlsFiles(self.ca)))

    def kubeconfig(self, server: int = 0) -> Path:
        tls = self.tls("admin", "system:masters")
        path = self.directory / f"kubeconfig-{server}"
        path.write_text(yaml.safe_dump({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test", "cluster": {
                "server": f"https://{self.addresses[server]}", "certificate-authority": self.ca}}],
            "users": [{"name": "admin", "user": {
                "client-certificate": tls.cert_file, "client-key": tls.key_file}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "admin"}}],
        }))  # fmt: skip
        return path

    async def open_kubectl(self, *arguments: str) -> trio.Process:
        """A kubectl that goes on; its output is at `.stdout`. The caller ends it."""
        command = [str(KUBECTL), f"--kubeconfig={self.kubeconfig()}", *arguments]
        return await trio.lowlevel.open_process(command, stdout=subprocess.PIPE)

    async def kubectl(self, *arguments: str, stdin: str = "", fails: bool = False) -> str:
        """What kubectl says (both streams)."""
        command = [str(KUBECTL), f"--kubeconfig={self.kubeconfig()}", *arguments]
        environment = {"HOME": str(self.directory), "PATH": "/usr/bin:/bin"}
        with trio.fail_after(60):
            done = await trio.run_process(
                command, stdin=stdin.encode(), capture_stdout=True, stderr=subprocess.STDOUT, check=False,
                env=environment,
            )  # fmt: skip
        text = done.stdout.decode()
        assert (done.returncode != 0) == fails, f"kubectl {' '.join(arguments)}: {text}"
        return text


@asynccontextmanager
async def world(
    directory: Path, *, servers: int = 1, history_events: int = HISTORY_EVENTS
) -> AsyncIterator[World]:
    """Servers over one memory storage."""
    async with trio.open_nursery() as nursery:
        storage = MemoryStorage(seeded_rng(1))
        await nursery.start(storage.run)
        made = World(directory, storage, nursery)
        made.history_events = history_events
        for _ in range(servers):
            await made.start()
        yield made
        nursery.cancel_scope.cancel()


def config_map(name: str, data: dict[str, str] | None = None, **metadata: Any) -> Json:
    return {"metadata": {"name": name, **metadata}, "data": data or {}}


def pod(name: str, **metadata: Any) -> Json:
    containers = [{"name": "main", "image": "web", "command": ["sleep", "9"]}]
    return {"metadata": {"name": name, **metadata}, "spec": {"containers": containers}}
