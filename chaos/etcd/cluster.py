"""Three members of a real etcd as processes: started, killed, paused; their states and their hashes."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson
import trio

from bench.errors import BenchError
from bench.peers import etcd_binary
from chaos.etcd.client import EtcdClient
from raftkube.errors import ConfigError, StoreError
from raftkube.net import Address
from raftkube.net.ports import free_port
from raftkube.net.tcp import TcpNetwork

MEMBERS: Final = 3
_HOST: Final = "127.0.0.1"
_POLL_S: Final = 0.1
# Marks each second: what the checkers learn from a watch without events, and how silence is told from loss.
_PROGRESS: Final = "1s"


@dataclass(frozen=True, slots=True)
class MemberState:
    """What a member says of itself."""

    member_id: str
    leader_id: str  # "0": none is known
    term: int
    revision: int
    applied_index: int


@dataclass(frozen=True, slots=True)
class MemberHash:
    """HashKV: over all versions of all keys from `compact_revision` to the revision asked for."""

    hash: str
    compact_revision: int


class EtcdCluster:
    """Members by name, `etcd-1` to `etcd-3`; made by `running`."""

    def __init__(self, folder: Path, rng: random.Random) -> None:
        folder.mkdir(parents=True)
        self._folder = folder.resolve()
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._network = TcpNetwork()
        self._rng = rng
        self.names = [f"etcd-{number}" for number in range(1, MEMBERS + 1)]
        ports: list[int] = []
        for _ in range(2 * MEMBERS):
            ports.append(free_port(rng, ports))
        self._client_ports = dict(zip(self.names, ports, strict=False))
        self._peer_ports = dict(zip(self.names, ports[MEMBERS:], strict=True))
        self._binaries = _binary("etcd"), _binary("etcdctl")

    @property
    def addresses(self) -> list[Address]:
        return [self.address(name) for name in self.names]

    def address(self, name: str) -> Address:
        return Address(_HOST, self._client_ports[name])

    def version(self) -> str:
        """Such as 3.5.1."""
        told = subprocess.run([self._binaries[0], "--version"], capture_output=True, check=True, timeout=10)
        return told.stdout.decode().split()[2]

    def start(self, name: str) -> None:
        """Start a member, on the data it has, unless it runs."""
        process = self._processes.get(name)
        if process is not None and process.poll() is None:
            return
        with (self._folder / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                self._command(name), stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
            )

    async def kill(self, name: str) -> None:
        """SIGKILL; returns once it is gone."""
        await self._end(name, signal.SIGKILL)

    async def stop(self, name: str) -> None:
        """SIGTERM, and SIGKILL for one that does not end within 10 s."""
        with trio.move_on_after(10):
            await self._end(name, signal.SIGTERM)
            return
        await self.kill(name)

    def pause(self, name: str) -> None:
        """SIGSTOP."""
        self._processes[name].send_signal(signal.SIGSTOP)

    def resume(self, name: str) -> None:
        """SIGCONT."""
        self._processes[name].send_signal(signal.SIGCONT)

    def ended(self) -> list[str]:
        """The members that do not run."""
        return [name for name, process in self._processes.items() if process.poll() is not None]

    def last_line(self, name: str) -> str:
        """What a member said last, for reports."""
        lines = (self._folder / f"{name}.log").read_text(errors="replace").splitlines()
        return lines[-1][:300] if lines else "nothing"

    async def state(self, name: str) -> MemberState | None:
        """None: it does not answer."""
        with trio.move_on_after(2), contextlib.suppress(StoreError, KeyError, orjson.JSONDecodeError):
            async with EtcdClient.open(
                self._network, [self.address(name)], rng=self._rng, pinned=True
            ) as client:
                return read_state(await client.status())
        return None

    async def hash_at(self, name: str, revision: int) -> MemberHash | None:
        """A member's hash at `revision`, by etcdctl: the gateway's path for it leads to another call.

        None: the member has none (it has not got so far, or does not answer).
        """
        command = [self._binaries[1], "--endpoints", f"http://{self.address(name)}", "endpoint", "hashkv"]
        done = await trio.run_process(
            [*command, "--rev", str(revision), "-w", "json"],
            capture_stdout=True, capture_stderr=True, check=False, env=os.environ | {"ETCDCTL_API": "3"},
        )  # fmt: skip
        told = orjson.loads(done.stdout or b"[]")
        if done.returncode != 0 or not told:
            return None
        found = told[0]["HashKV"]
        return MemberHash(str(found.get("hash", 0)), int(found.get("compact_revision", 0)))

    async def wait_for_leader(self, timeout_s: float) -> None:
        """Until every member knows one. Raises ConfigError: what a member said last."""
        with trio.move_on_after(timeout_s):
            while True:
                states = [await self.state(name) for name in self.names]
                if all(state is not None and state.leader_id != "0" for state in states):
                    return
                for name in self.ended():
                    raise ConfigError(f"{name} ended: {self.last_line(name)}")
                await trio.sleep(_POLL_S)
        raise ConfigError(f"etcd had no leader within {timeout_s:g} s; {self.last_line(self.names[0])}")

    async def end_all(self) -> None:
        """SIGKILL to what was started here."""
        for name in self._processes:
            await self.kill(name)

    async def _end(self, name: str, number: int) -> None:
        process = self._processes[name]
        if process.poll() is None:
            process.send_signal(number)
        while process.poll() is None:  # noqa: ASYNC110  a process has no event to wait for
            await trio.sleep(0.005)

    def _command(self, name: str) -> list[str]:
        peers = {member: f"http://{_HOST}:{port}" for member, port in self._peer_ports.items()}
        client = f"http://{self.address(name)}"
        return [
            self._binaries[0], "--name", name, "--data-dir", str(self._folder / name),
            "--initial-cluster", ",".join(f"{member}={url}" for member, url in peers.items()),
            "--initial-cluster-state", "new", "--initial-advertise-peer-urls", peers[name],
            "--listen-peer-urls", peers[name], "--listen-client-urls", client,
            "--advertise-client-urls", client, "--log-level", "warn",
            "--experimental-watch-progress-notify-interval", _PROGRESS,
        ]  # fmt: skip


@asynccontextmanager
async def running(folder: Path, rng: random.Random) -> AsyncIterator[EtcdCluster]:
    """A fresh cluster that has a leader; data and logs stay in `folder`. Raises ConfigError."""
    cluster = EtcdCluster(folder, rng)
    try:
        for name in cluster.names:
            cluster.start(name)
        await cluster.wait_for_leader(60)
        yield cluster
    finally:
        with trio.CancelScope(shield=True):
            await cluster.end_all()


def read_state(told: dict[str, Any]) -> MemberState:
    """From a status of `EtcdClient`."""
    header = told["header"]
    return MemberState(
        header["member_id"], told.get("leader", "0"), int(told.get("raftTerm", 0)),
        int(header.get("revision", 0)), int(told.get("raftAppliedIndex", 0)),
    )  # fmt: skip


def _binary(name: str) -> str:
    try:
        return etcd_binary(name)
    except BenchError as error:
        raise ConfigError(str(error)) from error
