"""Members of a Raft group by hand: real replicas (guard, pysyncobj, journal) on simulated disks, no network
but a list of messages that the test delivers, and no time but what the test lets pass."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator
from random import Random
from typing import Any

import msgpack

from chaos.sim.disk import SimDisk
from raftkube.store.raft import messages as msg
from raftkube.store.raft.membership import Configuration
from raftkube.store.raft.mutants import find
from raftkube.store.raft.private import REGULAR
from raftkube.store.raft.replica import Replica
from raftkube.store.raft.settings import RaftSettings
from raftkube.store.raft.waiting import Waiter

SETTINGS = RaftSettings()
FOREVER = 1e12
_DELIVERIES_MAX = 20_000


def entry(index: int, term: int, text: bytes = b"x") -> list[Any]:
    return [REGULAR + msgpack.packb([text]), index, term]


class HandClock:
    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> float:
        return self.now


class Applied:
    """A state machine that remembers what was applied, in order."""

    def __init__(self) -> None:
        self.operations: list[bytes] = []

    def apply(self, index: int, payload: bytes, operations: Any = None) -> list[Any]:
        unpacked = msgpack.unpackb(payload)
        self.operations += unpacked
        return [index] * len(unpacked)

    def snapshot(self) -> Iterator[bytes]:
        return iter([msgpack.packb(self.operations)])

    def restoring(self, chunks: Iterator[bytes]) -> Generator[None, None, Callable[[], None]]:
        yield
        operations = msgpack.unpackb(b"".join(chunks))
        return lambda: setattr(self, "operations", operations)


class Server:
    """One member. `sent` gathers what leaves it, until the test takes it."""

    def __init__(
        self, name: str = "n1", size: int = 5, *, disk: SimDisk | None = None, clock: HandClock | None = None,
        seed: int = 1, settings: RaftSettings = SETTINGS,
    ) -> None:  # fmt: skip
        self.name, self.size, self.settings = name, size, settings
        self.clock, self.disk = clock or HandClock(), disk or SimDisk(Random(seed))
        self.seed = seed
        self.sent: list[tuple[str, list[Any]]] = []
        self.start()

    def start(self) -> None:
        names = [f"n{number}" for number in range(1, self.size + 1)]
        self.machine = Applied()
        self.replica = Replica(
            name=self.name, configuration=Configuration.of_names(names), disk=self.disk, clock=self.clock,
            rng=Random(f"{self.name}-{self.seed}"), machine=self.machine, outlet=self, settings=self.settings,
            mutant=find(None), on_role=lambda role: None,
        )  # fmt: skip
        for name in names:
            if name != self.name:
                self.replica.guard.connection_up(name)

    def restart(self, *, lose_unsynced: bool = True) -> None:
        """Power loss, and a start on what the disk kept."""
        self.disk.crash(lose_all=lose_unsynced)
        self.sent.clear()
        self.start()

    def send(self, name: str, message: list[Any]) -> None:
        self.sent.append((name, msgpack.unpackb(msgpack.packb(message))))

    def receive(self, name: str, *message: Any) -> list[tuple[str, list[Any]]]:
        """Deliver one message; what leaves because of it."""
        self.sent.clear()
        self.replica.deliver(name, [msg.decode(msgpack.packb(list(message)))])
        self.replica.pump()
        return list(self.sent)

    def wait(self, seconds: float) -> list[tuple[str, list[Any]]]:
        """Time passes; what leaves then."""
        self.clock.now += seconds
        self.sent.clear()
        self.replica.pump()
        return list(self.sent)

    def campaign(self) -> list[tuple[str, list[Any]]]:
        """The election timeout elapses and a majority would vote (pre-vote); what leaves then."""
        self.wait(self.settings.election_timeout_max_s + 0.01)
        number = self.replica.guard.prevote._round
        out: list[tuple[str, list[Any]]] = []
        for name in self.voters[: self.size // 2]:
            out = self.receive(name, msg.PRE_VOTE_OK, number)
        return out

    def lead(self) -> int:
        """Win an election; the term."""
        self.campaign()
        for name in self.voters[: self.size // 2]:
            self.receive(name, msg.VOTE, self.term)
        assert self.role == "leader"
        return self.term

    def propose(self, text: bytes = b"x") -> Waiter:
        """A client's command, taken by this leader."""
        waiter = self.replica.proposals.add([text], self.clock.now)
        self.replica.pump()
        return waiter

    @property
    def voters(self) -> list[str]:
        return sorted(self.replica.guard.voters)

    @property
    def role(self) -> str:
        return ("follower", "candidate", "leader")[self.replica.core.role]

    @property
    def term(self) -> int:
        return self.replica.core.term

    @property
    def commit(self) -> int:
        return self.replica.core.commit_index

    @property
    def log(self) -> list[tuple[int, int]]:
        """(index, term) of every entry; the first is what every log begins with."""
        return [(index, term) for _, index, term in self.replica.journal[:]]

    @property
    def entries(self) -> list[tuple[int, int, bytes]]:
        return [(index, term, bytes(command)) for command, index, term in self.replica.journal[:]]


