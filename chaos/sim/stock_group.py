"""A group of stock pysyncobj members, unguarded, under the simulated clock, network and disks.

Everything that decides is stock: `SyncObj`, `FileJournal`, `Serializer`, pickle over the wire. What is put
under it are pysyncobj's own hooks: a `Transport` (one connection for each pair, dialled by the higher
name, as its TCPTransport does), the journal's factory, the clock and the random source. Its threads, forks
and polling are tasks of the simulation: a member ticks when a message arrives and every `tick_s`.
"""

from __future__ import annotations

import contextlib
import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import trio
from pysyncobj import FAIL_REASON, SyncObj, SyncObjConf, replicated
from pysyncobj.config import SERIALIZER_STATE

from chaos.sim.clock import SimClock
from chaos.sim.disk import SimDisk
from chaos.sim.groups import GroupOptions, Kind, Observer
from chaos.sim.network import SimNetwork
from chaos.sim.stock_private import StockView, StockWorld, open_file, open_journal
from chaos.sim.stock_transport import SILENCE_S, StockTransport
from raftkube.errors import NoLeader, ProposalTimeout, Stopped
from raftkube.rng import seeded_rng
from raftkube.store.raft.private import Member

_DISK_BYTES: Final = 1 << 26  # a journal that reads its own damage as an offset wants gigabytes
JOURNAL, DUMP = "journal", "dump"

# Definite by pysyncobj's own account; the rest is ambiguous.
_NOT_APPENDED: Final = {
    FAIL_REASON.QUEUE_FULL, FAIL_REASON.MISSING_LEADER, FAIL_REASON.NOT_LEADER,
    FAIL_REASON.REQUEST_DENIED, FAIL_REASON.DISCARDED,
}  # fmt: skip


class Refused(NoLeader):
    """Stock said that the command was not and will not be applied."""


class StockStore(SyncObj):  # type: ignore[misc]
    """Keeps the operations in the order applied; the result of each is its log index."""

    def __init__(
        self, name: str, others: list[str], conf: SyncObjConf, transport: Any, observer: Observer
    ) -> None:
        self.observer = observer
        super().__init__(Member(name), [Member(other) for other in others], conf, transport=transport)
        self.operations: list[bytes] = []  # set behind __init__: so it belongs to the replicated state

    @replicated  # type: ignore[untyped-decorator]
    def put(self, operation: bytes) -> int:
        index = int(self.raftLastApplied) + 1
        self.observer.saw_entry(index, operation)
        self.operations.append(operation)
        return index

    @replicated  # type: ignore[untyped-decorator]
    def fail(self, operation: bytes) -> int:
        raise ValueError(f"{operation!r} cannot be applied")


