"""Connections between members: real TCP with mutual TLS, identity before content, hostile bytes, bounds."""

from __future__ import annotations

import pickle
import struct
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from random import Random

import msgpack
import pytest
import trio
import trio.lowlevel
from hypothesis import given, settings
from hypothesis import strategies as st

from chaos.sim.clock import run_simulation
from chaos.sim.network import SimNetwork
from chaos.sim.raft_group import RaftGroup
from raftkube.clock import SystemClock
from raftkube.cluster.certificates import Authority
from raftkube.disk import SystemDisk
from raftkube.net import Address, PeerIdentity, TlsFiles
from raftkube.net.connection import SocketConnection
from raftkube.net.tcp import TcpListener, TcpNetwork
from raftkube.store.raft import messages as msg
from raftkube.store.raft.driver import RaftNode
from raftkube.store.raft.identity import DEFAULT_TOKEN, Identity, IdentityFile, cluster_id_of
from raftkube.store.raft.link import Link
from raftkube.store.raft.membership import Configuration, MemberAddresses
from raftkube.store.raft.peers import PEER_ORGANIZATION
from raftkube.wire.frames import FrameError, frame, pack

NAMES = ["store-1", "store-2", "store-3"]
CLUSTER = cluster_id_of(DEFAULT_TOKEN, {name: Address(name, 2380) for name in NAMES})
INCARNATION = "0123456789abcdef"


def hello(
    sender: str = "store-2", receiver: str = "store-1", cluster: str = CLUSTER, incarnation: str = INCARNATION
) -> msg.Message:
    return msg.hello(cluster, receiver, msg.Hello(sender, incarnation, 1, 1))


class PortlessNetwork(TcpNetwork):
    """Real sockets on loopback ports that the system chose; members are addressed by name."""

    def __init__(self, bound: dict[str, Address]) -> None:
        super().__init__()
        self._bound = bound

    async def connect(self, address: Address, tls: TlsFiles | None) -> SocketConnection:
        if address.host not in self._bound:
            raise ConnectionRefusedError(f"{address} does not listen yet")
        return await super().connect(self._bound[address.host], tls)

    async def listen(self, address: Address, tls: TlsFiles | None) -> TcpListener:
        listener = await super().listen(Address("127.0.0.1", 0), tls)
        self._bound[address.host] = listener.address
        return listener


class CountingMachine:
    """Every result is the entry's index; entries here hold a few operations at most."""

    def apply(self, index: int, payload: bytes, operations: object = None) -> list[int]:
        return [index] * len(msgpack.unpackb(payload))

    def snapshot(self) -> Iterator[bytes]:
        return iter([])

    def restoring(self, chunks: Iterator[bytes]) -> Generator[None, None, Callable[[], None]]:
        yield
        assert list(chunks) == []
        return lambda: None


def _certificates(directory: Path) -> dict[str, TlsFiles]:
    authority = Authority.create("store-ca", SystemClock())
    ca = authority.write(directory, "ca")
    files = {}
    for name in NAMES:
        hosts = (name, "127.0.0.1", "localhost")
        issued = authority.issue(name, organizations=(PEER_ORGANIZATION,), hosts=hosts, server=True)
        files[name] = TlsFiles(ca, *issued.write(directory, name))
    client = authority.issue("apiserver", organizations=("raftkube:store-client",))
    files["client"] = TlsFiles(ca, *client.write(directory, "client"), server_name="store-1")
    return files


