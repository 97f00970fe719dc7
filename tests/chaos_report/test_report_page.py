"""The two files: what stands in them, that the page needs nothing else, that no record is taken as markup."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from report_histories import (
    fault,
    invalid,
    live_faults,
    make_history,
    operation,
    role,
    simulated_history,
    term,
    valid,
)

from chaos.checkers.history import History
from chaos.checkers.judge import INVARIANTS
from chaos.checkers.verdict import Verdict
from chaos.report import words, write_report
from chaos.report.page import choose_closeups, closeup_window, headline
from chaos.report.summary import EVIDENCE, make_report

Json = dict[str, Any]
ROOT = Path(__file__).parents[2]
# Leases and control loops: nothing of theirs is in these histories.
UNJUDGED = tuple(name for name in INVARIANTS if name[0] in "LCA")
_VOID = frozenset(("meta", "link", "br", "img", "input", "hr"))


class Outline(HTMLParser):
    """Checks that elements are closed in order; keeps attributes and text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in _VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("script", "style"):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def written(folder: Path, history: History, verdict: Verdict, **options: Any) -> tuple[str, Outline, Json]:
    """The page, its outline, report.json."""
    write_report(folder, history, verdict, history.faults, "python -m chaos live --seed 1", **options)
    page = (folder / "report.html").read_text()
    outline = Outline()
    outline.feed(page)
    assert outline.open == []
    return page, outline, json.loads((folder / "report.json").read_text())


def live(clients: int = 4, kills: int = 5) -> History:
    history = make_history(clients, 2_000, live_faults(kills, 60))
    history.observations = [term(50, 1, "store-1"), term(10_200, 2, "store-2")]
    return history


def test_it_needs_nothing_from_outside(tmp_path: Path) -> None:
    history = live()
    page, outline, _ = written(tmp_path, history, invalid(history))
    linked = [
        (tag, value) for tag, name, value in outline.attributes if name in ("src", "href", "srcset", "data")
    ]
    assert linked
    assert all(tag == "a" and value.startswith("#") for tag, value in linked)
    assert "default-src 'none'" in page
    assert not re.search(r"url\(|@import|https?://(?!www\.w3\.org/2000/svg)", page)


def test_every_link_has_a_target(tmp_path: Path) -> None:
    history = live()
    _, outline, _ = written(tmp_path, history, invalid(history))
    targets = {value for _, name, value in outline.attributes if name == "id"}
    links = {value[1:] for _, name, value in outline.attributes if name == "href"}
    assert links
    assert links <= targets


def test_pictures_are_well_formed(tmp_path: Path) -> None:
    history = live()
    page, _, _ = written(tmp_path, history, invalid(history))
    pictures = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert len(pictures) == 1 + 1 + 5
    for picture in pictures:
        ElementTree.fromstring(picture)


def test_what_was_recorded_is_never_markup(tmp_path: Path) -> None:
    nasty = '<script>alert("x")</script>&amp;'
    history = live(kills=0)
    history.faults = [
        fault(nasty, nasty, 5_000, 6_000, effect={"kind": nasty}),
        fault("a", nasty, 9_000, 9_500, effect=None),
    ]
    history.operations.append(operation(3, 77, 7_000, 7_001, "put", "unknown", key=nasty, error=nasty))
    history.header |= {"seed": nasty, "commit": nasty, "options": {nasty: nasty}}
    history.header["plan"] = {"mutant": nasty, "faults": [{"fault": nasty}]}
    verdict = Verdict(unknown_because=[nasty])
    verdict.add(nasty, nasty, history.operations[-1])
    page, outline, _ = written(tmp_path, history, verdict, skipped=[nasty])
    assert "<script>alert" not in page
    assert outline.text.count("alert") > 10


