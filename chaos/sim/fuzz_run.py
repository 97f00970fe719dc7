"""One seed of the fuzz: clients that propose and read, a nemesis, quiet, and then what is left is judged.

Safety first, while faults go on; then they stop, and the group has a bounded time to come together.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

import trio

from chaos.mutants import planted
from chaos.sim.clock import run_simulation
from chaos.sim.fuzz_faults import INJECTED, Level, Nemesis
from chaos.sim.groups import Group, GroupOptions, Kind, make_group
from raftkube.errors import StoreError
from raftkube.rng import seeded_rng

CLIENTS: Final = 6
PATIENCE_S: Final = 2.0  # then a client goes on; the proposal may still be answered
QUIET_S: Final = 12.0  # longer than any member may take to answer
WATCH_S: Final = 0.02
CONVERGE_S: Final = 60.0


@dataclass(slots=True)
class Proposal:
    """`answer` is "acknowledged", "refused" (definite), "unknown" or, so far, nothing."""

    operation: bytes
    member: str
    life: int
    answer: str | None = None
    index: int = 0


@dataclass(slots=True)
class Outcome:
    """What one seed showed. `violations`: kind -> the first in a sentence."""

    seed: int
    proposed: int = 0
    acknowledged: int = 0
    refused: int = 0
    unknown: int = 0
    unanswered: int = 0
    died: int = 0  # the member's process ended with the proposal; its client saw the connection break
    reads: int = 0
    lost: int = 0
    converged: bool = False
    simulated_s: float = 0.0
    trace: str = ""
    faults: dict[str, int] = field(default_factory=dict)
    violations: dict[str, str] = field(default_factory=dict)

    def violate(self, kind: str, sentence: str) -> None:
        """Keep the first of each kind."""
        self.violations.setdefault(kind, sentence)


def options_for(seed: int) -> GroupOptions:
    """Size, delays and stock's batching differ from seed to seed."""
    rng = seeded_rng(f"options-{seed}")
    return GroupOptions(
        size=5 if seed % 4 == 3 else 3,
        delay_s=rng.choice([(0.0002, 0.002), (0.0002, 0.002), (0.001, 0.04), (0.02, 0.12)]),
        heartbeat_s=rng.choice([0.1, 0.1, 0.03]),
        use_batch=rng.random() < 0.5,
        batch_bytes=rng.choice([1500, 65_536]),
    )


