"""The watch bench: loads, pacing, reports, and a short run of its processes."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import orjson
import pytest

from bench.errors import BenchError
from bench.loop import Loop
from bench.machine import check_descriptors
from bench.plot import draw_report
from bench.usage import machine_cpu_s, usage
from bench.watch_bare import BareWatcher
from bench.watch_job import Pace, WatchLoad, prefixes
from bench.watch_measure import Server, measure
from bench.watch_run import report_case
from bench.watch_table import table


def test_an_open_loop_makes_up_for_a_stall() -> None:
    pace = Pace(100.0, outstanding=1, start_s=10.0)
    assert pace.due(10.0, 0, 1000) == [10.0]
    assert pace.wait_s(10.0) == pytest.approx(0.01)
    stalled = pace.due(10.25, 99, 1000)
    assert stalled == pytest.approx([10.0 + n / 100 for n in range(1, 26)])
    assert pace.due(10.25, 0, 1000) == []


def test_a_closed_loop_fills_what_is_free() -> None:
    pace = Pace(0.0, outstanding=10, start_s=0.0)
    assert pace.due(5.0, 4, 1000) == [5.0] * 6
    assert pace.due(5.0, 10, 1000) == pace.due(5.0, 12, 1000) == []
    assert len(pace.due(5.0, 0, 3)) == 3


@pytest.mark.parametrize(
    ("watchers", "count", "generators", "processes"),
    [(1, 1, 2, 1), (1001, 1, 2, 2), (1000, 1000, 3, 3), (10, 4, 3, 3), (7, 2, 5, 2)],
)
def test_every_watcher_is_in_one_process(watchers: int, count: int, generators: int, processes: int) -> None:
    load = WatchLoad(watchers, prefixes=count, generators=generators)
    shares = load.shares()
    assert len(shares) == processes
    assert sum(number for share in shares for _, number in share) == watchers
    if count > 1:  # a prefix is one process's own
        owned = [prefix for share in shares for prefix, _ in share]
        assert sorted(owned) == list(range(count))
    assert len(set(prefixes(count))) == count


def result(rate: float, p99_ms: float, **more: float) -> dict[str, Any]:
    told: dict[str, Any] = dict.fromkeys(
        ("p50_ms", "p999_ms", "max_ms", "puts_per_s", "verified", "late_p99_ms", "cpu_s", "rss_mb", "peak_mb",
         "generator_cpu_s", "generator_busy", "others_busy", "cpu_s_per_million",
         "generator_cpu_s_per_million", "kb_per_watcher", "opened_s"), 0.01,
    )  # fmt: skip
    return told | {"rate": rate, "p99_ms": p99_ms} | more


def a_report() -> dict[str, Any]:
    load = WatchLoad(1000)
    top = {
        "peer": [result(200_000, 9), result(210_000, 8), result(100_000, 20)],
        "ours": [result(1_000_000, 2), result(900_000, 3), result(1_200_000, 1)],
        "bare": [result(2_000_000, 1)] * 3,
    }
    steps = {25: {"peer": [result(50_000, 4, asked_puts_per_s=50)], "ours": [result(50_000, 2)]}}
    case = report_case("watch: 1000 watchers, plain", load, top, steps)
    return {"bench": "watch", "runs": [case], "commit": "abc", "verdict": "ok"}


def test_a_report_has_medians_spread_and_ratios() -> None:
    case = a_report()["runs"][0]
    assert (case["ours"]["rate"], case["ours"]["rate_min"], case["ours"]["rate_max"]) == (1e6, 9e5, 1.2e6)
    assert (case["ratio"], case["p99_ratio"], case["of_bare"]) == (5.0, 0.22, 0.5)
    assert case["peer"]["name"] == "etcd 3.5.1"
    assert case["doubts"] == []


@pytest.mark.parametrize(
    ("worse", "doubt"),
    [
        ({"generator_busy": 0.95}, "may be the limit"),
        ({"others_busy": 0.3}, "other programs used 30%"),
        ({"late_p99_ms": 9.0}, "9 ms late"),
        ({"asked_puts_per_s": 1_100.0}, "were asked for"),
    ],
)
def test_what_makes_a_figure_doubtful_is_said(worse: dict[str, float], doubt: str) -> None:
    case = report_case("c", WatchLoad(1000), {"ours": [result(1e6, 2, **worse)]}, {})
    assert [doubt in said for said in case["doubts"]] == [True]


def test_a_weak_peer_is_suspect() -> None:
    top = {"ours": [result(1e6, 2)], "peer": [result(90_000, 5)]}
    assert report_case("c", WatchLoad(1000), top, {})["doubts"][0].startswith("suspect: etcd did 90000/s")
    assert report_case("c", WatchLoad(1000, prefixes=1000), top, {})["doubts"] == []


def test_the_picture_and_the_table_show_every_side() -> None:
    report = a_report()
    root = ElementTree.fromstring(draw_report(report))
    words = " ".join(text.text or "" for text in root.iter("{http://www.w3.org/2000/svg}text"))
    for word in ("raftkube", "etcd", "bare socket loop", "1,000,000", "1000 watchers", "at 25 %"):
        assert word in words
    lines = "\n".join(table(report))
    assert "900,000..1,200,000" in lines
    assert "5.0 times etcd" in lines


def test_descriptors_are_checked_first() -> None:
    check_descriptors(100, 3, 2)
    with pytest.raises(BenchError, match="raise ulimit -n"):
        check_descriptors(10**9, 3, 2)


def test_usage_grows_and_is_part_of_the_machines() -> None:
    import os

    before, all_before = usage([os.getpid()]), machine_cpu_s()
    sum(n * n for n in range(2_000_000))
    after, all_after = usage([os.getpid()]), machine_cpu_s()
    assert 0 < after.cpu_s - before.cpu_s <= all_after - all_before + 0.05
    assert after.peak_mb >= after.rss_mb > 1
    assert usage([2**30]).cpu_s == 0


@pytest.mark.parametrize(
    "shape", [{"watchers": 6}, {"watchers": 6, "prefixes": 3, "per_connection": 2, "rate": 200.0}]
)
def test_the_bare_loop_feeds_verified_watchers(shape: dict[str, Any]) -> None:
    load = WatchLoad(seconds=0.3, warm_up_s=0.05, seed=3, **shape)
    told = measure(Server(None, 0, None), load)
    assert told["verified"] > 0
    assert told["rate"] > 0
    assert told["verified"] % (load.watchers // load.prefixes) == 0


def test_a_reader_may_go_while_the_bare_loop_still_feeds_another() -> None:
    """Their ends are told apart: what is sent to the slower one is not lost with the faster one's process."""
    loop, gone = Loop(), []
    ours, theirs = socket.socketpair()
    kept_ours, kept_theirs = socket.socketpair()
    for sock in (ours, kept_ours):
        sock.setblocking(False)

    def on_gone(watcher: BareWatcher) -> None:
        gone.append(watcher)
        loop.remove(watcher)

    first, second = BareWatcher(ours, on_gone), BareWatcher(kept_ours, on_gone)
    loop.add(first)
    loop.add(second)
    data = bytes(4_000_000)
    second.send(data)
    theirs.close()
    got = 0
    while got < len(data):
        loop.turn(0.0)
        got += len(kept_theirs.recv(1_000_000))
    assert gone == [first]
    loop.close()
    for sock in (ours, kept_theirs):
        sock.close()


