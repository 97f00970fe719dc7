"""`api-watch`: watchers of pods over HTTPS while pods are patched, beside a bare TLS loop."""

from __future__ import annotations

import hashlib
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Final

from bench import api_pods
from bench.api_cluster import ApiCluster, check_descriptors, make_api_certificates, process_usage, running_api
from bench.api_pods import View
from bench.api_process import Worker
from bench.api_progress import Progress
from bench.api_watchers import TICKS_PER_S, fingerprint
from bench.errors import BenchError, Violation
from bench.peers import Certificates, as_json

_WARM_UP_S: Final = 1.0
_SLACK_S: Final = 150.0
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class WatchOptions:
    """The command line. Every watchers, object_bytes, form, scope and selector with every other is a case."""

    watchers: tuple[int, ...]
    object_bytes: tuple[int, ...]
    forms: tuple[str, ...]
    scopes: tuple[str, ...]
    selectors: tuple[str, ...]
    servers: int
    pods: int
    writers: int
    rate: float  # patches a second; 0: as the slowest watcher follows
    outstanding: int
    generators: int
    seconds: float
    repeat: int
    seed: int
    data_dir: str


@dataclass(frozen=True, slots=True)
class Case:
    """One of the cases. size: bytes of a pod's JSON."""

    watchers: int
    form: str
    view: View
    size: int

    def name(self, options: WatchOptions) -> str:
        selector = "" if self.view.selector == "none" else f", by {self.view.selector}"
        pace = f"{options.rate:g} writes/s" if options.rate else f"{options.outstanding} ahead"
        servers = f"{options.servers} API servers, " if options.servers > 1 else ""
        return (
            f"watch: {servers}{self.watchers} watchers, {self.form}, {self.view.scope}{selector}, "
            f"pods of {self.size} B, {pace}, TLS"
        )


def measure_watch(options: WatchOptions, say: Say) -> list[dict[str, Any]]:
    """A run for each case; a cluster for each size of pods. Raises Violation, BenchError."""
    check_descriptors(max(options.watchers) + 500)  # an API server has one for each, and so has a generator
    runs = []
    with tempfile.TemporaryDirectory(dir=options.data_dir) as folder:
        certificates = make_api_certificates(Path(folder) / "pki")
        for object_bytes in options.object_bytes:
            runs += _of_size(options, object_bytes, Path(folder), certificates, say)
    return runs


def _of_size(
    options: WatchOptions, object_bytes: int, folder: Path, certificates: Certificates, say: Say
) -> list[dict[str, Any]]:
    with running_api(folder / f"of-{object_bytes}", certificates, servers=options.servers) as cluster:
        size = api_pods.fill(cluster, options.pods, object_bytes)
        bench = _WatchBench(options, cluster, folder)
        shapes = product(options.watchers, options.forms, options.scopes, options.selectors)
        return [
            bench.case(Case(watchers, form, View(scope, selector), size), say)
            for watchers, form, scope, selector in shapes
        ]


