"""The length ratchet: files and functions stay short; what is longer is listed and may only shrink."""

from __future__ import annotations

import ast
import statistics
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("raftkube", "chaos", "bench")

FILE_LINES_MAX = 450
FUNCTION_LINES_MAX = 60
FUNCTION_MEDIAN_MAX = 10

# path or path:function -> lines allowed today. Shrink a number when you shorten its entry; add none.
FILES_ALLOWED: dict[str, int] = {}
FUNCTIONS_ALLOWED: dict[str, int] = {}


def sources() -> Iterator[Path]:
    for package in PACKAGES:
        yield from sorted((ROOT / package).rglob("*.py"))


def functions(path: Path) -> Iterator[tuple[str, int]]:
    """Name and length in lines of every function, docstrings included, nested ones counted once more."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, (node.end_lineno or node.lineno) - node.lineno + 1


def test_files_stay_short() -> None:
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in sources()}
    too_long = {name: n for name, n in lengths.items() if n > FILES_ALLOWED.get(name, FILE_LINES_MAX)}
    assert too_long == {}
    stale = {name: allowed for name, allowed in FILES_ALLOWED.items() if lengths.get(name, 0) < allowed}
    assert stale == {}, "shorter now: lower the ratchet"


def test_functions_stay_short() -> None:
    found: dict[str, int] = {}
    for path in sources():
        for name, lines in functions(path):
            key = f"{path.relative_to(ROOT)}:{name}"
            found[key] = max(found.get(key, 0), lines)
    too_long = {key: n for key, n in found.items() if n > FUNCTIONS_ALLOWED.get(key, FUNCTION_LINES_MAX)}
    assert too_long == {}
    stale = {key: allowed for key, allowed in FUNCTIONS_ALLOWED.items() if found.get(key, 0) < allowed}
    assert stale == {}, "shorter now: lower the ratchet"


def test_the_median_function_is_small() -> None:
    lengths = [lines for path in sources() for _, lines in functions(path)]
    assert statistics.median(lengths) <= FUNCTION_MEDIAN_MAX