@pytest.mark.parametrize("with_tls", [False, True], ids=["plain", "mtls"])
async def test_three_members_over_real_sockets(tmp_path: Path, with_tls: bool) -> None:
    tls = _certificates(tmp_path) if with_tls else {}
    bound: dict[str, Address] = {}
    nodes = {}
    for name in NAMES:
        nodes[name] = RaftNode(
            name=name,
            members={other: Address(other, 2380) for other in NAMES},
            disk=SystemDisk(str(tmp_path / "data" / name)),
            network=PortlessNetwork(bound),
            tls=tls.get(name),
            listen=Address(name, 2380),
            clock=SystemClock(),
            rng=Random(name),
            machine=CountingMachine(),
        )
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            for name in NAMES:
                await nursery.start(nodes[name].run)
            role = nodes["store-1"].role
            while role.leader is None:
                role = await nodes["store-1"].wait_role_change(role)
            leader = nodes[role.leader]
            while not leader.role.ready:
                await leader.wait_role_change(leader.role)
            assert await leader.propose(b"x" * 100_000) == leader.status().applied_index
            for node in nodes.values():
                await node.read_index()
                assert node.status().applied_index == leader.status().applied_index
            if with_tls:
                await _client_certificate_gets_nowhere(bound["store-1"], tls["client"])
            for node in nodes.values():
                await node.stop()


async def _client_certificate_gets_nowhere(address: Address, tls: TlsFiles) -> None:
    connection = await TcpNetwork().connect(address, tls)
    with trio.fail_after(10):
        try:
            await connection.send_all(frame(hello(incarnation="")))
            assert await connection.receive_some() == b""
        except trio.BrokenResourceError:
            pass  # closed before or after the send arrived: either way nothing was said


def test_the_certificate_must_carry_the_claimed_name() -> None:
    """Identities under the simulated network; TLS proper is tested over sockets."""

    async def main() -> list[tuple[str, bool]]:
        outcomes = []
        for label, identity in [
            ("right", PeerIdentity("store-2", (PEER_ORGANIZATION,))),
            ("other member's", PeerIdentity("store-3", (PEER_ORGANIZATION,))),
            ("stranger's", PeerIdentity("store-9", (PEER_ORGANIZATION,))),
            ("wrong organization", PeerIdentity("store-2", ("raftkube:store-client",))),
            ("none", None),
        ]:
            async with trio.open_nursery() as nursery:
                group = RaftGroup(1, nursery)
                node = RaftNode(
                    name="store-1",
                    members=group.members,
                    disk=group.hosts["store-1"].disk,
                    network=group.network.host("store-1"),
                    tls=TlsFiles(),
                    listen=group.members["store-1"],
                    clock=group.hosts["store-1"].clock,
                    rng=Random(1),
                    machine=CountingMachine(),
                )
                await nursery.start(node.run)
                host = group.network.host("store-2", identity)
                connection = await host.connect(group.members["store-1"], TlsFiles())
                await connection.send_all(frame(hello(incarnation="")))
                with trio.move_on_after(5):
                    try:
                        outcomes.append((label, await connection.receive_some() != b""))
                    except trio.BrokenResourceError:
                        outcomes.append((label, False))
                nursery.cancel_scope.cancel()
        return outcomes

    assert run_simulation(1, main) == [
        ("right", True),
        ("other member's", False),
        ("stranger's", False),
        ("wrong organization", False),
        ("none", False),
    ]


def configuration_of(members: dict[str, Address]) -> Configuration:
    return Configuration({name: MemberAddresses(str(address)) for name, address in members.items()})


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return pytest.fail, ("a pickle from the network was loaded",)


