"""A store of three and API servers before it, all over TLS: what the API benches measure."""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import orjson
import psutil

from bench.errors import BenchError, Violation
from bench.loop import Endpoint
from bench.peers import Certificates, Side, make_certificates, running
from raftkube.clock import SystemClock
from raftkube.cluster.certificates import STORE_CLIENT, Authority

_START_TIMEOUT_S: Final = 60.0
_HOST: Final = "127.0.0.1"
_ADMIN: Final = "system:masters"


class ApiCluster:
    """Running API servers, and the store's members that they use."""

    def __init__(self, store: Side, leader: int, folder: Path, pki: Path) -> None:
        self.store = store
        self.leader = leader
        self._folder = folder
        self._pki = pki
        self._processes: list[subprocess.Popen[bytes]] = []
        self._ports: list[int] = []

    def start(self, servers: int) -> None:
        """Raises BenchError: one does not get ready; its last line is told."""
        self._ports = _free_ports(servers)
        for number in range(servers):
            with (self._folder / f"apiserver-{number + 1}.log").open("ab") as log:
                process = subprocess.Popen(
                    self._command(number),
                    stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True,
                )  # fmt: skip
            self._processes.append(process)
        for number in range(servers):
            self._wait_ready(number)

    def endpoint(self, number: int) -> Endpoint:
        """Where and as whom clients speak to API server `number` (from 0 on)."""
        pki = self._pki
        return Endpoint(
            _HOST, self._ports[number], str(pki / "kube.crt"), str(pki / "admin.crt"), str(pki / "admin.key")
        )

    def endpoints(self) -> list[Endpoint]:
        return [self.endpoint(number) for number in range(len(self._ports))]

    def kill(self, number: int) -> None:
        """SIGKILL one API server; returns once it is gone."""
        self._processes[number].kill()
        self._processes[number].wait()

    def usage(self, number: int) -> dict[str, float]:
        """CPU seconds so far, resident MB now and at most, of one API server."""
        return process_usage(self._processes[number].pid)

    def usages(self) -> dict[str, float]:
        """The sum over all API servers."""
        each = [self.usage(number) for number in range(len(self._processes))]
        return {key: round(sum(usage[key] for usage in each), 2) for key in each[0]}

    def pid(self, number: int) -> int:
        """The process of one API server."""
        return self._processes[number].pid

    def stop(self) -> None:
        """SIGKILL to the API servers that were started here."""
        for process in self._processes:
            process.kill()
            process.wait()

    def request(self, method: str, path: str, body: Any = None, *, number: int = 0) -> dict[str, Any]:
        """One request of its own connection, for what is not measured. Raises Violation: refused."""
        connection = self._connection(number)
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        headers = {"Content-Type": kind}
        try:
            connection.request(method, path, None if body is None else orjson.dumps(body), headers)
            answer = connection.getresponse()
            told = answer.read()
        finally:
            connection.close()
        if answer.status >= 300:
            raise Violation(f"{method} {path} was answered {answer.status}: {told[:300].decode()}")
        found: dict[str, Any] = orjson.loads(told)
        return found

    def _connection(self, number: int) -> http.client.HTTPSConnection:
        endpoint = self.endpoint(number)
        context = client_context(endpoint)
        return http.client.HTTPSConnection(_HOST, endpoint.port, timeout=30, context=context)

    def _wait_ready(self, number: int) -> None:
        deadline = time.monotonic() + _START_TIMEOUT_S
        while time.monotonic() < deadline:
            if self._processes[number].poll() is not None:
                raise BenchError(f"API server {number + 1} ended: {self._last_line(number)}")
            with contextlib.suppress(OSError, http.client.HTTPException):
                connection = self._connection(number)
                connection.request("GET", "/readyz")
                if connection.getresponse().status == 200:
                    connection.close()
                    return
            time.sleep(0.1)
        raise BenchError(f"API server {number + 1} was not ready within {_START_TIMEOUT_S:g} s")

    def _last_line(self, number: int) -> str:
        text = (self._folder / f"apiserver-{number + 1}.log").read_text(errors="replace")
        return (text.splitlines() or ["it said nothing"])[-1]

    def _command(self, number: int) -> list[str]:
        pki = self._pki
        stores = ",".join(f"{endpoint.host}:{endpoint.port}" for endpoint in self.store.endpoints())
        return [
            sys.executable, "-m", "raftkube", "apiserver", "--name", f"apiserver-{number + 1}",
            "--secure-port", str(self._ports[number]), "--store-servers", stores,
            "--store-cafile", str(pki / "ca.crt"), "--store-certfile", str(pki / "api-store.crt"),
            "--store-keyfile", str(pki / "api-store.key"), "--client-ca-file", str(pki / "kube.crt"),
            "--tls-cert-file", str(pki / "api.crt"), "--tls-private-key-file", str(pki / "api.key"),
        ]  # fmt: skip


