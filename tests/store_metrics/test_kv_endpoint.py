"""`kv status` and `kv health` against members that serve, lag or are gone: etcdctl's columns."""

from __future__ import annotations

import re

import orjson
import pytest
from click.testing import CliRunner

from raftkube.cli import kv_endpoint
from raftkube.cli.kv import command

LEADER = {
    "name": "store-1", "id": "store-1", "version": "0.1.0", "role": "leader", "leader": "store-1", "term": 3,
    "commit_index": 9, "applied_index": 8, "revision": 5, "errors": [], "db_size": 20_480,
    "is_learner": False, "alarms": [["store-2", "NOSPACE"], ["store-1", "NOSPACE"]],
}  # fmt: skip
# A member of before identities and quotas: what it does not say is shown as not known.
PLAIN = {
    "name": "store-2", "version": "0.1.0", "role": "follower", "leader": "store-1", "term": 3,
    "commit_index": 9, "applied_index": 9, "revision": 5, "errors": ["failed: disk"],
}  # fmt: skip
SILENT = {"errors": ["no answer within 2 s"]}


class _Client:
    def __init__(self, answer: dict[str, object]) -> None:
        self._answer = answer

    async def status(self) -> dict[str, object]:
        return dict(self._answer)

    async def hash(self) -> dict[str, object]:
        return {"hash": "00000000deadbeef", "revision": 5}

    async def get(self, key: bytes) -> None:
        assert key == b"health"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[int, dict[str, object]]:
    """Port -> what the member there says."""
    answers: dict[int, dict[str, object]] = {}

    async def ask_one(ask, address, tls):  # type: ignore[no-untyped-def]
        answer = answers[address.port]
        return (
            {"endpoint": str(address)} | answer if answer is SILENT else await ask(_Client(answer), address)
        )

    monkeypatch.setattr(kv_endpoint, "_ask_one", ask_one)
    return answers


def run(*arguments: str) -> tuple[str, BaseException | None]:
    result = CliRunner().invoke(command, ["--endpoints", "127.0.0.1:1,127.0.0.1:2", *arguments])
    return result.stdout, result.exception


def test_the_table_is_etcdctls(asked: dict[int, dict[str, object]]) -> None:
    asked |= {1: LEADER, 2: PLAIN}
    shown, error = run("status", "-w", "table", "--hash")
    assert error is None
    head, rule, *rows = [re.split(r"\s{2,}", line) for line in shown.splitlines()]
    assert head == [
        "ENDPOINT", "ID", "VERSION", "DB SIZE", "IS LEADER", "IS LEARNER", "RAFT TERM", "RAFT INDEX",
        "RAFT APPLIED INDEX", "ERRORS", "REVISION", "HASH",
    ]  # fmt: skip
    assert set("".join(rule)) == {"-"}
    assert rows == [
        ["127.0.0.1:1", "store-1", "0.1.0", "20 kB", "true", "false", "3", "9", "8", "alarm:NOSPACE", "5",
         "00000000deadbeef"],
        ["127.0.0.1:2", "store-2", "0.1.0", "-", "false", "-", "3", "9", "9", "failed: disk", "5",
         "00000000deadbeef"],
    ]  # fmt: skip


def test_simple_lines_and_json(asked: dict[int, dict[str, object]]) -> None:
    asked |= {1: LEADER, 2: PLAIN}
    assert run("status")[0].splitlines()[0] == (
        "127.0.0.1:1, store-1, 0.1.0, 20 kB, true, false, 3, 9, 8, alarm:NOSPACE"
    )
    rows = orjson.loads(run("status", "-w", "json")[0])
    assert [row["endpoint"] for row in rows] == ["127.0.0.1:1", "127.0.0.1:2"]
    assert rows[0]["db_size"] == 20_480
    assert "hash" not in rows[0]


def test_a_silent_member_has_its_row_and_fails_the_command(asked: dict[int, dict[str, object]]) -> None:
    asked |= {1: SILENT, 2: PLAIN}
    shown, error = run("status", "-w", "table")
    assert "no answer from 127.0.0.1:1" in str(error)
    first = re.split(r"\s{2,}", shown.splitlines()[2])
    assert first == ["127.0.0.1:1", *["-"] * 8, "no answer within 2 s"]


def test_health_like_etcdctls(asked: dict[int, dict[str, object]]) -> None:
    asked |= {1: LEADER, 2: PLAIN}
    shown, error = run("health")
    first, second = shown.splitlines()
    assert first == "127.0.0.1:1 is unhealthy: alarm:NOSPACE"
    assert re.fullmatch(r"127\.0\.0\.1:2 is healthy: .* took = \d+\.\d{3}ms", second)
    assert str(error) == "unhealthy: 127.0.0.1:1"
    rows = orjson.loads(run("health", "-w", "json")[0])
    assert [row["health"] for row in rows] == [False, True]
    asked[1] = SILENT
    assert re.split(r"\s{2,}", run("health", "-w", "table")[0].splitlines()[2]) == [
        "127.0.0.1:1", "false", "-", "no answer within 2 s",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("count", "shown"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (20_480, "20 kB"), (1_500_000, "1.5 MB"),
     (2_147_483_648, "2.1 GB"), (5 * 10**15, "5000 TB")],
)  # fmt: skip
def test_sizes(count: int, shown: str) -> None:
    assert kv_endpoint.human_bytes(count) == shown
