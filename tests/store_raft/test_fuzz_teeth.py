"""The fuzz finds what is planted: one rule of guard, journal or reads skipped at a time (`chaos/mutants`).

Not in the table, for the fuzz finds them too rarely; scenarios and single messages show what each is for
(`tests/defects`, `test_guard.py`, `test_read_index.py`): truncate-always, commit-unverified, vouch-for-all,
any-term-acknowledges, vote-in-memory, count-every-vote, rounds-from-zero.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
import structlog

from chaos.mutants import MUTANTS
from chaos.sim.fuzz_run import run_seed
from chaos.sim.quiet import hush

# break -> (seeds tried at most, kinds of violation of which one shows)
FOUND = {
    "read-without-round": (16, {"stale read"}),
    "read-before-first-commit": (16, {"stale read"}),
    "send-before-sync": (40, {"copies", "lost write"}),
    "vote-for-anyone": (40, {"not converged", "internal error", "copies", "lost write"}),
    "success-at-step-down": (6, {"lost write"}),
    "no-sync": (4, {"lost write", "cannot start"}),
    "snapshot-unsynced": (6, {"cannot start"}),
    "forget-the-last": (6, {"lost write", "cannot start"}),
}


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    hush()
    yield
    structlog.reset_defaults()
    logging.disable(logging.NOTSET)


@pytest.mark.long
@pytest.mark.parametrize("name", FOUND)
def test_a_planted_break_is_found(name: str) -> None:
    seeds, kinds = FOUND[name]
    for seed in range(seeds):
        outcome = run_seed(seed, "raftkube", duration_s=30.0, broken=name)
        if kinds & set(outcome.violations):
            print(f"{name}: seed {seed}: {outcome.violations}")
            return
    pytest.fail(f"{name} ({MUTANTS[name].what}) was not found in {seeds} seeds")