@dataclass(slots=True)
class StockHost:
    """One member's machine and, while it runs, its process."""

    name: str
    disk: SimDisk
    clock: SimClock
    core: StockStore | None = None
    view: StockView | None = None
    world: StockWorld | None = None
    transport: StockTransport | None = None
    scope: trio.CancelScope | None = None
    ended: trio.Event = field(default_factory=trio.Event)
    wake: trio.Event = field(default_factory=trio.Event)
    running: trio.Event = field(default_factory=trio.Event)  # unset while the process is paused
    errors: dict[str, int] = field(default_factory=dict)
    starts: int = 0
    dump_ends_at: float | None = None

    def dump_state(self) -> int:
        """pysyncobj's `serializeChecker` hook: the forked child needs its time."""
        if self.dump_ends_at is None:
            return int(SERIALIZER_STATE.NOT_SERIALIZING)
        if self.clock.monotonic() < self.dump_ends_at:
            return int(SERIALIZER_STATE.SERIALIZING)
        self.dump_ends_at = None
        return int(SERIALIZER_STATE.SUCCESS)

    async def wait_running(self) -> None:
        """While the process is paused nothing of it goes on. Returns at once if it is not."""
        while not self.running.is_set():
            await self.running.wait()

    def now_world(self) -> StockWorld:
        assert self.world is not None
        self.world.now = self.clock.monotonic()
        return self.world

    def received(self, name: str, message: Any) -> None:
        """A message, handled at once; pysyncobj's thread logs an error and goes on."""
        assert self.transport is not None
        with self.now_world():
            self._guarded(lambda: self.transport._onMessageReceived(Member(name), message))  # type: ignore[union-attr]
        self.wake.set()

    def tick(self) -> None:
        core = self.core
        assert core is not None
        with self.now_world():
            self._guarded(lambda: core.doTick(0.0))

    def _guarded(self, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception as error:  # noqa: BLE001 as SyncObj._autoTickThread: log, wait, retry
            text = f"{type(error).__name__}: {error}"[:100]
            self.errors[text] = self.errors.get(text, 0) + 1


class Answer:
    """What pysyncobj's callback said, once it says anything."""

    def __init__(self) -> None:
        self.result: Any = None
        self.reason: int | None = None
        self.calls = 0
        self._known = trio.Event()

    def __call__(self, result: Any, reason: int) -> None:
        self.calls += 1
        if self.calls == 1:
            self.result, self.reason = result, reason
            self._known.set()

    async def wait(self) -> int:
        """The result. Raises StoreError."""
        await self._known.wait()
        if self.reason == FAIL_REASON.SUCCESS:
            return int(self.result)
        if self.reason in _NOT_APPENDED:
            raise Refused(f"pysyncobj gave reason {self.reason}")
        raise ProposalTimeout(f"pysyncobj gave reason {self.reason}")


class StockGroup:
    """`size` stock members called store-1, store-2, ..."""

    kind: Kind = "stock"

    def __init__(self, seed: int, nursery: trio.Nursery, options: GroupOptions) -> None:
        self.network = SimNetwork(seeded_rng(f"network-{seed}"), delay_s=options.delay_s)
        self.names = [f"store-{number}" for number in range(1, options.size + 1)]
        self.options, self._seed, self._nursery = options, seed, nursery
        self.observer = Observer()
        self.violations = self.observer.violations
        self.hosts = {
            name: StockHost(
                name,
                SimDisk(seeded_rng(f"{name}-{seed}"), capacity_bytes=_DISK_BYTES),
                SimClock(monotonic_offset_s=1000.0 * at),
            )
            for at, name in enumerate(self.names)
        }

    # What is seen.

    def up(self) -> list[str]:
        return [name for name in self.names if self.hosts[name].scope is not None]

    def leaders(self) -> list[str]:
        found = [name for name in self.up() if self.view(name).leads]
        return sorted(found, key=self.term, reverse=True)

    def view(self, name: str) -> StockView:
        view = self.hosts[name].view
        assert view is not None
        return view

    def core(self, name: str) -> StockStore:
        core = self.hosts[name].core
        assert core is not None
        return core

    def starts(self, name: str) -> int:
        return self.hosts[name].starts

    def disk(self, name: str) -> SimDisk:
        return self.hosts[name].disk

    def operations(self, name: str) -> Sequence[bytes]:
        return self.core(name).operations

    def applied_index(self, name: str) -> int:
        return int(self.core(name).raftLastApplied)

    def commit_index(self, name: str) -> int:
        return int(self.core(name).raftCommitIndex)

    def last_index(self, name: str) -> int:
        return self.view(name).last_index

    def term(self, name: str) -> int:
        return self.view(name).term

    def failures(self) -> list[str]:
        return [f"{name}: {text} ({count} times)" for name in self.names
                for text, count in sorted(self.hosts[name].errors.items())]  # fmt: skip

    # Life and death.

    async def start(self, name: str) -> None:
        await self._nursery.start(self._run, self.hosts[name])

    async def start_all(self) -> None:
        for name in self.names:
            if self.hosts[name].scope is None:
                await self.start(name)

    async def _run(
        self, host: StockHost, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        self._boot(host)
        host.ended, host.scope = trio.Event(), trio.CancelScope()
        assert host.transport is not None
        try:
            with host.scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(host.transport.run, nursery)
                    task_status.started()
                    await self._drive(host)
        finally:
            host.scope = None
            host.ended.set()

    def _boot(self, host: StockHost) -> None:
        host.starts += 1
        host.dump_ends_at = None
        host.running.set()
        host.world = StockWorld(seeded_rng(f"{host.name}-{self._seed}-{host.starts}"), host.disk)
        host.world.journal = open_journal(host.world, JOURNAL)
        others = [name for name in self.names if name != host.name]
        host.transport = StockTransport(host, others, self.network)
        with host.now_world():
            host.core = StockStore(host.name, others, self._conf(host), host.transport, self.observer)
        host.view = StockView(host.core)

    async def _drive(self, host: StockHost) -> None:
        while True:
            await host.wait_running()
            host.wake = trio.Event()
            host.tick()
            if self.view(host.name).leads:
                self.observer.saw_leader(host.name, self.term(host.name))
            with trio.move_on_after(self.options.tick_s):
                await host.wake.wait()

    def _conf(self, host: StockHost) -> SyncObjConf:
        options, never = self.options, 1 << 62
        return SyncObjConf(
            autoTick=False,
            commandsQueueSize=0,
            appendEntriesUseBatch=options.use_batch,
            appendEntriesBatchSizeBytes=options.batch_bytes,
            appendEntriesPeriod=options.heartbeat_s,
            raftMinTimeout=options.election_timeout_min_s,
            raftMaxTimeout=options.election_timeout_max_s,
            leaderFallbackTimeout=options.stop_leading_s or options.election_timeout_min_s,
            connectionTimeout=SILENCE_S,
            logCompactionMinEntries=never,
            logCompactionMinTime=never,
            logCompactionBatchSize=options.snapshot_part_bytes,
            dynamicMembershipChange=options.membership,
            journalFile=JOURNAL,
            fullDumpFile=DUMP if options.dump_file else None,
            serializer=(lambda path, data: _dump(host, path, data, options.dump_s))
            if options.dump_file
            else None,
            deserializer=(lambda path: _load(host, path)) if options.dump_file else None,
            serializeChecker=host.dump_state if options.dump_file else None,
            useFork=False,
            pollerType="select",
        )

    async def _end(self, host: StockHost) -> None:
        self.network.crash(host.name)
        host.disk.sever()
        if host.scope is not None:
            host.scope.cancel()
            await host.ended.wait()

    async def kill(self, name: str) -> None:
        await self._end(self.hosts[name])

    async def crash(self, name: str, *, lose_all: bool = False) -> None:
        await self._end(self.hosts[name])
        self.hosts[name].disk.crash(lose_all=lose_all)

    async def stop(self, name: str) -> None:
        """As a program that calls `destroy`: the journal's mapping is flushed."""
        host = self.hosts[name]
        if host.core is not None and host.scope is not None:
            self.pause(name)
            with host.now_world(), contextlib.suppress(OSError):
                host.core.destroy()
        await self._end(host)

    def pause(self, name: str) -> None:
        if self.hosts[name].running.is_set():
            self.hosts[name].running = trio.Event()

    def resume(self, name: str) -> None:
        self.hosts[name].running.set()

    def compact(self, name: str) -> None:
        self.core(name).forceLogCompaction()

    # Clients.

    def submit(self, name: str, operation: bytes) -> Answer:
        """Hand a command to `name`; pysyncobj forwards it to the leader if it must."""
        host, answer = self.hosts[name], Answer()
        if host.scope is None:
            raise Stopped(f"{name} does not run")
        with host.now_world():
            self.core(name).put(operation, callback=answer)
        if not self.options.use_batch:
            host.wake.set()  # its pipe notifier
        return answer

    def add_member(self, name: str, new: str) -> Answer:
        """Ask the leader `name` for one more member; refused at once, or answered when it is applied."""
        answer = Answer()
        with self.hosts[name].now_world():
            self.core(name).addNodeToCluster(Member(new), callback=answer)
        self.hosts[name].wake.set()
        return answer

    async def propose_on(self, name: str, operation: bytes) -> int:
        return await self.submit(name, operation).wait()

    async def read_on(self, name: str) -> int:
        """Stock has no linearizable read; what its users do is to ask a member that says it leads."""
        await trio.lowlevel.checkpoint()
        await self.hosts[name].wait_running()
        if self.hosts[name].scope is None or not self.view(name).leads:
            raise NoLeader(f"{name} does not lead")
        return self.applied_index(name)


def _dump(host: StockHost, path: str, data: tuple[Any, ...], dump_s: float) -> None:
    """pysyncobj's `serializer` hook: the state and the log's position, without gzip's time stamp."""
    assert host.core is not None
    with open_file(path, "wb") as file:
        file.write(pickle.dumps((host.core.operations, *data)))
    host.dump_ends_at = host.clock.monotonic() + dump_s


def _load(host: StockHost, path: str) -> tuple[Any, ...]:
    """pysyncobj's `deserializer` hook."""
    assert host.core is not None
    with open_file(path, "rb") as file:
        operations, *data = pickle.loads(file.read())  # noqa: S301 what stock does
    host.core.operations = list(operations)
    return tuple(data)
