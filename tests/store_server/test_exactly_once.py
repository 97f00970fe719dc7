"""Numbered writes take effect once: whatever breaks between a write and its answer, counters count right."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from single_member import client_of, single_member

from chaos.sim.clock import SimClock, run_simulation
from chaos.sim.simulated_store import NAMES, SimulatedStore, settled
from raftkube.errors import (
    ConnectionLost,
    DeadlineExpired,
    KeyNotFound,
    NoSpace,
    PermissionDenied,
    ProposalTimeout,
    SessionUnknown,
    StoreError,
)
from raftkube.rng import seeded_rng
from raftkube.store.client import StoreClient
from raftkube.store.core import StateMachine
from raftkube.store.raft.settings import RaftSettings
from raftkube.store.server.settings import ServerSettings
from raftkube.wire import rpc
from raftkube.wire.store import Compare, Once, Put, SessionClose, SessionOpen, Txn


async def append(client: StoreClient, key: bytes) -> int:
    """A write that shows how often it took effect: a key's version rises with each."""
    result = await client.put(key, b"x", prev_kv=True)
    return 1 if result.prev_kv is None else result.prev_kv.version + 1


class LosesAnswers:
    """Cuts the client off from whom it spoke to, after a write was sent, with every third write."""

    def __init__(self, client: StoreClient) -> None:
        self.lost = 0
        self.every = 3
        self._sent = 0
        self._call_once = client._call_once
        client._call_once = self  # type: ignore[assignment,method-assign]

    async def __call__(self, member: Any, method: str, arguments: list[Any]) -> Any:
        answer = await self._call_once(member, method, arguments)
        if method == rpc.OP and arguments[0][0] == 14:
            self._sent += 1
            if self._sent % self.every == 1:
                self.lost += 1
                raise ConnectionLost("committed, then disconnected")
        return answer


async def test_a_retry_gets_the_first_answer() -> None:
    async with single_member() as member, client_of(member, exactly_once=True) as client:
        losing = LosesAnswers(client)
        versions = [await append(client, b"k") for _ in range(10)]
        assert versions == list(range(1, 11))
        assert losing.lost >= 4
        created = Txn((Compare(b"once", "version", "=", 0),), (Put(b"once", b""),))
        assert [(await client.txn(created)).succeeded for _ in range(3)] == [True, False, False]
        granted = [(await client.lease_grant(30)).lease for _ in range(4)]
        assert sorted(granted) == list((await client.leases()).leases), "a retry granted another lease"


async def test_errors_are_answers_too() -> None:
    async with single_member() as member, client_of(member, exactly_once=True) as client:
        LosesAnswers(client)
        for _ in range(4):
            with pytest.raises(KeyNotFound):
                await client.put(b"k", b"", ignore_value=True)
        await client.put(b"k", b"v")
        assert (await client.put(b"k", b"", ignore_value=True, prev_kv=True)).prev_kv is not None
        kv = await client.get(b"k")
        assert kv is not None
        assert (kv.value, kv.version) == (b"v", 2)


