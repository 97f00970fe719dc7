"""Three `raftkube store` processes by hand, plain or with TLS, and `raftkube kv` against them."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from raftkube.clock import SystemClock
from raftkube.cluster.certificates import STORE_ADMIN, STORE_CLIENT, STORE_PEER, Authority

NAMES = ("store-1", "store-2", "store-3")
RAFTKUBE = (sys.executable, "-c", "import sys; from raftkube.cli import main; main(sys.argv[1:])")


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [int(each.getsockname()[1]) for each in sockets]
    for each in sockets:
        each.close()
    return ports


def raftkube(
    *arguments: str, stdin: bytes = b"", env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[bytes]:
    """One command line to its end, in a minute at most."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAFTKUBE")}
    return subprocess.run(
        [*RAFTKUBE, *arguments],
        input=stdin,
        capture_output=True,
        timeout=60,
        env=environment | (env or {}),
        check=False,
    )


class StoreProcesses:
    def __init__(self, directory: Path, *, tls: bool) -> None:
        self.directory = directory
        self.tls = tls
        ports = free_ports(6)
        self.peer_ports = dict(zip(NAMES, ports[:3], strict=True))
        self.client_ports = dict(zip(NAMES, ports[3:], strict=True))
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        if tls:
            self._make_certificates()

    def _make_certificates(self) -> None:
        authority = Authority.create("store-ca", SystemClock())
        authority.write(self.directory, "ca")
        for name in NAMES:
            issued = authority.issue(
                name, organizations=(STORE_PEER,), hosts=(name, "127.0.0.1", "localhost"), server=True
            )
            issued.write(self.directory, name)
        authority.issue("admin", organizations=(STORE_ADMIN,)).write(self.directory, "admin")
        authority.issue("client", organizations=(STORE_CLIENT,)).write(self.directory, "client")
        authority.issue("mallory", organizations=("system:masters",)).write(self.directory, "mallory")

    @property
    def endpoints(self) -> str:
        return ",".join(f"127.0.0.1:{port}" for port in self.client_ports.values())

    def flags(self, name: str) -> list[str]:
        scheme = "https" if self.tls else "http"
        made = [
            "store", "--name", name, "--data-dir", str(self.directory / f"{name}.data"),
            "--initial-cluster", ",".join(f"{n}=127.0.0.1:{p}" for n, p in self.peer_ports.items()),
            "--listen-client-urls", f"{scheme}://127.0.0.1:{self.client_ports[name]}",
            "--listen-peer-urls", f"{scheme}://127.0.0.1:{self.peer_ports[name]}",
        ]  # fmt: skip
        if self.tls:
            certificate, key = self.directory / f"{name}.crt", self.directory / f"{name}.key"
            made += ["--trusted-ca-file", str(self.directory / "ca.crt")]
            made += ["--cert-file", str(certificate), "--key-file", str(key)]
        return made

    def start(self, *names: str) -> None:
        for name in names or NAMES:
            log = (self.directory / f"{name}.log").open("ab")
            self.processes[name] = subprocess.Popen(
                [*RAFTKUBE, *self.flags(name)], stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )
            log.close()

    def kill(self, *names: str) -> None:
        for name in names:
            self.processes[name].send_signal(signal.SIGKILL)
        for name in names:
            self.processes.pop(name).wait(timeout=10)

    def stop(self, name: str) -> int:
        """SIGTERM; the exit code."""
        process = self.processes.pop(name)
        process.terminate()
        return process.wait(timeout=10)

    def kv(
        self, *arguments: str, stdin: bytes = b"", certificate: str = "admin"
    ) -> subprocess.CompletedProcess[bytes]:
        return raftkube("kv", *self.kv_flags(certificate), *arguments, stdin=stdin)

    def kv_flags(self, certificate: str = "admin") -> list[str]:
        made = ["--endpoints", self.endpoints, "--command-timeout", "20"]
        if self.tls:
            made += ["--cacert", str(self.directory / "ca.crt")]
            made += ["--cert", str(self.directory / f"{certificate}.crt")]
            made += ["--key", str(self.directory / f"{certificate}.key")]
        return made

    def log_of(self, name: str) -> str:
        return (self.directory / f"{name}.log").read_text()


@contextlib.contextmanager
def store_processes(directory: Path, *, tls: bool) -> Iterator[StoreProcesses]:
    stores = StoreProcesses(directory, tls=tls)
    stores.start()
    try:
        yield stores
    finally:
        stores.kill(*stores.processes)


def wait_until(condition: object, *, seconds: float = 20.0) -> None:
    """Poll a real condition, for a bounded time."""
    end = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end, "the condition did not come true"
        time.sleep(0.02)
