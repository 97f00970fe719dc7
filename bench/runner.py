"""Runs a comparison: the sides in turn (A B A B …), fresh clusters each time, medians and spread; each
generator against a replay stub first, which must be at least twice as fast as what it then reports."""

from __future__ import annotations

import contextlib
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import orjson

from bench.errors import BenchError, Violation
from bench.job import KEYS, Job
from bench.loop import Endpoint
from bench.machine import check_descriptors, commit, describe
from bench.peers import PEER, Certificates, Side, as_json, make_certificates, running

# What etcd 3.5.1 did on a machine of this kind (2 cores, 512-byte values); below half of it a peer's
# figure is suspect: the machine was busy, or the peer was held wrongly. puts/s and linearizable gets/s at
# 100 and 1,000 outstanding.
REFERENCE: Final = {
    ("put", 100): 4_900,
    ("put", 1000): 4_900,
    ("get", 100): 16_500,
    ("get", 1000): 16_500,
}
GENERATOR_MARGIN: Final = 2.0
_WARM_UP_S: Final = 1.0
_JOB_GRACE_S: Final = 180.0

Say = Callable[[str], None]
OnWindow = Callable[[dict[str, Any]], None]


def _ignore(told: dict[str, Any]) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Options:
    """The command line of `put`, `get` and `mixed`."""

    bench: str
    against: str | None
    clients: int
    outstanding: int
    value_bytes: int
    seconds: float
    repeat: int
    tls: str  # yes, no, both
    seed: int
    data_dir: str
    reads: float = 0.0
    keys: int = KEYS


def run(options: Options, say: Say) -> dict[str, Any]:
    """The whole comparison as the JSON of the report. Raises BenchError: it cannot run as asked."""
    data_dir = Path(options.data_dir)
    data_dir.mkdir(parents=True, exist_ok=True)
    check_descriptors(options.clients, 1, 1)
    machine = describe(data_dir)
    say(f"{machine['processor']}, {machine['cores']} cores, {machine['filesystem']}, fdatasync p50 "
        f"{machine['fdatasync_ms']['p50']} ms p99 {machine['fdatasync_ms']['p99']} ms")  # fmt: skip
    certificates = make_certificates(data_dir / "pki")
    cases = {"both": (True, False), "yes": (True,), "no": (False,)}[options.tls]
    runs = [_run_case(options, data_dir, certificates if tls else None, say) for tls in cases]
    doubts = [doubt for case in runs for doubt in case["doubts"]]
    return {
        "bench": options.bench,
        "machine": machine,
        "commit": commit(),
        "seed": options.seed,
        "options": asdict(options),
        "runs": runs,
        "verdict": "unknown" if doubts else "ok",
    }


def _run_case(
    options: Options, data_dir: Path, certificates: Certificates | None, say: Say
) -> dict[str, Any]:
    names = ["raftkube"] + (["etcd"] if options.against == "etcd" else [])
    rounds: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    limits = {name: _generator_limit(options, name, certificates) for name in names}
    case = _case_name(options, tls=certificates is not None)
    for number in range(options.repeat):
        for name in names:
            result = _run_side(options, name, data_dir / f"{name}-{number}", certificates)
            rounds[name].append(result)
            say(f"{case}, round {number + 1}, {name}: {_words(result)}")
    ours = _summary(rounds["raftkube"], limits["raftkube"])
    report: dict[str, Any] = {"case": case, "ours": ours, "rounds": rounds, "doubts": []}
    if "etcd" in rounds:
        peer = _summary(rounds["etcd"], limits["etcd"]) | {"name": PEER}
        report["peer"] = peer
        report["ratio"] = round(ours["rate"] / peer["rate"], 2) if peer["rate"] else None
        report["doubts"] += _peer_doubts(options, peer)
    for name in names:
        report["doubts"] += _generator_doubts(name, report["ours" if name == "raftkube" else "peer"])
    return report


def _case_name(options: Options, *, tls: bool) -> str:
    what = f"{options.clients} clients, "
    if options.bench == "mixed":
        what += f"{options.reads:.0%} gets, "
    ahead = f"{options.outstanding} outstanding, {options.value_bytes} B, "
    return f"{options.bench}: {what}{ahead}{'mTLS' if tls else 'plain'}"


def _summary(results: list[dict[str, Any]], limit: float) -> dict[str, Any]:
    """Medians over the rounds, with the spread of the rate."""
    keys = [key for key, value in results[0].items() if isinstance(value, int | float)]
    summary: dict[str, Any] = {key: statistics.median(result[key] for result in results) for key in keys}
    rates = [result["rate"] for result in results]
    return summary | {"rate_min": min(rates), "rate_max": max(rates), "generator_limit": limit}