class _WatchBench:
    def __init__(self, options: WatchOptions, cluster: ApiCluster, folder: Path) -> None:
        self._options = options
        self._cluster = cluster
        self._folder = folder

    def case(self, case: Case, say: Say) -> dict[str, Any]:
        """Rounds in turn: the API servers, then the bare loop with what they sent."""
        name = case.name(self._options)
        ours, bares = [], []
        for number in range(self._options.repeat):
            told, sizes = self._ours(case)
            bare = self._bare(case, told, sizes)
            ours.append(told)
            bares.append(bare)
            say(
                f"{name}, round {number + 1}: {told['rate']:,.0f}/s, p99 {told['p99_ms']} ms, "
                f"bare {bare['rate']:,.0f}/s"
            )
        mine, its = medians(ours), medians(bares)
        return {
            "case": name, "ours": mine, "bare": its, "ratio": round(mine["rate"] / its["rate"], 3),
            "rounds": {"raftkube": ours, "bare": bares}, "doubts": [],
        }  # fmt: skip

    def _ours(self, case: Case) -> tuple[dict[str, Any], list[int]]:
        options, cluster = self._options, self._cluster
        fleet = _Watchers(options, case, cluster, self._folder)
        workers = list(fleet.workers)
        try:
            fleet.wait_ready()
            writer = self._writer(case, fleet)
            workers.append(writer)
            begin_s = time.monotonic() + _WARM_UP_S
            fleet.measure(begin_s, begin_s + options.seconds)
            _sleep_until(begin_s)
            before = cluster.usages()
            _sleep_until(begin_s + options.seconds)
            after = cluster.usages()
            writer.tell(stop=True)
            written = writer.hear(_SLACK_S)
            acks = sorted(ack for ack in written["acks"] if case.view.shows(ack[1]))
            if not acks:
                raise BenchError("no pod that is watched was changed in that time; raise --seconds")
            told = fleet.results(len(acks))
        finally:
            for worker in workers:
                worker.stop()
        check_streams(told, acks, case.watchers)
        figures = watch_figures(told, options.seconds)
        delivered = max(figures["rate"] * options.seconds, 1)
        cpu_s = after["cpu_s"] - before["cpu_s"]
        figures |= {
            "cpu_s": round(cpu_s, 2),
            "cpu_s_per_million": round(cpu_s / delivered * 1e6, 2),
            "peak_mb": after["peak_mb"],
            "writes_per_s": round(len(written["acks"]) / (options.seconds + _WARM_UP_S), 1),
        }
        return figures, told[0]["sizes"]

    def _writer(self, case: Case, fleet: _Watchers) -> Worker:
        options = self._options
        return Worker(
            "write", endpoints=[as_json(endpoint) for endpoint in self._cluster.endpoints()],
            pods=options.pods, connections=options.writers, rate=options.rate,
            outstanding=options.outstanding, progress=fleet.progress, watchers=len(fleet.workers),
            view=list(case.view), seed=options.seed,
            until_ns=time.monotonic_ns() + int((options.seconds + _SLACK_S) * 1e9),
        )  # fmt: skip

    def _bare(self, case: Case, ours: dict[str, Any], sizes: list[int]) -> dict[str, Any]:
        """What the first watcher was sent, chunk by chunk, to as many watchers, as fast as they take it."""
        recorded = str(self._folder / "recorded")
        bare = Worker(
            "bare", mode="replay", pki=str(self._folder / "pki"), file=recorded, sizes=sizes,
            watchers=case.watchers,
        )  # fmt: skip
        workers = [bare]
        try:
            port = bare.hear(_SLACK_S)["port"]
            fleet = _Watchers(self._options, case, self._cluster, self._folder, port=port)
            workers += fleet.workers
            fleet.wait_ready()
            bare.hear(_SLACK_S)
            before = process_usage(bare.pid)
            started = time.monotonic()
            bare.tell(go=True)
            done = bare.hear(_SLACK_S)
            after = process_usage(bare.pid)
            told = fleet.results(ours["events"])
        finally:
            for worker in workers:
                worker.stop()
        if {tuple(one["digests"]) for one in told} != {(ours["digest"],)}:
            raise Violation("the bare loop's watchers got something else than was recorded")
        took_s = max(one["last_s"] for one in told) - started
        total = sum(one["total"] for one in told)
        return {
            "rate": round(total / took_s, 1),
            "mb_per_s": round(sum(sizes) * case.watchers / took_s / 1e6, 1),
            "cpu_s_per_million": round((after["cpu_s"] - before["cpu_s"]) / total * 1e6, 2),
            "sends": done["sends"],
            "generator_cpu_s": round(sum(one["generator_cpu_s"] for one in told), 2),
        }


