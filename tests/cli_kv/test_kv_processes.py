"""`raftkube store` and `raftkube kv` as real processes: kill -9, restart, TLS roles, etcdctl's manner."""

from __future__ import annotations

import base64
import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from store_processes import NAMES, RAFTKUBE, StoreProcesses, raftkube, store_processes, wait_until


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "tls"])
def stores(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[StoreProcesses]:
    with store_processes(tmp_path_factory.mktemp("stores"), tls=request.param) as made:
        yield made


def ok(done: subprocess.CompletedProcess[bytes]) -> bytes:
    assert done.returncode == 0, done.stderr.decode()
    assert done.stderr == b""
    return done.stdout


def leader(stores: StoreProcesses) -> str:
    done = stores.kv("status", "-w", "json")
    rows = json.loads(done.stdout)
    return next(row["name"] for row in rows if row.get("role") == "leader")


def test_put_get_del_in_etcdctls_manner(stores: StoreProcesses) -> None:
    assert ok(stores.kv("put", "g/a", "1")) == b"OK\n"
    assert ok(stores.kv("put", "g/b", stdin=b"from stdin")) == b"OK\n"
    assert ok(stores.kv("get", "g/a")) == b"g/a\n1\n"
    assert ok(stores.kv("get", "g/", "--prefix")) == b"g/a\n1\ng/b\nfrom stdin\n"
    assert ok(stores.kv("get", "g/", "g/b")) == b"g/a\n1\n"
    assert ok(stores.kv("get", "g/", "--prefix", "--keys-only")) == b"g/a\n\ng/b\n\n"
    assert ok(stores.kv("get", "g/", "--prefix", "--count-only")) == b"2\n"
    assert ok(stores.kv("get", "g/", "--prefix", "--limit", "1", "--print-value-only")) == b"1\n"
    assert ok(stores.kv("get", "absent")) == b""
    assert ok(stores.kv("put", "g/a", "2", "--prev-kv")) == b"OK\ng/a\n1\n"
    shown = json.loads(ok(stores.kv("get", "g/a", "-w", "json")))
    assert shown["count"] == 1
    assert base64.b64decode(shown["kvs"][0]["value"]) == b"2"
    at = str(shown["kvs"][0]["create_revision"])
    assert ok(stores.kv("get", "g/a", "--rev", at)) == b"g/a\n1\n"
    assert b"VERSION" in ok(stores.kv("get", "g/a", "-w", "table"))
    assert ok(stores.kv("del", "g/", "--prefix", "--prev-kv")) == b"2\ng/a\n2\ng/b\nfrom stdin\n"


def test_orders_bounds_and_puts_that_keep(stores: StoreProcesses) -> None:
    for key, value in (("o/a", "3"), ("o/b", "1"), ("o/c", "2"), ("o/a", "3")):
        ok(stores.kv("put", key, value))
    read = ("get", "o/", "--prefix", "--print-value-only")
    assert ok(stores.kv(*read, "--order", "DESCEND")) == b"2\n1\n3\n"
    assert ok(stores.kv(*read, "--sort-by", "VALUE")) == b"1\n2\n3\n"
    assert ok(stores.kv(*read, "--sort-by", "modify", "--order", "descend", "--limit", "1")) == b"3\n"
    at = str(json.loads(ok(stores.kv("get", "o/c", "-w", "json")))["kvs"][0]["mod_revision"])
    assert ok(stores.kv(*read, "--min-mod-rev", at)) == b"3\n2\n"
    assert ok(stores.kv(*read, "--max-create-rev", at, "--min-create-rev", at)) == b"2\n"
    lease = ok(stores.kv("lease", "grant", "60")).decode().split()[1]
    assert ok(stores.kv("put", "o/a", "--ignore-value", f"--lease={lease}")) == b"OK\n"
    assert ok(stores.kv("put", "o/a", "4", "--ignore-lease", "--prev-kv")) == b"OK\no/a\n3\n"
    assert b"attached keys([o/a])" in ok(stores.kv("lease", "timetolive", lease, "--keys"))
    for wrong in (
        ("put", "o/none", "--ignore-value"),
        ("put", "o/a", "x", "--ignore-value"),
        ("put", "o/a", "x", "--ignore-lease", f"--lease={lease}"),
        ("get", "o/a", "--min-mod-rev", "-1"),
        ("get", "o/a", "--sort-by", "colour"),
    ):
        done = stores.kv(*wrong)
        assert done.returncode != 0
        assert len(done.stderr.splitlines()) == 1, done.stderr.decode()


def test_alarms_are_listed_and_disarmed(stores: StoreProcesses) -> None:
    assert ok(stores.kv("alarm", "list")) == b""
    assert ok(stores.kv("alarm", "disarm")) == b""
    assert json.loads(ok(stores.kv("alarm", "list", "-w", "json")))["alarms"] == []


def test_txn_reads_etcdctls_text(stores: StoreProcesses) -> None:
    ok(stores.kv("put", "t/user", "bad"))
    text = b'value("t/user") = "bad"\n\ndel t/user\nput t/new "two words"\nget t/new\n\nput t/never x\n'
    assert ok(stores.kv("txn", stdin=text)) == b"SUCCESS\n\n1\n\nOK\n\nt/new\ntwo words\n"
    absent = b'create("t/user") > "0"\n\n\nget t/new\n'
    assert ok(stores.kv("txn", stdin=absent)) == b"FAILURE\n\nt/new\ntwo words\n"
    assert ok(stores.kv("get", "t/never")) == b""


def test_leases(stores: StoreProcesses) -> None:
    granted = ok(stores.kv("lease", "grant", "60")).decode().split()
    assert (granted[0], granted[2:]) == ("lease", ["granted", "with", "TTL(60s)"])
    lease = granted[1]
    ok(stores.kv("put", "l/key", "v", f"--lease={lease}"))
    assert ok(stores.kv("lease", "keep-alive", lease, "--once")).decode() == (
        f"lease {lease} keepalived with TTL(60)\n"
    )
    left = ok(stores.kv("lease", "timetolive", lease, "--keys")).decode()
    assert left.startswith(f"lease {lease} granted with TTL(60s), remaining(")
    assert left.endswith("attached keys([l/key])\n")
    assert lease in ok(stores.kv("lease", "list")).decode().split()
    assert ok(stores.kv("lease", "revoke", lease)).decode() == f"lease {lease} revoked\n"
    assert ok(stores.kv("get", "l/key")) == b""


def test_watch_prints_until_it_has_enough(stores: StoreProcesses) -> None:
    ok(stores.kv("put", "w/0", "zero"))
    first = json.loads(ok(stores.kv("get", "w/0", "-w", "json")))["kvs"][0]["mod_revision"]
    arguments = ["watch", "w/", "--prefix", "--rev", str(first), "--max-events", "3"]
    with subprocess.Popen(
        [*RAFTKUBE, "kv", *stores.kv_flags(), *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as watching:
        ok(stores.kv("put", "w/1", "one"))
        ok(stores.kv("del", "w/0"))
        out, err = watching.communicate(timeout=30)
    assert (watching.returncode, err) == (0, b"")
    assert out == b"PUT\nw/0\nzero\nPUT\nw/1\none\nDELETE\nw/0\n\n"


def test_an_interrupted_watch_ends_quietly(stores: StoreProcesses) -> None:
    ok(stores.kv("put", "i", "1"))
    with subprocess.Popen(
        [*RAFTKUBE, "kv", *stores.kv_flags(), "watch", "i", "--rev", "1"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as watching:  # fmt: skip
        assert watching.stdout is not None
        assert watching.stdout.readline() == b"PUT\n"
        watching.send_signal(signal.SIGINT)
        try:
            _, err = watching.communicate(timeout=30)
        finally:
            watching.kill()
    assert (watching.returncode, err) == (130, b"")


def test_compact_status_and_members(stores: StoreProcesses) -> None:
    ok(stores.kv("put", "c", "1"))
    revision = json.loads(ok(stores.kv("get", "c", "-w", "json")))["header"]["revision"]
    assert ok(stores.kv("compact", str(revision))).decode() == f"compacted revision {revision}\n"
    refused = stores.kv("get", "c", "--rev", str(revision - 1))
    assert refused.returncode == 1
    assert refused.stderr.decode().startswith(f"raftkube: revision {revision - 1} is compacted")
    rows = json.loads(ok(stores.kv("status", "--hash", "-w", "json")))
    assert sorted(row["name"] for row in rows) == list(NAMES)
    assert [row["role"] for row in rows].count("leader") == 1
    assert b"RAFT TERM" in ok(stores.kv("status", "-w", "table"))
    listed = json.loads(ok(stores.kv("member", "list", "-w", "json")))["members"]
    assert [each["name"] for each in listed] == list(NAMES)
    assert sum(each["leader"] for each in listed) == 1


@pytest.mark.parametrize("stores", [True], ids=["tls"], indirect=True)
def test_a_certificate_of_another_role_is_refused(stores: StoreProcesses) -> None:
    refused = stores.kv("get", "x", certificate="mallory")
    assert refused.returncode == 1
    assert "the client port takes certificates with O=" in refused.stderr.decode()
    assert "not system:masters" in refused.stderr.decode()
    anonymous = raftkube("kv", "--endpoints", stores.endpoints, "--cacert", str(stores.directory / "ca.crt"),
                         "--command-timeout", "2", "get", "x")  # fmt: skip
    assert anonymous.returncode == 1
    assert anonymous.stderr.startswith(b"raftkube: ")
    assert b"Traceback" not in anonymous.stderr


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_kill_9_of_the_leader_and_then_of_all(tmp_path: Path, tls: bool) -> None:
    with store_processes(tmp_path, tls=tls) as stores:
        acknowledged = {}
        for number in range(8):
            if number == 4:
                dead = leader(stores)
                stores.kill(dead)
            key = f"k/{number}"
            if stores.kv("put", key, f"{number}").returncode == 0:
                acknowledged[key] = f"{number}"
        assert len(acknowledged) >= 7
        stores.start(dead)
        stores.kill(*NAMES)
        stores.start()
        lines = ok(stores.kv("get", "k/", "--prefix")).decode().splitlines()
        found = dict(zip(lines[::2], lines[1::2], strict=True))
        assert acknowledged.items() <= found.items()
        wait_until(lambda: same_state(stores))
        assert stores.stop("store-1") == 0
        assert "Traceback" not in "".join(map(stores.log_of, NAMES))


def same_state(stores: StoreProcesses) -> bool:
    done = stores.kv("status", "--hash", "-w", "json")
    rows = json.loads(done.stdout or b"[]")
    return len(rows) == 3 and len({row.get("hash", row["endpoint"]) for row in rows}) == 1
