"""`api-idle`: what idle watches cost an API server, and how soon they are served again when one is killed.

Two API servers: the watches are opened at the first, measured while nothing happens, and then it is killed.
Every watch goes on at the second from the revision it had, all at once, while a Lease is renewed there. The
same number of connections to a bare TLS accept loop in the same run says what the handshakes alone cost.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bench import api_pods
from bench.api_cluster import ApiCluster, check_descriptors, make_api_certificates, running_api
from bench.api_pods import View
from bench.api_process import Worker
from bench.peers import as_json

_PODS: Final = 8
_SETTLE_S: Final = 2.0
_SLACK_S: Final = 240.0
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class IdleOptions:
    """The command line."""

    watchers: int
    generators: int
    seconds: float
    repeat: int
    seed: int
    data_dir: str


def measure_idle(options: IdleOptions, say: Say) -> list[dict[str, Any]]:
    """One run, a fresh cluster a round. Raises Violation, BenchError."""
    check_descriptors(options.watchers + 500)
    name = f"idle: {options.watchers} watches, TLS"
    ours, bares = [], []
    for number in range(options.repeat):
        with tempfile.TemporaryDirectory(dir=options.data_dir) as folder:
            certificates = make_api_certificates(Path(folder) / "pki")
            with running_api(Path(folder) / "cluster", certificates, servers=2) as cluster:
                api_pods.fill(cluster, _PODS, 2_000)
                ours.append(_ours(options, cluster))
                bares.append(_bare(options, cluster, Path(folder) / "pki"))
        say(f"{name}, round {number + 1}: {ours[-1]}, bare {bares[-1]}")
    told = [{key: statistics.median(one[key] for one in side) for key in side[0]} for side in (ours, bares)]
    return [
        {
            "case": name, "ours": told[0], "bare": told[1],
            "ratio": round(told[0]["reconnected_s"] / told[1]["reconnected_s"], 3),
            "rounds": {"raftkube": ours, "bare": bares}, "doubts": [],
        }
    ]  # fmt: skip


def _ours(options: IdleOptions, cluster: ApiCluster) -> dict[str, Any]:
    before = cluster.usage(0)
    workers = _watchers(options, cluster, [as_json(cluster.endpoint(0)), as_json(cluster.endpoint(1))])
    try:
        opened_s = max(worker.hear(_SLACK_S)["took_s"] for worker in workers)
        time.sleep(_SETTLE_S)
        settled = cluster.usage(0)
        time.sleep(options.seconds)
        after = cluster.usage(0)
        survivor = cluster.usage(1)
        lease = Worker("lease", endpoint=as_json(cluster.endpoint(1)))
        workers.append(lease)
        lease.hear(_SLACK_S)
        for worker in workers[:-1]:
            worker.tell(expect_end=True)
        cluster.kill(0)
        killed_s = time.monotonic()
        reconnected_s = max(worker.hear(_SLACK_S)["last_s"] for worker in workers[:-1]) - killed_s
        lease.tell(stop=True)
        renewals = lease.hear(_SLACK_S)
        change = {"metadata": {"annotations": {api_pods.MARK: api_pods.mark(1, 0)}}}
        cluster.request("PATCH", api_pods.path(0), change, number=1)
        for worker in workers[:-1]:
            worker.hear(_SLACK_S)  # every watch has been sent the change
        at_end = cluster.usage(1)
    finally:
        for worker in workers:
            worker.stop()
    return {
        "kb_each": round((settled["rss_mb"] - before["rss_mb"]) * 1e3 / options.watchers, 1),
        "idle_cpu_s": round(after["cpu_s"] - settled["cpu_s"], 2),
        "idle_s": options.seconds,
        "opened_s": round(opened_s, 2),
        "reconnected_s": round(reconnected_s, 4),
        "reconnect_cpu_s": round(at_end["cpu_s"] - survivor["cpu_s"], 2),
        "lease_renewals": renewals["count"],
        "lease_max_ms": renewals["max_ms"],
        "peak_mb": at_end["peak_mb"],
    }


def _bare(options: IdleOptions, cluster: ApiCluster, pki: Path) -> dict[str, Any]:
    """The same clients, all at once, at a bare accept loop."""
    bare = Worker("bare", mode="accept", pki=str(pki))
    workers = [bare]
    try:
        endpoint = as_json(cluster.endpoint(1)) | {"port": bare.hear(_SLACK_S)["port"]}
        workers += _watchers(options, cluster, [endpoint], at_once=True)
        took_s = max(worker.hear(_SLACK_S)["took_s"] for worker in workers[1:])
    finally:
        for worker in workers:
            worker.stop()
    return {"reconnected_s": round(took_s, 4)}


def _watchers(
    options: IdleOptions, cluster: ApiCluster, endpoints: list[dict[str, Any]], *, at_once: bool = False
) -> list[Worker]:
    count = min(options.generators, options.watchers)
    revision = cluster.request("GET", "/api/v1/pods?limit=1", number=1)["metadata"]["resourceVersion"]
    return [
        Worker(
            "idle", endpoints=endpoints, at_once=at_once,
            watchers=options.watchers // count + (slot < options.watchers % count),
            path=f"{View().path}&watch=1&resourceVersion={revision}&timeoutSeconds=3600",
        )
        for slot in range(count)
    ]  # fmt: skip
