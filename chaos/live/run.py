"""One live run: start, load, faults, heal, read everything back, judge, report."""

from __future__ import annotations

import random
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import trio

from chaos.checkers.history import read_history
from chaos.checkers.judge import judge
from chaos.checkers.verdict import Verdict
from chaos.live import load
from chaos.live.api_watches import ApiWatches
from chaos.live.cluster import (
    LiveCluster,
    cluster_root,
    start_cluster,
    stop_cluster,
    with_mutant,
    with_peer_ports,
)
from chaos.live.fault import Say, Site
from chaos.live.fault_file import Routes
from chaos.live.faults import LAUNCHER, Chosen, split_possible
from chaos.live.load import Load
from chaos.live.observers import Observers
from chaos.live.proxy import Proxy
from chaos.live.schedule import Schedule
from chaos.live.settle import heal, members_given_up, read_back
from chaos.recording import FileRecorder, Recorder, merge
from chaos.report import write_report
from chaos.workload import PREFIX, record_watch
from chaos.worth import check_worth
from raftkube.cluster.config import ClusterConfig, parse_cluster
from raftkube.net.tcp import TcpNetwork
from raftkube.rng import system_rng
from raftkube.store.client import StoreClient

_LOG_WATCH: Final = 0
_SETTLE_S: Final = 120.0
_SETTLE_WITHOUT_ALL_S: Final = 20.0


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


async def run_live(options: LiveOptions, config_text: bytes, commit: str, say: Say) -> Verdict:
    """Do it all; OUT holds report.html, report.json, history.jsonl and the members' logs.

    Raises ConfigError: wrong options, or the cluster did not start.
    """
    config = parse_cluster(config_text, options.config)
    chosen = split_possible(options.faults, config)
    text = with_mutant(config_text, options.mutant)
    for name, reason in chosen.skipped:
        say(f"skipped: {name} {reason}")
    say(f"seed {options.seed}; starting a cluster from {options.config}")
    run = _LiveRun(options, chosen, say)
    await run.record(text, config)
    return run.judge(commit)


class _LiveRun:
    def __init__(self, options: LiveOptions, chosen: Chosen, say: Say) -> None:
        self._options, self._chosen, self._say = options, chosen, say
        self._out = Path(options.out)
        self._rng = random.Random(options.seed)
        self._recorder = FileRecorder(self._out / "parts" / "harness.jsonl")
        self._observe: Any = lambda kind, **fields: None  # until there are observers
        self._doubts: list[str] = []
        self._records: list[dict[str, Any]] = []
        self._members: list[str] = []
        self._log_reached = 0
        self._started_ns = 0

    async def record(self, text: bytes, config: ClusterConfig) -> None:
        """The cluster from its start to its end; the parts of the history are written as it happens."""
        async with trio.open_nursery() as nursery:
            proxy = None
            if config.launcher == LAUNCHER:
                text, proxy = await self._start_proxy(text, config, nursery)
            cluster = await start_cluster(text, self._out, timeout_s=120)
            self._members = cluster.named("store")
            try:
                await self._use(cluster, proxy)
            finally:
                with trio.CancelScope(shield=True):
                    await stop_cluster(cluster)
            nursery.cancel_scope.cancel()

    async def _start_proxy(
        self, text: bytes, config: ClusterConfig, nursery: trio.Nursery
    ) -> tuple[bytes, Proxy]:
        text, members = with_peer_ports(text, config, system_rng())
        rng = random.Random(f"{self._options.seed}/proxy")
        proxy = Proxy(members, rng, lambda kind, **fields: self._observe(kind, **fields))
        listeners, routes = await proxy.listen()
        Routes(cluster_root(self._out)).write(routes)
        nursery.start_soon(proxy.run, listeners)
        return text, proxy

    async def _use(self, cluster: LiveCluster, proxy: Proxy | None) -> None:
        """Load and faults on a cluster that runs; then it is read back."""
        addresses = [cluster.address(name) for name in self._members]
        with self._recorder as recorder:
            async with StoreClient.open(
                TcpNetwork(), addresses, cluster.store_tls, name="chaos-harness"
            ) as store:
                observers = Observers(cluster, recorder)
                self._observe = observers.see
                site = Site(cluster, observers, self._rng, self._say, proxy, doubts=self._doubts)
                schedule = Schedule(site, self._chosen.faults, recorder)
                self._records = schedule.records
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._watch_all, store, recorder)
                    async with trio.open_nursery() as during:
                        during.start_soon(observers.run, store)
                        during.start_soon(ApiWatches(cluster, observers, recorder, self._options.seed).run)
                        await self._run_faults(cluster, schedule)
                        await heal(cluster)
                        during.cancel_scope.cancel()
                    schedule.note_effects()
                    await self._settle(cluster, store, recorder)
                    nursery.cancel_scope.cancel()

    async def _watch_all(self, store: StoreClient, recorder: Recorder) -> None:
        """The complete watch since revision 1, from which the checkers take the log."""

        def reached(revision: int) -> None:
            self._log_reached = max(self._log_reached, revision)

        await record_watch(store, recorder, _LOG_WATCH, "\0", "\0", 1, log=True, on_revision=reached)

    async def _run_faults(self, cluster: LiveCluster, schedule: Schedule) -> None:
        """Under load, for the whole duration."""
        clients = Load(cluster, self._out, self._options.seed)
        self._started_ns = self._recorder.now_ns()
        clients.start()
        count = load.PROCESSES * load.CLIENTS_PER_PROCESS
        self._say(f"{count} clients in {load.PROCESSES} processes over {load.KEYS} keys")
        try:
            await schedule.run(trio.current_time() + self._options.duration_s)
        finally:
            with trio.CancelScope(shield=True):
                self._doubts += await clients.stop()

    async def _settle(self, cluster: LiveCluster, store: StoreClient, recorder: Recorder) -> None:
        started_s = trio.current_time()
        given_up = await members_given_up(cluster)
        for member, reason in given_up.items():
            self._observe("member_ended", member=member, error=reason, expected=False)
        # Not all can be read then, but a majority still tells what was lost.
        patience_s = _SETTLE_WITHOUT_ALL_S if given_up else _SETTLE_S
        with trio.move_on_after(patience_s) as patience:
            barrier = await read_back(cluster, store, recorder)
            while self._log_reached < barrier:  # noqa: ASYNC110  bounded above
                await trio.sleep(0.05)
        if patience.cancelled_caught:
            self._observe("unsettled", why=f"the members did not come together within {patience_s:g} s")
        else:
            self._observe("settled", within_s=round(trio.current_time() - started_s, 1))

    def judge(self, commit: str) -> Verdict:
        """Merge the parts, judge the history, write the reports."""
        header = {
            "format": 1, "seed": self._options.seed, "commit": commit, "options": asdict(self._options),
            "members": self._members, "prefix": PREFIX, "started_ns": self._started_ns,
            "faults_skipped": [
                {"name": name, "why": f"skipped: {why}"} for name, why in self._chosen.skipped
            ],
        }  # fmt: skip
        path = self._out / "history.jsonl"
        merge(path, header, sorted((self._out / "parts").glob("*.jsonl")))
        with path.open("rb") as stream:
            history = read_history(stream)
        verdict = judge(history)
        verdict.unknown_because += self._doubts
        check_worth(
            verdict, history.operations, self._records,
            started_ns=self._started_ns, ended_ns=self._recorder.now_ns(),
            min_rate=self._options.min_rate, wanted=bool(self._chosen.faults),
        )  # fmt: skip
        write_report(self._out, history, verdict, self._records, self._options.replay_line)
        return verdict
