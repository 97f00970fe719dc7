"""Wrong flags, files and environments: one sentence, the right exit code, never a traceback."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from store_processes import raftkube

from raftkube.disk import SystemDisk

CLUSTER = "a=127.0.0.1:1,b=127.0.0.1:2"


def sentence(
    *arguments: str, exit_code: int = 2, env: dict[str, str] | None = None, stdin: bytes = b""
) -> str:
    done = raftkube(*arguments, env=env, stdin=stdin)
    text = done.stderr.decode()
    assert done.returncode == exit_code, text
    assert text.startswith("raftkube: ")
    assert text.count("\n") == 1, text
    assert done.stdout == b""
    return text


def store(tmp_path: Path, *more: str, cluster: str = CLUSTER, name: str = "a") -> list[str]:
    return [
        "store", "--name", name, "--data-dir", str(tmp_path / "data"), "--initial-cluster", cluster,
        "--listen-client-urls", "http://127.0.0.1:0", "--listen-peer-urls", "http://127.0.0.1:0", *more,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--initial-cluster", "a=127.0.0.1:1,a=127.0.0.1:2"], "two members are called 'a'"),
        (["--initial-cluster", "a=127.0.0.1:1,b=127.0.0.1:1"], "two members have the address 127.0.0.1:1"),
        (["--initial-cluster", "b=127.0.0.1:1"], "member 'a' is not in the initial cluster (b)"),
        (["--initial-cluster", "a=nowhere"], "'nowhere' is not an address; write host:port"),
        (["--initial-cluster", "a"], "--initial-cluster: 'a' is not a member; write name=host:port"),
        (["--mutant", "ack-before-replicate"], "--mutant makes the store lose data on purpose"),
        (["--testing", "--mutant", "nope"], "'nope'"),
        (["--listen-client-urls", "https://127.0.0.1:0"], "--listen-client-urls asks for https"),
        (["--listen-client-urls", "ftp://127.0.0.1:0"], "unknown scheme"),
        (["--listen-client-urls", "http://127.0.0.1:0,http://127.0.0.2:0"], "takes one URL"),
        (["--cert-file", "x"], "--trusted-ca-file is missing"),
        (["--unknown"], "No such option '--unknown'"),
        (["--election-timeout", "soon"], "'soon' is not a valid integer"),
        (["--heartbeat-interval", "500", "--election-timeout", "600"], "heartbeat"),
        (["--heartbeat-interval", "0"], "--heartbeat-interval 0 is below 1 (milliseconds)"),
        (["--election-timeout", "-5"], "--election-timeout -5 is below 1 (milliseconds)"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_store_flags(tmp_path: Path, flags: list[str], says: str) -> None:
    assert says in sentence(*store(tmp_path, *flags))


def test_missing_flags_are_named() -> None:
    assert "Missing option '--name'" in sentence("store")


def test_a_taken_port(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        says = f"cannot listen on 127.0.0.1:{port}: Address already in use"
        assert says in sentence(*store(tmp_path, "--listen-client-urls", f"http://127.0.0.1:{port}"))
        # The peer port is taken after the recovery, which logs what it found.
        done = raftkube(*store(tmp_path, "--listen-peer-urls", f"http://127.0.0.1:{port}"))
        assert done.returncode == 2
        assert says in done.stderr.decode().splitlines()[-1]


def test_a_data_directory_in_use(tmp_path: Path) -> None:
    disk = SystemDisk(str(tmp_path / "data"))
    assert "is in use by another process" in sentence(*store(tmp_path))
    disk.close()


def test_a_data_directory_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    assert "data directory" in sentence(*store(tmp_path))


def test_an_unreadable_data_directory(tmp_path: Path) -> None:
    closed = tmp_path / "data"
    closed.mkdir(mode=0o000)
    if os.geteuid() == 0:  # root reads everything, but even root makes no directories here
        closed = Path("/proc/raftkube-data")
    said = sentence(*store(tmp_path, "--data-dir", str(closed)))
    assert f"data directory '{closed}' cannot be used: " in said


def test_missing_certificate_files(tmp_path: Path) -> None:
    flags = ["--trusted-ca-file", "/nowhere/ca", "--cert-file", "/nowhere/c", "--key-file", "/nowhere/k"]
    urls = ["--listen-client-urls", "https://127.0.0.1:0", "--listen-peer-urls", "https://127.0.0.1:0"]
    assert "TLS files /nowhere/ca" in sentence(*store(tmp_path, *urls, *flags))


def test_unknown_verbs_and_flags() -> None:
    assert "No such command 'nope'" in sentence("nope")
    assert "No such command" in sentence("../kv")
    assert "No such option '--nope'" in sentence("kv", "get", "x", "--nope")


def test_kv_without_a_cluster(tmp_path: Path) -> None:
    env = {"RAFTKUBE_STATE_DIR": str(tmp_path)}
    assert "start it (raftkube up) or give --endpoints" in sentence("kv", "get", "x", env=env)
    assert "'other'" in sentence("kv", "get", "x", "--name", "other", env=env)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--endpoints", "nowhere", "get", "x"], "'nowhere' is not an address"),
        (["--endpoints", "127.0.0.1:1", "--cert", "c", "get", "x"], "--cert and --key belong together"),
        (["--endpoints", "127.0.0.1:1", "get", "x", "y", "--prefix"], "exclude one another"),
        (["--endpoints", "127.0.0.1:1", "lease", "revoke", "xyz"], "'xyz' is not a lease id"),
        (["--endpoints", "127.0.0.1:1", "compact", "soon"], "'soon' is not a valid integer"),
        (["--endpoints", "127.0.0.1:1", "get", "x", "-w", "xml"], "'xml' is not one of"),
        (["--endpoints", "127.0.0.1:1", "get", "x", "--command-timeout", "-1"], "--command-timeout -1 is no"),
        (["--endpoints", "127.0.0.1:1", "get", "x", "--command-timeout", "nan"], "--command-timeout nan is"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_kv_arguments(arguments: list[str], says: str) -> None:
    assert says in sentence("kv", *arguments)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"nonsense\n", "'nonsense' is not a compare"),
        (b'mod("k") > "x"\n', "which is no number"),
        (b"\nput k\n", "'put k' is not an operation"),
        (b'\nput k "v\n', "No closing quotation"),
        (b"\n\n\nget a\n\nget b\n", "three parts"),
        (b'mod("k") > "99999999999999999999"\n', "beyond 64 bits"),
        (b"\nput \xff\n", "is not an operation"),
    ],
)
def test_wrong_transactions(text: bytes, says: str) -> None:
    assert says in sentence("kv", "--endpoints", "127.0.0.1:1", "txn", stdin=text)


def test_no_member_answers() -> None:
    said = sentence("kv", "--endpoints", "127.0.0.1:1", "--command-timeout", "0.2", "get", "x", exit_code=1)
    assert "no answer within 0.2 s" in said
    assert "127.0.0.1:1 cannot be reached: Connection refused" in said


def test_a_port_that_speaks_something_else() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        address = f"127.0.0.1:{other.getsockname()[1]}"
        arguments = ["kv", "--endpoints", address, "--command-timeout", "0.3", "get", "x"]
        assert "no answer within 0.3 s" in sentence(*arguments, exit_code=1)


def test_version_and_help() -> None:
    version = raftkube("--version")
    assert version.returncode == 0
    assert version.stdout.startswith(b"raftkube ")
    listed = raftkube("--help")
    assert listed.returncode == 0
    for verb in (b"store", b"kv"):
        assert verb in listed.stdout
