"""A network in memory: seeded delays, cuts in one direction or both, resets, hosts that die.

A connection is an ordered byte stream, as TCP gives it: a cut holds bytes back until it heals (TCP would
resend them), a reset breaks both ends. Addresses are (host, port); a host is a member's world.
"""

from __future__ import annotations

import errno
import hashlib
import zlib
from collections import deque
from typing import Final

import trio

from chaos.sim.clock import call_at
from raftkube.errors import ConfigError
from raftkube.net import Address, PeerIdentity, TlsFiles
from raftkube.rng import Rng

_BUFFER_BYTES: Final = 1024 * 1024  # in flight per direction before `send_nowait` keeps bytes inside
_CONNECT_TIMEOUT_S: Final = 1.0
_FIRST_PORT: Final = 40_000


class SimNetwork:
    """The whole network. `host(name)` is what a component takes as its `Network`."""

    def __init__(self, rng: Rng, *, delay_s: tuple[float, float] = (0.0002, 0.002)) -> None:
        self.rng = rng
        self.delay_s = delay_s
        self.sent_count = 0  # messages, as far as members send each by itself
        self._trace = hashlib.sha256()
        self._listeners: dict[Address, SimListener] = {}
        self._connections: list[SimConnection] = []
        self._cuts: set[tuple[str, str]] = set()
        self._healed = trio.Event()
        self._port = _FIRST_PORT
        self._lives: dict[str, int] = {}
        self._slow: dict[tuple[str, str], float] = {}

    def trace(self, *event: object) -> None:
        """Add an event, and when it happened, to the trace."""
        self._trace.update(repr((round(trio.current_time(), 9), *event)).encode())

    @property
    def trace_hash(self) -> str:
        """Equal for two runs in which the same bytes were sent between the same hosts at the same times."""
        return self._trace.hexdigest()

    def host(self, name: str, identity: PeerIdentity | None = None) -> SimHost:
        """The network as `name` sees it in this life, until it crashes; with `identity`, what its
        certificates say."""
        return SimHost(self, name, identity)

    def cut(self, source: str, target: str) -> None:
        """Nothing passes from `source` to `target` until `heal`."""
        self._cuts.add((source, target))

    def partition(self, *groups: set[str]) -> None:
        """Cut both ways between hosts of different groups."""
        for group in groups:
            for other in groups:
                if other is not group:
                    self._cuts.update((a, b) for a in group for b in other)

    def heal(self, source: str | None = None, target: str | None = None) -> None:
        """End that cut, or all."""
        if source is None or target is None:
            self._cuts.clear()
        else:
            self._cuts.discard((source, target))
        self._wake_waiting()

    def heal_all(self) -> None:
        """No cut, no stall, no slow link is left."""
        self._slow.clear()
        for connection in self._connections:
            connection.stalled = False
        self.heal()

    def _wake_waiting(self) -> None:
        healed, self._healed = self._healed, trio.Event()
        healed.set()
        for connection in self._connections:
            connection.wake()

    def reset(self, a: str, b: str) -> None:
        """Break every connection between the two hosts, on both ends at once."""
        for connection in self._alive():
            if {connection.local, connection.remote} == {a, b}:
                connection.break_now()

    def break_end(self, local: str, remote: str) -> None:
        """Connections that `local` dialled fail on its end; `remote` is not told, and reads on what was
        under way (the reset was lost, as behind a firewall that forgot the connection)."""
        for connection in self._alive():
            if (connection.local, connection.remote) == (local, remote) and connection.dialled:
                connection.die()

    def stall(self, source: str, target: str) -> None:
        """What today's connections carry from `source` to `target` stays under way until `unstall`; newer
        connections pass. Both ways and never ended, it is a break that nobody is told of."""
        for connection in self._alive():
            if (connection.local, connection.remote) == (source, target):
                connection.stalled = True

    def unstall(self, source: str, target: str) -> None:
        """What `stall` held back goes on."""
        for connection in self._connections:
            if (connection.local, connection.remote) == (source, target):
                connection.stalled = False
        self._wake_waiting()

    def crash(self, name: str, *, keep_in_flight: bool = False) -> None:
        """The host is gone: its listeners close, and the others see resets (unless cut off from it), with
        `keep_in_flight` only after they read what was under way."""
        self._lives[name] = self.life(name) + 1
        for address in [at for at, listener in self._listeners.items() if listener.host == name]:
            self._listeners.pop(address).closed = True
        for connection in self._alive():
            if connection.local == name:
                connection.die()
                if keep_in_flight:
                    connection.end()
                elif not self.is_cut(name, connection.remote):
                    connection.other.break_now()

    def is_cut(self, source: str, target: str) -> bool:
        return (source, target) in self._cuts

    def life(self, name: str) -> int:
        """How often the host has crashed."""
        return self._lives.get(name, 0)

    def slow(self, source: str, target: str, extra_s: float) -> None:
        """What is sent from `source` to `target` from now on takes so much longer; 0 ends it."""
        if extra_s:
            self._slow[source, target] = extra_s
        else:
            self._slow.pop((source, target), None)

    def delay(self, source: str, target: str) -> float:
        """How long the next bytes from one host to another take."""
        extra_s = self._slow.get((source, target), 0.0) if self._slow else 0.0
        return self.rng.uniform(*self.delay_s) + extra_s

    def _alive(self) -> list[SimConnection]:
        alive = [end for end in self._connections if not (end.dead and end.other.dead)]
        self._connections = alive
        return [connection for connection in alive if not connection.dead]

    async def wait_passable(self, source: str, target: str) -> None:
        while self.is_cut(source, target):
            await self._healed.wait()


