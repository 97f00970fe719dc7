"""One live run: start, load, faults, heal, read everything back, judge, report."""

from __future__ import annotations

import contextlib
import random
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import trio

from chaos.checkers.history import read_history
from chaos.checkers.judge import judge
from chaos.checkers.verdict import Verdict
from chaos.live.cluster import LiveCluster, client_options, start_cluster, stop_cluster, with_mutant
from chaos.live.faults import Fault, choose_faults
from chaos.live.observers import Observers
from chaos.recording import FileRecorder, Recorder, merge
from chaos.report import write_report
from chaos.workload import PREFIX, PREFIX_END, record_watch, run_operation
from raftkube.errors import ConfigError, StoreError
from raftkube.net.tcp import TcpNetwork
from raftkube.store.client import StoreClient

_PROCESSES: Final = 2
_CLIENTS_PER_PROCESS: Final = 8
_WATCHES_PER_PROCESS: Final = 3
_KEYS: Final = 40
_WARM_UP_S: Final = 4.0
_HARNESS_CLIENT: Final = 9_000
_LOG_WATCH: Final = 0
_SETTLE_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class LiveOptions:
    """What was asked for on the command line."""

    config: str
    faults: str
    workload: str
    seed: int
    duration_s: float
    min_rate: float
    mutant: str | None
    out: str

    @property
    def replay_line(self) -> str:
        """The command that runs the same again (real processes: the same faults, not the same moments)."""
        mutant = f" --mutant {self.mutant}" if self.mutant else ""
        return (
            f"python -m chaos live --config {self.config} --faults {self.faults} --workload {self.workload} "
            f"--seed {self.seed} --duration {self.duration_s:g} --min-rate {self.min_rate:g}{mutant} "
            f"--out {self.out}"
        )


Say = Callable[[str], None]


async def run_live(options: LiveOptions, config_text: bytes, commit: str, say: Say) -> Verdict:
    """Do it all; OUT holds report.html, report.json, history.jsonl and the members' logs.

    Raises ConfigError: wrong options, or the cluster did not start.
    """
    faults = choose_faults(options.faults)
    text = with_mutant(config_text, options.mutant)
    out = Path(options.out)
    say(f"seed {options.seed}; starting a cluster from {options.config}")
    cluster = await start_cluster(text, out, timeout_s=120)
    run = _LiveRun(options, cluster, faults, out, say)
    try:
        await run.record()
    finally:
        with trio.CancelScope(shield=True):
            await stop_cluster(cluster)
    return run.judge(commit)


