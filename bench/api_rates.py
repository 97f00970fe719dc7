"""`api-rates`: single gets, lists and writes of pods over HTTPS, beside a bare TLS loop.

Clients that each ask one thing after another (`bench.api_rater`), spread evenly over the API servers, before
a store of three. The bare loop, one process an API server, answers the same requests with as many bytes.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson

from bench import api_pods
from bench.api_cluster import ApiCluster, check_descriptors, make_api_certificates, running_api
from bench.api_process import Worker
from bench.api_rate_work import rate_pod
from bench.errors import BenchError
from bench.latency import Latencies
from bench.peers import as_json
from bench.usage import machine_cpu_s, usage
from bench.watch_measure import sleep_until
from bench.watch_run import busy_doubts, summary

_WARM_UP_S: Final = 1.0
_BARE_S_MAX: Final = 3.0
_TO_DELETE: Final = 1.5  # what is deleted was created in so many times the seconds that are measured
_SLACK_S: Final = 150.0
_SIZE_IN: Final = "rates-size"
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class RateOptions:
    """The command line. Every verb with every number of API servers is a case."""

    verbs: tuple[str, ...]
    servers: tuple[int, ...]
    clients: int
    generators: int
    object_bytes: int
    seconds: float
    repeat: int
    seed: int
    data_dir: str


def measure_rates(options: RateOptions, say: Say) -> list[dict[str, Any]]:
    """A run for each case; a cluster for each number of API servers. Raises Violation, BenchError."""
    check_descriptors(2 * options.clients + 500)
    runs = []
    with tempfile.TemporaryDirectory(dir=options.data_dir) as name:
        folder = Path(name)
        certificates = make_api_certificates(folder / "pki")
        for servers in options.servers:
            with running_api(folder / f"of-{servers}", certificates, servers=servers) as cluster:
                runs += _of_servers(options, cluster, folder, servers, say)
    return runs


def _of_servers(
    options: RateOptions, cluster: ApiCluster, folder: Path, servers: int, say: Say
) -> list[dict[str, Any]]:
    padding, size = pod_size(cluster, options.object_bytes)
    endpoints = [as_json(endpoint) for endpoint in cluster.endpoints()]
    with fleet(options, endpoints, padding=padding) as clients:
        clients.to_the_end("prepare")
        bench = _RateBench(options, cluster, folder, clients)
        names = {verb: case_name(options, verb, servers, size) for verb in options.verbs}
        return [bench.case(verb, name, say) for verb, name in names.items()]


def case_name(options: RateOptions, verb: str, servers: int, size: int) -> str:
    what = f"{servers} API server{'s' if servers > 1 else ''}, {options.clients} clients"
    return f"rates: {verb}, {what}, pods of {size} B, TLS"


def pod_size(cluster: ApiCluster, object_bytes: int) -> tuple[int, int]:
    """The padding that pods need to have about `object_bytes` of JSON, and what they then have.

    Raises BenchError: a pod without padding is larger than that.
    """
    api_pods.make_namespace(cluster, _SIZE_IN)
    path = f"/api/v1/namespaces/{_SIZE_IN}/pods"
    bare = len(orjson.dumps(cluster.request("POST", path, rate_pod(_SIZE_IN, "pod-000000", padding=0))))
    if bare > object_bytes:
        raise BenchError(f"--object-bytes must be at least {bare}: a pod without padding has so many")
    padding = object_bytes - bare
    made = cluster.request("POST", path, rate_pod(_SIZE_IN, "pod-000001", padding=padding))
    return padding, len(orjson.dumps(made))


class _RateBench:
    """The cases of one cluster."""

    def __init__(self, options: RateOptions, cluster: ApiCluster, folder: Path, clients: Fleet) -> None:
        self._options = options
        self._cluster = cluster
        self._folder = folder
        self._clients = clients
        self._servers = len(cluster.endpoints())

    def case(self, verb: str, name: str, say: Say) -> dict[str, Any]:
        """Rounds in turn: the API servers, then the bare loop with their last answer."""
        ours, bares = [], []
        for number in range(self._options.repeat):
            told, bare = self._ours(verb), self._bare()
            ours.append(told)
            bares.append(bare)
            say(
                f"{name}, round {number + 1}: {told['rate']:,.0f}/s, p99 {told['p99_ms']} ms, "
                f"bare {bare['rate']:,.0f}/s"
            )
        mine, its = summary(ours), summary(bares)
        doubts = [f"raftkube: {doubt}" for doubt in busy_doubts(mine)]
        doubts += [f"the bare loop: {doubt}" for doubt in busy_doubts(its)]
        return {
            "case": name, "ours": mine, "bare": its, "ratio": round(mine["rate"] / its["rate"], 4),
            "rounds": {"raftkube": ours, "bare": bares}, "doubts": doubts,
        }  # fmt: skip

    def _ours(self, verb: str) -> dict[str, Any]:
        clients, cluster, seconds = self._clients, self._cluster, self._options.seconds
        warm_up_s = _WARM_UP_S
        if verb == "delete":  # every client must have something to delete, and not use it up before it counts
            clients.measure("create", seconds * _TO_DELETE, [], [], warm_up_s=0.0)
            warm_up_s = 0.0
        servers = [cluster.pid(number) for number in range(self._servers)]
        told = clients.measure(verb, seconds, servers, cluster.store.pids(), warm_up_s=warm_up_s)
        clients.keep(self._folder)
        return told | {"verified": clients.to_the_end("check")}

    def _bare(self) -> dict[str, Any]:
        """The same requests, to loops that answer them with the API server's last answer."""
        folder, options = self._folder, self._options
        files = {"request": str(folder / "request"), "answer": str(folder / "answer")}
        loops: list[Worker] = []
        try:
            while len(loops) < self._servers:
                loops.append(Worker("bare", mode="answer", pki=str(folder / "pki"), file=files["answer"]))
            ports = [loop.hear(_SLACK_S)["port"] for loop in loops]
            endpoints = [as_json(self._cluster.endpoint(0)) | {"port": port} for port in ports]
            with fleet(options, endpoints, padding=0, **files) as clients:
                seconds = min(options.seconds, _BARE_S_MAX)
                told = clients.measure("", seconds, [loop.pid for loop in loops], [])
        finally:
            for loop in loops:
                loop.stop()
        return {key: value for key, value in told.items() if not key.startswith(("store_", "writes"))}