@pytest.mark.e2e
def test_a_short_run_prints_all_sides(tmp_path: Path) -> None:
    out, plot = tmp_path / "report.json", tmp_path / "report.svg"
    command = [
        sys.executable, "-m", "bench", "watch", "--against", "etcd", "--watchers", "5", "--seconds", "0.5",
        "--repeat", "1", "--tls", "no", "--generators", "1", "--seed", "7", "--shares", "50",
        "--out", str(out), "--plot", str(plot), "--data-dir", str(tmp_path / "d"),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, check=False, timeout=180)
    assert done.returncode == 0, done.stderr.decode()
    report = orjson.loads(out.read_bytes())
    run = report["runs"][0]
    assert run["ours"]["rate"] > 0
    assert run["peer"]["name"] == "etcd 3.5.1"
    assert run["ratio"] == pytest.approx(run["ours"]["rate"] / run["peer"]["rate"], abs=0.01)
    assert run["steps"][0]["share"] == 50
    assert run["steps"][0]["bare"]["verified"] > 0
    assert report["seed"] == 7
    assert "times etcd" in done.stdout.decode()
    assert plot.read_text().startswith("<svg")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--shares", "half"], "25,50,75"),
        (["--shares", "50"], "--shares needs --against etcd"),
        (["--watchers", "2", "--prefixes", "3"], "--prefixes 3 is more than --watchers 2"),
    ],
)
def test_wrong_input_is_one_sentence(arguments: list[str], says: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bench", "watch", *arguments], capture_output=True, check=False
    )
    assert done.returncode == 2
    assert says in done.stderr.decode()
    assert "Traceback" not in done.stderr.decode()
