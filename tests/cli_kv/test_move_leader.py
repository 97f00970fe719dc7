"""`raftkube kv move-leader`: leadership goes where the operator says, and only operators say."""

from __future__ import annotations

import json
from pathlib import Path

from store_processes import NAMES, store_processes


def test_move_leader(tmp_path: Path) -> None:
    with store_processes(tmp_path, tls=True) as stores:
        assert stores.kv("put", "m/a", "1", certificate="client").returncode == 0
        for target in NAMES:
            moved = stores.kv("move-leader", target)
            assert (moved.stdout, moved.stderr) == (f"{target} leads\n".encode(), b"")
        rows = json.loads(stores.kv("status", "-w", "json").stdout)
        assert [row["name"] for row in rows if row["role"] == "leader"] == [NAMES[-1]]
        assert json.loads(stores.kv("move-leader", "-w", "json").stdout)["leader"] in NAMES[:2]
        unknown = stores.kv("move-leader", "store-9")
        assert unknown.returncode != 0
        assert b"'store-9' is no other voting member" in unknown.stderr
        refused = stores.kv("move-leader", certificate="client")
        assert refused.returncode != 0
        assert b"O=raftkube:store-admin" in refused.stderr
        assert stores.kv("put", "m/a", "2", certificate="client").returncode == 0
