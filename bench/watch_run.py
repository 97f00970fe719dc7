"""`watch`: the sides in turn (fresh clusters each round), and the bare socket loop as a third column.

A round measures each side's highest rate in a closed loop, then, if asked, everybody at the same shares of
the highest rate that the peer reached in this round, with writes at fixed times.
"""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from bench.errors import BenchError
from bench.machine import check_descriptors, commit, describe
from bench.peers import MEMBERS, PEER, Certificates, make_certificates, running
from bench.watch_job import WatchLoad
from bench.watch_measure import Server, at_rate, measure

# Deliveries a second of etcd 3.5.1 on a machine of this kind (2 cores, 512-byte values, plain) by watchers of
# one prefix; below half of it the peer is suspect: the machine was busy, or the peer was held wrongly.
REFERENCE: Final = {100: 125_000, 1000: 190_000}
BUSY_MAX: Final = 0.9  # of one processor: a generator that is busier may be the limit
OTHERS_MAX: Final = 0.05  # of all processors
KEPT_MIN: Final = 0.97  # of the rate that an open loop was asked for
LATE_MAX_MS: Final = 5.0  # how late an open loop's writer may be itself, 99 of 100 times
SIDES: Final = ("peer", "ours", "bare")
_CLOSED_LOOP_SAMPLE: Final = 16  # at the highest rates latencies are taken of every sixteenth watcher

Say = Callable[[str], None]
Results = dict[str, list[dict[str, Any]]]


