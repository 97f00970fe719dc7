"""Which code ran."""

from __future__ import annotations

import subprocess
from pathlib import Path


def commit_of_the_code() -> str:
    """The commit of the tree, with + if the tree differs from it; "unknown" outside of one."""
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--dirty=+", "--abbrev=12", "--exclude", "*"],
            cwd=Path(__file__).parent, capture_output=True, check=True,
        )  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return found.stdout.decode().strip()