def make_api_certificates(pki: Path) -> Certificates:
    """Those of the store's members, and of API servers and an administrator, in `pki`; of the store."""
    certificates = make_certificates(pki)
    clock = SystemClock()
    Authority.load(pki, "ca", clock).issue("apiserver", organizations=(STORE_CLIENT,)).write(pki, "api-store")
    authority = Authority.create("bench-kubernetes", clock)
    authority.write(pki, "kube")
    authority.issue("apiserver", hosts=(_HOST, "localhost"), server=True).write(pki, "api")
    authority.issue("admin", organizations=(_ADMIN,)).write(pki, "admin")
    return certificates


@contextlib.contextmanager
def running_api(folder: Path, certificates: Certificates, *, servers: int = 1) -> Iterator[ApiCluster]:
    """A fresh cluster with so many API servers; its data is removed at the end."""
    with running("raftkube", folder, certificates) as (store, leader):
        cluster = ApiCluster(store, leader, folder, Path(certificates.ca).parent)
        try:
            cluster.start(servers)
            yield cluster
        finally:
            cluster.stop()


def client_context(endpoint: Endpoint) -> ssl.SSLContext:
    """One TLS context for any number of connections to `endpoint`."""
    context = ssl.create_default_context(cafile=endpoint.ca)
    context.load_cert_chain(endpoint.cert, endpoint.key)
    return context


def server_context(pki: Path) -> ssl.SSLContext:
    """As an API server's: clients show a certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pki / "api.crt", pki / "api.key")
    context.load_verify_locations(pki / "kube.crt")
    context.verify_mode = ssl.CERT_OPTIONAL
    return context


def process_usage(pid: int) -> dict[str, float]:
    """CPU seconds so far, resident MB now and at most, open descriptors. Raises BenchError: it is gone."""
    try:
        process = psutil.Process(pid)
        times = process.cpu_times()
        status = Path(f"/proc/{pid}/status").read_text()
        descriptors = process.num_fds()
    except (psutil.Error, OSError) as error:
        raise BenchError(f"process {pid} is gone: {error}") from error
    sizes = {line.split(":")[0]: int(line.split()[1]) for line in status.splitlines() if line.endswith(" kB")}
    return {
        "cpu_s": round(times.user + times.system, 3),
        "rss_mb": round(sizes["VmRSS"] * 1024 / 1e6, 1),
        "peak_mb": round(sizes["VmHWM"] * 1024 / 1e6, 1),
        "descriptors": descriptors,
    }


def check_descriptors(needed: int) -> None:
    """So many in one process. Raises BenchError: more than this machine allows."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < needed:
        raise BenchError(f"{needed} file descriptors are needed, {hard} are allowed; raise ulimit -n")
    if soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server((_HOST, 0)) for _ in range(count)]
    ports: list[int] = [sock.getsockname()[1] for sock in sockets]
    for sock in sockets:
        sock.close()
    return ports
