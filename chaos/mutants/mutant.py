"""What a mutant is: one rule skipped, from outside, while a context lasts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from chaos.sim.plan import World
from raftkube.store.raft.guard import Guard

Wrap = Callable[[Any], Any]
Patch = tuple[Any, str, Wrap]


@dataclass(frozen=True, slots=True)
class Mutant:
    """Each patch is `(owner, name, wrap)`: `wrap(original)` takes the place of `owner.name`. Where two rules
    guard the same thing, both are skipped.

    `faults`: groups or names to which the search for it is narrowed. `load`, `settings`: likewise, what
    differs from a drawn plan's workload and settings. `doubt`: why it is believed not to show, if it did not.
    `world`: that it can be planted in.
    """

    name: str
    what: str
    patches: tuple[Patch, ...]
    faults: str = "all"
    load: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    doubt: str = ""
    world: World = "store"


@contextmanager
def applied(mutant: Mutant | None) -> Iterator[None]:
    """The mutant is there while the context lasts; None: nothing is broken."""
    with ExitStack() as stack:
        for owner, attribute, wrap in mutant.patches if mutant else ():
            stack.enter_context(_patched(owner, attribute, wrap))
        yield


@contextmanager
def _patched(owner: Any, attribute: str, wrap: Wrap) -> Iterator[None]:
    """The very object that stood there comes back, be it a function, a classmethod or a property."""
    held = vars(owner)[attribute]
    broken = wrap(held)
    handlers = dict(Guard._HANDLERS)
    setattr(owner, attribute, broken)
    for kind, handler in handlers.items():
        if handler is held:
            Guard._HANDLERS[kind] = broken
    try:
        yield
    finally:
        setattr(owner, attribute, held)
        Guard._HANDLERS.update(handlers)
