"""What a seed makes of itself: each plan has some kinds of faults and not others, often or rarely, under some
settings and not others (swarm testing: Groce et al., ISSTA 2012). A mix of everything all the time hides what
needs a long quiet, or three faults of one kind in a row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from chaos.sim.plan import Injection, Plan
from raftkube.rng import Rng, seeded_rng

# How long a fault lasts: the mean, in seconds; one that only happens has no length.
_MEAN_S: Final = 2.0
_LONGEST_S: Final = 15.0
_GAPS_S: Final = (0.7, 2.0, 5.0, 12.0)  # between two faults, the mean
_CALM_S: Final = 1.0  # at the start: a leader, and something written

# Faults by what they break; a plan draws groups first, so that rare ones are not drowned by many small ones.
GROUPS: Final[dict[str, tuple[str, ...]]] = {
    "partition": ("isolate", "depose", "one-way", "deaf", "bridge", "majority-ring", "swizzle", "cut-client"),
    "link": ("reset", "flap", "half-open", "late", "slow-link", "lost-replies"),
    "kill": ("kill", "kill-all", "stop", "kill-mid-write", "die-at-step"),
    "pause": ("pause",),
    "power": ("power-loss", "power-loss-majority", "power-loss-all", "power-loss-mid-write"),
    "disk": ("disk-full", "disk-error", "slow-disk"),
    "rot": ("bit-rot", "disk-lost"),
    "member": ("transfer", "grow-and-shrink"),
    "clock": ("wall-jump",),
}  # fmt: skip


def draw_store_plan(
    seed: int, duration_s: float, faults: Sequence[str] | None = None, mutant: str | None = None
) -> Plan:
    """The plan of a seed. `faults`: the names to choose among; None: all."""
    rng = seeded_rng(f"store-plan-{seed}")
    return Plan(
        world="store",
        seed=seed,
        duration_s=duration_s,
        settings=_settings(rng),
        load=_load(rng),
        faults=_schedule(rng, duration_s, _some(rng, faults)),
        mutant=mutant,
    )


def _settings(rng: Rng) -> dict[str, Any]:
    raft = {
        "segment_bytes": rng.choice([4096, 16_384, 262_144]),
        "snapshot_log_entries": rng.choice([25, 100, 400]),
        "retain_entries": rng.choice([3, 20]),
        "snapshot_chunk_bytes": rng.choice([400, 4000]),
        "entries_in_flight_max": rng.choice([1, 4]),
    }
    server = {"history_s": rng.choice([15.0, 3600.0]), "history_revisions_max": rng.choice([200, 100_000])}
    return {
        "size": rng.choice([3, 3, 3, 5]),
        "delay_s": rng.choice([[0.0002, 0.002], [0.0002, 0.002], [0.001, 0.02], [0.005, 0.06]]),
        "raft": raft,
        "server": server,
    }


def _load(rng: Rng) -> dict[str, Any]:
    workload = {
        "clients": rng.choice([1, 2, 3]),
        "keys": rng.choice([3, 12, 40]),
        "watches": rng.choice([0, 1, 2]),
        "think_s": rng.choice([0.1, 0.5, 1.0, 2.0]),
        "lease_clients": rng.choice([0, 1]),
        "candidates": rng.choice([0, 0, 2]),
        "compact_every_s": rng.choice([0.0, 8.0]),
    }
    return {"hosts": rng.choice([1, 1, 2, 3]), "numbered": rng.random() < 0.4, "workload": workload}


def _some(rng: Rng, faults: Sequence[str] | None) -> list[str]:
    """Two to all of the groups, and of each some."""
    allowed = list(faults) if faults is not None else [name for group in GROUPS.values() for name in group]
    groups = [group for group in GROUPS.values() if any(name in allowed for name in group)]
    chosen = rng.sample(groups, rng.randint(min(2, len(groups)), len(groups)))
    picked: list[str] = []
    for group in chosen:
        possible = [name for name in group if name in allowed]
        picked += rng.sample(possible, rng.randint(1, len(possible)))
    return picked


def _schedule(rng: Rng, duration_s: float, names: list[str]) -> tuple[Injection, ...]:
    """Faults at random moments, so that some overlap; all end before the safety phase does."""
    gap_s, found, at_s = rng.choice(_GAPS_S), [], _CALM_S
    while names:
        at_s += rng.expovariate(1 / gap_s)
        if at_s >= duration_s:
            break
        lasts_s = min(rng.expovariate(1 / _MEAN_S), _LONGEST_S, duration_s - at_s)
        found.append(
            Injection(
                round(at_s, 3), rng.choice(names), rng.randrange(1_000), round(lasts_s, 3),
                round(rng.random(), 3),
            )
        )  # fmt: skip
    return tuple(found)
