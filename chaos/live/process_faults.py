"""Faults of whole processes: SIGKILL, SIGSTOP, graceful restarts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import trio

from chaos.live import fault as of
from chaos.live.fault import Act, Fault, Record, Site, ask_all

_ELECTED_S: Final = 30.0
_ALL_SAFE: Final = "nothing acknowledged is lost; reads, watches and revisions stay right"
_CONTROL_SAFE: Final = "what the paused or dead one sends late is refused; one acts at a time"


def _down(low_s: float, high_s: float) -> Act:
    """SIGKILL, wait, start."""

    async def act(site: Site, targets: list[str]) -> Record | None:
        await ask_all(site, "kill", targets)
        await site.for_a_while(low_s, high_s)
        await ask_all(site, "start", targets)
        return None

    return act


def _paused(low_s: float, high_s: float) -> Act:
    """SIGSTOP, wait, SIGCONT."""

    async def act(site: Site, targets: list[str]) -> Record | None:
        await ask_all(site, "pause", targets)
        try:
            await site.for_a_while(low_s, high_s)
        finally:
            with trio.CancelScope(shield=True):
                await ask_all(site, "resume", targets)
        return None

    return act


async def _rolling(site: Site, targets: list[str]) -> Record | None:
    """Stop and start each in turn; the next one once the store is whole again."""
    for member in site.rng.sample(targets, len(targets)):
        await ask_all(site, "restart", [member])
        await site.until(_whole(site), f"the store to be whole after a restart of {member}", _ELECTED_S)
    return None


def _whole(site: Site) -> Callable[[], Any]:
    async def holds() -> bool:
        await trio.lowlevel.checkpoint()
        return not site.observers.troubles()

    return holds


PROCESS_FAULTS: Final = (
    Fault(
        name="kill-store-leader",
        group="kill",
        kind="store",
        role="leader",
        done="SIGKILL of the leader, for 1 to 3 s",
        consequence="another member leads in a later term",
        spares=_ALL_SAFE,
        act=_down(1, 3),
        effect=of.another_leads,
    ),
    Fault(
        name="kill-store-follower",
        group="kill",
        kind="store",
        role="follower",
        done="SIGKILL of a follower, for 1 to 3 s",
        consequence="the connections to it are reset",
        spares=_ALL_SAFE + "; writes go on",
        act=_down(1, 3),
        effect=of.seen_of_it("reset"),
    ),
    Fault(
        name="kill-store-majority",
        group="kill",
        kind="store",
        role="majority",
        done="SIGKILL of a majority at once, for 2 to 4 s",
        consequence="no write is acknowledged for 1 s",
        spares=_ALL_SAFE,
        act=_down(2, 4),
        effect=of.seen("stall"),
    ),
    Fault(
        name="kill-store-all",
        group="kill",
        kind="store",
        role="all",
        done="SIGKILL of all members at once, for 1 to 2 s",
        consequence="a member leads in a later term",
        spares=_ALL_SAFE,
        act=_down(1, 2),
        effect=of.a_later_term,
    ),
    Fault(
        name="kill-apiserver",
        group="kill",
        kind="apiserver",
        role="any",
        done="SIGKILL of an API server with open watches, for 1 to 3 s",
        consequence="a watch through it is cut and goes on at another one",
        spares="watches that go on elsewhere neither skip nor repeat an event",
        act=_down(1, 3),
        effect=of.seen_of_it("resumed"),
    ),
    Fault(
        name="kill-scheduler",
        group="kill",
        kind="scheduler",
        role="leader",
        done="SIGKILL of the acting scheduler, for 1 to 3 s",
        consequence="the lease has another holder or token",
        spares=_CONTROL_SAFE,
        act=_down(1, 3),
        effect=of.another_holds,
    ),
    Fault(
        name="kill-controller-manager",
        group="kill",
        kind="controller-manager",
        role="leader",
        done="SIGKILL of the acting controller manager, for 1 to 3 s",
        consequence="the lease has another holder or token",
        spares=_CONTROL_SAFE,
        act=_down(1, 3),
        effect=of.another_holds,
    ),
    Fault(
        name="rolling-restart",
        group="kill",
        kind="store",
        role="all",
        done="SIGTERM and start of each member in turn",
        consequence="the connections to each member end",
        spares="no write is lost or left without a leader for long",
        act=_rolling,
        effect=of.seen_of_each("reset"),
    ),
    Fault(
        name="pause-store-leader",
        group="pause",
        kind="store",
        role="leader",
        done="SIGSTOP of the leader for 2 to 4 s, then SIGCONT",
        consequence="another member leads in a later term",
        spares="the old leader, awake again, serves no stale read",
        act=_paused(2, 4),
        effect=of.another_leads,
    ),
    Fault(
        name="pause-store-follower",
        group="pause",
        kind="store",
        role="follower",
        done="SIGSTOP of a follower for 2 to 4 s, then SIGCONT",
        consequence="it gives no answer for 1 s",
        spares="writes go on; it deposes nobody when it wakes",
        act=_paused(2, 4),
        effect=of.seen_of_it("silent"),
    ),
    Fault(
        name="pause-apiserver",
        group="pause",
        kind="apiserver",
        role="any",
        done="SIGSTOP of an API server for 2 to 4 s, then SIGCONT",
        consequence="it gives no answer for 1 s",
        spares="its watches neither skip nor repeat an event",
        act=_paused(2, 4),
        effect=of.seen_of_it("silent"),
    ),
    Fault(
        name="pause-scheduler",
        group="pause",
        kind="scheduler",
        role="leader",
        done="SIGSTOP of the acting scheduler beyond its lease (5 to 7 s), then SIGCONT",
        consequence="the lease has another holder or token",
        spares=_CONTROL_SAFE,
        act=_paused(5, 7),
        effect=of.another_holds,
    ),
    Fault(
        name="pause-controller-manager",
        group="pause",
        kind="controller-manager",
        role="leader",
        done="SIGSTOP of the acting controller manager beyond its lease (5 to 7 s), then SIGCONT",
        consequence="the lease has another holder or token",
        spares=_CONTROL_SAFE,
        act=_paused(5, 7),
        effect=of.another_holds,
    ),
)
