"""What confirms a violation, what a fault must have caused, and how a run is told in a few lines."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest

from chaos.checkers.history import History
from chaos.checkers.judge import judge
from chaos.checkers.verdict import Verdict
from chaos.etcd.cluster import EtcdCluster
from chaos.etcd.confirmation import members_differ
from chaos.etcd.faults import ETCD_FAULTS, EtcdObserver, choose_etcd_faults
from chaos.etcd.run import EtcdRecorder
from chaos.etcd.summary import summarize
from chaos.recording import MemoryRecorder
from raftkube.errors import ConfigError

ROOT = Path(__file__).parents[2]
OPTIONS = {"workload": "kv", "duration_s": 60.0}
HEADER = {"format": 1, "seed": 4, "commit": "abc", "target": "etcd 3.5.1", "options": OPTIONS}
KV = ["/chaos/a", "x", 2, 2, 1]


def read(member: str, revision: int = 9, kvs: list[Any] | None = None) -> dict[str, Any]:
    return {
        "type": "op", "client": 9_000, "id": f"final-{member}", "kind": "range", "outcome": "ok",
        "request": {"key": "/chaos/", "range_end": "/chaos0", "member": member}, "final": True,
        "read_from": member, "serializable": True, "revision": revision, "call_ns": 1, "return_ns": 2,
        "response": {"kvs": [KV] if kvs is None else kvs}, "error": None,
    }  # fmt: skip


def hashed(member: str, value: str, revision: int = 9) -> dict[str, Any]:
    return {
        "type": "op", "client": 9_000, "id": f"hash-{member}", "kind": "hash", "outcome": "ok",
        "request": {"member": member}, "revision": revision, "serializable": True, "call_ns": 1,
        "return_ns": 2, "error": None, "response": {"hash": value, "compact_revision": 3},
    }  # fmt: skip


def history(*operations: dict[str, Any]) -> History:
    return History(dict(HEADER), list(operations))


def test_equal_members_confirm_nothing() -> None:
    equal = history(read("etcd-1"), read("etcd-2"), hashed("etcd-1", "5"), hashed("etcd-2", "5"))
    assert members_differ(equal) is None
    # Hashes at different revisions say nothing of each other.
    assert members_differ(history(hashed("etcd-1", "5", 8), hashed("etcd-2", "6", 9))) is None


def test_members_whose_hashes_differ() -> None:
    told = members_differ(history(hashed("etcd-1", "5"), hashed("etcd-2", "5"), hashed("etcd-3", "6")))
    assert told == "the members' hashes at revision 9 differ: etcd-1 5, etcd-2 5, etcd-3 6"


def test_hashes_that_differ_are_a_violation() -> None:
    verdict = judge(history(hashed("etcd-1", "5"), hashed("etcd-2", "6")))
    assert [violation.invariant for violation in verdict.violations] == ["S4"]


def test_members_that_applied_the_same_and_stand_elsewhere() -> None:
    told = members_differ(history(read("etcd-1"), read("etcd-2", 8)))
    assert told is not None
    assert told.endswith("they stand at different revisions: etcd-1 9, etcd-2 8")


@pytest.mark.parametrize("other", [[["/chaos/a", "y", 2, 3, 2]], [], [KV, ["/chaos/a", "z", 9, 9, 1]]])
def test_members_that_answer_differently(other: list[Any]) -> None:
    told = members_differ(history(read("etcd-1"), read("etcd-2", kvs=other)))
    assert told == "etcd-1 and etcd-2 answer differently from their own state, first at /chaos/a"


def test_a_summary_says_what_was_seen() -> None:
    faults = [
        {"name": "kill-store-leader", "effect": {"term": 3}},
        {"name": "kill-store-leader", "effect": None},
    ]
    verdict = Verdict()
    said = summarize(history(read("etcd-1")), verdict, faults)
    assert (said["says"], said["faults"], said["faults_effective"]) == (
        "valid; no member's hash was read",
        {"kill-store-leader": 2},
        1,
    )
    verdict.add("S2", "lost write: put a")
    verdict.add("S2", "lost write: put b")
    equal = history(read("etcd-1"), hashed("etcd-1", "5"), hashed("etcd-2", "5"))
    said = summarize(equal, verdict, faults)
    assert said["says"] == "invalid, not confirmed: the members' hashes and reads are equal"
    assert said["violations"] == [{"invariant": "S2", "count": 2, "first": "lost write: put a"}]
    said = summarize(history(hashed("etcd-1", "5"), hashed("etcd-2", "6")), verdict, faults)
    assert said["says"].startswith("invalid, confirmed: the members' hashes at revision 9 differ")


def test_runs_are_collected(tmp_path: Path) -> None:
    for number in (1, 2):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "summary.json").write_text(f'{{"seed": {number}}}')
    kept = tmp_path / "etcd.json"
    command = [sys.executable, "-m", "chaos.etcd.summary"]
    subprocess.run([*command, kept, tmp_path / "1", tmp_path / "2"], cwd=ROOT, check=True)
    assert [row["seed"] for row in orjson.loads(kept.read_bytes())] == [1, 2]
    done = subprocess.run([*command, kept], cwd=ROOT, check=False, capture_output=True)
    assert done.returncode != 0


def test_faults_are_chosen_by_name_group_or_all() -> None:
    assert {fault.name for fault in choose_etcd_faults("all")} == set(ETCD_FAULTS)
    assert [fault.action for fault in choose_etcd_faults("pause,restart")] == ["pause", "restart"]
    assert choose_etcd_faults("") == []
    with pytest.raises(ConfigError, match="'kill-apiserver' is not known for etcd"):
        choose_etcd_faults("kill-store-leader,kill-apiserver")


S = 1_000_000_000


@pytest.mark.parametrize(
    ("name", "observed", "effective"),
    [
        ("kill-store-leader", {"kind": "term", "term": 3, "leader": "etcd-2"}, True),
        ("kill-store-leader", {"kind": "term", "term": 3, "leader": "etcd-1"}, False),
        ("kill-store-leader", {"kind": "term", "term": 2, "leader": "etcd-2"}, False),
        ("kill-store-leader", {"kind": "reset", "component": "etcd-1"}, False),
        ("pause-store-leader", {"kind": "term", "term": 4, "leader": "etcd-3"}, True),
        ("kill-store-follower", {"kind": "reset", "component": "etcd-1"}, True),
        ("kill-store-follower", {"kind": "reset", "component": "etcd-2"}, False),
        ("kill-store-follower", {"kind": "term", "term": 3, "leader": "etcd-2"}, False),
        ("kill-store-all", {"kind": "term", "term": 3, "leader": "etcd-1"}, True),
        ("kill-store-all", {"kind": "reset", "component": "etcd-1"}, False),
    ],
)
def test_a_fault_counts_by_its_consequence(name: str, observed: dict[str, Any], effective: bool) -> None:
    record = {"target": "etcd-1", "term": 2, "start_ns": 10 * S, "end_ns": 12 * S}
    fault = ETCD_FAULTS[name]
    assert (fault.effect(record, [observed | {"time_ns": 11 * S}]) is not None) == effective
    # Before it, or long after, is not by it.
    assert fault.effect(record, [observed | {"time_ns": 9 * S}]) is None
    assert fault.effect(record, [observed | {"time_ns": 18 * S}]) is None


def test_a_keep_alives_revision_is_free_of_real_time() -> None:
    recorder = MemoryRecorder(lambda: 2.0)
    marking = EtcdRecorder(recorder)
    assert marking.now_ns() == 2 * S
    for kind in ("lease_keep_alive", "lease_grant", "put"):
        marking.write({"type": "op", "kind": kind})
    assert [record.get("serializable", False) for record in recorder.records] == [True, False, False]


def test_a_term_is_seen_once_though_its_status_names_a_later_leader(tmp_path: Path) -> None:
    """A new leader is told of before its term is: that is no second leader of the old term."""
    recorder = MemoryRecorder(lambda: 2.0)
    observer = EtcdObserver(EtcdCluster(tmp_path / "cluster", random.Random(1)), recorder, random.Random(1))

    def status(member: str, leader: str, term: int) -> dict[str, Any]:
        return {"header": {"member_id": member, "revision": "1"}, "leader": leader, "raftTerm": str(term)}

    for name, told in [
        ("etcd-2", status("22", "0", 4)),
        ("etcd-1", status("11", "11", 5)),
        ("etcd-2", status("22", "22", 5)),
        ("etcd-3", status("33", "11", 4)),
    ]:
        observer._on_status(name, told)
    assert observer.leader == "etcd-2"
    observer._on_status("etcd-1", status("11", "22", 6))
    seen = [(record["term"], record["leader"]) for record in recorder.records]
    assert seen == [(5, "etcd-1"), (6, "etcd-2")]
