"""Defects of pysyncobj's wire: what a stranger can do, and what stays in a buffer. Each beside raftkube."""

from __future__ import annotations

import pickle
import socket
import struct
import zlib
from typing import Any

import pytest
import trio
from pysyncobj.poller import createPoller
from pysyncobj.tcp_connection import TcpConnection

from chaos.sim.clock import run_simulation
from chaos.sim.groups import GroupOptions, Kind
from chaos.sim.guarded_group import GuardedGroup
from chaos.sim.network import SimNetwork
from chaos.sim.scenario import Scenario, run
from chaos.sim.stock_group import StockGroup
from raftkube.errors import MembershipRefused
from raftkube.net import Address
from raftkube.rng import seeded_rng
from raftkube.store.raft.link import Link
from raftkube.store.raft.membership import AddLearner, MemberAddresses

PEER_PORT = 2380
ran: list[str] = []


def marker(text: str) -> str:
    """What the pickle below calls: harmless, and there to be seen."""
    ran.append(text)
    return text


class Attack:
    def __reduce__(self) -> tuple[Any, ...]:
        return marker, ("a stranger's code ran",)


@pytest.mark.parametrize("kind", ["stock", "raftkube"])
def test_a_stranger_runs_no_code(kind: Kind) -> None:
    """F: stock unpickles what any TCP client sends, before it knows who that is."""
    ran.clear()
    body = zlib.compress(pickle.dumps(Attack()))

    async def story(scenario: Scenario) -> None:
        await scenario.leader()
        connection = await scenario.network.host("stranger").connect(Address("store-1", PEER_PORT), None)
        connection.send_nowait(struct.pack("i", len(body)) + body)
        with trio.move_on_after(5.0):
            while await connection.receive_some():
                pass
        await scenario.write(await scenario.leader(), b"after")  # the group goes on

    run(kind, story)
    assert ran == (["a stranger's code ran"] if kind == "stock" else [])


def test_the_real_tcp_of_stock_unpickles_a_stranger_too() -> None:
    """The same over a real socket, through pysyncobj's own TcpConnection."""
    ran.clear()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.setblocking(False)
        poller = createPoller("auto")
        TcpConnection(poller, socket=theirs, timeout=60.0, onMessageReceived=lambda message: None)
        body = zlib.compress(pickle.dumps(Attack()))
        ours.sendall(struct.pack("i", len(body)) + body)
        for _ in range(10):
            poller.poll(0.0)
    assert ran == ["a stranger's code ran"]


def test_stock_forgets_what_a_full_socket_did_not_take() -> None:
    """After EAGAIN nothing asks the poller for room to write: the rest waits for another send."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        for end in (ours, theirs):
            end.setblocking(False)
        poller, arrived = createPoller("auto"), []
        sender = TcpConnection(poller, socket=ours, timeout=60.0)
        TcpConnection(poller, socket=theirs, timeout=60.0, onMessageReceived=arrived.append)
        poller.poll(0.0)
        poller.poll(0.0)
        sender.send(seeded_rng(1).randbytes(3_000_000))
        for _ in range(200):
            poller.poll(0.0)
        assert arrived == []
        assert sender.getSendBufferSize() > 1_000_000


def test_what_a_full_connection_did_not_take_follows_in_raftkube() -> None:
    async def main() -> int:
        network, received = SimNetwork(seeded_rng(1)), 0
        listener = await network.host("b").listen(Address("b", 1), None)
        ours = await network.host("a").connect(Address("b", 1), None)
        theirs = await listener.accept()
        async with trio.open_nursery() as nursery:
            link = Link(ours, 16 << 20)
            nursery.start_soon(link.run)
            for _ in range(3):
                link.send(bytes(1_000_000))
            with trio.fail_after(30.0):
                while received < 3_000_000:
                    received += len(await theirs.receive_some())
            nursery.cancel_scope.cancel()
        return received

    assert run_simulation(1, main) == 3_000_000


@pytest.mark.parametrize("kind", ["stock", "raftkube"])
def test_members_change_one_at_a_time(kind: Kind) -> None:
    """Stock's guard against a second change is never armed: five are taken while none is committed, and two
    majorities that share nobody follow."""

    async def story(scenario: Scenario) -> int:
        leader = await scenario.leader()
        await scenario.write(leader, b"one")
        scenario.cut_off(leader, told=False)
        taken = 0
        for number in range(5):
            taken += await _add(scenario, leader, f"store-{9 - number}#0000000{number}")
        return taken

    assert run(kind, story, GroupOptions(membership=True)) == (5 if kind == "stock" else 1)


async def _add(scenario: Scenario, leader: str, name: str) -> bool:
    """Ask for one more member; False if it was refused (at once; what was taken is answered later)."""
    group, refused = scenario.group, False
    if isinstance(group, StockGroup):
        said = group.add_member(leader, name)
        await trio.sleep(0.02)
        return said.reason is None
    assert isinstance(group, GuardedGroup)
    with trio.move_on_after(0.02):
        try:
            address = MemberAddresses(f"{name.partition('#')[0]}:1")
            await group.node(leader).change_members(AddLearner(name, address, False))
        except MembershipRefused:
            refused = True
    return not refused
