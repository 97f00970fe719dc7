"""`raftkube kv member` against real processes with TLS: a lost disk is replaced, a removed member ends."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from store_processes import RAFTKUBE, StoreProcesses, store_processes, wait_until

_COLUMNS = ["ID", "NAME", "PEER", "ADDRESS", "CLIENT", "ADDRESS", "LEARNER", "VOTER", "LEADER"]


def ok(done: subprocess.CompletedProcess[bytes]) -> str:
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


def members(stores: StoreProcesses) -> dict[str, dict[str, Any]]:
    listed = json.loads(ok(stores.kv("member", "list", "-w", "json")))["members"]
    return {each["name"]: each for each in listed}


def start_existing(stores: StoreProcesses, name: str) -> None:
    others = ",".join(f"{n}=127.0.0.1:{p}" for n, p in stores.client_ports.items() if n != name)
    flags = [*stores.flags(name), "--initial-cluster-state", "existing", "--initial-client-urls", others]
    with (stores.directory / f"{name}.log").open("ab") as log:
        stores.processes[name] = subprocess.Popen(
            [*RAFTKUBE, *flags], stdout=log, stderr=log, stdin=subprocess.DEVNULL
        )


def removed(stores: StoreProcesses, member: str) -> bytes:
    """What the removal says; it is refused until the leader hears from enough of the others again."""
    said: list[bytes] = []

    def accepted() -> bool:
        done = stores.kv("member", "remove", member, "-w", "json")
        said.append(done.stdout)
        return done.returncode == 0

    wait_until(accepted)
    return said[-1]


@pytest.mark.long
def test_a_lost_disk_is_replaced_and_a_removed_member_ends(tmp_path: Path) -> None:
    with store_processes(tmp_path, tls=True) as stores:
        ok(stores.kv("put", "k", "v"))
        stores.kill("store-2")
        shutil.rmtree(tmp_path / "store-2.data")
        stores.start("store-2")  # as if nothing had happened
        assert stores.processes["store-2"].wait(timeout=30) == 3
        assert "raftkube kv member replace store-2" in stores.log_of("store-2")
        shutil.rmtree(tmp_path / "store-2.data")
        start_existing(stores, "store-2")
        at = f"127.0.0.1:{stores.client_ports['store-2']}"
        said = ok(stores.kv("member", "replace", "store-2", "--client-address", at))
        assert said.startswith("removed store-2, added store-2#")
        assert "--initial-cluster-state existing" in said
        wait_until(lambda: members(stores)["store-2"]["voter"], seconds=40)
        assert members(stores)["store-2"]["client_address"] == at
        stores.kill("store-1")
        ok(stores.kv("put", "k", "with the new one"))
        stores.start("store-1")

        table = ok(stores.kv("member", "list", "-w", "table")).splitlines()
        assert table[0].split() == _COLUMNS
        id_ = members(stores)["store-2"]["id"]
        assert json.loads(removed(stores, id_)) == {"id": id_}
        assert stores.processes["store-2"].wait(timeout=30) == 3
        assert f"{id_} was removed from the cluster" in stores.log_of("store-2")
        assert sorted(members(stores)) == ["store-1", "store-3"]

        assert ok(stores.kv("member", "add", "new", "--peer-address", "127.0.0.1:1", "--learner")).startswith(
            "added new#"
        )
        assert ok(stores.kv("member", "update", "new", "--peer-address", "127.0.0.1:2")).endswith("moved\n")
        assert members(stores)["new"]["peer_address"] == "127.0.0.1:2"
        for arguments, code, sentence in (
            (("promote", "new"), 1, "does not answer the leader"),
            (("remove", "nobody"), 1, "there is no member 'nobody'"),
            (("add", "x"), 2, "--peer-address is missing"),
            (("update", "new"), 2, "--peer-address or --client-address is missing"),
            (("replace", "nobody"), 2, "there is no member 'nobody'; add it"),
        ):
            done = stores.kv("member", *arguments)
            assert (done.returncode, sentence in done.stderr.decode()) == (code, True), done.stderr
