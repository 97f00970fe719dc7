"""One run on a real etcd: start three members, load, faults, heal, read everything back, judge, report.

Workload and checkers are those of runs on raftkube; the verdict says what etcd does and gates nothing.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, cast

import orjson
import trio

from chaos.checkers.history import read_history
from chaos.checkers.judge import judge
from chaos.checkers.verdict import Verdict
from chaos.etcd.client import EtcdClient
from chaos.etcd.cluster import EtcdCluster, running
from chaos.etcd.faults import EtcdFault, EtcdObserver, choose_etcd_faults
from chaos.etcd.load import CompareLoad
from chaos.etcd.read_back import ReadBack
from chaos.etcd.summary import summarize
from chaos.recording import FileRecorder, Record, Recorder, merge
from chaos.report import write_report
from chaos.workload import PREFIX, Workload, WorkloadOptions, record_watch
from chaos.worth import check_worth
from raftkube.net import Address
from raftkube.net.tcp import TcpNetwork
from raftkube.rng import system_rng
from raftkube.store.client import StoreClient

# Each group has a client of its own, which prefers another member.
_GROUPS: Final = 3
_CLIENTS_PER_GROUP: Final = 6
_WATCHES_PER_GROUP: Final = 2
_KEYS: Final = 40
_WARM_UP_S: Final = 4.0
_LOG_WATCH: Final = 0
_FINISH_S: Final = 20.0
_SETTLE_S: Final = 60.0
_DOWN_S: Final = (0.5, 3.0)
_BETWEEN_S: Final = (0.5, 2.5)
WORKLOADS: Final = ("kv", "kv-compares")

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class EtcdOptions:
    """What was asked for on the command line."""

    faults: str
    workload: str
    seed: int
    duration_s: float
    min_rate: float
    out: str

    @property
    def replay_line(self) -> str:
        """The command that runs the same again: the same load and faults, not the same moments."""
        return (
            f"python -m chaos live --target etcd --faults {self.faults} --workload {self.workload} "
            f"--seed {self.seed} --duration {self.duration_s:g} --min-rate {self.min_rate:g} "
            f"--out {self.out}"
        )


async def run_etcd(options: EtcdOptions, commit: str, say: Say) -> Verdict:
    """Do it all; OUT holds report.html, report.json, history.jsonl, summary.json and the members' logs.

    Raises ConfigError: wrong options, or etcd is not installed or did not start.
    """
    faults = choose_etcd_faults(options.faults)
    out = Path(options.out)
    say(f"seed {options.seed}; starting three members of etcd")
    async with running(out / "cluster", system_rng()) as cluster:  # ports: two runs of a seed may meet
        run = _EtcdRun(options, cluster, faults, out, say)
        await run.record()
        version = cluster.version()
    return run.judge(commit, version)


class EtcdRecorder:
    """Marks what etcd promises less of than the checkers ask.

    A keep-alive's revision is one that the asked member had before it asked the leader (etcd's
    v3rpc/lease.go): a lower bound, free of real time. Other answers have theirs from apply or from a read.
    """

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def now_ns(self) -> int:
        return self._recorder.now_ns()

    def write(self, record: Record) -> None:
        marked = record.get("kind") == "lease_keep_alive"
        self._recorder.write(record | {"serializable": True} if marked else record)


class _EtcdRun:
    def __init__(
        self, options: EtcdOptions, cluster: EtcdCluster, faults: list[EtcdFault], out: Path, say: Say
    ) -> None:
        self._options = options
        self._cluster = cluster
        self._faults = faults
        self._out = out
        self._say = say
        self._rng = random.Random(options.seed)
        self._client_rng = random.Random(f"{options.seed}/clients")
        self._records: list[dict[str, Any]] = []
        self._log_reached = 0
        self._doubts: list[str] = []
        self._started_ns = 0
        self._recorder = FileRecorder(out / "parts" / "harness.jsonl")

    async def record(self) -> None:
        """Load and faults; the history is written as it happens."""
        with self._recorder as recorder:
            async with EtcdClient.open(
                TcpNetwork(), self._cluster.addresses, rng=self._client_rng,
                on_attach=lambda key, address, revision: self._on_attach(recorder, key, address, revision),
            ) as store:  # fmt: skip
                observer = EtcdObserver(self._cluster, recorder, self._client_rng)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._watch_all, store, recorder)
                    nursery.start_soon(observer.run)
                    await self._load_and_faults(observer, recorder)
                    await self._heal(observer)
                    await self._read_back(store, recorder)
                    nursery.cancel_scope.cancel()

    async def _load_and_faults(self, observer: EtcdObserver, recorder: Recorder) -> None:
        self._started_ns = recorder.now_ns()
        async with trio.open_nursery() as nursery:
            workloads: list[Workload] = []
            for number in range(_GROUPS):
                nursery.start_soon(self._group, number, recorder, workloads)
            self._say(f"{_GROUPS * _CLIENTS_PER_GROUP} clients over {_KEYS} keys")
            await self._run_faults(observer, recorder)
            for workload in workloads:
                workload.stopping.set()
            with trio.move_on_after(_FINISH_S) as patience:
                while len(nursery.child_tasks):  # noqa: ASYNC110  bounded above
                    await trio.sleep(0.05)
            nursery.cancel_scope.cancel()
        if patience.cancelled_caught:
            self._doubts.append(f"clients did not finish within {_FINISH_S:g} s")

    async def _group(self, number: int, recorder: Recorder, workloads: list[Workload]) -> None:
        """Clients that ask one member first, and in the heavy workload the load beside them."""
        addresses = self._cluster.addresses
        first = addresses[number:] + addresses[:number]
        options = WorkloadOptions(
            clients=_CLIENTS_PER_GROUP, first_client=1 + number * 100, keys=_KEYS,
            watches=_WATCHES_PER_GROUP, seed=self._options.seed,
        )  # fmt: skip
        async with EtcdClient.open(
            TcpNetwork(), first, rng=self._client_rng,
            on_attach=lambda key, address, revision: self._on_attach(recorder, key, address, revision),
        ) as store:  # fmt: skip
            # The same methods: what a workload uses of a StoreClient, an EtcdClient has.
            workload = Workload(cast(StoreClient, store), EtcdRecorder(recorder), options)
            workloads.append(workload)
            async with trio.open_nursery() as nursery:
                if number == 0 and self._options.workload == "kv-compares":
                    nursery.start_soon(CompareLoad().run, store)
                await workload.run()
                nursery.cancel_scope.cancel()

    async def _watch_all(self, store: EtcdClient, recorder: Recorder) -> None:
        """The complete watch since revision 1, from which the checkers take the log."""

        def reached(revision: int) -> None:
            self._log_reached = max(self._log_reached, revision)

        await record_watch(
            cast(StoreClient, store), recorder, _LOG_WATCH, "\0", "\0", 1, log=True, on_revision=reached
        )

    def _on_attach(self, recorder: Recorder, key: bytes, address: Address, revision: int) -> None:
        """Which member fed which watch from where on: etcd's members may differ."""
        member = next(name for name in self._cluster.names if self._cluster.address(name) == address)
        recorder.write(
            {"type": "observe", "kind": "attach", "time_ns": recorder.now_ns(), "key": key.decode(),
             "member": member, "start_revision": revision}
        )  # fmt: skip

    async def _run_faults(self, observer: EtcdObserver, recorder: Recorder) -> None:
        """Rounds over all faults, each round in an order of its own, until the time is over."""
        end_ns = self._started_ns + int(self._options.duration_s * 1e9)
        await trio.sleep(min(_WARM_UP_S, self._options.duration_s / 2))
        round_of_faults: list[EtcdFault] = []
        while self._faults and recorder.now_ns() < end_ns:
            if not round_of_faults:
                round_of_faults = self._rng.sample(self._faults, len(self._faults))
            await self._inject(round_of_faults.pop(), observer, recorder)
            await trio.sleep(self._rng.uniform(*_BETWEEN_S))
        await trio.sleep(max(0.0, (end_ns - recorder.now_ns()) / 1e9))

    async def _inject(self, fault: EtcdFault, observer: EtcdObserver, recorder: Recorder) -> None:
        down_s = self._rng.uniform(*_DOWN_S)
        targets = fault.targets(self._cluster, observer.leader, self._rng.randrange(1_000))
        if not targets:
            self._say(f"{fault.name}: no target at this moment")
            return
        record: dict[str, Any] = {
            "type": "fault", "name": fault.name, "target": ",".join(targets), "term": observer.term,
            "start_ns": recorder.now_ns(),
        }  # fmt: skip
        self._say(f"{fault.name}: {record['target']} for {down_s:.1f} s")
        await fault.hit(self._cluster, targets)
        await trio.sleep(down_s)
        fault.heal(self._cluster, targets)
        record["end_ns"] = recorder.now_ns()
        recorder.write(record)
        self._records.append(record)

    async def _heal(self, observer: EtcdObserver) -> None:
        """A member that ended by itself is told of and started; a last consequence may still come."""
        for name in self._cluster.ended():
            self._say(f"{name} has ended by itself: {self._cluster.last_line(name)}")
            self._cluster.start(name)
        await trio.sleep(3)
        by_name = {fault.name: fault for fault in self._faults}
        for record in self._records:
            effect = by_name[record["name"]].effect(record, observer.seen)
            record["effect"] = None if effect is None else {k: v for k, v in effect.items() if k != "type"}
            if effect is not None:
                record["detect_ms"] = round((effect["time_ns"] - record["start_ns"]) / 1e6)

    async def _read_back(self, store: EtcdClient, recorder: Recorder) -> None:
        with trio.move_on_after(_SETTLE_S) as patience:
            await ReadBack(self._cluster, recorder, self._client_rng).run(store, lambda: self._log_reached)
        if patience.cancelled_caught:
            self._doubts.append(f"etcd did not come to rest within {_SETTLE_S:g} s")

    def judge(self, commit: str, version: str) -> Verdict:
        """Judge the history, write the reports."""
        header = {
            "format": 1, "seed": self._options.seed, "commit": commit, "target": f"etcd {version}",
            "options": asdict(self._options), "members": self._cluster.names, "prefix": PREFIX,
            "started_ns": self._started_ns,
        }  # fmt: skip
        path = self._out / "history.jsonl"
        merge(path, header, [self._out / "parts" / "harness.jsonl"])
        with path.open("rb") as stream:
            history = read_history(stream)
        verdict = judge(history)
        verdict.unknown_because += self._doubts
        check_worth(
            verdict, history.operations, self._records, started_ns=self._started_ns,
            ended_ns=self._recorder.now_ns(), min_rate=self._options.min_rate, wanted=bool(self._faults),
        )  # fmt: skip
        write_report(self._out, history, verdict, self._records, self._options.replay_line)
        summary = summarize(history, verdict, self._records)
        (self._out / "summary.json").write_bytes(orjson.dumps(summary, option=orjson.OPT_INDENT_2))
        self._say(f"etcd {version}: {summary['says']}")
        return verdict
