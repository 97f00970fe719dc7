"""`failover`: SIGKILL the leader again and again; how long until a write is acknowledged again.

The time runs from just before the kill to the first acknowledgement of a put that was sent after it. Puts
go to both surviving members every few milliseconds, so that neither side is helped by a clever client. The
cluster is idle otherwise. After each kill the member comes back and must serve a read before the next; at
the end every acknowledged write must be there.
"""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any, Final

from bench.errors import Violation
from bench.loop import Loop
from bench.peers import MEMBERS, Certificates, Side, running
from bench.probe import Probe, first_answer

_EVERY_S: Final = 0.005
_TIMEOUT_S: Final = 60.0


def measure_failover(
    name: str, folder: Path, certificates: Certificates | None, *, kills: int, seed: int
) -> dict[str, Any]:
    """Kill the leader of a fresh cluster of `name` so often. Raises Violation, BenchError."""
    rng = random.Random(f"{seed}/failover")
    acknowledged: dict[bytes, bytes] = {}
    took_s: list[float] = []
    with running(name, folder, certificates) as (side, leader):
        for kill in range(kills):
            took_s.append(_kill_leader(side, leader, kill, rng, acknowledged))
            side.restart(leader)
            first_answer(side.protocol, side.endpoint(leader), b"/bench/any", timeout_s=_TIMEOUT_S)
            leader = side.leader()
        _check(side, leader, acknowledged)
        usage = side.usage()
    return _summary(took_s) | {"acknowledged": len(acknowledged), "rss_mb": usage["rss_mb"]}


def _kill_leader(
    side: Side, leader: int, kill: int, rng: random.Random, acknowledged: dict[bytes, bytes]
) -> float:
    """Seconds from the kill to the first acknowledgement."""
    loop = Loop()
    probes = [Probe(side.protocol, side.endpoint(other)) for other in range(MEMBERS) if other != leader]
    for probe in probes:
        loop.add(probe.connection)
    _turn_until(loop, time.perf_counter() + rng.uniform(0.2, 0.8))
    sent: dict[tuple[int, int], bytes] = {}
    started = time.perf_counter()
    side.kill(leader)
    count = 0
    try:
        while time.perf_counter() - started < _TIMEOUT_S:
            for at, probe in enumerate(probes):
                key = b"/bench/failover/%d/%d/%d" % (kill, at, count)
                sent[at, probe.put(key, key)] = key
            count += 1
            _turn_until(loop, started + count * _EVERY_S)
            took_s = time.perf_counter() - started
            if _note(probes, sent, acknowledged):
                return took_s
    finally:
        loop.close()
    raise Violation(f"{side.name}: no write was acknowledged within {_TIMEOUT_S:g} s of the leader's death")


def _note(probes: list[Probe], sent: dict[tuple[int, int], bytes], acknowledged: dict[bytes, bytes]) -> bool:
    """Remember what was acknowledged; whether anything was."""
    any_ack = False
    for at, probe in enumerate(probes):
        for number, answer in probe.take().items():
            if not answer.error and answer.revision:
                acknowledged[sent[at, number]] = sent[at, number]
                any_ack = True
    return any_ack


def _turn_until(loop: Loop, deadline: float) -> None:
    while (left := deadline - time.perf_counter()) > 0:
        loop.turn(left)


def _check(side: Side, leader: int, acknowledged: dict[bytes, bytes]) -> None:
    """Every acknowledged write is there. Raises Violation."""
    for key, value in acknowledged.items():
        answer = first_answer(side.protocol, side.endpoint(leader), key, timeout_s=_TIMEOUT_S)
        if answer.value != value:
            raise Violation(f"{side.name} lost the acknowledged write of {key!r}")


def _summary(took_s: list[float]) -> dict[str, Any]:
    ordered = sorted(took_s)

    def at(share: float) -> float:
        return round(ordered[min(int(len(ordered) * share), len(ordered) - 1)] * 1e3, 1)

    return {
        "kills": len(took_s), "p50_ms": at(0.5), "p95_ms": at(0.95), "max_ms": at(1.0),
        "all_ms": [round(each * 1e3, 1) for each in took_s],
    }  # fmt: skip
