"""Console examples in Markdown, as data: commands with the output that a page shows for them.

A block is run if an HTML comment stands right above it: `<!-- test: full -->` (the session's cluster) or
`<!-- test: store-only -->` (it starts a cluster of its own). `$ ` begins a command, `> ` goes on with it.
Shown output is compared loosely: `...` in a line stands for any text, `...` alone for any lines; spacing,
ages, the random parts of names, ports and other long numbers do not matter. Without shown output only the
exit code, 0, does.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
_BLOCK: Final = re.compile(r"^<!-- test: (?P<where>[a-z-]+) -->\n```console\n(?P<body>.*?)^```$", re.M | re.S)
_KILLED: Final = re.compile(r"^(\S+) was killed$", re.M)
_SAME: Final = (
    (re.compile(r"\b([a-z]+)-[0-9a-f]{8,10}-[a-z0-9]{5}\b"), r"\1-pod"),
    (re.compile(r"\b[0-9a-f]{16}\b"), "<lease>"),
    (re.compile(r"\b(?:\d+[smhd])+\b"), "<age>"),
    (re.compile(r"\b\d{4,}\b"), "<number>"),
    (re.compile(r"[ \t]+"), " "),
)


@dataclass(frozen=True, slots=True)
class Example:
    """One command and what a page shows for it."""

    command: str
    shown: str


@dataclass(frozen=True, slots=True)
class Block:
    """A console block of a page; `where` is the word of its mark."""

    page: str
    line: int
    where: str
    examples: tuple[Example, ...]


def pages() -> list[Path]:
    """Every page for readers."""
    return [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks() -> list[Block]:
    """Every marked block of every page."""
    found = []
    for page in pages():
        text = page.read_text()
        for match in _BLOCK.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            name = str(page.relative_to(ROOT))
            found.append(Block(name, line, match["where"], tuple(_examples(match["body"]))))
    return found


def _examples(body: str) -> list[Example]:
    examples = []
    for part in re.split(r"^\$ ", body, flags=re.M)[1:]:
        lines = part.splitlines()
        more = 1
        while more < len(lines) and re.match(r">( |$)", lines[more]):
            more += 1
        command = "\n".join([lines[0], *(line[2:] for line in lines[1:more])])
        examples.append(Example(command, "\n".join(lines[more:])))
    return examples


def fits(shown: str, actual: str) -> bool:
    """Whether a command's real output is what a page shows."""
    if not _plain(shown):
        return True
    pattern = ""
    for line in _plain(shown).splitlines():
        if line == "...":
            pattern += r"(?:.*\n)*?"
        else:
            pattern += ".*".join(re.escape(part.strip()) for part in line.split("...")) + r"\n"
    return re.fullmatch(pattern, _plain(actual)) is not None


def _plain(text: str) -> str:
    for pattern, replacement in _SAME:
        text = pattern.sub(replacement, text)
    return "".join(f"{line.strip()}\n" for line in text.splitlines() if line.strip())


class Names:
    """Which component was killed is chance: the page's name stands for the real one from then on."""

    def __init__(self) -> None:
        self._real: dict[str, str] = {}

    def learn(self, shown: str, actual: str) -> None:
        """From `store-2 was killed` on the page and what was really said."""
        pairs = zip(_KILLED.findall(shown), _KILLED.findall(actual), strict=False)
        self._real.update((page, real) for page, real in pairs if _kind(page) == _kind(real))

    def in_text(self, text: str) -> str:
        """`text` of the page with the real names."""
        swap = self._real | {real: page for page, real in self._real.items() if real not in self._real}
        return re.sub(r"[a-z-]+-\d+", lambda match: swap.get(match[0], match[0]), text)


def _kind(component: str) -> str:
    return component.rpartition("-")[0]