class _Watchers:
    """The processes of the watchers of one run."""

    def __init__(
        self, options: WatchOptions, case: Case, cluster: ApiCluster, folder: Path, *, port: int = 0
    ) -> None:
        """`port`: of a bare loop instead of the API servers."""
        count = min(options.generators, case.watchers)
        self.progress = str(folder / "progress")
        Progress.create(Path(self.progress), count)
        listed = cluster.request("GET", "/api/v1/pods?limit=1")
        revision = listed["metadata"]["resourceVersion"]
        endpoints = [as_json(endpoint) for endpoint in cluster.endpoints()]
        if port:
            endpoints = [endpoints[0] | {"port": port}]
        self.workers = [
            Worker(
                "watch", endpoints=endpoints, form=case.form, slot=slot, slots=count,
                watchers=case.watchers // count + (slot < case.watchers % count),
                path=f"{case.view.path}&watch=1&resourceVersion={revision}&timeoutSeconds=3600",
                progress=self.progress,
                record="" if slot or port else str(folder / "recorded"),
            )
            for slot in range(count)
        ]  # fmt: skip

    def wait_ready(self) -> None:
        for worker in self.workers:
            worker.hear(_SLACK_S)

    def measure(self, begin_s: float, end_s: float) -> None:
        """Count what comes between two moments (monotonic)."""
        for worker in self.workers:
            worker.tell(begin_s=begin_s, end_s=end_s)

    def results(self, events: int) -> list[dict[str, Any]]:
        """Once every watcher has so many events. Raises Violation: some do not come, or others do."""
        for worker in self.workers:
            worker.tell(expected=events)
        return [worker.hear(_SLACK_S) for worker in self.workers]


def check_streams(told: list[dict[str, Any]], acks: list[list[int]], watchers: int) -> None:
    """Every watcher got each acknowledged write once, in the order of revisions, and nothing else.

    `acks`: (revision, pod, write, …), in order. Raises Violation.
    """
    digest = hashlib.sha256()
    for revision, number, sequence, *_ in acks:
        digest.update(fingerprint(revision, number, sequence))
    for one in told:
        if set(one["digests"]) != {digest.hexdigest()}:
            raise Violation(f"watchers got {one['lines']} events that are not the {len(acks)} writes")
    total = sum(one["total"] for one in told)
    if total != len(acks) * watchers:
        raise Violation(
            f"{total} events were delivered, {len(acks)} writes to {watchers} watchers are others"
        )


def watch_figures(told: list[dict[str, Any]], seconds: float) -> dict[str, Any]:
    """Of all generators together."""
    took: Counter[int] = Counter()
    for one in told:
        took.update(dict(one["histogram"]))
    return {
        "rate": round(sum(one["delivered"] for one in told) / seconds, 1),
        "mb_per_s": round(sum(one["bytes"] for one in told) / seconds / 1e6, 1),
        **percentiles(took),
        "events": told[0]["lines"],
        "verified": sum(one["total"] for one in told),
        "generator_cpu_s": round(sum(one["generator_cpu_s"] for one in told), 2),
        "digest": told[0]["digests"][0],
    }


def percentiles(took: Counter[int]) -> dict[str, float]:
    """In milliseconds, of a histogram of latencies (in ticks of the watchers)."""
    total, told = sum(took.values()), {}
    for name, share in (("p50_ms", 0.5), ("p99_ms", 0.99), ("p999_ms", 0.999)):
        left = total * share
        at = 0
        for at in sorted(took):
            left -= took[at]
            if left <= 0:
                break
        told[name] = round(at / TICKS_PER_S * 1e3, 2)
    return told


def medians(results: list[dict[str, Any]]) -> dict[str, Any]:
    """Over the rounds, with the spread of the rate; what is no number is left out."""
    keys = [key for key, value in results[0].items() if isinstance(value, int | float)]
    told: dict[str, Any] = {key: statistics.median(result[key] for result in results) for key in keys}
    rates: Iterable[float] = [result["rate"] for result in results]
    return told | {"rate_min": min(rates), "rate_max": max(rates)}


def _sleep_until(moment_s: float) -> None:
    time.sleep(max(moment_s - time.monotonic(), 0))