class _LiveRun:
    def __init__(
        self, options: LiveOptions, cluster: LiveCluster, faults: list[Fault], out: Path, say: Say
    ) -> None:
        self._options = options
        self._cluster = cluster
        self._faults = faults
        self._out = out
        self._say = say
        self._rng = random.Random(options.seed)
        self._records: list[dict[str, Any]] = []
        self._clients: list[subprocess.Popen[bytes]] = []
        self._log_reached = 0
        self._doubts: list[str] = []
        self._started_ns = 0
        self._recorder = FileRecorder(out / "parts" / "harness.jsonl")

    async def record(self) -> None:
        """Load and faults; the parts of the history are written as it happens."""
        addresses = [self._cluster.address(name) for name in self._cluster.named("store")]
        with self._recorder as recorder:
            async with StoreClient.open(
                TcpNetwork(), addresses, self._cluster.store_tls, name="chaos-harness"
            ) as store:
                observers = Observers(self._cluster, recorder)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._watch_all, store, recorder)
                    nursery.start_soon(observers.run)
                    self._start_clients()
                    try:
                        await self._run_faults(observers, recorder)
                    finally:
                        with trio.CancelScope(shield=True):
                            await self._stop_clients()
                    await self._heal()
                    self._note_effects(observers)
                    await self._read_back(store, recorder)
                    nursery.cancel_scope.cancel()

    async def _watch_all(self, store: StoreClient, recorder: Recorder) -> None:
        """The complete watch since revision 1, from which the checkers take the log."""

        def reached(revision: int) -> None:
            self._log_reached = max(self._log_reached, revision)

        await record_watch(store, recorder, _LOG_WATCH, "\0", "\0", 1, log=True, on_revision=reached)

    def _start_clients(self) -> None:
        for number in range(_PROCESSES):
            workload = {
                "clients": _CLIENTS_PER_PROCESS, "first_client": 1 + number * 100, "keys": _KEYS,
                "watches": _WATCHES_PER_PROCESS, "seed": self._options.seed,
            }  # fmt: skip
            part = self._out / "parts" / f"clients-{number}.jsonl"
            process = subprocess.Popen(
                [sys.executable, "-m", "chaos.live.client_process"],
                stdin=subprocess.PIPE,
                stderr=(self._out / f"clients-{number}.log").open("wb"),
                start_new_session=True,
            )
            assert process.stdin is not None
            process.stdin.write(client_options(self._cluster, part, workload))
            process.stdin.flush()
            self._clients.append(process)
        self._started_ns = self._recorder.now_ns()
        self._say(f"{_PROCESSES * _CLIENTS_PER_PROCESS} clients in {_PROCESSES} processes over {_KEYS} keys")

    async def _stop_clients(self) -> None:
        """Close their standard input; each finishes what is in flight."""
        for process in self._clients:
            assert process.stdin is not None
            process.stdin.close()
        for number, process in enumerate(self._clients):
            with trio.move_on_after(40) as patience:
                await trio.to_thread.run_sync(process.wait, abandon_on_cancel=True)
            if patience.cancelled_caught or process.returncode != 0:
                process.kill()
                self._doubts.append(f"client process {number} ended with {process.returncode}; see its log")

    async def _run_faults(self, observers: Observers, recorder: Recorder) -> None:
        """Rounds over all faults, each round in an order of its own, until the time is over."""
        end_ns = self._started_ns + int(self._options.duration_s * 1e9)
        await trio.sleep(min(_WARM_UP_S, self._options.duration_s / 2))
        round_of_faults: list[Fault] = []
        while self._faults and self._recorder.now_ns() < end_ns:
            if not round_of_faults:
                round_of_faults = self._rng.sample(self._faults, len(self._faults))
            await self._inject(round_of_faults.pop(), observers, recorder)
            await trio.sleep(self._rng.uniform(1.0, 2.5))
        await trio.sleep(max(0.0, (end_ns - self._recorder.now_ns()) / 1e9))

    async def _inject(self, fault: Fault, observers: Observers, recorder: Recorder) -> None:
        target = await fault.target(self._cluster, observers, self._rng.randrange(1_000))
        down_s = self._rng.uniform(1.0, 3.0)
        if target is None:
            self._say(f"{fault.name}: no target at this moment")
            return
        record: dict[str, Any] = {
            "type": "fault",
            "name": fault.name,
            "target": target,
            "start_ns": self._recorder.now_ns(),
        }
        try:
            await self._cluster.ask("kill", target)
            self._say(f"{fault.name}: {target} is killed for {down_s:.1f} s")
            await trio.sleep(down_s)
            await self._cluster.ask("start", target)
        except ConfigError as error:
            self._say(f"{fault.name}: {error}")
        record["end_ns"] = self._recorder.now_ns()
        recorder.write(record)
        self._records.append(record)

    async def _heal(self) -> None:
        """Everything runs again; then all but the store is stopped, so that the store comes to rest."""
        for row in (await self._cluster.ask("status"))["components"]:
            if row["phase"] in ("killed", "stopped"):
                await self._cluster.ask("start", row["name"])
        await trio.sleep(3)  # the last fault's consequence may still come
        for kind in ("scheduler", "controller-manager", "kubelet", "balancer", "apiserver"):
            for name in [row["name"] for row in self._cluster.components if row["kind"] == kind]:
                await self._cluster.ask("stop", name)

    def _note_effects(self, observers: Observers) -> None:
        by_name = {fault.name: fault for fault in self._faults}
        for record in self._records:
            effect = by_name[record["name"]].effect(record, observers.seen)
            record["effect"] = None if effect is None else {k: v for k, v in effect.items() if k != "type"}
            if effect is not None:
                record["detect_ms"] = round((effect["time_ns"] - record["start_ns"]) / 1e6)

    async def _read_back(self, store: StoreClient, recorder: Recorder) -> None:
        """A barrier write; then every key from every member, and every member's hash."""
        with trio.move_on_after(_SETTLE_S) as patience:
            barrier = await self._barrier(store, recorder)
            for member in self._cluster.named("store"):
                await self._read_member(member, barrier, recorder)
            await self._read_hashes(store, recorder)
            while self._log_reached < barrier:  # noqa: ASYNC110  bounded above
                await trio.sleep(0.05)
        if patience.cancelled_caught:
            self._doubts.append(f"the store did not come to rest within {_SETTLE_S:g} s")

    async def _barrier(self, store: StoreClient, recorder: Recorder) -> int:
        number = 0
        while True:
            number += 1
            request = {"key": PREFIX + "barrier", "value": f"barrier-{number}"}
            record = await run_operation(
                store, recorder, _HARNESS_CLIENT, number, "put", request, barrier=True
            )
            if record["outcome"] == "ok":
                return int(record["revision"])
            await trio.sleep(0.2)

    async def _read_member(self, member: str, barrier: int, recorder: Recorder) -> None:
        """Until the member has everything up to the barrier; each read is recorded and judged."""
        address, tls = self._cluster.address(member), self._cluster.store_tls
        while True:
            try:
                async with StoreClient.open(
                    TcpNetwork(), [address], tls, name="chaos-final", pinned=True
                ) as store:
                    request = {"key": PREFIX, "range_end": PREFIX_END, "member": str(address)}
                    record = await run_operation(
                        store, recorder, _HARNESS_CLIENT, f"final-{member}", "range", request,
                        final=True, serializable=True, read_from=member,
                    )  # fmt: skip
                    if record["outcome"] == "ok" and record["revision"] >= barrier:
                        return
            except StoreError:
                pass
            await trio.sleep(0.2)

    async def _read_hashes(self, store: StoreClient, recorder: Recorder) -> None:
        """Until all members gave theirs at one point of the log: leases may still run out."""
        members = self._cluster.named("store")
        while True:
            with contextlib.suppress(StoreError):
                told = {member: await store.hash(member) for member in members}
                for member in members:
                    _write_hash(recorder, member, told[member])
                if len({each["applied_index"] for each in told.values()}) == 1:
                    return
            await trio.sleep(0.2)

    def judge(self, commit: str) -> Verdict:
        """Merge the parts, judge the history, write the reports."""
        header = {
            "format": 1, "seed": self._options.seed, "commit": commit, "options": asdict(self._options),
            "members": self._cluster.named("store"), "prefix": PREFIX, "started_ns": self._started_ns,
        }  # fmt: skip
        path = self._out / "history.jsonl"
        merge(path, header, sorted((self._out / "parts").glob("*.jsonl")))
        with path.open("rb") as stream:
            history = read_history(stream)
        verdict = judge(history)
        verdict.unknown_because += self._doubts
        self._check_worth(history.operations, verdict)
        write_report(self._out, history, verdict, self._records, self._options.replay_line)
        return verdict

    def _check_worth(self, operations: list[dict[str, Any]], verdict: Verdict) -> None:
        """A run that was too slow, or whose faults did nothing, proves nothing."""
        first_fault_ns = min(
            (record["start_ns"] for record in self._records), default=self._recorder.now_ns()
        )
        before = [op for op in operations if op["outcome"] == "ok" and op["return_ns"] < first_fault_ns]
        rate = len(before) / max((first_fault_ns - self._started_ns) / 1e9, 1e-9)
        verdict.count("rate before the first fault (1/s)", round(rate))
        if rate < self._options.min_rate:
            verdict.unknown_because.append(
                f"{rate:.0f} operations/s before the first fault, below --min-rate {self._options.min_rate:g}"
            )
        effective = sum(record.get("effect") is not None for record in self._records)
        verdict.count("effective faults", effective)
        if self._faults and not effective:
            verdict.unknown_because.append("no fault had an effect")


def _write_hash(recorder: Recorder, member: str, told: dict[str, Any]) -> None:
    now_ns = recorder.now_ns()
    recorder.write(
        {
            "type": "op", "client": _HARNESS_CLIENT, "id": f"hash-{member}", "kind": "hash",
            "request": {"member": member}, "call_ns": now_ns, "return_ns": now_ns, "outcome": "ok",
            "error": None, "revision": told["revision"], "serializable": True,
            "response": {"hash": str(told["hash"]), "applied_index": told["applied_index"]},
        }
    )  # fmt: skip
