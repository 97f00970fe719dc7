"""What a fuzz or a scenario needs of a group of members, whoever decides: raftkube or stock pysyncobj.

Both run under the same clock, network and disks. The scenario is the same code; the outcome is not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import trio

from chaos.sim.disk import SimDisk
from chaos.sim.network import SimNetwork

Kind = Literal["stock", "raftkube"]


@dataclass(frozen=True, slots=True)
class GroupOptions:
    """Times in seconds. Both kinds get the same; what else they have stays at its default."""

    size: int = 3
    delay_s: tuple[float, float] = (0.0002, 0.002)
    heartbeat_s: float = 0.1
    election_timeout_min_s: float = 0.6
    election_timeout_max_s: float = 1.1
    stop_leading_s: float | None = None  # without a quorum; None: as raftkube, the shortest election timeout
    snapshot_log_entries: int = 40  # entries behind the last snapshot before the next; stock: on request
    snapshot_part_bytes: int = 500
    entries_in_flight_max: int = 4  # raftkube only: a stock leader appends without a bound
    dump_file: bool = True  # stock only: `fullDumpFile` is set
    dump_s: float = 0.0  # stock only: how long its forked child writes a dump
    membership: bool = False  # stock only: `dynamicMembershipChange`
    tick_s: float = 0.05  # stock only: `autoTickPeriod`
    use_batch: bool = False  # stock only: `appendEntriesUseBatch`
    batch_bytes: int = 65_536  # stock only: `appendEntriesBatchSizeBytes`


@dataclass(slots=True)
class Observer:
    """Watches all members of a group: one leader a term, one entry an index."""

    violations: list[str] = field(default_factory=list)
    _entries: dict[int, bytes] = field(default_factory=dict)
    _leaders: dict[int, str] = field(default_factory=dict)

    def saw_entry(self, index: int, payload: bytes) -> None:
        """A member applied `payload` at `index`."""
        if self._entries.setdefault(index, payload) != payload:
            self.violations.append(f"two different entries were applied at index {index}")

    def saw_leader(self, name: str, term: int) -> None:
        """`name` leads `term`."""
        if self._leaders.setdefault(term, name) != name:
            self.violations.append(f"{name} and {self._leaders[term]} both lead term {term}")


class Group(Protocol):
    """A group under simulation. All names are members' names."""

    kind: Kind
    names: list[str]
    network: SimNetwork
    violations: list[str]

    def up(self) -> list[str]:
        """The members that run."""
        ...

    def starts(self, name: str) -> int:
        """How often the member's process was started."""
        ...

    def leaders(self) -> list[str]:
        """Those that believe they lead, of the highest term first."""
        ...

    def disk(self, name: str) -> SimDisk:
        """It outlives the member's process."""
        ...

    def operations(self, name: str) -> Sequence[bytes]:
        """What the state machine of `name` holds, in the order applied."""
        ...

    def applied_index(self, name: str) -> int: ...

    def commit_index(self, name: str) -> int: ...

    def last_index(self, name: str) -> int:
        """The end of the log."""
        ...

    def term(self, name: str) -> int: ...

    async def start(self, name: str) -> None:
        """On whatever its disk holds. Raises what the member raises if it cannot."""
        ...

    async def start_all(self) -> None: ...

    async def stop(self, name: str) -> None:
        """Graceful."""
        ...

    async def kill(self, name: str) -> None:
        """SIGKILL: the process ends, what it wrote stays."""
        ...

    async def crash(self, name: str, *, lose_all: bool = False) -> None:
        """Power loss: of what was not synced chance keeps some, or nothing (`lose_all`)."""
        ...

    def pause(self, name: str) -> None:
        """SIGSTOP: messages and time pass the member by."""
        ...

    def resume(self, name: str) -> None:
        """SIGCONT."""
        ...

    def compact(self, name: str) -> None:
        """Make a snapshot and cut the log soon."""
        ...

    async def propose_on(self, name: str, operation: bytes) -> int:
        """Propose at `name`; the log index once it is acknowledged. Raises StoreError, definite or not."""
        ...

    async def read_on(self, name: str) -> int:
        """Read at `name` as linearizably as this kind can; the applied index that the read saw.

        Raises StoreError: not now.
        """
        ...

    def failures(self) -> list[str]:
        """Errors inside members that should have none, in sentences."""
        ...


def make_group(kind: Kind, seed: int, nursery: trio.Nursery, options: GroupOptions) -> Group:
    """A group of that kind; nothing runs yet."""
    # Both import this module.
    from chaos.sim.guarded_group import GuardedGroup
    from chaos.sim.stock_group import StockGroup

    return StockGroup(seed, nursery, options) if kind == "stock" else GuardedGroup(seed, nursery, options)
