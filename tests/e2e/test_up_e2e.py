"""`raftkube up` and its verbs: what they say, what they refuse, what they leave behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Cluster, wait_until

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]
STORE_ONLY = (ROOT / "cluster_configs" / "store-only.yaml").read_text()


def test_a_store_alone_goes_on_without_its_leader(tmp_path: Path) -> None:
    store = Cluster(tmp_path, STORE_ONLY)
    told = store.raftkube(
        "up", "--config", str(ROOT / "cluster_configs" / "store-only.yaml"), "--detach", timeout_s=180
    ).stderr
    try:
        assert "raftkube kv put hello world" in told
        assert store.raftkube("kv", "put", "hello", "world").stdout == "OK\n"
        assert store.raftkube("kv", "get", "hello").stdout == "hello\nworld\n"
        watch = subprocess.Popen(
            [sys.executable, "-m", "raftkube", "kv", "watch", "hello", "--rev", "2", "--max-events", "2"],
            stdout=subprocess.PIPE, text=True, env=store.environment,
        )  # fmt: skip
        store.raftkube("kill", "--leader", "store")
        txn = 'value("hello") = "world"\n\nput hello again\n\nget hello\n'
        assert "SUCCESS" in store.raftkube("kv", "txn", stdin=txn).stdout
        out, _ = watch.communicate(timeout=30)
        assert out.split() == ["PUT", "hello", "world", "PUT", "hello", "again"]
        lease = store.raftkube("kv", "lease", "grant", "600").stdout.split()[1]
        store.raftkube("kv", "put", "leased", "x", "--lease", lease)
        store.raftkube("kv", "lease", "revoke", lease)
        assert store.raftkube("kv", "get", "leased").stdout == ""
        store.raftkube("down")
        assert store.processes() == []
        store.up()
        assert store.raftkube("kv", "get", "hello").stdout == "hello\nagain\n"
    finally:
        store.raftkube("down", "--purge", check=False)
    assert not (tmp_path / "state" / "default").exists()


def test_what_a_killed_supervisor_left_is_ended_by_down(tmp_path: Path) -> None:
    store = Cluster(tmp_path, STORE_ONLY)
    store.up()
    supervisor = next(p for p in store.processes() if "up" in p.cmdline())
    os.kill(supervisor.pid, signal.SIGKILL)
    assert len(wait_until(lambda: [p for p in store.processes() if p.pid != supervisor.pid])) == 3
    told = store.raftkube("down", "--purge").stderr
    assert "ended store-1, left behind by its supervisor" in told
    assert store.processes() == []


def test_the_foreground_stops_at_ctrl_c(tmp_path: Path) -> None:
    store = Cluster(tmp_path, STORE_ONLY)
    up = subprocess.Popen(
        [sys.executable, "-m", "raftkube", "up", "--config", "-"],
        stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=store.environment,
    )  # fmt: skip
    assert up.stdin is not None
    assert up.stderr is not None
    up.stdin.write(STORE_ONLY)
    up.stdin.close()
    for line in up.stderr:
        if "Ctrl-C" in line:
            break
    second = store.raftkube("up", "--config", "-", stdin=STORE_ONLY, check=False)
    assert (second.returncode, "already running" in second.stderr) == (2, True)
    up.send_signal(signal.SIGINT)
    assert up.wait(timeout=60) == 0
    assert store.processes() == []


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["up", "--bogus"], "No such option"),
        (["up", "--config", "/nonexistent.yaml"], "cluster file '/nonexistent.yaml' cannot be read"),
        (["up", "--name", "Not_A_Name"], "lower-case letters"),
        (["status"], "there is no cluster 'default'"),
        (["kill", "store-1"], "there is no cluster 'default'"),
        (["kill"], "No such option|say which component|there is no cluster"),
        (["logs", "store-1"], "there is no cluster"),
        (["bogus"], "No such command"),
    ],
)
def test_wrong_input_is_one_sentence_and_exit_code_2(tmp_path: Path, arguments: list[str], says: str) -> None:
    done = Cluster(tmp_path, "").raftkube(*arguments, check=False)
    assert done.returncode == 2
    assert any(part in done.stderr for part in says.split("|"))
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("config", "says"),
    [
        (STORE_ONLY.replace("replicas", "replica"), "spec.store.replica is not a field"),
        (
            STORE_ONLY.replace("replicas: 3", "members: [{name: a}, {name: b}, {name: a}]"),
            "two members are named 'a'",
        ),
    ],
    ids=["wrong-field", "one-name-twice"],
)
def test_a_wrong_cluster_file_is_one_sentence(tmp_path: Path, config: str, says: str) -> None:
    done = Cluster(tmp_path, "").raftkube("up", "--config", "-", "--detach", stdin=config, check=False)
    assert done.returncode == 2
    assert says in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_taken_port_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        config = STORE_ONLY.replace("replicas: 3", f"members: [{{name: one, clientPort: {port}}}]")
        done = Cluster(tmp_path, "").raftkube("up", "--config", "-", "--detach", stdin=config, check=False)
    assert done.returncode == 2
    assert f"port {port} for one/client is taken" in done.stderr


def test_a_state_folder_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file, where a folder should be")
    done = Cluster(tmp_path, "").raftkube("up", "--config", "-", "--detach", stdin=STORE_ONLY, check=False)
    assert done.returncode == 2
    assert "cannot be" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
