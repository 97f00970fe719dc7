"""`raftkube store` as a process: its metrics ports, and log lines that a machine can read."""

from __future__ import annotations

import datetime
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import orjson
import pytest
from monitored import Certificates, get, scrape, until, value

from raftkube.net import Address, TlsFiles
from raftkube.net.ports import free_port
from raftkube.rng import system_rng

RAFTKUBE = (sys.executable, "-c", "import sys; from raftkube.cli import main; sys.exit(main(sys.argv[1:]))")


@dataclass
class Process:
    running: subprocess.Popen[bytes]
    secure: Address
    plain: Address
    certificates: Certificates
    log: Path

    def stop(self) -> int:
        self.running.send_signal(signal.SIGTERM)
        return self.running.wait(30)


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Process]:
    certificates, rng = Certificates(tmp_path), system_rng()
    files = certificates.member("store-1")
    ports: set[int] = set()
    while len(ports) < 4:
        ports.add(free_port(rng, ports))
    client, peer, secure, plain = (Address("127.0.0.1", port) for port in ports)
    log = tmp_path / "log"
    flags = [
        "store", "--name", "store-1", "--data-dir", str(tmp_path / "data"),
        "--initial-cluster", f"store-1={peer}", "--listen-peer-urls", f"https://{peer}",
        "--listen-client-urls", f"https://{client}",
        "--listen-metrics-urls", f"https://{secure},http://{plain}",
        "--trusted-ca-file", str(files.ca_file), "--cert-file", str(files.cert_file),
        "--key-file", str(files.key_file), "--logging-format", "json", "-v",
    ]  # fmt: skip
    with log.open("wb") as stderr, subprocess.Popen([*RAFTKUBE, *flags], stderr=stderr) as running:
        try:
            yield Process(running, secure, plain, certificates, log)
        finally:
            running.kill()


async def _answers(address: Address, tls: TlsFiles | None) -> bool:
    try:
        return (await get(address, "/readyz", tls))[0] == 200
    except Exception:  # noqa: BLE001  it does not listen yet
        return False


async def test_ports_and_logs_of_a_process(process: Process) -> None:
    tls = process.certificates.client("raftkube:store-metrics")
    await until(lambda: _answers(process.secure, tls), attempts=1200)
    for address, files in ((process.secure, tls), (process.plain, None)):
        families = await scrape(address, files)
        assert value(families, "etcd_server_is_leader") == 1
        assert "raftkube_gc_pause_seconds" in families
    wrong = process.certificates.client("raftkube:store-client")
    assert (await get(process.secure, "/metrics", wrong))[0] == 403
    assert process.stop() == 0
    lines = [orjson.loads(line) for line in process.log.read_bytes().splitlines()]
    assert lines
    for line in lines:
        assert {"timestamp", "level", "event", "component"} <= line.keys(), line
        assert datetime.datetime.fromisoformat(line["timestamp"]).utcoffset() == datetime.timedelta()
        assert line["level"] in ("debug", "info", "warning", "error")
        assert line["component"] == "store-1"
        assert line["event"].replace("_", "").isalnum(), line
        assert line["event"] == line["event"].lower(), line
    events = [line["event"] for line in lines]
    assert {"store_serving", "raft_role", "metrics_client_refused"} <= set(events)
    serving = lines[events.index("store_serving")]
    assert serving["metrics"] == [str(process.secure), str(process.plain)]


@pytest.mark.parametrize(
    ("urls", "sentence"),
    [
        ("https://127.0.0.1:0", "--listen-metrics-urls asks for https"),
        ("127.0.0.1:0", "must say http:// or https://"),
        ("ftp://127.0.0.1:0", "must say http:// or https://"),
        ("http://nowhere", "is not an address"),
    ],
)
def test_a_wrong_url_is_one_sentence(urls: str, sentence: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [
            *RAFTKUBE, "store", "--name", "a", "--data-dir", str(tmp_path / "d"), "--initial-cluster",
            "a=127.0.0.1:0", "--listen-peer-urls", "http://127.0.0.1:0", "--listen-client-urls",
            "http://127.0.0.1:0", "--listen-metrics-urls", urls,
        ],
        capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert sentence in done.stderr.decode()
    assert done.stderr.startswith(b"raftkube: ")
    assert done.stderr.count(b"\n") == 1
