"""What the runner tells a generator, and how a generator reports."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import orjson

from bench.loop import Endpoint

KEYS: Final = 10_000
POOL: Final = 512


@dataclass(frozen=True, slots=True)
class Job:
    """What to do. `writer` is the leader's endpoint, `endpoints` all members'. `keys`: how many there are;
    `reads`: the share of gets among the requests; `rate`: requests a second, 0 for as fast as they are
    answered; `window_s`: report every so often, 0 for once."""

    kind: str
    protocol: str
    writer: Endpoint
    endpoints: list[Endpoint]
    outstanding: int
    value_bytes: int
    warm_up_s: float
    seconds: float
    seed: int
    clients: int = 8
    keys: int = KEYS
    reads: float = 0.0
    rate: float = 0.0
    window_s: float = 0.0


def latencies(took_s: list[float], prefix: str = "") -> dict[str, float]:
    """Percentiles in milliseconds; sorts `took_s`."""
    took_s.sort()

    def at(share: float) -> float:
        return round(took_s[min(int(len(took_s) * share), len(took_s) - 1)] * 1e3, 3) if took_s else 0.0

    return {f"{prefix}p50_ms": at(0.5), f"{prefix}p99_ms": at(0.99), f"{prefix}p999_ms": at(0.999)}


def result(count: int, seconds: float, took_s: list[float]) -> dict[str, Any]:
    """Rate and percentiles of one measurement."""
    return {"rate": round(count / seconds, 1), **latencies(took_s)}


def say(word: str, **told: Any) -> None:
    """Tell the runner something on the way."""
    print(orjson.dumps({"state": word, **told}).decode(), flush=True)
