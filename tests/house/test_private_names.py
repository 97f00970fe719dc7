"""Private names of pysyncobj are touched in one module of the product and in one of the simulation; those of
trio in one of the simulation only."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
ALLOWED = {"raftkube/store/raft/private.py", "chaos/sim/stock_private.py"}
PRIVATE = re.compile(r"_SyncObj__|_Serializer__|_FastQueue__|_FileJournal__|import pysyncobj\.\w+ as")


TRIO_ALLOWED = {"chaos/sim/trio_private.py"}
TRIO = re.compile(r"trio\._|import trio\._\w+")


def test_trio_s_private_names_stay_in_one_module() -> None:
    found = {
        str(path.relative_to(ROOT))
        for package in ("raftkube", "chaos", "bench")
        for path in (ROOT / package).rglob("*.py")
        if TRIO.search(path.read_text())
    }
    assert found == TRIO_ALLOWED


def test_private_names_stay_in_their_modules() -> None:
    found = {
        str(path.relative_to(ROOT))
        for package in ("raftkube", "chaos", "bench")
        for path in (ROOT / package).rglob("*.py")
        if PRIVATE.search(path.read_text())
    }
    assert found == ALLOWED
