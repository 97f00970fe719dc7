"""Faults of the network between store members, made by the proxy that they dial each other through.

Clients reach every member all the while: a leader without its peers is still read from.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import trio

from chaos.live import fault as of
from chaos.live.fault import Act, Fault, Record, Site
from chaos.live.proxy import Pair

_SAFE: Final = "nothing acknowledged is lost; no stale linearizable read; one leader a term"
_REDIAL_S: Final = 8.0  # a dead connection is noticed by its keep-alive
_DELAY_S: Final = (0.1, 0.2)
_JITTER_S: Final = (0.0, 0.25)
_SLOW_BYTES_PER_S: Final = 2_000
_OVERTAKEN_MIN: Final = 10

Ways = Callable[[Site, str], list[Pair]]


def _held(ways: Ways, low_s: float, high_s: float) -> Act:
    """Hold these ways of the target for a while."""

    async def act(site: Site, targets: list[str]) -> Record | None:
        held = ways(site, targets[0])
        site.network.hold(held)
        try:
            await site.for_a_while(low_s, high_s)
        finally:
            site.network.heal()
        return {"ways": [">".join(pair) for pair in held]}

    return act


def _around(site: Site, member: str) -> list[Pair]:
    return site.network.around(member)


def _one_way(site: Site, member: str) -> list[Pair]:
    return site.rng.choice((site.ways_from, site.ways_to))(member)


def _bridge(site: Site, member: str) -> list[Pair]:
    """Both ways between the leader and one other; whoever is left reaches both."""
    other = site.rng.choice(site.others(member))
    return [(member, other), (other, member)]


async def _delay(site: Site, targets: list[str]) -> Record | None:
    """Every frame waits; it counts if writes take at least a way there and one back."""
    before_ms = site.observers.write_ms(site.observers.now_ns() - 2_000_000_000, site.observers.now_ns())
    started_ns = site.observers.now_ns()
    site.network.shape(site.network.pairs(), delay_s=_DELAY_S)
    try:
        await site.for_a_while(3, 5)
    finally:
        site.network.heal()
    during_ms = site.observers.write_ms(started_ns, site.observers.now_ns())
    if during_ms >= max(2 * before_ms, 2000 * _DELAY_S[0]):
        site.observers.see("slow", ms=round(during_ms), before_ms=round(before_ms))
    return {"before_ms": round(before_ms, 1), "during_ms": round(during_ms, 1)}


async def _reorder(site: Site, targets: list[str]) -> Record | None:
    """Each frame waits for a time of its own; in the middle of it all connections are broken on one side, so
    that what was under way comes beside what is said next."""
    network = site.network
    before = network.overtaken
    network.shape(network.pairs(), delay_s=_JITTER_S)
    try:
        for _ in range(3):
            await site.for_a_while(0.8, 1.2)
            network.supersede(network.around(targets[0]))
        await site.for_a_while(0.8, 1.2)
    finally:
        network.heal()
    overtaken = network.overtaken - before
    if overtaken >= _OVERTAKEN_MIN:
        site.observers.see("overtaken", frames=overtaken)
    return None


async def _half_open(site: Site, targets: list[str]) -> Record | None:
    """The connections of a member die without a word; its peers must notice by themselves."""
    silent = site.network.swallow(site.network.around(targets[0]))
    with trio.move_on_after(_REDIAL_S):
        while site.network.waiting:  # noqa: ASYNC110  other tasks' doing
            await trio.sleep(0.1)
    return {"connections": silent}


async def _mid_frame_cut(site: Site, targets: list[str]) -> Record | None:
    """The next messages to and from a member end in their middles."""
    for _ in range(3):
        site.network.cut_next_frame(site.network.around(targets[0]))
        await site.for_a_while(0.5, 1.0)
    site.network.heal()
    return None


async def _slow_link(site: Site, targets: list[str]) -> Record | None:
    """Few bytes a second reach a member."""
    site.network.shape(site.ways_to(targets[0]), bytes_per_s=_SLOW_BYTES_PER_S)
    try:
        await site.for_a_while(3, 5)
    finally:
        site.network.heal()
    return None


def _fault(
    name: str, role: str, done: str, consequence: str, spares: str, act: Act, effect: of.Effect
) -> Fault:
    return Fault(name, "partition", "store", role, done, consequence, spares, act, effect, ("launcher",))


NETWORK_FAULTS: Final = (
    _fault(
        name="partition-store-leader",
        role="leader",
        done="the leader and its peers do not reach each other for 3 to 5 s",
        consequence="another member leads in a later term",
        spares=_SAFE,
        act=_held(_around, 3, 5),
        effect=of.another_leads,
    ),
    _fault(
        name="partition-store-follower",
        role="follower",
        done="a follower and its peers do not reach each other for 3 to 5 s",
        consequence="it lacks what others applied 1 s before",
        spares=_SAFE + "; it deposes nobody when it is back",
        act=_held(_around, 3, 5),
        effect=of.seen_of_it("behind"),
    ),
    _fault(
        name="oneway-store",
        role="leader",
        done="for 3 to 5 s the leader is not heard, or hears nobody",
        consequence="another member leads in a later term",
        spares=_SAFE,
        act=_held(_one_way, 3, 5),
        effect=of.another_leads,
    ),
    _fault(
        name="bridge-store",
        role="leader",
        done=(
            "the leader and one follower reach each other for 3 to 5 s only by the third, which "
            "passes nothing on"
        ),
        consequence="a member lacks what others applied 1 s before, or there is an election",
        spares=_SAFE + "; a majority goes on",
        act=_held(_bridge, 3, 5),
        effect=of.seen("behind", "term"),
    ),
    _fault(
        name="delay-store",
        role="all",
        done="each message between members waits 0.1 to 0.2 s, for 3 to 5 s",
        consequence="writes take twice as long as before, and a way there and back",
        spares=_SAFE,
        act=_delay,
        effect=of.seen("slow"),
    ),
    _fault(
        name="reorder-store",
        role="any",
        done=(
            "each message waits up to 0.25 s on its own; three times the diallers around a member "
            "lose their connections, and what was under way arrives beside what they say on new "
            "ones"
        ),
        consequence=(f"at least {_OVERTAKEN_MIN} messages were overtaken by later ones of other connections"),
        spares=_SAFE,
        act=_reorder,
        effect=of.seen("overtaken"),
    ),
    _fault(
        name="halfopen-store",
        role="any",
        done="the connections of a member swallow what is sent and never end",
        consequence="they are given up and dialled anew",
        spares=_SAFE,
        act=_half_open,
        effect=of.seen("redial"),
    ),
    _fault(
        name="midframe-cut-store",
        role="any",
        done="three times connections of a member are reset in the middle of a message",
        consequence="they are dialled anew",
        spares=_SAFE + "; no half message is acted on",
        act=_mid_frame_cut,
        effect=of.seen("redial"),
    ),
    _fault(
        name="slow-link-store",
        role="follower",
        done=f"{_SLOW_BYTES_PER_S:,} bytes/s reach a follower, for 3 to 5 s",
        consequence="it lacks what others applied 1 s before",
        spares=_SAFE + "; writes go on",
        act=_slow_link,
        effect=of.seen_of_it("behind"),
    ),
)
