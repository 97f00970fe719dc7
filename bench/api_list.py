"""`api-list`: lists of many pods over TLS while some of them change, beside a bare TLS loop."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bench import api_pods
from bench.api_cluster import ApiCluster, make_api_certificates, running_api
from bench.api_process import Worker
from bench.errors import Violation
from bench.peers import as_json

_SLACK_S: Final = 120.0
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class ListOptions:
    """The command line."""

    pods: int
    object_bytes: int
    limits: tuple[int, ...]  # of a page; 0: the whole list in one answer
    writes: float  # a second
    seconds: float
    repeat: int
    seed: int
    data_dir: str


def measure_list(options: ListOptions, say: Say) -> list[dict[str, Any]]:
    """A run for each limit. Raises Violation, BenchError."""
    data_dir = Path(options.data_dir)
    with tempfile.TemporaryDirectory(dir=data_dir) as folder:
        certificates = make_api_certificates(Path(folder) / "pki")
        with running_api(Path(folder) / "cluster", certificates) as cluster:
            size = api_pods.fill(cluster, options.pods, options.object_bytes)
            say(f"{options.pods} pods of {size} bytes are there")
            bench = _ListBench(options, cluster, Path(folder))
            return [bench.case(limit, size, say) for limit in options.limits]


class _ListBench:
    def __init__(self, options: ListOptions, cluster: ApiCluster, folder: Path) -> None:
        self._options = options
        self._cluster = cluster
        self._folder = folder

    def case(self, limit: int, size: int, say: Say) -> dict[str, Any]:
        """Rounds in turn: the API server, then the bare loop with its last answer."""
        options = self._options
        shape = f"pages of {limit}" if limit else "whole"
        name = f"list: {options.pods} pods of {size} B {shape}, {options.writes:g} writes/s, TLS"
        rounds: dict[str, list[dict[str, Any]]] = {"raftkube": [], "bare": []}
        for number in range(options.repeat):
            ours = self._ours(limit)
            bare = self._bare()
            rounds["raftkube"].append(ours)
            rounds["bare"].append(bare)
            say(f"{name}, round {number + 1}: {ours['mb_per_s']} MB/s, bare {bare['mb_per_s']}")
        told = {side: _median(results) for side, results in rounds.items()}
        ratio = round(told["raftkube"]["mb_per_s"] / told["bare"]["mb_per_s"], 3)
        return {
            "case": name, "ours": told["raftkube"], "bare": told["bare"], "ratio": ratio, "rounds": rounds,
            "doubts": [],
        }  # fmt: skip

    def _ours(self, limit: int) -> dict[str, Any]:
        options, cluster = self._options, self._cluster
        endpoint = as_json(cluster.endpoint(0))
        lister = Worker(
            "list", endpoint=endpoint, pid=cluster.pid(0), pods=options.pods, limit=limit,
            seconds=options.seconds, repeats_min=3, check=True, keep=str(self._body),
        )  # fmt: skip
        writer = Worker(
            "write", endpoints=[endpoint], pods=options.pods, connections=8, rate=options.writes,
            outstanding=0, progress="", watchers=0, view=list(api_pods.View()), seed=options.seed,
            until_ns=time.monotonic_ns() + int((options.seconds + _SLACK_S) * 1e9),
        )  # fmt: skip
        try:
            lister.hear(_SLACK_S)
            lister.tell(go=True)
            told = lister.hear(options.seconds + _SLACK_S)
            after = cluster.usage(0)
            writer.tell(stop=True)
            acks = writer.hear(_SLACK_S)["acks"]
        finally:
            lister.stop()
            writer.stop()
        check_fresh(told["asked"], acks)
        return _figures(told) | {
            "writes_acknowledged": len(acks),
            "rss_mb": after["rss_mb"],
            "peak_mb": after["peak_mb"],
        }

    @property
    def _body(self) -> Path:
        return self._folder / "body"

    def _bare(self) -> dict[str, Any]:
        """The same bytes from a bare loop; of pages the last one, again and again."""
        bare = Worker("bare", mode="body", pki=str(self._folder / "pki"), file=str(self._body))
        try:
            port = bare.hear(_SLACK_S)["port"]
            endpoint = as_json(self._cluster.endpoint(0)) | {"port": port}
            lister = Worker(
                "list", endpoint=endpoint, pid=bare.pid, pods=0, limit=0,
                seconds=min(self._options.seconds, 3.0), repeats_min=3, check=False, keep="",
            )  # fmt: skip
            try:
                lister.hear(_SLACK_S)
                lister.tell(go=True)
                told = lister.hear(self._options.seconds + _SLACK_S)
            finally:
                lister.stop()
        finally:
            bare.stop()
        return _figures(told)


def check_fresh(asked: list[list[int]], acks: list[list[int]]) -> None:
    """Each list, by when it was asked for (ns) and its revision, holds all that was acknowledged before.

    Raises Violation: one does not.
    """
    for asked_ns, revision in asked:
        before = max((ack[0] for ack in acks if ack[3] < asked_ns), default=0)
        if revision < before:
            raise Violation(f"a list of revision {revision} was asked for after {before} was acknowledged")


def _figures(told: dict[str, Any]) -> dict[str, Any]:
    took = sorted(told["took_s"])
    return {
        "mb_per_s": round(sum(told["bytes"]) / 1e6 / sum(took), 1),
        "lists": len(took),
        "list_mb": round(told["bytes"][-1] / 1e6, 2),
        "p50_ms": round(statistics.median(took) * 1e3, 2),
        "max_ms": round(took[-1] * 1e3, 2),
        "cpu_s_per_gb": round(told["server_cpu_s"] / sum(told["bytes"]) * 1e9, 2),
        "generator_cpu_s": told["generator_cpu_s"],
        "verified": told["verified"],
    }


def _median(results: list[dict[str, Any]]) -> dict[str, Any]:
    told = {key: statistics.median(result[key] for result in results) for key in results[0]}
    rates = [result["mb_per_s"] for result in results]
    return told | {"min_mb_per_s": min(rates), "max_mb_per_s": max(rates)}