class Cluster:
    """Members whose messages the test delivers. Links keep their order, as connections do."""

    def __init__(self, size: int, *, seed: int = 1, settings: RaftSettings = SETTINGS) -> None:
        self.names = [f"n{number}" for number in range(1, size + 1)]
        self.clock = HandClock()
        self.servers = {
            name: Server(name, size, clock=self.clock, seed=seed + at, settings=settings)
            for at, name in enumerate(self.names)
        }
        self.links: dict[tuple[str, str], deque[list[Any]]] = {}
        self.away: set[str] = set()  # crashed or cut off: what is sent to or by them is lost
        for name in self.names:
            self.calm(name)

    def __getitem__(self, name: str) -> Server:
        return self.servers[name]

    def calm(self, name: str) -> None:
        """`name` does not campaign by itself."""
        self[name].replica.core.election_deadline = FOREVER

    def collect(self, name: str) -> None:
        """What `name` sent is on its way."""
        sent, self[name].sent = self[name].sent, []
        for to, message in sent:
            if name not in self.away and to not in self.away:
                self.links.setdefault((name, to), deque()).append(message)

    def deliver(self, source: str, target: str) -> None:
        """The oldest message from `source` to `target` arrives."""
        message = self.links[source, target].popleft()
        server = self[target]
        server.replica.deliver(source, [msg.decode(msgpack.packb(message))])
        server.replica.pump()
        self.collect(target)

    def settle(self, lost: Callable[[list[Any]], bool] = lambda message: False) -> None:
        """Deliver everything until nothing is on its way, but messages that are `lost`."""
        for name in self.names:
            self.collect(name)
        for _ in range(_DELIVERIES_MAX):
            waiting = [link for link, messages in self.links.items() if messages]
            if not waiting:
                return
            for link in waiting:
                if self.away.intersection(link):
                    self.links[link].clear()
                elif self.links[link] and lost(self.links[link][0]):
                    self.links[link].popleft()
                elif self.links[link]:
                    self.deliver(*link)
        raise AssertionError("the members do not come to rest")

    def beat(self, leader: str) -> None:
        """A heartbeat, and all that follows from it."""
        self.clock.now += SETTINGS.heartbeat_s + 0.001
        self[leader].replica.pump()
        self.settle()

    def campaign(self, name: str) -> None:
        """`name` and those it can reach have waited long enough for a leader; it asks first."""
        for other in self.names:
            self[other].replica.guard.prevote.lost_leader()
            if other != name:
                self.calm(other)
            if other not in self.away and self[other].role == "leader":  # cut off until it steps down
                self.clock.now += SETTINGS.election_timeout_min_s + 0.001
                self[other].replica.pump()
                self[other].sent.clear()
        self[name].replica.core.election_deadline = self.clock.now - 1
        self.clock.now += SETTINGS.prevote_retry_s + 0.001
        self[name].replica.pump()
        self.collect(name)

    def elect(self, name: str) -> Server:
        for _ in range(3):  # who lags in term learns it by the first try (pre-vote)
            if self[name].role != "leader":
                self.campaign(name)
                self.settle()
        for other in self.names:
            self.calm(other)
        assert self[name].role == "leader", f"{name} did not win"
        return self[name]

    def crash(self, name: str) -> None:
        self.away.add(name)
        for link in self.links:
            if name in link:
                self.links[link].clear()

    def restart(self, name: str) -> None:
        self[name].restart()
        self.away.discard(name)
        self.calm(name)
        for other in self.names:
            if other != name and other not in self.away:
                self[other].replica.guard.connection_up(name)