HELLO = frame(hello())
HOSTILE = {
    "pickle": pickle.dumps(Bomb()),
    "pickle in a frame": struct.pack(">I", len(pickle.dumps(Bomb()))) + pickle.dumps(Bomb()),
    "length zero": struct.pack(">I", 0),
    "length 2**32-1": b"\xff\xff\xff\xff",
    "not msgpack": frame([1])[:-1] + b"\xc1",
    "another cluster": frame(hello(cluster="elsewhere")),
    "another version": frame([msg.HELLO, msg.PROTOCOL, 99, CLUSTER, "store-2", "store-1"]),
    "another addressee": frame(hello(receiver="store-3")),
    "a stranger": frame(hello(sender="store-9")),
    "an append before hello": frame([msg.APPEND, 9, 9, 9, 9, []]),
    "a second hello": HELLO + HELLO,
    "a pong that nobody asked for": HELLO + frame([msg.PONG]),
    "a huge hello": frame(hello(cluster="x" * 5000)),
    "an unknown kind": HELLO + frame([99, 1]),
    "a negative term": HELLO + frame([msg.VOTE, -1]),
    "a bool for a term": HELLO + frame([msg.VOTE, True]),
    "a missing field": HELLO + frame([msg.APPEND, 1, 2, 3, 4]),
    "entries out of order": HELLO + frame([msg.APPEND, 9, 1, 1, 0, [[b"\x01", 5, 1]]]),
    "an entry that is no entry": HELLO + frame([msg.APPEND, 9, 1, 1, 0, [[1, 2, 3]]]),
    "an empty command": HELLO + frame([msg.APPEND, 9, 1, 1, 0, [[b"", 2, 9]]]),
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_bytes_end_the_connection_alone(data: bytes) -> None:
    async def main() -> None:
        async with trio.open_nursery() as nursery:
            group = RaftGroup(1, nursery)
            IdentityFile.create(  # the hello below is that of store-2's data directory
                group.hosts["store-2"].disk,
                Identity(CLUSTER, DEFAULT_TOKEN, "store-2", INCARNATION, configuration_of(group.members)),
            )
            await group.start("store-1")
            await group.start("store-3")
            await group.wait_leader()
            connection = await group.network.host("store-2").connect(group.members["store-1"], None)
            with trio.fail_after(15):  # virtual: the handshake's own time-out is ten seconds
                try:
                    if data.startswith(HELLO):
                        await connection.send_all(HELLO)
                        assert await connection.receive_some()
                    await connection.send_all(data.removeprefix(HELLO) or HELLO)
                    while await connection.receive_some():
                        pass
                except trio.BrokenResourceError:
                    pass
            await group.propose(b"x")
            await group.start("store-2")
            await group.wait_converged()
            assert all(host.error is None for host in group.hosts.values())
            nursery.cancel_scope.cancel()

    run_simulation(1, main)


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(2**63), 2**64 - 1)
        | st.binary(max_size=8)
        | st.text(max_size=8),
        lambda children: st.lists(children, max_size=6),
        max_leaves=20,
    )
)
@settings(max_examples=400, deadline=None)
def test_any_message_is_decoded_or_refused(value: object) -> None:
    try:
        message = msg.decode(pack(value))
    except FrameError:
        return
    assert message == value


def test_messages_arrive_in_order_and_a_reader_that_sleeps_is_dropped() -> None:
    async def main() -> None:
        network = SimNetwork(Random(1))
        listener = await network.host("b").listen(Address("b", 1), None)
        connection = await network.host("a").connect(Address("b", 1), None)
        other = await listener.accept()
        link = Link(connection, 1000_000)
        pauses: list[str] = []
        link.on_pause, link.on_resume = lambda: pauses.append("pause"), lambda: pauses.append("resume")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(link.run)
            for number in range(2500):
                link.send(struct.pack(">I", number) * 250)
                if number % 100 == 0:
                    await trio.lowlevel.checkpoint()
            assert pauses == ["pause"]
            received = bytearray()
            while len(received) < 2_500_000:
                received += await other.receive_some()
            numbers = [struct.unpack_from(">I", received, at)[0] for at in range(0, 2_500_000, 1000)]
            assert numbers == list(range(2500))
            await trio.sleep(1)
            assert pauses == ["pause", "resume"]
            for _ in range(7000):
                link.send(bytes(1000))
            assert connection.dead
            nursery.cancel_scope.cancel()

    run_simulation(1, main)


def test_a_newer_connection_replaces_the_older() -> None:
    async def main() -> None:
        async with trio.open_nursery() as nursery:
            group = RaftGroup(1, nursery)
            await group.start("store-1")
            host = group.network.host("store-2")
            first = await host.connect(group.members["store-1"], None)
            await first.send_all(HELLO)
            assert await first.receive_some()
            second = await host.connect(group.members["store-1"], None)
            await second.send_all(HELLO)
            assert await second.receive_some()
            assert await first.receive_some() == b""
            await second.send_all(frame([msg.PING]))
            assert await second.receive_some() == frame([msg.PONG])
            nursery.cancel_scope.cancel()

    run_simulation(1, main)
