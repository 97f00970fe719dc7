"""The lock files hold every direct dependency, pinned and with hashes, build tools included."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]


def locked(name: str) -> dict[str, str]:
    """Project -> its block of the lock file."""
    blocks = re.split(r"^(?=[a-z0-9])", (ROOT / name).read_text(), flags=re.MULTILINE | re.IGNORECASE)
    return {block.split("==")[0].lower(): block for block in blocks if "==" in block}


def names(requirements: list[str]) -> set[str]:
    return {re.split(r"[=<>\[]", requirement)[0].lower() for requirement in requirements} - {"raftkube"}


def test_every_dependency_is_pinned_with_hashes() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = names(project["project"]["dependencies"]) | names(project["build-system"]["requires"])
    runtime = locked("requirements.lock")
    assert wanted <= set(runtime)
    extras = names([line for extra in project["project"]["optional-dependencies"].values() for line in extra])
    development = locked("requirements-dev.lock")
    assert wanted | extras <= set(development)
    for block in [*runtime.values(), *development.values()]:
        assert "--hash=sha256:" in block
    for name, block in runtime.items():
        assert development[name].splitlines()[0] == block.splitlines()[0], "one version in both lock files"