@pytest.mark.parametrize("word", ["valid", "invalid", "unknown"])
def test_the_verdict_and_one_for_each_invariant(word: str, tmp_path: Path) -> None:
    history = live()
    verdict = invalid(history) if word == "invalid" else valid(history)
    if word == "unknown":
        verdict.unknown_because.append("too slow")
    _, outline, report = written(tmp_path, history, verdict)
    assert (report["verdict"], report["exit_code"]) == (word, {"valid": 0, "invalid": 1, "unknown": 2}[word])
    assert word in outline.text
    rows = {row["name"]: row for row in report["invariants"]}
    assert list(rows) == list(INVARIANTS)
    assert all(row["promise"] in outline.text for row in rows.values())
    words_ = {name: row["verdict"] for name, row in rows.items()}
    broken = {"S2": "invalid", "W7": "invalid"} if word == "invalid" else {}
    leases = {} if word == "unknown" else dict.fromkeys(UNJUDGED, "unjudged")
    sound = "unknown" if word == "unknown" else "valid"
    assert words_ == dict.fromkeys(INVARIANTS, sound) | leases | broken


def test_each_invariant_says_what_it_is_judged_by() -> None:
    """Those are counts of the checkers, or else everything would seem not to be judged."""
    sources = "".join(path.read_text() for path in (ROOT / "chaos" / "checkers").glob("*.py"))
    counts = [count for _, counts in EVIDENCE for count in counts]
    assert [count for count in counts if f'.count("{count}"' not in sources] == []
    assert {name for names, _ in EVIDENCE for name in names} == set(INVARIANTS)


def test_a_violation_of_an_unlisted_name_is_not_dropped(tmp_path: Path) -> None:
    history = live()
    verdict = valid(history)
    verdict.add("C9", "two schedulers bound one pod")
    _, outline, report = written(tmp_path, history, verdict)
    assert report["invariants"][-1] == {"name": "C9", "promise": "", "violations": 1, "verdict": "invalid"}
    assert "two schedulers bound one pod" in outline.text


def test_report_json(tmp_path: Path) -> None:
    history = live()
    _, _, report = written(
        tmp_path, history, invalid(history), skipped=[{"name": "cut", "why": "needs root"}]
    )
    assert (report["seed"], report["commit"], report["clients"]) == (1, "abc", 4)
    assert report["faults_effective"] == 4
    assert report["faults_without_effect"] == ["partition-one-way"]
    assert report["faults_skipped"] == [{"name": "cut", "why": "needs root"}]
    assert sum(report["outcomes"].values()) == len(history.operations)
    assert {led["term"]: led["member"] for led in report["leaders"]} == {1: "store-1", 2: "store-2"}
    first = report["first_violation"]
    assert first["invariant"] == "S2"
    assert first["explanation"].endswith(report["violations"][0]["sentence"])
    assert [each["why"] for each in first["neighbours"]].count("violation") == 1
    kill = report["faults"][0]
    assert (kill["name"], kill["at_s"]) == ("kill-store-leader", pytest.approx(10, abs=0.01))
    assert kill["figures"]["detect_ms"] == 9
    assert kill["figures"]["elect_ms"] == 200
    assert 350 <= kill["figures"]["unavailable_ms"] <= 500
    assert set(kill["figures"]["during"]) == {
        "length_s", "rate", "p50_ms", "p99_ms", "max_ms", "failed", "unknown",
    }  # fmt: skip


def test_a_violation_that_observers_saw_is_drawn(tmp_path: Path) -> None:
    history = live()
    verdict = Verdict()
    verdict.add("S5", "both lead", role(5_000, "store-1", 3, "leader"), role(5_004, "store-2", 3, "leader"))
    page, outline, _ = written(tmp_path, history, verdict)
    assert page.count('class="call event broken"') == 2
    assert "seen: store-2 is leader in term 3" in outline.text


