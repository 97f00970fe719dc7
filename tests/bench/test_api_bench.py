"""The API benches count only what they have checked: lost, doubled, stale and foreign are violations."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import orjson
import pytest

from bench import api_pods
from bench.api_http import ChunkedBody, parse_head
from bench.api_list import check_fresh
from bench.api_lister import _Check
from bench.api_pods import View
from bench.api_process import Worker
from bench.api_progress import Progress
from bench.api_sleepers import Sleepers
from bench.api_watch import check_streams, percentiles
from bench.api_watchers import Stream, fingerprint
from bench.errors import BenchError, Violation

HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def line(revision: int, number: int, *, form: str = "json", kind: str = "MODIFIED") -> bytes:
    shown: dict[str, Any] = api_pods.pod(number)
    shown["metadata"]["resourceVersion"] = str(revision)
    shown["metadata"]["annotations"][api_pods.MARK] = api_pods.mark(revision * 10, 5_000_000_000)
    if form == "table":
        shown = {"kind": "Table", "rows": [{"cells": [], "object": shown}]}
    return orjson.dumps({"type": kind, "object": shown}) + b"\n"


def chunked(*parts: bytes) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)


@pytest.mark.parametrize("step", [1, 2, 3, 7, 1000])
def test_a_chunked_body_may_come_in_any_pieces(step: int) -> None:
    sizes: list[int] = []
    body, data = ChunkedBody(sizes), HEAD + chunked(b"a" * 20, b"\r\nb\r\n", b"c")
    found = b"".join(body.feed(data[at : at + step]) for at in range(0, len(data), step))
    assert found == b"a" * 20 + b"\r\nb\r\n" + b"c"
    assert sizes == [20, 5, 1]


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (b"HTTP/1.1 410 Gone\r\nContent-Length: 4\r\n\r\ngone", "410: gone"),
        (HEAD + chunked(b"x") + b"0\r\n\r\n", "was ended"),
    ],
)
def test_a_watch_that_is_refused_or_ends_is_a_violation(answer: bytes, says: str) -> None:
    with pytest.raises(Violation, match=says):
        ChunkedBody().feed(answer)


def test_a_head_tells_status_and_length() -> None:
    assert parse_head(b"HTTP/1.1 200 OK\r\nX: 1\r\nContent-Length: 17\r\n") == (200, 17)
    assert parse_head(HEAD) == (200, -1)


@pytest.mark.parametrize("form", ["json", "table"])
def test_all_watchers_get_the_bytes_of_the_foremost(form: str) -> None:
    lines = [line(revision, revision % 3, form=form) for revision in (4, 5, 9)]
    stream = Stream()
    at = stream.take(0, lines[0] + lines[1][:10])
    other = stream.take(0, lines[0])
    at = stream.take(at, lines[1][10:] + lines[2])
    assert stream.take(other, lines[1] + lines[2]) == at == stream.ends[-1]
    assert stream.sent_s == [5.0] * 3
    expected = Stream()
    for text in lines:
        expected.take(sum(map(len, lines[: lines.index(text)])), text)
    assert stream.digest == expected.digest


def test_other_bytes_than_the_foremost_s_are_a_violation() -> None:
    lines = [line(revision, 1) for revision in (4, 5, 9)]
    for wrong in (lines[0] + lines[2], lines[0] + lines[0], lines[1]):
        stream = Stream()
        stream.take(0, b"".join(lines))
        with pytest.raises(Violation, match="different bytes"):
            stream.take(0, wrong)
    ahead = Stream()
    ahead.take(0, lines[0])
    with pytest.raises(Violation, match="different bytes"):
        ahead.take(0, lines[1] + lines[2])


@pytest.mark.parametrize(
    ("second", "says"),
    [
        (line(4, 1), "came behind"),
        (line(3, 1), "came behind"),
        (line(5, 1, kind="ADDED"), "nobody did that"),
        (line(5, 1, kind="ERROR"), "nobody did that"),
    ],
    ids=["doubled", "back", "added", "error"],
)
def test_an_event_that_cannot_be_is_a_violation(second: bytes, says: str) -> None:
    stream = Stream()
    at = stream.take(0, line(4, 1))
    with pytest.raises(Violation, match=says):
        stream.take(at, second)


def test_a_stream_forgets_what_all_have() -> None:
    stream, text, at = Stream(), line(4, 1), 0
    stream.take(0, text)
    stream.trim(len(text))  # too little to bother
    assert stream.kept() == text
    big = Stream()
    padded = orjson.loads(line(4, 1))
    padded["object"]["spec"]["padding"] = "x" * (1 << 24)
    at = big.take(0, orjson.dumps(padded) + b"\n")
    big.trim(at)
    assert big.kept() == b""
    assert big.take(at, line(5, 1)) == at + len(line(5, 1)) == big.ends[-1]


def test_the_writes_and_nothing_else_must_have_come() -> None:
    stream = Stream()
    stream.take(0, line(4, 1) + line(6, 2))
    acks = [[4, 1, 40, 0], [6, 2, 60, 0]]
    told = {"digests": [stream.digest], "lines": 2, "total": 6}
    check_streams([told], acks, 3)
    with pytest.raises(Violation, match="are not the 3 writes"):
        check_streams([told], [*acks, [7, 1, 70, 0]], 2)
    with pytest.raises(Violation, match="are not the 2 writes"):
        check_streams([told], [acks[0], [6, 2, 61, 0]], 3)
    with pytest.raises(Violation, match="are others"):
        check_streams([told], acks, 4)
    assert fingerprint(4, 1, 40) != fingerprint(4, 14, 0)


def test_a_list_must_hold_what_was_acknowledged() -> None:
    acks = [[10, 0, 1, 100], [12, 0, 2, 200], [11, 0, 3, 150]]
    check_fresh([[160, 11], [201, 12], [201, 40]], acks)
    with pytest.raises(Violation, match="of revision 11 was asked for after 12"):
        check_fresh([[201, 11]], acks)


def listed(revision: int, *pods: tuple[int, int]) -> bytes:
    items = []
    for number, at in pods:
        item = api_pods.pod(number)
        item["metadata"]["resourceVersion"] = str(at)
        items.append(item)
    return orjson.dumps({"metadata": {"resourceVersion": str(revision)}, "items": items})


def test_a_list_is_whole_in_order_and_never_older() -> None:
    check = _Check(3)
    assert check.list([listed(9, (0, 5), (2, 4)), listed(9, (1, 9))]) == 9
    for parts, says in (
        ([listed(9, (0, 5), (2, 4))], "held 2 pods"),
        ([listed(9, (0, 5), (2, 4), (2, 4))], "2 different"),
        ([listed(9, (0, 5), (1, 9), (2, 4))], "3 different"),
        ([listed(9, (0, 5)), listed(10, (2, 4), (1, 9))], "pages of one list"),
        ([listed(9, (0, 5), (2, 4), (1, 8))], "went back"),
        ([listed(9, (0, 5), (2, 4), (1, 10))], "in a list of revision 9"),
    ):
        with pytest.raises(Violation, match=says):
            check.list(parts)


def test_views_show_what_their_paths_ask_for() -> None:
    for view in (View(), View("namespace"), View("cluster", "label"), View("cluster", "field")):
        shown = [number for number in range(8) if view.shows(number)]
        for number in range(8):
            pod = api_pods.pod(number)
            metadata = pod["metadata"]
            asked = (
                view.scope == "cluster" or f"/namespaces/{metadata['namespace']}/" in view.path,
                view.selector != "label" or metadata["labels"]["half"] == "a",
                view.selector != "field" or pod["spec"]["nodeName"] == "node-0",
            )
            assert (number in shown) == all(asked)
        assert len(shown) == (8 if view == View() else 4)


def test_pods_and_marks_are_read_back() -> None:
    assert api_pods.number_of(api_pods.name(1234)) == 1234
    assert api_pods.read_mark(api_pods.mark(17, 123_456_789)) == (17, 123_456_789)
    made = api_pods.pod(0)
    made["metadata"] |= {"uid": "01234567-x", "resourceVersion": "5", "generation": 1}
    stored = api_pods.as_stored(made, 7, 100)
    assert stored["metadata"]["uid"] == "00000007-x"
    assert "resourceVersion" not in stored["metadata"]
    assert stored["spec"]["nodeName"] == api_pods.pod(7)["spec"]["nodeName"]
    assert len(orjson.dumps(stored)) - len(orjson.dumps(api_pods.as_stored(made, 7, 0))) == 100


def test_the_slowest_counts(tmp_path: Path) -> None:
    Progress.create(tmp_path / "progress", 3)
    mine, other = (Progress(str(tmp_path / "progress"), 3) for _ in range(2))
    for slot, events in ((0, 9), (1, 4), (2, 7)):
        mine.set(slot, events)
    assert other.slowest() == 4


def test_percentiles_of_a_histogram() -> None:
    told = percentiles(Counter({100: 500, 200: 490, 300: 9, 400: 1}))
    assert told == {"p50_ms": 1.0, "p99_ms": 2.0, "p999_ms": 3.0}


def test_a_generator_that_ends_says_why() -> None:
    worker = Worker("watch", watchers=10**9)
    try:
        with pytest.raises(BenchError, match="file descriptors are needed"):
            worker.hear(20)
    finally:
        worker.stop()


@pytest.mark.e2e
@pytest.mark.parametrize(
    "arguments",
    [
        ["api-list", "--pods", "30", "--limit", "0", "--limit", "7", "--object-bytes", "1100"],
        ["api-watch", "--watchers", "5", "--pods", "16", "--form", "table", "--selector", "label"],
    ],
    ids=["list", "watch"],
)
def test_a_short_run_verifies_what_it_counts(tmp_path: Path, arguments: list[str]) -> None:
    out = tmp_path / "report.json"
    command = [sys.executable, "-m", "bench", *arguments, "--seconds", "2", "--repeat", "1", "--seed", "7"]
    command += ["--out", str(out), "--data-dir", str(tmp_path / "data")]
    done = subprocess.run(command, capture_output=True, check=False, timeout=180)
    assert done.returncode == 0, done.stderr.decode()
    report = orjson.loads(out.read_bytes())
    for run in report["runs"]:
        assert run["ours"]["verified"] > 0
        assert run["bare"]["generator_cpu_s"] >= 0
        figure = "mb_per_s" if arguments[0] == "api-list" else "rate"
        assert run["ratio"] == pytest.approx(run["ours"][figure] / run["bare"][figure], abs=0.001)
    assert len(report["runs"]) == (2 if arguments[0] == "api-list" else 1)
    assert "times the bare loop's" in done.stdout.decode()


@pytest.mark.e2e
def test_idle_watches_are_served_again_when_their_server_is_killed(tmp_path: Path) -> None:
    out = tmp_path / "report.json"
    command = [
        sys.executable,
        "-m",
        "bench",
        "api-idle",
        "--watchers",
        "20",
        "--seconds",
        "0.5",
        "--repeat",
        "1",
    ]
    command += ["--out", str(out), "--data-dir", str(tmp_path / "data")]
    done = subprocess.run(command, capture_output=True, check=False, timeout=180)
    assert done.returncode == 0, done.stderr.decode()
    (run,) = orjson.loads(out.read_bytes())["runs"]
    assert run["ours"]["lease_renewals"] > 0
    assert run["ours"]["kb_each"] > 0
    assert run["ratio"] == pytest.approx(
        run["ours"]["reconnected_s"] / run["bare"]["reconnected_s"], abs=0.001
    )


def test_an_idle_watch_must_not_end_while_its_server_lives() -> None:
    sleepers = Sleepers({"endpoints": [], "path": "/", "watchers": 1})
    with pytest.raises(Violation, match="closed an idle watch"):
        sleepers._sleepers[0]._on_data(Mock(), b"")
