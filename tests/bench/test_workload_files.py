"""The workload of the API: what it lists, and that its reports become one picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import orjson

from bench.__main__ import cli
from bench.errors import BenchError
from bench.plot import draw_report
from bench.workload import put_together, read_workload, run_workload

API = Path(__file__).parents[2] / "bench" / "workloads" / "api.json"


def parsed(words: list[str]) -> dict[str, Any]:
    """The options that a command line means. Raises click's UsageError."""
    command = cli.commands[words[0]]
    return command.make_context(words[0], list(words[1:])).params


def test_the_api_s_workload_has_what_is_to_be_measured() -> None:
    cases = dict(read_workload(API).cases)
    told = {name: parsed([*words, "--repeat", "1"]) for name, words in cases.items()}
    watched = [params for name, params in told.items() if name.startswith("api-watch")]
    assert {count for params in watched for count in params["watchers"]} == {1_000}
    assert all(params["object_bytes"] == (1_100, 4_096) for params in watched)
    assert {form for params in watched for form in params["forms"]} == {"json", "table", "metadata"}
    assert {scope for params in watched for scope in params["scopes"]} == {"cluster", "namespace"}
    assert {name for params in watched for name in params["selectors"]} == {"none", "label", "field"}
    assert {params["servers"] for params in watched} == {1, 2, 3}
    assert told["api-list"]["limits"] == (0, 500)
    assert told["api-rates"]["servers"] == (1, 2, 3)
    assert len(told["api-rates"]["verbs"]) == 6
    assert told["api-idle"]["watchers"] == 10_000


SIDE = {"rate": 100.0, "p99_ms": 5.0, "cpu_s_per_1000": 0.5, "mb_per_s": 300.0, "reconnected_s": 4.0}


def report(words: list[str]) -> dict[str, Any]:
    bare = {key: value for key, value in SIDE.items() if not key.startswith("cpu")}
    name = words[0].removeprefix("api-")
    run = {"case": f"{name}: as {words[1]}", "ours": SIDE, "bare": bare, "ratio": 1.0, "doubts": []}
    return {"bench": words[0], "runs": [run], "commit": "abc", "verdict": "ok"}


def test_reports_of_the_api_become_one_picture(tmp_path: Path) -> None:
    file = tmp_path / "small.json"
    names = ("api-rates", "api-list", "api-idle", "restart")
    cases = [{"name": f"of-{name}", "command": [name, "x<y"]} for name in (*names, "broken")]
    file.write_bytes(orjson.dumps({"name": "small", "version": 1, "seed": 9, "cases": cases}))

    def run_command(words: list[str]) -> None:
        if words[0] == "broken":
            raise BenchError("it cannot")
        assert words[2:4] == ["--seed", "9"]
        Path(words[-1]).write_bytes(orjson.dumps(report(words)))

    told = run_workload(read_workload(file), tmp_path, run_command, lambda _: None)
    assert told["cases"] == {f"of-{name}": "measured" for name in names} | {
        "of-broken": "BenchError: it cannot"
    }
    root = ElementTree.fromstring(draw_report(put_together(tmp_path, [f"of-{name}" for name in names])))
    words = " ".join(text.text or "" for text in root.iter("{http://www.w3.org/2000/svg}text"))
    for word in (
        "as x<y",
        "operations a second",
        "MB of lists",
        "served again",
        "verdict ok",
        "bare socket loop",
    ):
        assert word in words
    assert words.count("as x<y") == 5  # a panel a figure; `restart` is not drawn
