"""World `store`: whole members, real clients, and faults, under a virtual clock: a plan in, an outcome out.

Safety first, while faults go on; then they stop, everything is healed, and the store has a bounded time to
come together. What is judged is the recorded history alone.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from dataclasses import dataclass
from typing import Any, Final

import orjson
import trio

from chaos.checkers.history import read_history
from chaos.checkers.judge import judge
from chaos.final_reads import read_hashes, read_member, write_barrier
from chaos.mutants import planted
from chaos.recording import MemoryRecorder
from chaos.sim import store_disk_faults  # noqa: F401 its faults are in the table
from chaos.sim.clock import run_simulation
from chaos.sim.outcome import Outcome
from chaos.sim.plan import Injection, Plan, PlanError
from chaos.sim.simulated_store import SimulatedStore, store_names
from chaos.sim.store_faults import FAULTS, INJECTED, Target
from chaos.sim.surgery import Surgery
from chaos.workload import PREFIX, Workload, WorkloadOptions, record_watch
from raftkube.errors import Stopped
from raftkube.store.raft.settings import RaftSettings, RoleChange
from raftkube.store.server.settings import ServerSettings

SETTLE_S: Final = 180.0  # longer than any wait of a member that joins again
_FINISH_S: Final = 20.0  # clients finish what is in flight
_WRITEBACK_S: Final = 5.0  # the kernel writes dirty pages out by itself
_LOG_WATCH: Final = 0
_LEASE_SLACK_S: Final = 120.0  # a lease ends by a write: not while faults leave no leader
_REVISIONS_MAX: Final = 100_000  # more than any plan writes
_JUDGE: Final = "judge"
# What members may say when they end, besides what the harness did to them.
_EXPECTED: Final = (INJECTED, "was removed", "Input/output error", "EIO", "damage", "retired")


@dataclass(frozen=True, slots=True)
class Settings:
    """`size` members; `delay_s`: the shortest and the longest way between two machines; `raft`, `server`:
    what differs from the product's defaults."""

    size: int = 3
    delay_s: tuple[float, float] = (0.0002, 0.002)
    raft: dict[str, Any] | None = None
    server: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Load:
    """`hosts` machines with a workload each; `numbered`: every second client numbers its writes (exactly
    once); `workload`: what differs from `WorkloadOptions`' defaults."""

    hosts: int = 2
    numbered: bool = False
    workload: dict[str, Any] | None = None

    def options(self, host: int, seed: int) -> WorkloadOptions:
        given = {"clients": 2, "keys": 12, "watches": 1, "think_s": 0.3} | (self.workload or {})
        return WorkloadOptions(first_client=1 + host * 100, seed=seed, **given)


def run_store_plan(plan: Plan) -> Outcome:
    """Run it from start to verdict. The same plan gives the same outcome and trace, in any process.

    Raises PlanError: it names a setting, a load or a fault that does not exist.
    """
    try:
        settings, load = Settings(**plan.settings), Load(**plan.load)
        world = _World(plan, settings, load)
    except TypeError as error:
        raise PlanError(str(error)) from error
    unknown = {injection.fault for injection in plan.faults} - FAULTS.keys()
    if unknown:
        raise PlanError(f"fault {min(unknown)!r} does not exist in the world 'store'")
    began = time.process_time()
    with planted(plan.mutant):
        run_simulation(plan.seed, world.run)
    return world.outcome(time.process_time() - began)