async def test_many_at_once_stay_within_the_window(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("raftkube.store.client.numbered_writes.SESSION_WINDOW", 4)
    monkeypatch.setattr("raftkube.store.core.sessions.SESSION_WINDOW", 4)
    async with single_member() as member, client_of(member, exactly_once=True) as client:
        LosesAnswers(client)
        async with trio.open_nursery() as nursery:
            for number in range(50):
                nursery.start_soon(append, client, b"k%d" % (number % 5))
        for number in range(5):
            kv = await client.get(b"k%d" % number)
            assert kv is not None
            assert kv.version == 10
        (session,) = member.machine.core.oldest_sessions(beyond=0)
        assert session.highest == 50
    assert member.machine.core.oldest_sessions(beyond=0) == [], "the client closed its session"


async def test_a_closed_session_is_opened_anew_if_nothing_is_in_doubt() -> None:
    async with single_member() as member, client_of(member, exactly_once=True) as client:
        await append(client, b"k")
        (session,) = member.machine.core.oldest_sessions(beyond=0)
        member.machine.core.apply(SessionClose(session.session))
        assert await append(client, b"k") == 2


async def test_a_doubt_stays_a_doubt_when_its_session_is_gone() -> None:
    async with single_member() as member, client_of(member, exactly_once=True) as client:
        await append(client, b"k")

        def closed_after_the_write(operation: bytes) -> Any:
            answers = apply(operation)
            for view in member.machine.core.oldest_sessions(beyond=0):
                member.machine.core.apply(SessionClose(view.session))
            member.consensus._apply = apply  # type: ignore[method-assign]
            return answers if not answers else ProposalTimeout("unknown")

        apply = member.consensus._apply
        member.consensus._apply = closed_after_the_write  # type: ignore[assignment,method-assign]
        with pytest.raises(SessionUnknown) as unknown:
            await append(client, b"k")
        assert not unknown.value.definite
        assert await append(client, b"k") == 3, "it had been applied, and was not applied again"


async def test_what_was_refused_for_space_was_not_written() -> None:
    """The last write that fits leaves no room for itself: its retry is answered, not refused."""
    settings = ServerSettings(quota_bytes=5_000, history_s=0, history_revisions_max=0)
    async with single_member(settings) as member, client_of(member, exactly_once=True) as client:
        losing = LosesAnswers(client)
        losing.every = 2  # the first answer to each write
        written = 0
        with pytest.raises(NoSpace):
            for number in range(10):
                await client.put(b"k%d" % number, b"x" * 1_000)
                written += 1
        assert written == 3
        assert await client.get(b"k3") is None, "a definite error for what was written"
        with pytest.raises(NoSpace):
            await client.put(b"k", b"")
        assert len((await client.alarms()).alarms) == 1
        await client.delete(b"k", b"l")
        await client.compact((await client.status())["revision"])
        await client.alarm_disarm()
        await client.put(b"k3", b"x" * 1_000)


@pytest.mark.parametrize("refusal", [DeadlineExpired, PermissionDenied])
async def test_a_refused_retry_leaves_the_doubt(refusal: type[StoreError]) -> None:
    async with single_member() as member, client_of(member, exactly_once=True) as client:
        await append(client, b"k")
        call_once = client._call_once

        async def lose_then_refuse(member: Any, method: str, arguments: list[Any]) -> Any:
            client._call_once = refuse  # type: ignore[method-assign]
            await call_once(member, method, arguments)
            raise ConnectionLost("committed, then disconnected")

        async def refuse(member: Any, method: str, arguments: list[Any]) -> Any:
            client._call_once = call_once  # type: ignore[method-assign]
            raise refusal("this sending came to nothing")

        client._call_once = lose_then_refuse  # type: ignore[method-assign]
        with pytest.raises(ConnectionLost):
            await append(client, b"k")
        client._call_once = refuse  # type: ignore[method-assign]
        with pytest.raises(refusal):
            await append(client, b"k")  # never sent before: nothing is in doubt
        assert await append(client, b"k") == 3


async def test_the_leader_closes_sessions_beyond_the_limit() -> None:
    settings = ServerSettings(sessions_max=3, compaction_interval_s=0.01)
    async with single_member(settings) as member, client_of(member, exactly_once=True) as client:
        await append(client, b"k")
        (used,) = member.machine.core.oldest_sessions(beyond=0)
        for number in range(1, 11):
            async with client_of(member) as other:
                await other._send([12, 0], [])
                await append(client, b"k%d" % number)
        with trio.fail_after(5):
            while len(member.machine.core.oldest_sessions(beyond=0)) > 3:
                await trio.sleep(0.01)
        left = [view.session for view in member.machine.core.oldest_sessions(beyond=0)]
        assert used.session in left, "the session in use was closed"
        assert await append(client, b"k") == 2


def test_a_used_session_is_not_evicted_by_an_old_proposal() -> None:
    machine = StateMachine()
    machine.apply(SessionOpen(7))
    (seen,) = machine.oldest_sessions(beyond=0)
    machine.apply(Once(7, 1, 1, Put(b"k", b"")))
    machine.apply(SessionClose(seen.session, seen.highest))
    assert [view.session for view in machine.oldest_sessions(beyond=0)] == [7]


# The whole store, in virtual time.


def numbered_client(store: SimulatedStore, host: str, seed: int) -> Any:
    return StoreClient.open(
        store.network.host(host),
        list(store.clients.values()),
        name=host,
        clock=SimClock(),
        rng=seeded_rng(f"{host}-{seed}"),
        exactly_once=True,
    )


async def count(store: SimulatedStore, host: str, seed: int, tally: dict[str, int], stop: trio.Event) -> None:
    """Each write is sent until it is answered; so the counter is exactly how many there were."""
    async with numbered_client(store, host, seed) as client:
        losing = LosesAnswers(client)
        while not stop.is_set():
            tally[host] += 1
            assert await append(client, host.encode()) == tally[host], "another answer than the first"
            await trio.sleep(store.rng.uniform(0, 0.03))
        tally["lost"] += losing.lost


async def break_and_mend(store: SimulatedStore, seconds: float) -> None:
    end = trio.current_time() + seconds
    while trio.current_time() < end:
        victim = store.rng.choice(NAMES)
        match store.rng.randrange(3):
            case 0:
                await store.crash(victim)
            case 1:
                store.network.partition({victim}, {*NAMES, "counter-0", "counter-1", "counter-2"} - {victim})
            case _:
                store.network.cut(victim, f"counter-{store.rng.randrange(3)}")
        await trio.sleep(store.rng.uniform(0.2, 2))
        store.network.heal()
        await store.start_all()
        await trio.sleep(store.rng.uniform(0, 1.5))


async def count_through_faults(seed: int, seconds: float) -> int:
    tally = {"lost": 0} | {f"counter-{number}": 0 for number in range(3)}
    async with trio.open_nursery() as nursery:
        # Snapshots all the time: who comes back has its sessions from one, and laggards install one.
        store = SimulatedStore(seed, nursery, raft=RaftSettings(snapshot_log_entries=20))
        await store.start_all()
        stop = trio.Event()
        with trio.fail_after(300):
            async with trio.open_nursery() as counters:
                for number in range(3):
                    counters.start_soon(count, store, f"counter-{number}", seed, tally, stop)
                await break_and_mend(store, seconds)
                stop.set()
            async with store.client("judge") as judge:
                for number in range(3):
                    kv = await judge.get(f"counter-{number}".encode())
                    assert kv is not None
                    assert kv.version == tally[f"counter-{number}"], "a write was lost, or applied twice"
                await settled(judge)
        assert store.failures == []
        nursery.cancel_scope.cancel()
    return tally["lost"]


def test_counters_through_crashes_and_leader_changes() -> None:
    assert run_simulation(1, count_through_faults, 1, 4.0) > 10


@pytest.mark.long
@pytest.mark.parametrize("seed", range(2, 8))
def test_counters_through_more_of_them(seed: int) -> None:
    assert run_simulation(seed, count_through_faults, seed, 12.0) > 20
