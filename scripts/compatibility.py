"""Writes the table of docs/COMPATIBILITY.md from what the API server serves.

Run it after a kind was added or changed; a test holds the table equal to this.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from raftkube.api.registry import RESOURCES
from raftkube.api.resource import ALL_VERBS, Resource
from raftkube.apiserver.router import _HANDLERS  # what is answered, not only what is announced

PAGE: Final = Path(__file__).resolve().parents[1] / "docs" / "COMPATIBILITY.md"
BEGIN: Final = "<!-- begin of the generated table -->\n"
END: Final = "<!-- end of the generated table -->\n"


def _verbs(verbs: Iterable[str]) -> str:
    served = set(verbs)
    return "all" if served == set(ALL_VERBS) else ", ".join(sorted(served))


def _without(resource: Resource) -> str:
    missing = sorted(set(ALL_VERBS) - set(resource.verbs))
    return f"all but {', '.join(missing)}" if 0 < len(missing) < 4 else _verbs(resource.verbs)


def _subresources(resource: Resource) -> str:
    shown = []
    for sub in resource.subresources:
        verbs = [verb for verb in sub.verbs if (sub.name, verb) in _HANDLERS]
        if verbs:
            shown.append(f"`{sub.name}` ({_verbs(verbs)})")
    return ", ".join(shown) or "–"


def table() -> str:
    """A row for each kind, in the order of the registry."""
    rows = ["| apiVersion | kind | short | scope | verbs | subresources |", "|---|---|---|---|---|---|"]
    for resource in RESOURCES:
        scope = "namespace" if resource.namespaced else "cluster"
        short = ", ".join(resource.short_names) or "–"
        rows.append(
            f"| {resource.api_version} | {resource.kind} | {short} | {scope} | {_without(resource)} "
            f"| {_subresources(resource)} |"
        )
    return "\n".join(rows) + "\n"


def with_table(page: str) -> str:
    """`page` with the table of now between its two marks."""
    before, rest = page.split(BEGIN)
    after = rest.split(END)[1]
    return f"{before}{BEGIN}{table()}{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text()))