class _World:
    def __init__(self, plan: Plan, settings: Settings, load: Load) -> None:
        self.plan, self.settings, self.load = plan, settings, load
        self.raft = RaftSettings(**(settings.raft or {}))
        self.server = ServerSettings(**(settings.server or {}))
        self.options = [load.options(host, plan.seed) for host in range(load.hosts)]
        self.hosts = tuple(f"client-{number}" for number in range(1, load.hosts + 1))
        self.recorder = MemoryRecorder(trio.current_time)
        self.faults: dict[str, int] = {}
        self.simulated_s = 0.0
        self.trace = ""
        self._stopping = trio.Event()
        self._log_reached = 0
        self._log_over = False
        self._seen_failures = 0

    async def run(self) -> None:
        """From the start of the members to the last read."""
        async with trio.open_nursery() as nursery:
            self.store = SimulatedStore(
                self.plan.seed, nursery, names=store_names(self.settings.size), raft=self.raft,
                server=self.server, on_role=self._saw_role,
            )  # fmt: skip
            self.store.network.delay_s = self.settings.delay_s
            self.surgery = Surgery(self.store, nursery)
            await self.store.start_all()
            async with self.store.client(_JUDGE) as judge_client:
                nursery.start_soon(self._watch_all)
                await self._safety()
                await self._liveness(judge_client)
            nursery.cancel_scope.cancel()
        self.simulated_s = trio.current_time()
        self.trace = self.store.network.trace_hash

    # Safety.

    async def _safety(self) -> None:
        async with trio.open_nursery() as load:
            for number in range(len(self.hosts)):
                load.start_soon(self._load, number)
            with trio.move_on_after(self.plan.duration_s):
                async with trio.open_nursery() as actors:
                    actors.start_soon(self._write_back)
                    for injection in self.plan.faults:
                        actors.start_soon(self._inject, injection)
                    actors.start_soon(trio.sleep_forever)
            self._heal()
            self._stopping.set()

    async def _load(self, number: int) -> None:
        """One machine's workload; it finishes what is in flight once faults are over, within a bound."""
        host = self.hosts[number]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._end, nursery.cancel_scope)
            async with contextlib.AsyncExitStack() as clients:
                client = await clients.enter_async_context(self.store.client(host))
                numbered = None
                if self.load.numbered:
                    opened = self.store.client(host, exactly_once=True)
                    numbered = await clients.enter_async_context(opened)
                workload = Workload(client, self.recorder, self.options[number], numbered)
                workload.stopping = self._stopping
                await workload.run()
            nursery.cancel_scope.cancel()

    async def _end(self, scope: trio.CancelScope) -> None:
        await self._stopping.wait()
        await trio.sleep(_FINISH_S)
        scope.cancel()

    async def _inject(self, injection: Injection) -> None:
        await trio.sleep_until(injection.at_s)
        started_ns = self.recorder.now_ns()
        target = Target(self.store, self.surgery, self.hosts)
        effective = await FAULTS[injection.fault](target, injection)
        if effective:
            self.faults[injection.fault] = self.faults.get(injection.fault, 0) + 1
        self.recorder.write(
            {
                "type": "fault", "name": injection.fault, "target": ", ".join(target.hit),
                "start_ns": started_ns, "end_ns": self.recorder.now_ns(), "effect": {} if effective else None,
            }
        )  # fmt: skip
        self._note_failures()

    async def _write_back(self) -> None:
        while True:
            await trio.sleep(_WRITEBACK_S)
            for name in self.store.names:
                self.store.disks[name].write_back()

    def _heal(self) -> None:
        network = self.store.network
        network.heal_all()
        self.store.resume_all()
        for disk in self.store.disks.values():
            disk.before, disk.full = (lambda step: None), False
            disk.fail_next.clear()

    # Liveness.

    async def _liveness(self, client: Any) -> None:
        began = trio.current_time()
        with trio.move_on_after(SETTLE_S) as patience:
            await self._restart_failed()
            await self.surgery.finish()
            barrier = await write_barrier(client, self.recorder)
            for member in self.store.names:
                await read_member(lambda name: self.store.client(_JUDGE, pinned=name), member, barrier,
                                  self.recorder)  # fmt: skip
            await read_hashes(client, list(self.store.names), self.recorder)
            # If a compaction outran the complete watch, nothing is known of the run, and no rule is broken.
            while self._log_reached < barrier and not self._log_over:  # noqa: ASYNC110  bounded above
                await trio.sleep(0.05)
        self._note_failures()
        if patience.cancelled_caught:
            self._observe("unsettled", why=f"not together within {SETTLE_S:g} s")
        else:
            self._observe("settled", within_s=round(trio.current_time() - began, 3))

    async def _restart_failed(self) -> None:
        """A member with a failed disk waits for an operator: its disk is sound again, so it is restarted."""
        for name in self.store.up():
            if name not in self.surgery.broken and self._failed(name):
                await self.store.kill(name)

    def _failed(self, name: str) -> bool:
        with contextlib.suppress(Stopped, KeyError):
            return self.store.nodes[name].status().failed is not None
        return True  # it could not even recover

    async def _watch_all(self) -> None:
        """The complete watch since revision 1, from which the checkers take the log."""

        def reached(revision: int) -> None:
            self._log_reached = max(self._log_reached, revision)

        async with self.store.client("observer") as client:
            await record_watch(
                client, self.recorder, _LOG_WATCH, "\0", "\0", 1, log=True, on_revision=reached
            )
        self._log_over = True

    # What is seen.

    def _saw_role(self, name: str, role: RoleChange) -> None:
        self.store.network.trace(name, role)
        if role.role == "leader":
            self._observe("role", member=name, term=role.term, role=role.role)

    def _note_failures(self) -> None:
        for sentence in self.store.failures[self._seen_failures :]:
            name, _, error = sentence.partition(": ")
            expected = any(words in error for words in _EXPECTED)
            self._observe("member_ended", member=name, error=error, expected=expected)
        self._seen_failures = len(self.store.failures)

    def _observe(self, kind: str, **fields: Any) -> None:
        record = {"type": "observe", "kind": kind, "time_ns": self.recorder.now_ns(), **fields}
        self.recorder.write(record)

    def _compacts_by_itself(self) -> bool:
        longest_s = self.plan.duration_s + SETTLE_S
        return self.server.history_s < longest_s or self.server.history_revisions_max < _REVISIONS_MAX

    def outcome(self, cpu_s: float) -> Outcome:
        """Judge what was recorded."""
        header = {
            "format": 1, "seed": self.plan.seed, "plan": self.plan.to_json(), "prefix": PREFIX,
            "started_ns": 0, "members": list(self.store.names), "lease_slack_s": _LEASE_SLACK_S,
        }  # fmt: skip
        if not self._compacts_by_itself():
            header["compaction"] = "clients"
        records = [header, *self.recorder.records]
        lines = [orjson.dumps(record) for record in records]
        trace = hashlib.sha256(self.trace.encode() + b"".join(lines)).hexdigest()
        return Outcome(
            self.plan, judge(read_history(lines)), records, trace, self.simulated_s, cpu_s, self.faults
        )
