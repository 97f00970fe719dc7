"""The network between store members: one proxy for each ordered pair, which sees the frames that pass.

Members dial each other through it (`chaos.live.faulty_store`), without TLS, so that it can cut a message in
its middle, hold single ones back, or let those of different connections overtake each other. Within one
connection order is kept: TCP never reorders. What is cut off is held, as TCP would send it again later;
neither end is told that the other closed, and a connection dialled meanwhile says nothing before it heals.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

import trio

from chaos.live.proxied import Proxied, Way
from raftkube.net import Address

Pair = tuple[str, str]
Observe = Callable[..., None]

_ORDERLY_S: Final = (0.0, 0.0)


class Proxy:
    """All pairs of `members` (name -> peer address). `observe(kind, **fields)` is told of connections that
    a fault ended and that were dialled anew."""

    def __init__(self, members: dict[str, Address], rng: random.Random, observe: Observe) -> None:
        self._members, self.rng, self.observe = members, rng, observe
        self.ways = {pair: Way() for pair in self.pairs()}
        self._connections: list[Proxied] = []
        self._lost_s: dict[Pair, float] = {}  # since when a pair's dialler should dial anew
        self.arrivals, self._latest = 0, -1
        self.overtaken = 0

    def pairs(self) -> list[Pair]:
        """(dialling member, listening member)."""
        return [(one, other) for one in self._members for other in self._members if one != other]

    def around(self, member: str) -> list[Pair]:
        """The pairs that `member` belongs to."""
        return [pair for pair in self.pairs() if member in pair]

    async def listen(self) -> tuple[dict[Pair, trio.SocketListener], dict[str, dict[str, str]]]:
        """Bind a port for each pair; also the routes that the members are to take."""
        listeners: dict[Pair, trio.SocketListener] = {}
        routes: dict[str, dict[str, str]] = {name: {} for name in self._members}
        for one, other in self.pairs():
            (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
            listeners[one, other] = listener
            routes[one][str(self._members[other])] = f"127.0.0.1:{listener.socket.getsockname()[1]}"
        return listeners, routes

    async def run(self, listeners: dict[Pair, trio.SocketListener]) -> None:
        """Until cancelled."""
        async with trio.open_nursery() as nursery:
            for pair, listener in listeners.items():
                nursery.start_soon(self._serve, pair, listener)

    async def _serve(self, pair: Pair, listener: trio.SocketListener) -> None:
        forth, back = self.ways[pair], self.ways[pair[::-1]]

        async def one(stream: trio.SocketStream) -> None:
            since_s = self._lost_s.pop(pair, None)
            if since_s is not None:
                took_ms = round((trio.current_time() - since_s) * 1000)
                self.observe("redial", link=">".join(pair), component=pair[0], ms=took_ms)
            proxied = Proxied(self, pair, forth, back, stream)
            self._connections.append(proxied)
            try:
                await proxied.run(self._members[pair[1]])
            finally:
                self._connections.remove(proxied)
                proxied.close()

        await trio.serve_listeners(one, [listener])

    # What faults are made of.

    def hold(self, pairs: list[Pair]) -> None:
        """Nothing passes from the first to the second of these until `heal`."""
        for pair in pairs:
            self.ways[pair].held = True

    def shape(
        self, pairs: list[Pair], *, delay_s: tuple[float, float] = _ORDERLY_S, bytes_per_s: int = 0
    ) -> None:
        """Frames on these ways are late, or few at a time."""
        for pair in pairs:
            self.ways[pair].delay_s, self.ways[pair].bytes_per_s = delay_s, bytes_per_s

    def cut_next_frame(self, pairs: list[Pair]) -> None:
        """The next frame on each of these ways ends in its middle, with a reset."""
        for pair in pairs:
            self.ways[pair].cut_next_frame = True

    def swallow(self, pairs: list[Pair]) -> int:
        """Connections dialled within these, as they are now, say nothing more, both ways, and do not end.
        How many there are."""
        found = self._dialled(pairs)
        for each in found:
            each.silent = True
            self.lost(each.pair)
        return len(found)

    def supersede(self, pairs: list[Pair]) -> None:
        """The diallers of these lose their connections; what they sent last arrives beside what they say on
        the next one."""
        for each in self._dialled(pairs):
            each.lose_dialler()
            self.lost(each.pair)

    @property
    def waiting(self) -> bool:
        """Whether a connection that a fault ended has not been dialled anew yet."""
        return bool(self._lost_s)

    def heal(self) -> None:
        """Everything passes again; connections that were made silent stay so."""
        for way in self.ways.values():
            way.heal()

    def _dialled(self, pairs: list[Pair]) -> list[Proxied]:
        return [each for each in self._connections if each.pair in pairs]

    # What the connections tell.

    def lost(self, pair: Pair) -> None:
        """A fault ended a connection of this pair: its dialler should notice."""
        self._lost_s[pair] = trio.current_time()

    def arrived(self) -> int:
        """The number of a frame that has come in, counted over all connections."""
        self.arrivals += 1
        return self.arrivals

    def handed_on(self, number: int) -> None:
        """That frame has left; it was overtaken if a later one left before it."""
        if number < self._latest:
            self.overtaken += 1
        self._latest = max(self._latest, number)
