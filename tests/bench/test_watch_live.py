"""Late and slow watchers, long runs and workload files of the watch bench."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import orjson
import pytest
from watch_frames import Watched, events, write

from bench.__main__ import cli
from bench.catch_up import measure_catch_up
from bench.compare import medians
from bench.errors import BenchError, Violation
from bench.slow_readers import check_ended, measure_slow_readers
from bench.watch_job import ReaderJob, WatchLoad
from bench.watch_reader import Reader
from bench.workload import put_together, read_workload, run_workload
from raftkube.errors import WatchEnded
from raftkube.wire import rpc

FROZEN = {
    "api": "66e29de2d91d1827ef064ad491a3cd20d865057b4689f6d119dde92a4cd70db9",
    "watch": "a8c4e6966377508cc11bca25567c52b2bce66ac1ee42f840c264cc930cbc3b86",
}
WORKLOADS = Path(__file__).parents[2] / "bench" / "workloads"


@pytest.mark.e2e
def test_late_watchers_catch_up_while_writes_go_on(tmp_path: Path) -> None:
    load = WatchLoad(4, rate=50.0, seconds=2.0, seed=5)
    told = measure_catch_up("raftkube", tmp_path / "c", None, load, late=3, history=700)
    assert told["verified"] >= 3 * 700 + 4
    assert told["catch_up_rate"] > 0
    assert told["live_p99_ms_before"] > 0
    assert told["live_p99_ms_meanwhile"] > 0


@pytest.mark.e2e
def test_slow_readers_get_everything_if_they_read_again_in_time(tmp_path: Path) -> None:
    load = WatchLoad(4, outstanding=10, seconds=1.5, seed=5)
    told = measure_slow_readers("raftkube", tmp_path / "s", None, load, slow=2)
    assert told["ended"] == 0
    assert told["slow_verified"] > 0
    assert told["kept"] > 0


def test_slow_watchers_must_be_ended_at_last() -> None:
    check_ended(0, 5, behind_bytes=50e6)
    check_ended(5, 5, behind_bytes=500e6)
    with pytest.raises(Violation, match="1 of 5 watchers"):
        check_ended(4, 5, behind_bytes=500e6)


def reader(watched: Watched, *, may_end: bool, monkeypatch: pytest.MonkeyPatch) -> Reader:
    """One whose watches are those of `watched`, without sockets."""
    monkeypatch.setattr("bench.watch_reader.Orders", lambda: Silent())
    job = ReaderJob("ours", [], [("/bench/", 3)], 2, 1, True, 1, -1, may_end=may_end)
    made = Reader(job)
    made._cursors, made._tapes = watched.cursors, {"/bench/": watched.tape}
    made._connections = [Silent(watched.session)]  # type: ignore[list-item]
    return made


class Silent:
    """A source that never has anything."""

    waiting = False

    def __init__(self, session: Any = None) -> None:
        import os

        self.session, self.blocked = session, set[int]()
        self.fd, self._other = os.pipe()


@pytest.mark.parametrize(("revision", "true"), [(4, True), (5, False), (3, False)])
def test_the_last_revision_of_an_ended_watch_must_be_true(
    revision: int, true: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = Watched("ours")
    made = reader(watched, may_end=True, monkeypatch=monkeypatch)
    watched.feed(events("ours", write(2, 3), [1]))
    watched.feed(rpc.ended([2], WatchEnded("slow", revision=revision, reason="slow").to_wire()))
    if true:
        assert made._result(1.0)["ended"] == 1
        return
    with pytest.raises(Violation, match=f"ended at revision {revision} and has all up to 4"):
        made._result(1.0)


def test_a_watch_that_reads_must_not_be_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched("ours")
    made = reader(watched, may_end=False, monkeypatch=monkeypatch)
    watched.feed(rpc.ended([2], WatchEnded("slow", revision=1, reason="slow").to_wire()))
    with pytest.raises(Violation, match="read all the time"):
        made._result(1.0)


def test_events_that_were_not_written_so_are_found_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched("ours")
    made = reader(watched, may_end=False, monkeypatch=monkeypatch)
    watched.feed(events("ours", write(2, 3), [0, 1, 2]))
    made._drain({"/bench/": watched.tape.digest.told})
    with pytest.raises(Violation, match="was delivered"):
        made._drain({"/bench/": "3 0123"})


def test_medians_of_rounds_tell_the_spread() -> None:
    told = ((0.9, True), (1.0, False), (0.5, True))
    rounds = [{"kept": kept, "flat": flat, "name": "x"} for kept, flat in told]
    assert medians(rounds, "kept") == {"kept": 0.9, "kept_min": 0.5, "kept_max": 1.0, "flat": False}
    assert medians(rounds[:1], "kept") is rounds[0]


@pytest.mark.parametrize("name", FROZEN)
def test_workloads_are_frozen_and_can_be_run(name: str) -> None:
    path = WORKLOADS / f"{name}.json"
    assert hashlib.sha256(path.read_bytes()).hexdigest() == FROZEN[name], "make a new version instead"
    workload = read_workload(path)
    for _, words in workload.cases:
        command = cli.commands[words[0]]
        command.make_context(words[0], [*words[1:], "--seed", "1", "--out", "x"])


def test_every_workload_is_frozen() -> None:
    assert {path.stem for path in WORKLOADS.glob("*.json")} == set(FROZEN)


def a_file(tmp_path: Path, *commands: list[str]) -> Path:
    path = tmp_path / "w.json"
    cases = [{"name": f"c{n}", "command": command} for n, command in enumerate(commands)]
    path.write_bytes(orjson.dumps({"name": "w", "version": 1, "seed": 7, "cases": cases}))
    return path


def test_a_workload_runs_its_cases_and_goes_on_after_a_failure(tmp_path: Path) -> None:
    ran: list[list[str]] = []

    def run_command(words: list[str]) -> None:
        ran.append(words)
        if "1" in words:
            raise Violation("lost one")

    workload = read_workload(a_file(tmp_path, ["watch", "--watchers", "1"], ["watch", "--watchers", "2"]))
    told = run_workload(workload, tmp_path, run_command, lambda _: None, extra=("--repeat", "9"))
    assert ran[1][:7] == ["watch", "--watchers", "2", "--repeat", "9", "--seed", "7"]
    assert ran[1][7:] == ["--out", str(tmp_path / "c1.json")]
    assert told["cases"] == {"c0": "Violation: lost one", "c1": "measured"}
    assert told["sha256"] == workload.sha256
    told = run_workload(workload, tmp_path, ran.append, lambda _: None, only=("c1",))
    assert list(told["cases"]) == ["c1"]


def test_reports_are_put_together(tmp_path: Path) -> None:
    for number, (bench, verdict) in enumerate((("watch", "ok"), ("watch", "unknown"), ("catch-up", "ok"))):
        report = {"bench": bench, "runs": [{"case": f"c{number}"}], "commit": "abc", "verdict": verdict}
        (tmp_path / f"r{number}.json").write_bytes(orjson.dumps(report))
    together = put_together(tmp_path, ["r0", "r1", "r2"])
    runs = [{"case": "c0", "bench": "watch"}, {"case": "c1", "bench": "watch"}]
    assert together == {"runs": runs, "commit": "abc", "verdict": "unknown"}


NO_SEED = '{"name":"x","version":1,"seed":"y","cases":[]}'


@pytest.mark.parametrize("text", ["", "[]", '{"name": "x"}', NO_SEED])
def test_what_is_no_workload_is_said(tmp_path: Path, text: str) -> None:
    path = tmp_path / "w.json"
    path.write_text(text)
    with pytest.raises(BenchError, match="is no workload"):
        read_workload(path)


def test_a_case_must_not_choose_its_seed(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="must not say --seed"):
        read_workload(a_file(tmp_path, ["watch", "--seed=3"]))
