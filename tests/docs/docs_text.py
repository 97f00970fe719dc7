"""What the pages mention: links, commands, targets, paths, names. Everything in code marks counts."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
PAGES: Final = tuple(
    str(path.relative_to(ROOT))
    for path in (ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md")))
)
_FENCE: Final = re.compile(r"^```(?P<kind>\w*)\n(?P<body>.*?)^```$", re.M | re.S)
_SPAN: Final = re.compile(r"`([^`\n]+)`")
_LINK: Final = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)", re.S)
_END_OF_COMMAND: Final = frozenset(("&&", "||", "|", ";", "<<'EOF'", ">", "<", "#"))


@dataclass(frozen=True, slots=True)
class Page:
    """A page split into prose and code."""

    name: str
    text: str

    @property
    def prose(self) -> str:
        """Without fenced blocks."""
        return _FENCE.sub("", self.text)

    def fences(self, kind: str) -> list[str]:
        """The bodies of fenced blocks of a kind."""
        return [match["body"] for match in _FENCE.finditer(self.text) if match["kind"] == kind]

    @property
    def spans(self) -> list[str]:
        """Inline code."""
        return _SPAN.findall(self.prose)

    @property
    def links(self) -> list[str]:
        """Targets of links and images."""
        return _LINK.findall(self.prose)

    def command_lines(self) -> Iterator[list[str]]:
        """Words of every command: lines after `$ ` in console blocks, and inline code."""
        for body in self.fences("console"):
            for line in body.splitlines():
                if line.startswith("$ "):
                    yield from _commands(line[2:])
        for span in self.spans:
            yield from _commands(span)

    def after(self, mark: str) -> str:
        """What stands right below `<!-- mark -->`, up to the next blank line after it."""
        rest = self.text.split(f"<!-- {mark} -->\n")[1]
        return rest.split("\n\n")[0]


def page(name: str) -> Page:
    """One page by its path."""
    return Page(name, (ROOT / name).read_text())


def _commands(line: str) -> Iterator[list[str]]:
    """The simple commands of a line; inline code that is no command gives words too, told by the first."""
    try:
        words = shlex.split(line, comments=True)
    except ValueError:
        return
    part: list[str] = []
    for word in words:
        if word in _END_OF_COMMAND:
            yield part
            part = []
        else:
            part.append(word)
    yield part


def table_column(text: str, column: int) -> list[str]:
    """The cells of one column of a Markdown table, without code marks, header and rule left out."""
    rows = [line for line in text.splitlines() if line.startswith("|")][2:]
    return [re.split(r"(?<!\\)\|", row)[column + 1].strip().strip("`") for row in rows]