class Fleet:
    """The processes of all clients."""

    def __init__(self, workers: list[Worker]) -> None:
        self._workers = workers
        for worker in workers:
            worker.hear(_SLACK_S)

    def to_the_end(self, do: str) -> int:
        """Every client's preparation, or check; what all have verified since the last measurement began."""
        self._tell(do=do)
        return sum(int(told["verified"]) for told in self._hear(_SLACK_S))

    def measure(
        self,
        verb: str,
        seconds: float,
        servers: list[int],
        store: list[int],
        *,
        warm_up_s: float = _WARM_UP_S,
    ) -> dict[str, Any]:
        """The figures of so many seconds. `servers`, `store`: the processes whose cost is told.

        Raises Violation, BenchError: nothing was done.
        """
        begin_s = time.monotonic() + warm_up_s
        self._tell(do="measure", verb=verb, begin_s=begin_s, end_s=begin_s + seconds)
        sleep_until(begin_s)
        meter = _Meter(servers, store)
        told = self._hear(seconds + _SLACK_S)
        return meter.told(told)

    def keep(self, folder: Path) -> None:
        """One client's last request that was measured and its answer, as files `request` and `answer`."""
        self._workers[0].tell(do="keep", folder=str(folder))
        self._workers[0].hear(_SLACK_S)

    def _tell(self, **order: Any) -> None:
        for worker in self._workers:
            worker.tell(**order)

    def _hear(self, timeout_s: float) -> list[dict[str, Any]]:
        return [worker.hear(timeout_s) for worker in self._workers]


@contextlib.contextmanager
def fleet(
    options: RateOptions, endpoints: list[dict[str, Any]], *, padding: int, **files: str
) -> Iterator[Fleet]:
    """Client n is with API server n modulo their number; a process has clients that follow each other."""
    count = min(options.generators, options.clients)
    edges = [options.clients * slot // count for slot in range(count + 1)]
    workers: list[Worker] = []
    try:
        for first, last in itertools.pairwise(edges):
            workers.append(
                Worker(
                    "rates", endpoints=endpoints, clients=list(range(first, last)), padding=padding,
                    seed=options.seed, **files,
                )
            )  # fmt: skip
        yield Fleet(workers)
    finally:
        for worker in workers:
            worker.stop()


class _Meter:
    """Processor time and memory from now on."""

    def __init__(self, servers: list[int], store: list[int]) -> None:
        self._servers, self._store = servers, store
        self._start = self._read()

    def _read(self) -> tuple[float, float, float, float, float]:
        own = usage([os.getpid()]).cpu_s
        return (
            time.monotonic(), usage(self._servers).cpu_s, usage(self._store).cpu_s, own, machine_cpu_s(),
        )  # fmt: skip

    def told(self, reports: list[dict[str, Any]]) -> dict[str, Any]:
        """With what the generators report of the same time."""
        took_s, servers_s, store_s, own_s, all_s = (
            after - before for before, after in zip(self._start, self._read(), strict=True)
        )
        generators_s = sum(one["generator_cpu_s"] for one in reports)
        others_s = max(all_s - servers_s - store_s - own_s - generators_s, 0.0)
        servers, store = usage(self._servers), usage(self._store)
        operations = sum(one["count"] for one in reports)
        return rate_figures(reports) | {
            "cpu_s_per_1000": round(servers_s / operations * 1e3, 3),
            "store_cpu_s_per_1000": round(store_s / operations * 1e3, 3),
            "peak_mb": servers.peak_mb,
            "store_peak_mb": store.peak_mb,
            "others_busy": round(others_s / took_s / (os.cpu_count() or 1), 3),
        }


def rate_figures(reports: list[dict[str, Any]]) -> dict[str, Any]:
    """Of all generators together; their windows may end apart, where there was nothing left to do.

    Raises BenchError: one of them did nothing.
    """
    latencies = Latencies()
    for one in reports:
        if not one["count"]:
            raise BenchError("a generator was not answered once in that time; raise --seconds")
        latencies.merge(one["pairs"])
    return {
        "rate": round(sum(one["count"] / one["seconds"] for one in reports), 1),
        **latencies.told(),
        "operations": latencies.count,
        "writes": sum(one["writes"] for one in reports),
        "generator_cpu_s": round(sum(one["generator_cpu_s"] for one in reports), 2),
        "generator_busy": round(max(one["generator_cpu_s"] / one["seconds"] for one in reports), 3),
    }