class SimHost:
    """Implements `raftkube.net.Network` for one host. TLS is not simulated, identities are."""

    def __init__(self, network: SimNetwork, name: str, identity: PeerIdentity | None) -> None:
        self._network, self.name, self.identity = network, name, identity
        self._life = network.life(name)

    def _check_alive(self) -> None:
        """What a dead process still does (in a `finally`) reaches nobody."""
        if self._life != self._network.life(self.name):
            raise OSError(errno.ENETDOWN, f"{self.name} is dead")

    async def connect(self, address: Address, tls: TlsFiles | None) -> SimConnection:
        network = self._network
        with trio.move_on_after(_CONNECT_TIMEOUT_S) as scope:
            there = network._listeners.get(address)
            host = there.host if there is not None else address.host
            await trio.sleep(network.delay(self.name, host) + network.delay(host, self.name))
            self._check_alive()
            listener = network._listeners.get(address)
            if listener is None:
                raise ConnectionRefusedError(f"{address} refused the connection")
            await network.wait_passable(self.name, listener.host)
            await network.wait_passable(listener.host, self.name)
        if scope.cancelled_caught or listener is None:
            raise TimeoutError(f"{address} did not answer")
        self._check_alive()
        if listener.closed:
            raise ConnectionRefusedError(f"{address} refused the connection")
        ours = SimConnection(network, self.name, listener.host, listener.identity)
        theirs = SimConnection(network, listener.host, self.name, self.identity)
        ours.other, theirs.other, ours.dialled = theirs, ours, True
        network._connections += [ours, theirs]
        listener.offer(theirs)
        return ours

    async def listen(self, address: Address, tls: TlsFiles | None) -> SimListener:
        await trio.lowlevel.checkpoint()
        self._check_alive()
        if address.port == 0:
            self._network._port += 1
            address = Address(address.host, self._network._port)
        if address in self._network._listeners:
            raise ConfigError(f"cannot listen on {address}: Address already in use")
        listener = SimListener(self._network, self.name, address, self.identity)
        self._network._listeners[address] = listener
        return listener


class SimListener:
    """Implements `raftkube.net.Listener`."""

    def __init__(
        self, network: SimNetwork, host: str, address: Address, identity: PeerIdentity | None
    ) -> None:
        self._network, self.host, self._address, self.identity = network, host, address, identity
        self._backlog: deque[SimConnection] = deque()
        self._arrived = trio.Event()
        self.closed = False

    @property
    def address(self) -> Address:
        return self._address

    def offer(self, connection: SimConnection) -> None:
        self._backlog.append(connection)
        self._arrived.set()

    async def accept(self) -> SimConnection:
        while not self._backlog:
            if self.closed:
                raise trio.ClosedResourceError("this listener was closed here")
            self._arrived = trio.Event()
            await self._arrived.wait()
        await trio.lowlevel.checkpoint()
        return self._backlog.popleft()

    async def aclose(self) -> None:
        self.closed = True
        self._arrived.set()
        if self._network._listeners.get(self._address) is self:
            del self._network._listeners[self._address]
        await trio.lowlevel.checkpoint()


