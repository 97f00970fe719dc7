"""Mutants: rules of the store and the control plane skipped one at a time.

A checker that never found a bug proves nothing.

They are patches from outside, switched on by name in the harness and in tests; raftkube does not know them.
What found each of them, and when, is told by docs/MUTANTS.md. Not here: the two defects that a cluster file
can ask a live member for (`raftkube.store.raft.mutants`).
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Final

from chaos.mutants import client, cluster, core, journal, leases, raft, restore, server
from chaos.mutants.mutant import Mutant, applied
from chaos.sim.plan import PlanError, World

__all__ = ["MUTANTS", "Mutant", "planted"]

_TABLES: Final = (raft, journal, core, restore, leases, server, client, cluster)

MUTANTS: Final[dict[str, Mutant]] = {mutant.name: mutant for table in _TABLES for mutant in table.MUTANTS}


def planted(name: str | None, world: World = "store") -> AbstractContextManager[None]:
    """The mutant is there while the context lasts; None: nothing is broken. Raises PlanError: no such."""
    known = [each.name for each in MUTANTS.values() if each.world == world]
    if name is not None and name not in known:
        raise PlanError(f"mutant: there is no {name!r} in the world {world}; there are {', '.join(known)}")
    return applied(MUTANTS[name] if name else None)