class Fuzz:
    """The clients of one run, and what they were told."""

    def __init__(self, seed: int, group: Group, level: Level) -> None:
        self.group, self.rng = group, seeded_rng(f"fuzz-{seed}")
        self.outcome = Outcome(seed)
        self.proposals: list[Proposal] = []
        self.nemesis = Nemesis(group, seeded_rng(f"nemesis-{seed}"), level, self.probe)
        self._acknowledged_up_to = 0
        self._waiters: trio.Nursery | None = None

    async def run(self, duration_s: float) -> None:
        """Faults and load for `duration_s`, then peace, then the verdict."""
        async with trio.open_nursery() as self._waiters:
            with trio.move_on_after(duration_s):
                async with trio.open_nursery() as actors:
                    for number in range(CLIENTS):
                        actors.start_soon(self._client, number)
                    actors.start_soon(self._watch_copies)
                    for trouble in ("run", "pauses", "breaks", "stragglers", "compactions", "writeback"):
                        actors.start_soon(getattr(self.nemesis, trouble))
            await self._peace()
            await self._converge()
            await trio.sleep(QUIET_S)
            self._judge()
            self._waiters.cancel_scope.cancel()

    # Clients.

    async def _client(self, number: int) -> None:
        for count in range(1 << 30):
            await trio.sleep(self.rng.uniform(0.0, 0.25))
            running = self.group.up()
            if not running:
                continue
            if self.rng.random() < 0.2:
                await self.probe(self.rng.choice(running))
            leaders = self.group.leaders()
            name = self.rng.choice(leaders if leaders and self.rng.random() < 0.6 else running)
            with trio.move_on_after(PATIENCE_S):
                await self._propose(name, b"%d-%d" % (number, count))

    async def _propose(self, name: str, operation: bytes) -> Proposal:
        """Propose, and wait; the answer is noted even if nobody waits any more."""
        proposal = Proposal(operation, name, self.group.starts(name))
        self.proposals.append(proposal)
        answered = trio.Event()
        assert self._waiters is not None
        self._waiters.start_soon(self._answer, proposal, answered)
        await answered.wait()
        return proposal

    async def _answer(self, proposal: Proposal, answered: trio.Event) -> None:
        try:
            proposal.index = await self.group.propose_on(proposal.member, proposal.operation)
            proposal.answer = "acknowledged"
            self._acknowledged_up_to = max(self._acknowledged_up_to, proposal.index)
        except StoreError as error:
            proposal.answer = "refused" if error.definite else "unknown"
        answered.set()

    async def probe(self, name: str) -> None:
        """A read that nobody waits for; it must see what was acknowledged before it began."""
        assert self._waiters is not None
        self._waiters.start_soon(self._read, name)
        await trio.lowlevel.checkpoint()

    async def _read(self, name: str) -> None:
        if name not in self.group.up():
            return
        needed = self._acknowledged_up_to
        try:
            seen = await self.group.read_on(name)
        except StoreError:
            return
        self.outcome.reads += 1
        if seen < needed:
            self.outcome.violate(
                "stale read", f"at {trio.current_time():.3f} s a read on {name} saw entry {seen} of {needed}"
            )

    async def _watch_copies(self) -> None:
        """At every moment a majority has what was acknowledged in its log (members that are down have what
        they had). Until cancelled."""
        names = self.group.names
        while True:
            await trio.sleep(WATCH_S)
            up, needed = self.group.up(), self._acknowledged_up_to
            short = [name for name in up if self.group.last_index(name) < needed]
            if 2 * len(short) >= len(names):
                self.outcome.violate(
                    "copies",
                    f"at {trio.current_time():.3f} s entry {needed}, acknowledged, is missing on {short}",
                )

    # The end.

    async def _peace(self) -> None:
        self.group.network.heal()
        for name in self.group.up():
            self.group.resume(name)
        for name in self.group.names:
            self.group.disk(name).before = lambda step: None
        await self.nemesis.restart()

    async def _converge(self) -> None:
        with trio.move_on_after(CONVERGE_S):
            await self._final_write()
            for _ in range(int(CONVERGE_S / 0.1)):
                if self._together():
                    self.outcome.converged = True
                    return
                await trio.sleep(0.1)

    async def _final_write(self) -> None:
        """A write succeeds, so that what came before it is decided."""
        for attempt in range(1000):
            for name in self.group.leaders()[:1]:
                with trio.move_on_after(PATIENCE_S):
                    if (await self._propose(name, b"final-%d" % attempt)).answer == "acknowledged":
                        return
            await trio.sleep(0.1)

    def _together(self) -> bool:
        group = self.group
        if len(group.up()) < len(group.names):
            return False
        logs = [group.operations(name) for name in group.names]
        return len({group.applied_index(name) for name in group.names}) == 1 and all(
            log == logs[0] for log in logs
        )

    def _judge(self) -> None:
        group, outcome = self.group, self.outcome
        running = group.up()
        reference = max(running, key=group.applied_index) if running else "nobody"
        log = list(group.operations(reference)) if running else []
        self._judge_answers(Counter(log), reference)
        for name in running:
            held = list(group.operations(name))
            if held != log[: len(held)]:
                outcome.violate("divergence", f"{name} holds another history than {reference}")
        for sentence in group.violations:
            outcome.violate("two leaders" if "both lead" in sentence else "two entries", sentence)
        for sentence in self.nemesis.cannot_start:
            if INJECTED not in sentence:
                outcome.violate("cannot start", sentence)
        for sentence in group.failures():
            if INJECTED not in sentence:
                outcome.violate("internal error", sentence)
        if not outcome.converged:
            outcome.violate("not converged", f"members differ {CONVERGE_S:.0f} s after the last fault")
        outcome.faults = self.nemesis.faults
        outcome.simulated_s = trio.current_time()
        outcome.trace = group.network.trace_hash

    def _judge_answers(self, applied: Counter[bytes], reference: str) -> None:
        outcome = self.outcome
        outcome.proposed = len(self.proposals)
        for proposal in self.proposals:
            text = f"{proposal.operation.decode()} at {proposal.member}"
            times = applied[proposal.operation]
            if times > 1:
                outcome.violate("applied twice", f"{text}: {times} times on {reference}")
            if proposal.answer == "acknowledged":
                outcome.acknowledged += 1
                if not times:
                    outcome.lost += 1
                    outcome.violate("lost write", f"{text} was acknowledged at entry {proposal.index}")
            elif proposal.answer == "refused":
                outcome.refused += 1
                if times:
                    outcome.violate("refused but applied", text)
            elif proposal.answer == "unknown":
                outcome.unknown += 1
            elif (
                self.group.starts(proposal.member) != proposal.life or proposal.member not in self.group.up()
            ):
                outcome.died += 1
            else:
                outcome.unanswered += 1
                outcome.violate("unanswered", f"{text} never got any answer")


async def _run(seed: int, kind: Kind, duration_s: float, level: Level) -> Outcome:
    async with trio.open_nursery() as nursery:
        group = make_group(kind, seed, nursery, options_for(seed))
        await group.start_all()
        fuzz = Fuzz(seed, group, level)
        await fuzz.run(duration_s)
        nursery.cancel_scope.cancel()
    return fuzz.outcome


def run_seed(
    seed: int, kind: Kind, *, duration_s: float, level: Level = "power", broken: str | None = None
) -> Outcome:
    """One seed from start to verdict, in virtual time; the same seed gives the same outcome and trace.

    `broken` names a rule that raftkube skips (`breaks`).
    """
    with planted(broken):
        return run_simulation(seed, _run, seed, kind, duration_s, level)


def describe(outcome: Outcome) -> dict[str, Any]:
    """As JSON."""
    return {name: getattr(outcome, name) for name in Outcome.__slots__}
