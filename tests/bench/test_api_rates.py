"""`api-rates` counts only what it has checked: a lost, stale, doubled or foreign pod is a violation."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import orjson
import pytest

from bench.api_bare import request_is_whole
from bench.api_http import Exchange, request
from bench.api_rate_work import PODS, READS_A_WRITE, Answer, Owner, Script, replay
from bench.api_rates import rate_figures
from bench.errors import BenchError, Violation

Fault = Callable[["ApiStub", str, str, Answer], Answer]


class ApiStub:
    """Pods by path, kept as an API server keeps them; `fault` may spoil an answer, or what is kept."""

    def __init__(self, fault: Fault | None = None) -> None:
        self.fault = fault
        self.pods: dict[str, dict[str, Any]] = {}
        self.revision = 10
        self.asked: list[str] = []

    def answer(self, data: bytes) -> Answer:
        head, _, body = data.partition(b"\r\n\r\n")
        method, path = head.split(b" ")[0].decode(), head.split(b" ")[1].decode()
        self.asked.append(method)
        answer = self._answer(method, path, orjson.loads(body) if body else {})
        return self.fault(self, method, path, answer) if self.fault else answer

    def _answer(self, method: str, path: str, body: dict[str, Any]) -> Answer:
        if method == "GET":
            return self._listed(path) if "/pods/" not in path else ok(self.pods[path])
        if method == "DELETE":
            return ok(self.pods.pop(path))
        self.revision += 1
        if method == "POST":
            path = f"{path}/{body['metadata']['name']}"
            status = 201
        else:
            status, old = 200, self.pods[path]
            if method == "PUT" and body["metadata"]["resourceVersion"] != old["metadata"]["resourceVersion"]:
                return Answer(409, b"the object has been modified")
            annotations = old["metadata"]["annotations"] | body["metadata"]["annotations"]
            body = old | {"metadata": old["metadata"] | {"annotations": annotations}}
        made = {**body, "metadata": {**body["metadata"], "resourceVersion": str(self.revision)}}
        self.pods[path] = made
        return ok(made, status)

    def _listed(self, path: str) -> Answer:
        where, _, _ = path.partition("?")
        found = [pod for at, pod in sorted(self.pods.items()) if at.startswith(f"{where}/")]
        return ok({"metadata": {"resourceVersion": str(self.revision)}, "items": found})


def ok(told: dict[str, Any], status: int = 200) -> Answer:
    return Answer(status, orjson.dumps(told))


def drive(script: Script, stub: ApiStub, count: int = 100_000) -> int:
    """Let `stub` answer so many requests of `script`; how many there were."""
    answered = 0
    try:
        ask = next(script)
        while answered < count:
            answer = stub.answer(ask.data)
            answered += 1
            ask = script.send(answer)
    except StopIteration:
        pass
    return answered


def prepared(verb: str = "", count: int = 0) -> tuple[Owner, ApiStub]:
    """An owner whose pods are there, after so many requests of `verb`."""
    owner, stub = Owner(3, padding=10, seed=1), ApiStub()
    drive(owner.prepare(), stub)
    if count:
        drive(owner.script(verb), stub, count)
    return owner, stub


@pytest.mark.parametrize("verb", ["get", "list", "create", "update", "patch"])
def test_what_is_as_it_must_be_is_verified(verb: str) -> None:
    owner, stub = prepared()
    before = stub.asked.copy()
    assert drive(owner.script(verb), stub, 300) == 300
    asked = stub.asked[len(before) :]
    method = {"create": "POST", "update": "PUT", "patch": "PATCH"}.get(verb, "GET")
    assert set(asked) <= {method, "PATCH"}
    if verb in ("get", "list"):
        assert 0 < asked.count("PATCH") < 300 * 5 / READS_A_WRITE
    assert owner.verified >= 300
    drive(owner.check(), stub)
    assert len(owner.pods) == PODS
    assert len(owner.made) == (300 if verb == "create" else 0)


def test_deletes_end_when_nothing_is_left() -> None:
    owner, stub = prepared("create", 20)
    assert drive(owner.script("delete"), stub, 5) == 5
    assert len(owner.made) == 15
    drive(owner.check(), stub)
    assert drive(owner.script("delete"), stub) == 15
    assert owner.made == {}
    drive(owner.check(), stub)


def lose(stub: ApiStub, method: str, path: str, answer: Answer) -> Answer:
    """Acknowledge a creation, and forget it."""
    if method == "POST" and path.endswith("/pods"):
        del stub.pods[f"{path}/{orjson.loads(answer.body)['metadata']['name']}"]
    return answer


def keep_deleted(stub: ApiStub, method: str, path: str, answer: Answer) -> Answer:
    """Acknowledge a deletion, and do nothing."""
    if method == "DELETE":
        stub.pods[path] = orjson.loads(answer.body)
    return answer


def drop_write(stub: ApiStub, method: str, path: str, answer: Answer) -> Answer:
    """Acknowledge a change, and go back to another one."""
    if method in ("PUT", "PATCH"):
        stub.pods[path] = {
            **stub.pods[path],
            "metadata": {**stub.pods[path]["metadata"], "resourceVersion": "12"},
        }
    return answer


@pytest.mark.parametrize(
    ("verb", "fault", "says"),
    [
        ("create", lose, "acknowledged pods are not listed, new-000000 first"),
        ("delete", keep_deleted, "pods are listed that were deleted or never made: new-000000"),
        ("update", drop_write, "is at revision 12, not at"),
        ("patch", drop_write, "is at revision 12, not at"),
    ],
)
def test_what_was_acknowledged_and_is_not_so_is_found_at_the_end(verb: str, fault: Fault, says: str) -> None:
    owner, stub = prepared("create", 3) if verb == "delete" else prepared()
    stub.fault = fault
    assert drive(owner.script(verb), stub, 2) == 2
    with pytest.raises(Violation, match=says):
        drive(owner.check(), stub)


def test_a_pod_that_is_listed_twice_is_found() -> None:
    owner, stub = prepared("create", 3)

    def twice(_: ApiStub, method: str, path: str, answer: Answer) -> Answer:
        told = orjson.loads(answer.body)
        return ok({**told, "items": told["items"] + told["items"][:1]})

    stub.fault = twice
    with pytest.raises(Violation, match="pod-000000 is listed twice"):
        drive(owner.check(), stub)


def spoiled(change: Callable[[dict[str, Any]], None]) -> Fault:
    """Reads and writes are answered with something else."""

    def fault(_: ApiStub, method: str, path: str, answer: Answer) -> Answer:
        told = orjson.loads(answer.body)
        change(told)
        return ok(told, answer.status)

    return fault


def set_in_metadata(**given: Any) -> Fault:
    return spoiled(lambda told: told["metadata"].update(given))


@pytest.mark.parametrize(
    ("verb", "fault", "says"),
    [
        ("get", set_in_metadata(resourceVersion="11"), "is at revision 11, not at"),
        ("get", set_in_metadata(annotations={"bench/mark": "old"}), "holds 'old', not"),
        ("get", set_in_metadata(name="other"), "other was answered for"),
        ("list", set_in_metadata(resourceVersion="11"), "a list of revision 11 was asked for after"),
        ("list", spoiled(lambda told: told["items"].pop()), "not the 10 pods that there are"),
        (
            "list",
            spoiled(lambda told: told["items"].append(told["items"][0])),
            "not the 10 pods that there are",
        ),
        (
            "list",
            spoiled(lambda told: told["items"][2]["metadata"].update(resourceVersion="1")),
            "revision 1,",
        ),
        ("create", set_in_metadata(resourceVersion="12"), "at revision 12, .* was seen before"),
        ("update", set_in_metadata(annotations={"bench/mark": "old"}), "left 'old', not"),
        ("patch", set_in_metadata(resourceVersion="12"), "at revision 12, .* was seen before"),
        ("delete", set_in_metadata(name="other"), "other was answered for new-000000"),
    ],
)
def test_an_answer_that_cannot_be_is_a_violation(verb: str, fault: Fault, says: str) -> None:
    owner, stub = prepared("create", 2)
    drive(owner.script("patch"), stub, 2 * PODS)
    stub.fault = fault
    with pytest.raises(Violation, match=says):
        drive(owner.script(verb), stub, 2)


@pytest.mark.parametrize("verb", ["get", "list", "create", "update", "patch", "delete"])
def test_a_refusal_is_a_violation(verb: str) -> None:
    owner, stub = prepared("create", 1)
    stub.fault = lambda *_: Answer(429, b"too many")
    with pytest.raises(Violation, match="was answered 429: too many"):
        drive(owner.script(verb), stub, 1)


def test_the_bare_loop_must_answer_what_was_recorded() -> None:
    script = replay(b"request", b"{}")
    assert next(script).data == b"request"
    assert script.send(Answer(200, b"{}")).data == b"request"
    with pytest.raises(Violation, match="something else"):
        script.send(Answer(200, b"[]"))


@pytest.mark.parametrize("data", [request("PUT", "/x", b"body"), b"GET /x HTTP/1.1\r\nHost: y\r\n\r\n"])
def test_the_bare_loop_waits_for_a_request_s_last_byte(data: bytes) -> None:
    assert [request_is_whole(data[:end]) for end in range(len(data))] == [False] * len(data)
    assert request_is_whole(data)


def exchange() -> tuple[Exchange, list[tuple[int, bytes]]]:
    got: list[tuple[int, bytes]] = []
    endpoint = Mock(host="127.0.0.1", port=1)
    made = Exchange(endpoint, Mock(), Mock(), lambda status, body: got.append((status, body)))
    return made, got


@pytest.mark.parametrize("step", [1, 3, 1000])
def test_answers_may_come_in_any_pieces(step: int) -> None:
    made, got = exchange()
    data = b"HTTP/1.1 201 Created\r\ncontent-length: 3\r\n\r\nabc"
    for _ in range(2):
        for at in range(0, len(data), step):
            made._on_data(Mock(), data[at : at + step])
    assert got == [(201, b"abc")] * 2


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "closed a connection"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nab", "more than an answer"),
        (b"HTTP/1.1 200 OK\r\n\r\n", "no Content-Length"),
    ],
)
def test_an_answer_of_another_form_is_a_violation(data: bytes, says: str) -> None:
    with pytest.raises(Violation, match=says):
        exchange()[0]._on_data(Mock(), data)


def test_the_figures_of_several_generators() -> None:
    reports = [
        {"count": 10, "seconds": 2.0, "pairs": [(99, 10)], "writes": 1, "generator_cpu_s": 0.5},
        {"count": 30, "seconds": 1.0, "pairs": [(199, 30)], "writes": 2, "generator_cpu_s": 0.95},
    ]
    told = rate_figures(reports)
    assert (told["rate"], told["operations"], told["writes"]) == (35.0, 40, 3)
    assert (told["p50_ms"], told["max_ms"]) == (2.0, 2.0)
    assert told["generator_busy"] == 0.95
    with pytest.raises(BenchError, match="raise --seconds"):
        rate_figures([*reports, {**reports[0], "count": 0}])


@pytest.mark.e2e
@pytest.mark.long
def test_a_short_run_verifies_what_it_counts(tmp_path: Path) -> None:
    out = tmp_path / "report.json"
    verbs = ["get", "list", "create", "update", "patch", "delete"]
    command = [
        sys.executable,
        "-m",
        "bench",
        "api-rates",
        "--servers",
        "2",
        "--clients",
        "4",
        "--seconds",
        "2",
    ]
    command += ["--repeat", "1", "--seed", "7", "--out", str(out), "--data-dir", str(tmp_path / "data")]
    done = subprocess.run(command, capture_output=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr.decode()
    report = orjson.loads(out.read_bytes())
    assert [run["case"].split(",")[0] for run in report["runs"]] == [f"rates: {verb}" for verb in verbs]
    for run in report["runs"]:
        ours, bare = run["ours"], run["bare"]
        assert ours["verified"] >= ours["operations"] > 0
        assert 0 < ours["p50_ms"] <= ours["p99_ms"] <= ours["max_ms"]
        assert bare["operations"] > 0
        assert ours["peak_mb"] > bare["peak_mb"] > 0
        assert ours["store_peak_mb"] > 0
        assert run["ratio"] == pytest.approx(ours["rate"] / bare["rate"], abs=0.0001)
    assert "times the bare loop's" in done.stdout.decode()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--verb", "watch"], "--verb"),
        (["--clients", "2"], "--clients 2 is less than --servers 3"),
    ],
)
def test_wrong_input_is_one_sentence(arguments: list[str], says: str) -> None:
    command = [sys.executable, "-m", "bench", "api-rates", *arguments]
    done = subprocess.run(command, capture_output=True, check=False)
    assert done.returncode == 2
    assert says in done.stderr.decode()
    assert "Traceback" not in done.stderr.decode()
