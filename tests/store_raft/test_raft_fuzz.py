"""Random faults from a seed: nothing acknowledged is lost, logs agree, one leader a term, all converge.

A failing seed prints the line that replays it (`python -m chaos.sim.fuzz ...`).
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
import trio

from chaos.sim.clock import run_simulation
from chaos.sim.fuzz import replay_line
from chaos.sim.fuzz_run import Outcome, run_seed
from chaos.sim.quiet import hush
from chaos.sim.raft_group import RaftGroup
from raftkube.store.raft.settings import RaftSettings

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    import logging

    hush()
    yield
    structlog.reset_defaults()
    logging.disable(logging.NOTSET)


def check(outcome: Outcome, duration_s: float) -> None:
    print(f"seed {outcome.seed}: {outcome.proposed} proposed, {outcome.acknowledged} acknowledged,"
          f" {outcome.reads} reads, faults {outcome.faults}")  # fmt: skip
    assert outcome.violations == {}, replay_line(outcome.seed, "raftkube", duration_s, "power")
    assert outcome.converged
    assert outcome.acknowledged > duration_s / 3  # the hardest seeds get little done, but something
    assert outcome.lost == outcome.unanswered == 0


@pytest.mark.parametrize("seed", range(16))
def test_fuzz(seed: int) -> None:
    check(run_seed(seed, "raftkube", duration_s=15.0), 15.0)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(1000, 1040))
def test_fuzz_for_a_minute(seed: int) -> None:
    check(run_seed(seed, "raftkube", duration_s=60.0), 60.0)


def test_stock_loses_writes_in_the_same_fuzz() -> None:
    """The harness has teeth: five seeds are enough for unguarded pysyncobj to lose what it acknowledged,
    without any fault of a disk, and to leave proposals without an answer."""
    outcomes = [run_seed(seed, "stock", duration_s=60.0, level="process") for seed in range(5)]
    assert sum(outcome.lost for outcome in outcomes) > 0
    assert sum(outcome.unanswered for outcome in outcomes) > 0
    assert any("stale read" in outcome.violations for outcome in outcomes)


def test_the_fuzzer_finds_missing_syncs() -> None:
    """Teeth: with fsync left out, a power loss of all loses acknowledged writes."""

    async def main(seed: int) -> int:
        async with trio.open_nursery() as nursery:
            group = RaftGroup(seed, nursery, settings=RaftSettings(mutant="skip-fsync"))
            await group.start_all()
            leader = await group.wait_leader()
            for number in range(10):
                await group.node(leader).propose(b"%d" % number)
            for name in group.names:
                await group.crash(name, lose_all=True)
            await group.start_all()
            await group.propose(b"after")
            lost = 10 - len(group.machine(await group.wait_leader()).operations) + 1
            nursery.cancel_scope.cancel()
        return lost

    assert run_simulation(1, main, 1) == 10


@pytest.mark.parametrize("kind", ["stock", "raftkube"])
def test_one_seed_one_trace(kind: str) -> None:
    """In processes with different hash seeds; another seed gives another trace."""

    def trace(seed: int, hash_seed: int) -> str:
        return subprocess.run(
            [sys.executable, "-m", "chaos.sim.fuzz", "--group", kind, "--seeds", f"{seed}:{seed + 1}",
             "--duration", "8"],
            env={"PYTHONHASHSEED": str(hash_seed), "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        ).stdout.split(" trace ")[1].split()[0]  # fmt: skip

    assert trace(5, 1) == trace(5, 2)
    assert trace(5, 1) != trace(6, 1)
