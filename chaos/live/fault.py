"""What a fault of the live harness is, and by what it counts as effective."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import trio

from chaos.live.cluster import LiveCluster
from chaos.live.fault_file import DoorFaults, FaultFile
from chaos.live.observers import Observers
from chaos.live.proxy import Pair, Proxy
from raftkube.errors import ConfigError

Record = dict[str, Any]
Say = Callable[[str], None]

# A consequence is looked for this long after the end of a fault, or until the cluster is whole again.
CONSEQUENCE_S: Final = 5.0


@dataclass(slots=True)
class Site:
    """A running cluster, and what faults act through. `proxy` is there where `launcher` is."""

    cluster: LiveCluster
    observers: Observers
    rng: random.Random
    say: Say
    proxy: Proxy | None = None
    power_losses: int = 0
    doubts: list[str] = field(default_factory=list)

    @property
    def network(self) -> Proxy:
        """The proxy between store members."""
        assert self.proxy is not None, "a fault of the network was chosen without a proxy"
        return self.proxy

    def data_of(self, member: str) -> Path:
        """A store member's data directory."""
        return self.cluster.state.data_of(member)

    def ask_doors(self, member: str, faults: DoorFaults) -> None:
        """What the doors of a store member do from now on."""
        FaultFile.of(self.cluster.state.root, member).write(faults)

    def others(self, member: str) -> list[str]:
        """The other store members."""
        return [name for name in self.cluster.named("store") if name != member]

    def ways_from(self, member: str) -> list[Pair]:
        return [(member, other) for other in self.others(member)]

    def ways_to(self, member: str) -> list[Pair]:
        return [(other, member) for other in self.others(member)]

    async def for_a_while(self, low_s: float, high_s: float) -> None:
        """A time between the two."""
        await trio.sleep(self.rng.uniform(low_s, high_s))

    async def until(self, holds: Callable[[], Awaitable[bool]], what: str, bound_s: float) -> bool:
        """Poll until it holds; after the bound a doubt about the run is noted, and False returned."""
        with trio.move_on_after(bound_s):
            while not await holds():  # noqa: ASYNC110  other processes' doing
                await trio.sleep(0.1)
            return True
        self.doubts.append(f"waited {bound_s:g} s for {what} in vain")
        return False


Act = Callable[[Site, list[str]], Awaitable[Record | None]]
Window = list[Record]
Effect = Callable[[Record, Window], Record | None]


@dataclass(frozen=True, slots=True)
class Fault:
    """`kind` is whose component it hits; `role` is leader, follower, any, majority or all of them. `act`
    does it and undoes it; what it returns is added to the fault's record. `needs`: launcher, root."""

    name: str
    group: str
    kind: str
    role: str
    done: str  # what is done, in words, for reports and docs
    consequence: str
    spares: str  # what it may not break
    act: Act
    effect: Effect
    needs: tuple[str, ...] = ()

    def targets(self, site: Site) -> list[str]:
        """The components to hit now; none if there are none (no leader is known)."""
        there = site.cluster.named(self.kind)
        leader = leader_of(self.kind, site.observers, there)
        if self.role == "all":
            return there
        if self.role == "leader":
            return [leader] if leader else []
        if self.role == "majority":
            return sorted(site.rng.sample(there, len(there) // 2 + 1))
        others = [name for name in there if name != leader] if self.role == "follower" else there
        return [site.rng.choice(others)] if others else []


def leader_of(kind: str, observers: Observers, there: list[str]) -> str | None:
    """Who of `there` leads, as far as was seen."""
    if kind == "store":
        return observers.leader
    holder, _ = observers.holders.get(kind, ("", 0))
    return next((name for name in there if holder == name or holder.startswith(name + "_")), None)


def effect_of(fault: Fault, record: Record, seen: list[Record]) -> Record | None:
    """The consequence in what was seen from the fault's start on; None: it had no effect."""
    end_ns = max(record["end_ns"] + int(CONSEQUENCE_S * 1e9), record.get("whole_ns", 0))
    window = [observed for observed in seen if record["start_ns"] <= observed["time_ns"] <= end_ns]
    return fault.effect(record, window)


# Effects.


def struck(record: Record) -> list[str]:
    """The components that a fault hit."""
    return str(record["target"]).split(",")


def another_leads(record: Record, window: Window) -> Record | None:
    """Another member leads, in a later term."""
    return _first(window, lambda one: one["kind"] == "term" and one["leader"] not in struck(record))


def a_later_term(record: Record, window: Window) -> Record | None:
    """There was an election."""
    return _first(window, lambda one: one["kind"] == "term")


def another_holds(record: Record, window: Window) -> Record | None:
    """The lease of the component's kind has another holder or token."""
    kind = struck(record)[0].rpartition("-")[0]
    return _first(window, lambda one: one["kind"] == "holder" and one["lease"] == kind)


def seen(*kinds: str) -> Effect:
    """One of these was seen, whoever it was of."""
    return lambda record, window: _first(window, lambda one: one["kind"] in kinds)


def seen_of_it(*kinds: str) -> Effect:
    """One of these was seen of a component that was hit."""
    return lambda record, window: _first(
        window, lambda one: one["kind"] in kinds and one.get("component") in struck(record)
    )


def seen_of_each(kind: str) -> Effect:
    """It was seen of every component that was hit; the last one is told."""

    def effect(record: Record, window: Window) -> Record | None:
        found = [one for one in window if one["kind"] == kind and one.get("component") in struck(record)]
        return found[-1] if {one["component"] for one in found} == set(struck(record)) else None

    return effect


def _first(window: Window, holds: Callable[[Record], bool]) -> Record | None:
    return next((observed for observed in window if holds(observed)), None)


async def ask_all(site: Site, verb: str, components: list[str]) -> None:
    """The verb for each, at once. A refusal is said; the fault then has no effect."""

    async def one(component: str) -> None:
        try:
            await site.cluster.ask(verb, component)
        except ConfigError as error:
            site.say(f"{verb} {component}: {error}")

    async with trio.open_nursery() as nursery:
        for component in components:
            nursery.start_soon(one, component)
