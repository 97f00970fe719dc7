"""Lint keeps time, chance, disk and network behind their doors; this shows that the rule has teeth."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    "line",
    [
        "import time",
        "import random",
        "import uuid",
        "import secrets",
        "import socket",
        "from os import urandom",
        "import os\n\nos.open('x', 0)",
        "import os\n\nos.fsync(0)",
        "import trio\n\ntrio.open_tcp_stream",
        "import datetime\n\ndatetime.datetime.now(datetime.UTC)",
    ],
)
def test_the_linter_refuses_a_way_around_the_doors(line: str) -> None:
    found = subprocess.run(
        [
            sys.executable,
            "-m",
            "ruff",
            "check",
            "--select",
            "TID251",
            "--stdin-filename",
            "raftkube/store/x.py",
            "-",
        ],
        input=line.encode(),
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    assert b"TID251" in found.stdout
