"""`raftkube kv snapshot` with real processes: saved under load, restored to a new cluster, damaged files."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from store_processes import NAMES, StoreProcesses, raftkube, store_processes, wait_until

from raftkube.clock import SystemClock
from raftkube.cluster.certificates import STORE_CLIENT, Authority

pytestmark = pytest.mark.long

BUMP = 1_000_000_000


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreProcesses]:
    with store_processes(tmp_path_factory.mktemp("old"), tls=True) as stores:
        for number in range(5):
            assert stores.kv("put", f"/before/{number}", f"value {number}").returncode == 0
        yield stores


@pytest.fixture(scope="module")
def saved(stores: StoreProcesses, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A backup that was taken while somebody wrote; it holds at least what was written before."""
    file, stop = tmp_path_factory.mktemp("backup") / "store.backup", threading.Event()

    def write() -> None:
        number = 0
        while not stop.is_set():
            stores.kv("put", "/load", str(number))
            number += 1

    lease = stores.kv("lease", "grant", "3600").stdout.split()[1].decode()
    assert stores.kv("put", "/leased", "x", "--lease", lease).returncode == 0
    writer = threading.Thread(target=write)
    writer.start()
    try:
        done = stores.kv("snapshot", "save", str(file))
    finally:
        stop.set()
        writer.join()
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"saved at" in done.stdout
    assert [each.name for each in file.parent.iterdir()] == ["store.backup"]
    return file


def status_of(file: Path) -> dict[str, object]:
    done = raftkube("kv", "snapshot", "status", str(file), "-w", "json")
    assert done.returncode == 0, done.stderr
    found: dict[str, object] = json.loads(done.stdout)
    return found


def restore(file: Path, data_dir: Path, name: str, peers: str, *more: str) -> tuple[int, str]:
    done = raftkube(
        "kv", "snapshot", "restore", str(file), "--name", name, "--initial-cluster", peers,
        "--data-dir", str(data_dir), *more,
    )  # fmt: skip
    return done.returncode, done.stderr.decode()


def test_status_tells_what_a_backup_holds(saved: Path) -> None:
    found = status_of(saved)
    assert found["total_bytes"] == saved.stat().st_size
    assert isinstance(found["revision"], int)
    assert found["revision"] >= 7
    assert found["total_keys"] in (6, 7)  # "/load" may have come later
    assert len(str(found["sha256"])) == 64
    assert found["member"] in NAMES
    table = raftkube("kv", "snapshot", "status", str(saved), "-w", "table").stdout.decode()
    assert "TOTAL KEYS" in table
    assert str(found["sha256"]) in table


def test_only_an_operator_may_take_one(stores: StoreProcesses, tmp_path: Path) -> None:
    authority = Authority.load(stores.directory, "ca", SystemClock())
    authority.issue("apiserver", organizations=(STORE_CLIENT,)).write(stores.directory, "apiserver")
    done = stores.kv("snapshot", "save", str(tmp_path / "x"), certificate="apiserver")
    assert done.returncode == 1
    assert b"store-admin" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_damaged_files_are_refused_in_a_sentence_and_nothing_is_written(saved: Path, tmp_path: Path) -> None:
    whole = saved.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    for content, said in (
        (whole[:-40], "cut off"), (bytes(flipped), ""), (b"not a backup at all\n" * 9, "not a backup"),
        (b"", "cut off"),
    ):  # fmt: skip
        file = tmp_path / "bad"
        file.write_bytes(content)
        code, error = restore(file, tmp_path / "data", "a", "a=127.0.0.1:1")
        assert code == 1
        assert error.startswith("raftkube: ")
        assert error.count("\n") == 1
        assert said in error
        assert not (tmp_path / "data").exists()
        checked = raftkube("kv", "snapshot", "status", str(file))
        assert (checked.returncode, checked.stderr.count(b"\n")) == (1, 1)


def test_a_directory_in_use_and_a_stranger_are_refused(saved: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "something").touch()
    code, error = restore(saved, tmp_path / "data", "a", "a=127.0.0.1:1")
    assert code == 2
    assert "not empty" in error
    code, error = restore(saved, tmp_path / "new", "b", "a=127.0.0.1:1")
    assert code == 2
    assert "--initial-cluster" in error
    assert not (tmp_path / "new").exists()
    missing = raftkube("kv", "snapshot", "status", str(tmp_path / "none"))
    assert missing.returncode == 2


def test_a_new_cluster_holds_everything_and_no_past(
    stores: StoreProcesses, saved: Path, tmp_path: Path
) -> None:
    new = StoreProcesses(tmp_path, tls=True)
    peers = ",".join(f"{name}=127.0.0.1:{port}" for name, port in new.peer_ports.items())
    old = status_of(saved)
    for name in NAMES:
        code, error = restore(saved, tmp_path / f"{name}.data", name, peers)
        assert code == 0, error
    new.start()
    try:
        revision = int(str(old["revision"])) + BUMP
        got = json.loads(new.kv("get", "/", "--prefix", "-w", "json").stdout)
        assert len(got["kvs"]) == old["total_keys"]
        assert new.kv("get", "/before/3", "--print-value-only").stdout == b"value 3\n"
        leases = new.kv("lease", "list").stdout.decode().split()
        assert len([word for word in leases if word.isalnum()]) >= 1
        assert new.kv("put", "/after", "x").returncode == 0
        put = json.loads(new.kv("put", "/after", "y", "-w", "json").stdout)
        assert put["header"]["revision"] == revision + 2
        watch = new.kv("watch", "/before/", "--prefix", "--rev", str(old["revision"]))
        assert watch.returncode == 1
        assert b"compact" in watch.stderr

        def rows() -> list[dict[str, object]]:
            shown = new.kv("status", "--hash", "-w", "json")
            found: list[dict[str, object]] = json.loads(shown.stdout or b"[]")
            return found

        wait_until(lambda: len({row.get("hash") for row in rows()}) == 1)
        assert {row["cluster_id"] for row in rows()}.isdisjoint({old["cluster_id"]})
        new.kill(NAMES[0])
        new.start(NAMES[0])
        assert new.kv("get", "/after", "--print-value-only").stdout == b"y\n"
    finally:
        new.kill(*new.processes)


def test_a_backup_without_a_majority(stores: StoreProcesses, saved: Path, tmp_path: Path) -> None:
    """Last, for it kills two of the old cluster's members."""
    stores.kill(NAMES[0], NAMES[1])
    alone = ("--endpoints", f"127.0.0.1:{stores.client_ports[NAMES[2]]}")
    file = tmp_path / "alone"
    refused = stores.kv("snapshot", "save", str(file), *alone, "--command-timeout", "8")
    assert refused.returncode == 1
    assert list(tmp_path.iterdir()) == []
    done = stores.kv("snapshot", "save", str(file), "--consistency", "s", *alone)
    assert done.returncode == 0, done.stderr
    assert int(str(status_of(file)["revision"])) >= int(str(status_of(saved)["revision"]))
