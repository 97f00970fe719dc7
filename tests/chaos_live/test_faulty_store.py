"""The launcher of store members: the product's command behind other doors, never without --testing."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from chaos.live.cluster import with_peer_ports
from chaos.live.fault_file import NO_FAULTS, DoorFaults, FaultFile, Routes
from chaos.live.faulty_store import RoutedNetwork, ShiftedClock
from raftkube.cluster.config import parse_cluster
from raftkube.net import Address, TlsFiles
from raftkube.rng import seeded_rng

ROOT = Path(__file__).parents[2]
TLS = TlsFiles("ca", "cert", "key")
PEER, PROXY, OTHER = Address("127.0.0.1", 1), Address("127.0.0.1", 2), Address("127.0.0.1", 3)


def launch(*flags: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "chaos.live.faulty_store", "store", "--name", "store-1", *flags],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    return done.returncode, done.stderr


def test_it_is_refused_without_testing(tmp_path: Path) -> None:
    data = tmp_path / "data" / "store-1"
    code, said = launch("--data-dir", str(data), "--initial-cluster", "store-1=127.0.0.1:1")
    assert (code, said) == (
        2, "raftkube: chaos.live.faulty_store fails on request; it is refused without --testing\n",
    )  # fmt: skip
    assert not data.exists()


def test_wrong_flags_end_as_those_of_the_product() -> None:
    code, said = launch("--data-dir", "x", "--initial-cluster", "?", "--testing")
    assert (code, said) == (2, "raftkube: --initial-cluster: '?' is not a member; write name=host:port\n")


class Dialled:
    """A network that notes what is asked of it."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Address, TlsFiles | None]] = []

    async def connect(self, address: Address, tls: TlsFiles | None) -> Any:
        self.asked.append(("connect", address, tls))

    async def listen(self, address: Address, tls: TlsFiles | None) -> Any:
        self.asked.append(("listen", address, tls))


@pytest.mark.parametrize(
    ("address", "tls", "dialled"),
    [
        (PEER, None, (PROXY, None)),
        (PEER, TLS, (PROXY, None)),
        (OTHER, TLS, (OTHER, TLS)),
        (OTHER, None, (OTHER, TLS)),
    ],
    ids=["peer", "peer with TLS", "other", "a blank member that asks for a list"],
)
async def test_peers_are_dialled_plain_through_proxies_and_others_as_they_are(
    address: Address, tls: TlsFiles | None, dialled: tuple[Address, TlsFiles | None]
) -> None:
    inner = Dialled()
    await RoutedNetwork(inner, {PEER: PROXY}, TLS).connect(address, tls)
    assert inner.asked == [("connect", *dialled)]


async def test_listening_is_left_alone() -> None:
    inner = Dialled()
    await RoutedNetwork(inner, {PEER: PROXY}, TLS).listen(PEER, None)
    assert inner.asked == [("listen", PEER, None)]


def test_what_is_asked_of_the_doors_is_read_at_once_and_of_each_member_by_itself(tmp_path: Path) -> None:
    data = tmp_path / "data" / "store-1"
    asked, reads = FaultFile.of(tmp_path, "store-1"), FaultFile.beside(str(data), "store-1")
    assert reads.read() == NO_FAULTS
    for faults in (DoorFaults(full=True), DoorFaults(failing="sync", sync_delay_s=0.5), NO_FAULTS):
        asked.write(faults)
        assert reads.read() == reads.read() == faults
    FaultFile.of(tmp_path, "store-2").write(DoorFaults(full=True))
    assert reads.read() == NO_FAULTS


def test_the_wall_clock_jumps_and_comes_back(tmp_path: Path) -> None:
    faults = FaultFile.of(tmp_path, "store-1")
    clock = ShiftedClock(faults)
    faults.write(DoorFaults(wall_shift_s=-86_400.0))
    assert abs(clock.wall() - time.time() + 86_400) < 1_000
    faults.write(NO_FAULTS)
    assert abs(clock.wall() - time.time()) < 1_000


def test_routes_are_each_members_own(tmp_path: Path) -> None:
    Routes(tmp_path).write({"store-1": {str(PEER): str(PROXY)}})
    beside = Routes.beside(str(tmp_path / "data" / "store-1"))
    assert beside.of("store-1") == {str(PEER): str(PROXY)}
    assert beside.of("store-2") == {}
    assert Routes(tmp_path / "nowhere").of("store-1") == {}


def test_the_cluster_file_is_given_peer_ports_and_stays_as_it_was_otherwise() -> None:
    text = (ROOT / "cluster_configs" / "chaos-all.yaml").read_bytes()
    config = parse_cluster(text, "x")
    after, addresses = with_peer_ports(text, config, seeded_rng(1))
    changed = parse_cluster(after, "x")
    assert {member.name: member.peer_port for member in changed.members} == {
        name: address.port for name, address in addresses.items()
    }
    assert len({address.port for address in addresses.values()}) == 3
    left, right = yaml.safe_load(text), yaml.safe_load(after)
    assert left["spec"].pop("store") != right["spec"].pop("store")
    assert left == right
    assert changed.launcher == config.launcher
