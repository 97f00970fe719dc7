"""Puts that arrive in one read are proposed together; each has its own answer, in order with all else."""

from __future__ import annotations

from typing import Any

import trio
from single_member import SingleMember, single_member

from raftkube.clock import SystemClock
from raftkube.errors import Overloaded
from raftkube.wire import rpc
from raftkube.wire.frames import FrameReader, unpack
from raftkube.wire.store import DeleteRange, Put, Range, op_to_wire


async def exchange(member: SingleMember, frames: list[bytes], answers: int) -> dict[int, list[Any]]:
    """Send all frames at once; the answers by request id, each [kind, id, content]."""
    connection = await member.network.connect(member.address, None)
    await connection.send_all(rpc.client_hello("t") + b"".join(frames))
    reader, got = FrameReader(), list[Any]()
    with trio.fail_after(10):
        while len(got) < answers + 1:
            got += [unpack(body) for body in reader.feed(await connection.receive_some())]
    await connection.aclose()
    assert len(got) == answers + 1
    return {message[1]: message for message in got[1:]}


def put(number: int, key: bytes, value: bytes = b"v", *, deadline_ms: int = 0, **fields: Any) -> bytes:
    return rpc.request(number, rpc.OP, [op_to_wire(Put(key, value, **fields))], deadline_ms)


async def test_puts_in_a_row_share_an_entry_and_have_their_own_answers() -> None:
    async with single_member() as member:
        answers = await exchange(member, [put(n, b"k%d" % n) for n in range(300)], 300)
        assert answers == {n: [rpc.ANSWER, n, [1, 2 + n, None]] for n in range(300)}
        assert member.consensus.index < 10


async def test_what_stands_between_puts_keeps_its_place() -> None:
    def op(number: int, op: Any) -> bytes:
        return rpc.request(number, rpc.OP, [op_to_wire(op)], 0)

    async with single_member() as member:
        frames = [
            put(1, b"a"),
            op(2, DeleteRange(b"a")),
            put(3, b"a", b"w"),
            put(4, b"a", b"x", prev_kv=True),
            put(5, b""),
            put(6, b"b", lease=99),
            op(7, Range(b"a")),
        ]
        answers = await exchange(member, frames, 7)
        assert answers[1][2] == [1, 2, None]
        assert answers[2][2][:3] == [2, 3, 1]
        assert answers[3][2] == [1, 4, None]
        assert answers[4][2][2][:2] == [b"a", b"w"]
        assert answers[5][0] == answers[6][0] == rpc.ERROR
        assert answers[5][2][0] == "invalid_request"
        assert answers[6][2][0] == "lease_not_found"
        assert answers[7][2][1] == 5


async def test_a_refusal_is_told_to_every_put_of_the_group() -> None:
    async with single_member() as member:
        member.consensus.refuse_with = Overloaded("full", retry_after_s=0.1)
        answers = await exchange(member, [put(n, b"k") for n in range(5)], 5)
        assert {answer[2][0] for answer in answers.values()} == {"overloaded"}
        assert member.consensus.proposed == []


async def test_large_puts_in_one_read_fit_their_entries() -> None:
    async with single_member() as member:
        large = bytes(1024 * 1024)
        frames = [put(n, b"k%d" % n, large if n % 3 == 0 else b"small") for n in range(12)]
        answers = await exchange(member, frames, 12)
        assert sorted(answer[2][1] for answer in answers.values()) == list(range(2, 14))


async def test_a_put_whose_time_is_over_does_not_take_those_with_time_left_along() -> None:
    class StoppedBetweenLooks(SystemClock):
        """A member that was stopped (SIGSTOP) for a second between any two looks at its clock."""

        stopped_s = 0.0

        def monotonic(self) -> float:
            self.stopped_s += 1.0
            return super().monotonic() + self.stopped_s

    async with single_member() as member:
        member.server.service.clock = StoppedBetweenLooks()
        frames = [put(1, b"a", deadline_ms=10), put(2, b"b", deadline_ms=60_000), put(3, b"c")]
        answers = await exchange(member, frames, 3)
        assert answers[1][2][0] == "deadline_expired"
        assert [answers[n][0] for n in (2, 3)] == [rpc.ANSWER, rpc.ANSWER]
        assert [wire[1] for wire in member.consensus.proposed] == [b"b", b"c"]