class SimConnection:
    """Implements `raftkube.net.Connection`: one end. What it sends lies in `_out` until the other end
    takes it, which is when its time has come and no cut stands in the way."""

    def __init__(self, network: SimNetwork, local: str, remote: str, peer: PeerIdentity | None) -> None:
        self._network, self.local, self.remote, self._peer = network, local, remote, peer
        self.other: SimConnection
        self._out: deque[tuple[float, bytes]] = deque()
        self._out_bytes = 0
        self._last_at = 0.0
        self._ended = self._broken = self._closed = False
        self.dialled = False  # by this end
        self.stalled = False  # what this end sent stays under way
        self._reader: trio.lowlevel.Task | None = None  # that waits for something to change
        self._changed: trio.Event | None = None  # somebody waits to send

    @property
    def peer(self) -> PeerIdentity | None:
        return self._peer

    @property
    def dead(self) -> bool:
        """Nothing moves on this end any more."""
        return self._broken or self._closed

    @property
    def unsent(self) -> bool:
        return self._out_bytes > _BUFFER_BYTES

    async def handshake(self) -> None:
        await trio.lowlevel.checkpoint()

    def send_nowait(self, data: bytes) -> bool:
        self._check()
        if self.unsent:
            return False
        if data:
            self._last_at = max(
                self._last_at, trio.current_time() + self._network.delay(self.local, self.remote)
            )
            self._out.append((self._last_at, data))
            self._network.sent_count += 1
            self._network.trace(self.local, self.remote, len(data), zlib.crc32(data))
            self._out_bytes += len(data)
            if len(self._out) == 1:  # awake when it arrives, not when it is sent
                call_at(self._last_at, self.other.wake)
        return True

    async def drain(self) -> None:
        await trio.lowlevel.checkpoint()
        while self.unsent:
            self._check()
            self._changed = self._changed or trio.Event()
            await self._changed.wait()

    async def send_all(self, data: bytes) -> None:
        while not self.send_nowait(data):
            await self.drain()
        await self.drain()

    async def receive_some(self, max_bytes: int = 262_144) -> bytes:
        waited = False
        while True:
            self._check()
            incoming = self.other._out
            if self.other.stalled or self._network.is_cut(self.remote, self.local):
                await self._park()
            elif not waited:
                await trio.lowlevel.checkpoint()
            elif incoming and incoming[0][0] <= trio.current_time():
                return self._take(incoming, max_bytes)
            elif not incoming and self.other._ended:
                return b""
            else:
                if incoming:
                    call_at(incoming[0][0], self.wake)
                await self._park()
            waited = True

    @property
    def peer_closed(self) -> bool:
        other = self.other
        hidden = other.stalled or self._network.is_cut(self.remote, self.local)
        return self.dead or (other._ended and not hidden and other._last_at <= trio.current_time())

    async def _park(self) -> None:
        """Until `wake`."""
        self._reader = trio.lowlevel.current_task()

        def give_up(_: object) -> trio.lowlevel.Abort:
            self._reader = None
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(give_up)

    def wake(self) -> None:
        """Whoever reads here looks again."""
        reader, self._reader = self._reader, None
        if reader is not None:
            trio.lowlevel.reschedule(reader)

    def abort(self) -> None:
        if not self._closed:
            self._closed = self._ended = True
            self._notify()
            self.other._notify()

    async def aclose(self) -> None:
        self.abort()
        await trio.lowlevel.checkpoint()

    def break_now(self) -> None:
        """A reset: this end and the other fail from now on."""
        for end in (self, self.other):
            end._broken = True
            end._notify()

    def die(self) -> None:
        """The host is gone: this end fails, the other hears nothing of it."""
        self._broken = True
        self._notify()

    def end(self) -> None:
        """Nothing follows what this end has sent."""
        self._ended = True
        self.other._notify()

    def _take(self, incoming: deque[tuple[float, bytes]], max_bytes: int) -> bytes:
        now, parts, size = trio.current_time(), [], 0
        while incoming and incoming[0][0] <= now and size < max_bytes:
            at, data = incoming.popleft()
            if size + len(data) > max_bytes:
                incoming.appendleft((at, data[max_bytes - size :]))
                data = data[: max_bytes - size]
            parts.append(data)
            size += len(data)
        self.other._out_bytes -= size
        self.other._let_send()
        return b"".join(parts)

    def _check(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError("this connection was closed here")
        if self._broken:
            raise trio.BrokenResourceError("connection reset")

    def _notify(self) -> None:
        self.wake()
        self._let_send()

    def _let_send(self) -> None:
        if self._changed is not None:
            changed, self._changed = self._changed, None
            changed.set()
