"""What a checker says: valid, invalid with the first violations, or unknown."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

EXIT_CODES: Final = {"valid": 0, "invalid": 1, "unknown": 2}
VIOLATIONS_SHOWN: Final = 20
# Of one invariant: a flood of one kind hides no other, and needs no memory.
_KEPT_EACH: Final = 200


@dataclass(frozen=True, slots=True)
class Violation:
    """One broken promise. `invariant` is its name (S1, S2, W7, …); `sentence` tells what happened;
    `operations` are the history lines that show it."""

    invariant: str
    sentence: str
    operations: tuple[dict[str, Any], ...] = ()


@dataclass(slots=True)
class Verdict:
    """The result over one history. `checked` counts what was judged, by kind. Of each invariant the first
    200 violations are kept."""

    violations: list[Violation] = field(default_factory=list)
    checked: dict[str, int] = field(default_factory=dict)
    unknown_because: list[str] = field(default_factory=list)
    _added: dict[str, int] = field(default_factory=dict)

    @property
    def word(self) -> str:
        """valid, invalid or unknown; a violation outweighs a doubt."""
        if self.violations:
            return "invalid"
        return "unknown" if self.unknown_because else "valid"

    @property
    def exit_code(self) -> int:
        return EXIT_CODES[self.word]

    def add(self, invariant: str, sentence: str, *operations: dict[str, Any]) -> None:
        self._added[invariant] = self._added.get(invariant, 0) + 1
        if self._added[invariant] <= _KEPT_EACH:
            self.violations.append(Violation(invariant, sentence, operations))

    def count(self, what: str, number: int = 1) -> None:
        self.checked[what] = self.checked.get(what, 0) + number

    def first(self, most: int) -> list[Violation]:
        """The first violations, each invariant's first before the second of any: a flood hides nothing."""
        seen: set[str] = set()
        leading: list[Violation] = []
        others: list[Violation] = []
        for violation in self.violations:
            (others if violation.invariant in seen else leading).append(violation)
            seen.add(violation.invariant)
        return (leading + others)[:most]

    def by_invariant(self, names: Iterable[str]) -> dict[str, int]:
        """How often each of `names` was broken, as far as kept."""
        broken = dict.fromkeys(names, 0)
        for violation in self.violations:
            broken[violation.invariant] = broken.get(violation.invariant, 0) + 1
        return broken