def test_a_fault_may_say_only_whether_it_was_effective(tmp_path: Path) -> None:
    history = live(kills=0)
    history.faults = [
        fault("crash", "2", 5_000, 6_000, effective=True), fault("cut", "1", 9_000, 9_500, effective=False),
    ]  # fmt: skip
    _, outline, report = written(tmp_path, history, valid(history))
    assert (report["faults_effective"], report["faults_without_effect"]) == (1, ["cut"])
    assert "had its effect" in outline.text
    assert "2: cut on 1" in outline.text


def test_a_simulation_shows_its_schedule_and_what_was_skipped(tmp_path: Path) -> None:
    history = simulated_history()
    _, outline, report = written(tmp_path, history, valid(history))
    assert report["plan"]["mutant"] == "skip-vote"
    assert report["faults_skipped"] == [{"name": "partition-nft", "why": "skipped: needs root"}]
    for told in ("The schedule", "skip-vote", "lose-unsynced", "10.000 s", "partition-nft: needs root"):
        assert told in outline.text
    assert "4: slow-disk on store-3" in outline.text


def test_a_plan_may_be_what_the_options_are(tmp_path: Path) -> None:
    history = live()
    history.header["options"] = {"world": "cluster", "faults": [{"at_s": 2.5, "fault": "stale-api"}]}
    _, outline, report = written(tmp_path, history, valid(history))
    assert (report["plan"]["world"], report["options"]) == ("cluster", {})
    assert "stale-api" in outline.text


def test_options_and_the_replay_line(tmp_path: Path) -> None:
    history = live()
    history.header["options"] = {"min_rate": 12.5, "mutant": None, "testing": True, "faults": ["a", "b"]}
    _, outline, report = written(tmp_path, history, valid(history))
    assert report["replay"] == "python -m chaos live --seed 1"
    for told in ("python -m chaos live --seed 1", "min_rate 12.5", "mutant –", "testing yes", "faults a, b"):
        assert told in outline.text


@pytest.mark.parametrize(
    ("clients", "kills", "drawn"),
    [
        pytest.param(3, 5, 5, id="all"),
        pytest.param(3, 60, 40, id="many"),
        pytest.param(60, 20, 8, id="broad"),
    ],
)
def test_close_ups_are_of_the_dearest_faults(clients: int, kills: int, drawn: int) -> None:
    history = make_history(clients, 1_000, live_faults(kills, 60))
    report = make_report(history, valid(history), history.faults, "again", [])
    chosen = choose_closeups(report)
    assert chosen == sorted(chosen)
    assert len(chosen) == drawn
    costs = [cost.unavailable_ms or 0 for cost in report.figures]
    left = [cost for number, cost in enumerate(costs, 1) if number not in chosen]
    assert min(costs[number - 1] for number in chosen) >= max(left, default=0)
    for number in chosen:
        window, broken = closeup_window(report, number), report.run.faults[number - 1]
        assert window.start_ns <= broken["start_ns"] < window.end_ns <= report.run.end_ns
        assert window.end_ns - window.start_ns <= 13_000_000_000


def test_the_headline_says_what_it_means() -> None:
    history = live()
    sound, broken = valid(history), invalid(history)
    told = headline(make_report(history, sound, history.faults, "again", []).summary)
    number = f"{len(history.operations):,} operations"
    more = f"{len(UNJUDGED)} more had nothing to judge."
    judged = len(INVARIANTS) - len(UNJUDGED)
    assert told == f"All {judged} invariants held over {number} and 4 effective faults. {more}"
    told = headline(make_report(history, broken, history.faults, "again", []).summary)
    assert told == f"S2, W7 broken: 2 violations in {number}."
    sound.unknown_because.append("too slow")
    assert "proves nothing" in headline(make_report(history, sound, history.faults, "again", []).summary)


@pytest.mark.parametrize(
    ("value", "told"),
    [(None, "–"), (0, "0 ms"), (0.905, "0.905 ms"), (8.911, "8.91 ms"), (103, "103 ms"), (999.4, "999 ms"),
     (999.6, "1 s"), (2_734, "2.73 s"), (61_000, "61 s"), (123_456, "123 s"), (7_200_000, "7,200 s")],
)  # fmt: skip
def test_lengths_of_time_in_words(value: float | None, told: str) -> None:
    assert words.ms(value).replace("\N{NO-BREAK SPACE}", " ") == told