@dataclass(frozen=True, slots=True)
class WatchOptions:
    """The command line. `shares`: per cent of the peer's highest rate at which latencies are compared."""

    load: WatchLoad
    against: str | None
    bare: bool
    shares: tuple[int, ...]
    tls: str  # yes, no, both
    repeat: int
    seed: int
    data_dir: str

    def check(self) -> None:
        """Raises BenchError naming the option."""
        self.load.check()
        if self.shares and (self.load.rate or not self.against):
            raise BenchError("--shares needs --against etcd, whose highest rate it shares, and no --rate")
        connections = -(-self.load.watchers // self.load.per_connection)
        check_descriptors(connections, 1 if self.bare else MEMBERS, self.load.generators)


def run_watch(options: WatchOptions, say: Say) -> dict[str, Any]:
    """The whole comparison as the JSON of the report. Raises BenchError, Violation."""
    options.check()
    data_dir = Path(options.data_dir)
    data_dir.mkdir(parents=True, exist_ok=True)
    machine = describe(data_dir)
    certificates = make_certificates(data_dir / "pki")
    cases = {"both": (True, False), "yes": (True,), "no": (False,)}[options.tls]
    runs = [_run_case(options, data_dir, certificates if tls else None, say) for tls in cases]
    doubts = [doubt for case in runs for doubt in case["doubts"]]
    return {
        "bench": "watch", "machine": machine, "commit": commit(), "seed": options.seed,
        "options": asdict(options), "runs": runs, "verdict": "unknown" if doubts else "ok",
    }  # fmt: skip


def case_name(load: WatchLoad, *, tls: bool) -> str:
    """As in the tables."""
    words = [f"{load.watchers} watchers"]
    if load.prefixes > 1:
        words.append(f"{load.prefixes} prefixes")
    if load.per_connection > 1:
        words.append(f"{load.per_connection} a connection")
    words.append(f"{load.rate:g} writes/s" if load.rate else f"{load.outstanding} outstanding")
    return f"watch: {', '.join(words)}, {load.value_bytes} B, {'mTLS' if tls else 'plain'}"


def _run_case(
    options: WatchOptions, data_dir: Path, certificates: Certificates | None, say: Say
) -> dict[str, Any]:
    load = options.load
    names = ["etcd"] * bool(options.against) + ["raftkube"] + ["bare"] * options.bare
    case = case_name(load, tls=certificates is not None)
    top: Results = {}
    steps: dict[int, Results] = {share: {} for share in options.shares}
    peer_puts: list[float] = []
    for number in range(options.repeat):
        for name in names:
            with _server(name, data_dir / f"{name}-{number}", certificates) as server:
                told = measure(server, load if load.rate else replace(load, sample=_sample(load)))
                top.setdefault(_side(name), []).append(told)
                say(f"{case}, round {number + 1}, {name}: {words(told)}")
                if name == "etcd":
                    peer_puts.append(told["puts_per_s"])
                for share in options.shares:
                    rate = round(peer_puts[-1] * share / 100, 1)
                    told = measure(server, at_rate(load, rate)) | {"asked_puts_per_s": rate}
                    steps[share].setdefault(_side(name), []).append(told)
                    say(f"{case}, round {number + 1}, {share} % of etcd's rate, {name}: {words(told)}")
    return report_case(case, load, top, steps)


def report_case(case: str, load: WatchLoad, top: Results, steps: dict[int, Results]) -> dict[str, Any]:
    """Medians, spread, ratios and doubts of one case."""
    told: dict[str, Any] = {"case": case, "rounds": top}
    told |= {side: summary(results) for side, results in top.items()}
    if "peer" in told:
        told["peer"]["name"] = PEER
        told["ratio"] = _ratio(told["ours"]["rate"], told["peer"]["rate"])
        told["p99_ratio"] = _ratio(told["ours"]["p99_ms"], told["peer"]["p99_ms"])
    if "bare" in told:
        told["of_bare"] = _ratio(told["ours"]["rate"], told["bare"]["rate"])
    told["steps"] = [
        {"share": share, **{side: summary(results) for side, results in step.items()}, "rounds": step}
        for share, step in steps.items()
    ]
    told["doubts"] = _doubts(load, told)
    return told


def summary(results: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians over the rounds; the spread of the rate and of p99."""
    keys = [key for key, value in results[0].items() if isinstance(value, int | float)]
    medians: dict[str, Any] = {key: statistics.median(one[key] for one in results) for key in keys}
    for key in ("rate", "p99_ms"):
        values = [one[key] for one in results]
        medians |= {f"{key}_min": min(values), f"{key}_max": max(values)}
    return medians


def words(told: dict[str, Any]) -> str:
    """A round for the terminal."""
    return (
        f"{told['rate']:,.0f}/s, {told['puts_per_s']:,.0f} puts/s, p50 {told['p50_ms']} ms, "
        f"p99 {told['p99_ms']} ms, {told['cpu_s_per_million']:.2f} CPU s a million, "
        f"peak {told['peak_mb']:.0f} MB, others {told['others_busy']:.0%}"
    )


@contextlib.contextmanager
def _server(name: str, folder: Path, certificates: Certificates | None) -> Iterator[Server]:
    if name == "bare":
        yield Server(None, 0, certificates)
        return
    with running(name, folder, certificates) as (side, leader):
        yield Server(side, leader, certificates)


def _side(name: str) -> str:
    return {"etcd": "peer", "raftkube": "ours"}.get(name, name)


def _sample(load: WatchLoad) -> int:
    return min(_CLOSED_LOOP_SAMPLE, max(load.watchers // 8, 1))


def _ratio(ours: float, other: float) -> float | None:
    return round(ours / other, 2) if other else None


def _doubts(load: WatchLoad, told: dict[str, Any]) -> list[str]:
    """What makes the figures worth less; a sentence each."""
    doubts = []
    known = REFERENCE.get(load.watchers) if load.prefixes == 1 and not load.rate else None
    if known and "peer" in told and told["peer"]["rate"] < known / 2:
        doubts.append(
            f"suspect: etcd did {told['peer']['rate']:.0f}/s, below half of the {known}/s known of it"
        )
    for name, place in [("", told), *((f" at {step['share']} %", step) for step in told["steps"])]:
        for side in SIDES:
            if side in place:
                doubts += [f"{side}{name}: {doubt}" for doubt in _side_doubts(load, place[side])]
    return doubts


def busy_doubts(told: dict[str, Any]) -> Iterator[str]:
    """Of a side's figures: a generator, or the machine, was too busy."""
    if told["generator_busy"] > BUSY_MAX:
        yield f"a generator was busy {told['generator_busy']:.0%} of the time and may be the limit"
    if told["others_busy"] > OTHERS_MAX:
        yield f"other programs used {told['others_busy']:.0%} of the processors"


def _side_doubts(load: WatchLoad, told: dict[str, Any]) -> Iterator[str]:
    yield from busy_doubts(told)
    asked = told.get("asked_puts_per_s", load.rate)
    if asked and told["rate"] < KEPT_MIN * asked * load.watchers / load.prefixes:
        yield f"{told['rate']:.0f}/s were delivered where {asked:g} writes a second were asked for"
    if told["late_p99_ms"] > LATE_MAX_MS:
        yield f"the writer itself was {told['late_p99_ms']:g} ms late (p99)"
