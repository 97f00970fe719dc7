"""`raftkube apiserver` as a process, over `raftkube store` as a process, with real certificates."""

from __future__ import annotations

import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import orjson
import pytest
import trio

from raftkube.clock import SystemClock
from raftkube.cluster.certificates import STORE_CLIENT, STORE_PEER, Authority
from raftkube.net import Address, TlsFiles
from raftkube.net.http_client import ConnectError, HttpClient
from raftkube.net.tcp import TcpNetwork

LOOPBACK = Address("127.0.0.1", 0)
RAFTKUBE = [sys.executable, "-m", "raftkube"]


class Files:
    """The credentials of a small cluster, on disk."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        store_ca = Authority.create("store-ca", SystemClock())
        ca = Authority.create("ca", SystemClock())
        self.store_ca, self.ca = store_ca.write(directory, "store-ca"), ca.write(directory, "ca")
        hosts = ("127.0.0.1", "localhost")
        self.member = store_ca.issue(
            "store-1", organizations=(STORE_PEER,), hosts=("store-1", *hosts), server=True
        ).write(directory, "store-1")
        self.store_client = store_ca.issue("apiserver-1", organizations=(STORE_CLIENT,)).write(
            directory, "store-client"
        )
        self.server = ca.issue("kube-apiserver", hosts=hosts, server=True).write(directory, "apiserver")
        self.admin = ca.issue("admin", organizations=("system:masters",)).write(directory, "admin")

    def store(self, peer: Address, client: Address) -> list[str]:
        return [
            "store", "--name", "store-1", "--data-dir", str(self.directory / "data"),
            "--initial-cluster", f"store-1={peer}", "--listen-client-urls", f"https://{client}",
            "--listen-peer-urls", f"https://{peer}", "--trusted-ca-file", self.store_ca,
            "--cert-file", self.member[0], "--key-file", self.member[1],
        ]  # fmt: skip

    def apiserver(self, port: int, store: Address) -> list[str]:
        return [
            "apiserver", "--name", "apiserver-1", "--secure-port", str(port), "--store-servers", str(store),
            "--store-cafile", self.store_ca, "--store-certfile", self.store_client[0],
            "--store-keyfile", self.store_client[1], "--tls-cert-file", self.server[0],
            "--tls-private-key-file", self.server[1], "--client-ca-file", self.ca,
        ]  # fmt: skip


@asynccontextmanager
async def process(arguments: list[str], log: Path) -> AsyncIterator[trio.Process]:
    with log.open("wb") as stream:
        running = await trio.lowlevel.open_process([*RAFTKUBE, *arguments], stderr=stream)
        try:
            yield running
        finally:
            if running.poll() is None:
                running.kill()
            with trio.CancelScope(shield=True):
                await running.wait()


async def free_addresses(count: int) -> list[Address]:
    network = TcpNetwork()
    listeners = [await network.listen(LOOPBACK, None) for _ in range(count)]
    for listener in listeners:
        await listener.aclose()
    return [listener.address for listener in listeners]


async def ready(client: HttpClient) -> None:
    """Wait until the server says so."""
    while True:
        try:
            if (await client.request("GET", "/readyz")).status == 200:
                return
        except ConnectError:
            pass
        await trio.sleep(0.05)


async def test_it_serves_survives_its_store_and_stops_on_sigterm(tmp_path: Path) -> None:
    files, network = Files(tmp_path), TcpNetwork()
    peer, client, api = await free_addresses(3)
    admin = HttpClient(network, api, TlsFiles(files.ca, *files.admin))
    target = "/api/v1/namespaces/default/configmaps"
    with trio.fail_after(120):
        async with process(files.apiserver(api.port, client), tmp_path / "api.log") as server:
            while True:  # it lives, and is not ready, before there is a store
                try:
                    assert (await admin.request("GET", "/livez")).status == 200
                    assert (await admin.request("GET", "/readyz")).status == 500
                    assert (await admin.request("GET", target)).status == 503
                    break
                except ConnectError:
                    await trio.sleep(0.05)
            async with process(files.store(peer, client), tmp_path / "store.log") as store:
                await ready(admin)
                body = orjson.dumps({"metadata": {"name": "a"}})
                assert (await admin.request("POST", target, body=body)).status == 201
                store.kill()
                await store.wait()
            refused = await admin.request("POST", target, body=orjson.dumps({"metadata": {"name": "b"}}))
            assert refused.status in (503, 504), refused.body
            assert orjson.loads(refused.body)["kind"] == "Status"
            async with process(files.store(peer, client), tmp_path / "store-again.log"):
                await ready(admin)
                assert (await admin.request("GET", f"{target}/a")).status == 200
                async with admin.stream("GET", f"{target}?watch=1") as watch:
                    assert b'"ADDED"' in await anext(watch)
                    server.send_signal(signal.SIGTERM)
                    assert [chunk async for chunk in watch] == []
                assert await server.wait() == 0
    assert "Traceback" not in (tmp_path / "api.log").read_text()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (["--secure-port", "70000"], "--secure-port must lie between 0 and 65535"),
        (["--store-servers", "nowhere"], "'nowhere' is not an address"),
        (["--tls-cert-file", "/missing.crt"], "/missing.crt"),
        (["--store-keyfile", ""], "--store-cafile, --store-certfile, --store-keyfile belong together"),
        (["--service-cluster-ip-range", "10.0.0.0/33"], "--service-cluster-ip-range '10.0.0.0/33'"),
        (["--colour", "blue"], "No such option"),
    ],
    ids=["port", "store address", "missing file", "half a credential", "range", "unknown flag"],
)
async def test_wrong_flags_are_one_sentence(tmp_path: Path, change: list[str], sentence: str) -> None:
    files = Files(tmp_path)
    arguments = [*files.apiserver(0, Address("127.0.0.1", 1)), *change]
    with trio.fail_after(60):
        done = await trio.run_process([*RAFTKUBE, *arguments], capture_stderr=True, check=False)
    text = done.stderr.decode()
    assert done.returncode == 2, text
    assert sentence in text
    assert "Traceback" not in text


async def test_a_taken_port_is_one_sentence(tmp_path: Path) -> None:
    files, network = Files(tmp_path), TcpNetwork()
    listener = await network.listen(LOOPBACK, None)
    arguments = files.apiserver(listener.address.port, Address("127.0.0.1", 1))
    with trio.fail_after(60):
        done = await trio.run_process([*RAFTKUBE, *arguments], capture_stderr=True, check=False)
    await listener.aclose()
    assert done.returncode == 2
    assert f"cannot listen on {listener.address}: Address already in use" in done.stderr.decode()
