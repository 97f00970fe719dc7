"""A client that asks for much and reads nothing costs the member a bounded amount of memory."""

from __future__ import annotations

from typing import Any

import trio
from single_member import client_of, single_member

from raftkube.net.tcp import TcpNetwork
from raftkube.store.server.session import _UNREAD_ANSWERS_BYTES_MAX
from raftkube.wire import rpc
from raftkube.wire.frames import FrameReader, unpack
from raftkube.wire.store import Put, Range, Txn, op_to_wire

VALUE = b"v" * 900_000
REQUESTS = 120  # 108 MB of answers


async def test_answers_wait_unmade_until_the_client_reads() -> None:
    """Linearizable and serializable ranges and transactions, all in flight before the first is read."""
    async with single_member() as member, client_of(member) as client:
        await client.put(b"k", VALUE)
        ops: list[tuple[str, Any]] = [
            (rpc.OP, Range(b"k")),
            (rpc.RANGE_SERIALIZABLE, Range(b"k")),
            (rpc.OP, Txn((), (Put(b"other", b""), Range(b"k")))),
        ]
        others = set(member.server._sessions)
        raw = await TcpNetwork().connect(member.address, None)
        await raw.send_all(rpc.client_hello("slow"))
        for number in range(1, REQUESTS + 1):
            method, op = ops[number % 3]
            await raw.send_all(rpc.request(number, method, [op_to_wire(op)], 0))
        with trio.fail_after(30):
            while not any(each._owed for each in member.server._sessions):  # noqa: ASYNC110
                await trio.sleep(0.01)
        (session,) = set(member.server._sessions) - others
        most = session._outbox.posted_bytes
        answered: set[int] = set()
        reader = FrameReader(1 << 30)
        with trio.fail_after(60):
            while len(answered) < REQUESTS:
                for body in reader.feed(await raw.receive_some()):
                    message = unpack(body)
                    if message[0] == rpc.ANSWER:
                        answered.add(message[1])
                most = max(most, session._outbox.posted_bytes)
        raw.abort()
        assert answered == set(range(1, REQUESTS + 1))
        assert most <= _UNREAD_ANSWERS_BYTES_MAX + 2 * len(VALUE)
