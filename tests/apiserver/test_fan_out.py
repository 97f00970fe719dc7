"""Followers hear of every change: at once while that is cheap, gathered after a long round."""

from __future__ import annotations

import trio
import trio.testing

from raftkube.apiserver.fan_out import GATHER_S_MAX, FanOut

MANY = 1_000


class Log:
    """What is followed: a number that grows."""

    def __init__(self, followers: int, *, cost_s: float = 0.0) -> None:
        self.value = 0
        self.clock = trio.lowlevel.current_clock()
        self.cost_s = cost_s
        self.followers = {Follower(self): None for _ in range(followers)}

    def seen(self) -> set[int]:
        return {follower.value for follower in self.followers}


class Follower:
    def __init__(self, log: Log) -> None:
        self.log = log
        self.value = 0
        self.rounds = 0

    def advance(self) -> None:
        self.value = self.log.value
        self.rounds += 1
        assert isinstance(self.log.clock, trio.testing.MockClock)
        self.log.clock.jump(self.log.cost_s)

    def end(self) -> None:
        raise AssertionError("nobody ends")


async def test_few_are_told_at_once(nursery: trio.Nursery, autojump_clock: trio.abc.Clock) -> None:
    fan_out, log = FanOut(), Log(3)
    nursery.start_soon(fan_out.run)
    for value in range(1, 6):
        log.value = value
        fan_out.tell([log])
        assert log.seen() == {value}


async def test_many_are_told_soon_and_others_run_meanwhile(
    nursery: trio.Nursery, autojump_clock: trio.abc.Clock
) -> None:
    fan_out, log = FanOut(), Log(MANY)
    nursery.start_soon(fan_out.run)
    log.value = 1
    fan_out.tell([log])
    turns = 0
    while log.seen() != {1}:
        assert turns < 100
        turns += 1
        await trio.lowlevel.checkpoint()
    assert turns > 5
    log.value = 2
    fan_out.tell([log])
    await trio.testing.wait_all_tasks_blocked()
    assert log.seen() == {2}


async def test_what_follows_a_long_round_is_gathered(
    nursery: trio.Nursery, autojump_clock: trio.abc.Clock
) -> None:
    fan_out, log = FanOut(), Log(10, cost_s=0.001)  # a round of 10 ms
    nursery.start_soon(fan_out.run)
    log.value = 1
    fan_out.tell([log])
    assert log.seen() == {1}
    for value in (2, 3, 4):
        log.value = value
        fan_out.tell([log])
        assert log.seen() == {1}
    began = trio.current_time()
    await trio.sleep(0.009)
    assert log.seen() == {1}
    await trio.sleep(0.03)
    assert log.seen() == {4}
    assert {follower.rounds for follower in log.followers} == {2}
    assert trio.current_time() - began < 0.06


async def test_nothing_is_gathered_for_longer_than_its_bound(
    nursery: trio.Nursery, autojump_clock: trio.abc.Clock
) -> None:
    fan_out, log = FanOut(), Log(10, cost_s=1.0)
    nursery.start_soon(fan_out.run)
    log.value = 1
    fan_out.tell([log])
    log.value, log.cost_s = 2, 0.0
    fan_out.tell([log])
    await trio.sleep(GATHER_S_MAX * 0.9)
    assert log.seen() == {1}
    await trio.sleep(GATHER_S_MAX * 0.2)
    assert log.seen() == {2}


async def test_a_change_during_a_round_is_told_after_it(
    nursery: trio.Nursery, autojump_clock: trio.abc.Clock
) -> None:
    fan_out, log, other = FanOut(), Log(MANY), Log(1)
    nursery.start_soon(fan_out.run)
    log.value = 1
    fan_out.tell([log])
    while 1 not in log.seen():
        await trio.lowlevel.checkpoint()
    assert log.seen() == {0, 1}
    other.value = 7
    log.value = 2
    fan_out.tell([log, other])
    await trio.testing.wait_all_tasks_blocked()
    await trio.sleep(2 * GATHER_S_MAX)
    assert (log.seen(), other.seen()) == ({2}, {7})


async def test_who_left_during_a_round_is_not_told(
    nursery: trio.Nursery, autojump_clock: trio.abc.Clock
) -> None:
    fan_out, log = FanOut(), Log(MANY)
    nursery.start_soon(fan_out.run)
    log.value = 1
    fan_out.tell([log])
    while 1 not in log.seen():
        await trio.lowlevel.checkpoint()
    gone = list(log.followers)[-1]
    del log.followers[gone]
    await trio.testing.wait_all_tasks_blocked()
    assert log.seen() == {1}
    assert gone.value == 0