def _peer_doubts(options: Options, peer: dict[str, Any]) -> list[str]:
    """A peer far below what it is known to do makes a ratio worthless."""
    known = REFERENCE.get((options.bench, options.outstanding))
    if known and peer["rate"] < known / 2:
        return [
            f"suspect: etcd did {peer['rate']:.0f}/s, below half of the {known}/s known of such a machine"
        ]
    return []


def _generator_doubts(name: str, side: dict[str, Any]) -> list[str]:
    if side["generator_limit"] < GENERATOR_MARGIN * side["rate"]:
        return [
            f"the generator for {name} reaches {side['generator_limit']:.0f}/s against a replay stub, "
            f"less than {GENERATOR_MARGIN:g} times the {side['rate']:.0f}/s that it reports"
        ]
    return []


def _job(options: Options, protocol: str, writer: Endpoint, endpoints: list[Endpoint]) -> Job:
    return Job(
        kind=options.bench, protocol=protocol, writer=writer, endpoints=endpoints,
        outstanding=options.outstanding, value_bytes=options.value_bytes, warm_up_s=_WARM_UP_S,
        seconds=options.seconds, seed=options.seed, clients=options.clients, keys=options.keys,
        reads=options.reads,
    )  # fmt: skip


def _run_side(options: Options, name: str, folder: Path, certificates: Certificates | None) -> dict[str, Any]:
    with running(name, folder, certificates) as (side, leader):
        job = _job(options, side.protocol, side.endpoint(leader), side.endpoints())
        return run_generator(job, side)


def _generator_limit(options: Options, name: str, certificates: Certificates | None) -> float:
    """What the generator does when the server costs next to nothing."""
    protocol = "ours" if name == "raftkube" else "etcd"
    with _stub(protocol, certificates) as endpoint:
        job = replace(_job(options, protocol, endpoint, [endpoint]), seconds=min(options.seconds, 3.0))
        return float(run_generator(job, None)["rate"])


def run_generator(job: Job, side: Side | None, on_window: OnWindow = _ignore) -> dict[str, Any]:
    """One job in a process of its own; the members' CPU is taken over the measured time (warm-up included).
    `on_window` gets what it reports on the way. Raises Violation, BenchError."""
    told = asdict(job) | {"writer": as_json(job.writer), "endpoints": [as_json(e) for e in job.endpoints]}
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.generator"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(orjson.dumps(told) + b"\n")
        process.stdin.flush()
        before = side.usage() if side else {}
        result: dict[str, Any] = {"state": ""}
        while "state" in result:
            result = orjson.loads(process.stdout.readline() or b"{}")
            if result.get("state") == "measuring":
                before = side.usage() if side else {}
            elif result.get("state") == "window":
                on_window(result)
        after = side.usage() if side else {}
        process.wait(_JOB_GRACE_S)
    finally:
        process.kill()
        process.wait()
    name = side.name if side else "the stub"
    if "violation" in result:
        raise Violation(f"{name}: {result['violation']}")
    if "rate" not in result:
        raise BenchError(f"{name}: the generator failed")
    if side:
        result["cpu_s"] = round(after["cpu_s"] - before["cpu_s"], 2)
        result["rss_mb"] = after["rss_mb"]
    return result


@contextlib.contextmanager
def _stub(protocol: str, certificates: Certificates | None) -> Iterator[Endpoint]:
    tls = None
    if certificates:
        tls = {"ca": certificates.ca, "cert": certificates.server_cert, "key": certificates.server_key}
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.stub"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(orjson.dumps({"protocol": protocol, "tls": tls}) + b"\n")
        process.stdin.flush()
        port = int(process.stdout.readline())
        if certificates:
            alpn = "h2" if protocol == "etcd" else ""
            yield Endpoint(
                "127.0.0.1", port, certificates.ca, certificates.client_cert, certificates.client_key, alpn
            )
        else:
            yield Endpoint("127.0.0.1", port)
    finally:
        process.kill()
        process.wait()


def _words(result: dict[str, Any]) -> str:
    return (
        f"{result['rate']:,.0f}/s, p50 {result['p50_ms']} ms, p99 {result['p99_ms']} ms, "
        f"members {result['cpu_s']} CPU s and {result['rss_mb']} MB, "
        f"generator {result['generator_cpu_s']} CPU s"
    )
