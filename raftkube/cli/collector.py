"""The cycle collector of a process that holds a large state.

The state is made of millions of small tuples without cycles that live long. A full collection walks them
all, 0.1 to 0.2 s for 200,000 keys, and finds nothing; so does a middle one whose youth was large. Hence:
small youths, no full collection, and what has survived a middle one is moved out of the collector's sight
(`gc.freeze`, which takes no time). What is dropped still goes by reference counts; only a cycle that became
garbage after it was frozen stays, and what makes cycles here (a connection's tasks, an exception's frames)
lives mostly shorter than that.
"""

from __future__ import annotations

import gc
from typing import Final

# So many more containers than were freed since, and the young ones are looked at: under a millisecond.
_YOUNG: Final = 5_000
_YOUTHS: Final = 5  # then those that survived, too: some three milliseconds
_NEVER: Final = 1_000_000_000


def tune_collector() -> None:
    """Set this process up so; what was imported so far lives for ever."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, _YOUTHS, _NEVER)
    if _freeze_survivors not in gc.callbacks:
        gc.callbacks.append(_freeze_survivors)


def _freeze_survivors(phase: str, info: dict[str, int]) -> None:
    if phase == "stop" and info["generation"] >= 1:
        gc.freeze()