@pytest.mark.parametrize(
    ("effect", "told"),
    [
        (None, "none"),
        ("journal cut", "journal cut"),
        ({"kind": "term", "term": 3, "leader": "store-2", "time_ns": 1}, "store-2 leads in term 3"),
        ({"kind": "reset", "component": "store-1", "time_ns": 1}, "connection to store-1 lost"),
        ({"kind": "holder", "lease": "x", "holder": "scheduler-1_27"}, "scheduler-1 holds the x lease"),
        ({"kind": "term", "time_ns": 1}, "kind term"),
        ({"dropped": 4120, "time_ns": 1}, "dropped 4,120"),
    ],
)  # fmt: skip
def test_effects_in_words(effect: Any, told: str) -> None:
    assert words.effect({"effect": effect}) == told
    assert words.effect({}) == "–"
    assert words.effect({"effect": {}}) == "had its effect"
    assert words.effect({"effective": True}) == "had its effect"
    assert words.effect({"effective": False}) == "none"


def test_faults_in_words() -> None:
    assert words.fault(fault("kill", "store-1", 0, 1)) == "kill on store-1"
    assert words.fault(fault("kill", "", 0, 1)) == "kill"


TXN: Json = {
    "compares": [{"key": "/c/1", "target": "version", "result": ">", "operand": 2}],
    "success": [{"kind": "put", "key": "/c/1", "value": "v"}, {"kind": "delete", "key": "/c/2"}],
    "failure": [],
}
RANGE: Json = {"key": "/c/", "range_end": "/c0"}


def answered(kind: str, response: Json, **fields: Any) -> Json:
    return operation(1, 1, 0, 1, kind, revision=9, response=response, **fields)


@pytest.mark.parametrize(
    ("record", "asked", "told"),
    [
        (answered("put", {}), "put 01 = c1-1", "revision 9"),
        (answered("get", {"kv": ["k", "v7", 1, 8, 1]}), "get 01", "v7 of 8, revision 9"),
        (answered("get", {"kv": None}), "get 01", "no such key, revision 9"),
        (answered("delete", {"deleted": 1}), "delete 01", "1 deleted, revision 9"),
        (answered("range", {"kvs": [1, 2]}, request=RANGE), "range c … c0", "2 keys, revision 9"),
        (
            answered("txn", {"succeeded": False}, request=TXN),
            "txn if version of 1 > 2: put 1 = v; delete 2, else nothing",
            "compare failed, revision 9",
        ),
        (answered("user", {}, request={"verb": "create", "name": "ns/web"}), "create ns/web", "revision 9"),
        (
            answered(
                "write", {}, request={"puts": ["/registry/pods/a/b"], "deletes": ["/registry/pods/a/c"]}
            ),
            "write b, c",
            "revision 9",
        ),
        (
            answered("api", {}, request={"method": "POST", "path": "/api/v1/pods", "user": "system:x"}),
            "POST /api/v1/pods by system:x",
            "revision 9",
        ),
        (answered("lease_grant", {}, request={"ttl_s": 5}), "lease_grant ttl_s 5", "revision 9"),
        (role(5, "store-1", 3, "leader"), "seen: store-1 is leader in term 3", "observed"),
        (operation(1, 1, 0, 1, "put", "unknown"), "put 01 = c1-1", "unknown: timeout"),
        (
            {"type": "event", "watch": 1, "kind": "put", "key": "/c/1", "value": "v", "revision": 4},
            "event put 1 = v",
            "revision 4",
        ),
    ],
)
def test_operations_in_words(record: Json, asked: str, told: str) -> None:
    assert (words.request(record), words.answer(record)) == (asked, told)
