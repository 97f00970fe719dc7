"""report.html: one file that needs nothing from outside."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any, Final

from chaos.report import tables, words
from chaos.report.calls import fault_end_ns
from chaos.report.figures import FULL_RATE, STRETCH_S
from chaos.report.summary import Report, has_no_effect, skip_words
from chaos.report.svg import element
from chaos.report.timeline import Window, draw_timeline
from chaos.report.violation import draw_violation

# Close-ups are drawn for so many faults as keep the file small: lanes times close-ups.
_CLOSEUP_LANES_MAX: Final = 480
_CLOSEUPS_MAX: Final = 40
_CLOSEUP_MARGIN_S: Final = 0.5
_CLOSEUP_MAX_S: Final = 12.0
_PIECES: Final = Path(__file__).parent


def draw_page(report: Report) -> str:
    """The whole document. Its policy forbids the browser to fetch anything."""
    summary = report.summary
    closeups = choose_closeups(report)
    body = "".join(
        (
            _top(report),
            _doubts(summary),
            _violation(report),
            _run(report),
            element("section", "<h2>Invariants</h2>" + tables.invariants(summary["invariants"])),
            _faults(summary, closeups),
            _closeups(report, closeups),
            _plan(summary),
            _details(summary),
        )
    )
    return _DOCUMENT.format(
        title=escape(f"{summary['verdict']}: chaos, seed {summary['seed']}"),
        css=(_PIECES / "page.css").read_text(encoding="utf-8"),
        js=(_PIECES / "page.js").read_text(encoding="utf-8"),
        body=element("main", body, class_=summary["verdict"]),
    )


def choose_closeups(report: Report) -> list[int]:
    """Numbers of the faults that get a close-up: those with the longest time without a write, in order."""
    most = min(_CLOSEUPS_MAX, _CLOSEUP_LANES_MAX // max(len(report.run.clients), 1))
    numbers = range(1, len(report.figures) + 1)
    by_cost = sorted(numbers, key=lambda number: -(report.figures[number - 1].unavailable_ms or 0))
    return sorted(by_cost[: max(most, 1)])


def closeup_window(report: Report, number: int) -> Window:
    """From a little before the fault until the full rate was back, or writes at least, or it ended."""
    fault, cost = report.run.faults[number - 1], report.figures[number - 1]
    start_ns = fault["start_ns"]
    costs_ms = [
        each for each in (cost.first_write_ms, cost.full_rate_ms, cost.elect_ms, cost.detect_ms) if each
    ]
    ends = [fault_end_ns(fault, report.run.end_ns), *(start_ns + int(each * 1e6) for each in costs_ms)]
    margin_ns = int(_CLOSEUP_MARGIN_S * 1e9)
    first = max(start_ns - margin_ns, report.run.start_ns)
    last = min(max(ends) + margin_ns, first + int(_CLOSEUP_MAX_S * 1e9), report.run.end_ns)
    name = f"fault {number}, {words.fault(fault)}, close up"
    return Window(first, max(last, first + 1_000_000), name)


def headline(summary: dict[str, Any]) -> str:
    """What the verdict means for this run, in a sentence."""
    operations = words.several(
        summary["checked"].get("operations", sum(summary["outcomes"].values())), "operation"
    )
    if summary["verdict"] == "invalid":
        broken = [row["name"] for row in summary["invariants"] if row["violations"]]
        found = words.several(summary["violations_found"], "violation")
        return f"{', '.join(broken)} broken: {found} in {operations}."
    if summary["verdict"] == "unknown":
        return f"No violation was found in {operations}, but this run proves nothing: see why below."
    effective = words.several(summary["faults_effective"], "effective fault")
    verdicts = [row["verdict"] for row in summary["invariants"]]
    held = words.several(verdicts.count("valid"), "invariant")
    idle = verdicts.count("unjudged")
    more = f" {idle} more had nothing to judge." if idle else ""
    return f"All {held} held over {operations} and {effective}.{more}"


def _top(report: Report) -> str:
    summary = report.summary
    told = {"seed": summary["seed"], "commit": summary["commit"]}
    origin = " · ".join(f"{name} {value}" for name, value in told.items() if value is not None)
    word = element("span", escape(summary["verdict"]), class_="verdict", id="verdict")
    replay = (
        element("code", escape(summary["replay"]), id="replay")
        + '<button type="button" data-copy="replay" hidden>copy</button>'
    )
    return element(
        "header",
        element("p", "raftkube · chaos report · " + escape(origin), class_="origin")
        + element("h1", word + element("span", escape(headline(summary)), class_="headline"))
        + element("dl", "".join(_tile(*tile) for tile in _tiles(report)), class_="tiles")
        + element("div", "<span>again</span>" + replay, class_="replay"),
    )


def _tile(name: str, value: str, told: str) -> str:
    return element(
        "div", element("dt", escape(name)) + element("dd", escape(value)) + element("p", escape(told))
    )


def _tiles(report: Report) -> list[tuple[str, str, str]]:
    summary, faults = report.summary, report.run.faults
    outcomes, latency = summary["outcomes"], summary["latency_ms"]
    acknowledged = outcomes.get("ok", 0)
    kinds = len({fault["name"] for fault in faults})
    worst = max((cost.unavailable_ms or 0 for cost in report.figures), default=None)
    others = f"{outcomes.get('fail', 0):,} failed, {outcomes.get('unknown', 0):,} unknown"
    each_s = acknowledged / summary["seconds"] if summary["seconds"] else None
    return [
        ("acknowledged", f"{acknowledged:,}", others),
        ("rate", words.rate(each_s), f"per second, {words.several(summary['clients'], 'client')}, "
         f"{words.seconds(summary['seconds'])}"),
        ("latency p50", words.ms(latency.get("p50")),
         f"p99 {words.ms(latency.get('p99'))}, max {words.ms(latency.get('max'))}"),
        ("faults", f"{len(faults):,}",
         f"of {words.several(kinds, 'kind')}, {summary['faults_effective']:,} had an effect"),
        ("longest without a write", words.ms(worst), "acknowledged, in or after a fault"),
        ("leaders", f"{len(report.led):,}", _terms(report)),
    ]  # fmt: skip


def _terms(report: Report) -> str:
    terms = [led.term for led in report.led]
    return f"in terms {min(terms)} to {max(terms)}" if terms else "none was observed"


def _doubts(summary: dict[str, Any]) -> str:
    doubts = summary["unknown_because"]
    if not doubts:
        return ""
    listed = element("ul", "".join(element("li", escape(doubt)) for doubt in doubts))
    return element("section", "<h2>Why unknown</h2>" + listed, class_="doubts")


def _violation(report: Report) -> str:
    first = report.summary["first_violation"]
    if first is None:
        return ""
    told = element("b", escape(f"{first['invariant']} ")) + escape(first["explanation"])
    promise = f"The promise that it breaks: {first['promise']}." if first["promise"] else ""
    parts = [
        "<h2>The first violation</h2>",
        element("p", told, class_="explanation"),
        element("p", escape(f"{promise} {_AROUND_TOLD}"), class_="told"),
        element("div", draw_violation(report.around, report.run), class_="wide"),
    ]
    if report.around:
        listed = tables.around(report.around, report.run.start_ns)
        parts.append(element("details", "<summary>These records in words</summary>" + listed))
    parts.append(_other_violations(report.summary))
    return element("section", "".join(parts), id="violation", class_="violation")


def _other_violations(summary: dict[str, Any]) -> str:
    others = summary["violations"][1:]
    if not others:
        return ""
    listed = "".join(
        element("li", f"<b>{escape(v['invariant'])}</b> " + escape(v["sentence"])) for v in others
    )
    more = summary["violations_found"] - 1 - len(others)
    if more > 0:
        listed += element("li", f"and {words.several(more, 'more')}")
    return element("details", f"<summary>The other violations</summary>{element('ol', listed)}")


def _run(report: Report) -> str:
    run = report.run
    window = Window(run.start_ns, run.end_ns, "the run: faults, leaders, clients, rate and latency over time")
    violation_ns = next((item.start_ns for item in report.around if item.why == "violation"), None)
    key = "".join(
        element("li", f'<i class="{state}"></i>{told}')
        for state, told in (
            ("ok", "answered"), ("slow", "answered late"), ("fail", "failed: definitely not done"),
            ("unknown", "unknown: may have been done"), ("led", "leads"), ("hit", "under a fault"),
        )
    )  # fmt: skip
    return element(
        "section",
        "<h2>The run</h2>"
        + element("ul", key, class_="key")
        + element("div", draw_timeline(report, window, violation_ns), class_="wide", id="run"),
    )


def _faults(summary: dict[str, Any], closeups: list[int]) -> str:
    faults = summary["faults"]
    parts = ["<h2>What each fault cost</h2>"]
    if faults:
        parts += [element("p", _RECOVERY_TOLD, class_="told"), tables.recovery(faults, set(closeups))]
        parts += ["<h3>Before, during and after</h3>", element("p", _STRETCHES_TOLD, class_="told")]
        parts.append(tables.stretches(faults))
    else:
        parts.append("<p>No fault was injected.</p>")
    without = [
        f"{number}: {words.fault(fault)}" for number, fault in enumerate(faults, 1) if has_no_effect(fault)
    ]
    for title, listed in (
        ("Without effect", without),
        ("Skipped", [*map(skip_words, summary["faults_skipped"])]),
    ):
        if listed:
            items = "".join(element("li", escape(told)) for told in listed)
            parts.append(f"<h3>{title}</h3>" + element("ul", items, class_=title.lower().replace(" ", "-")))
    return element("section", "".join(parts))


def _closeups(report: Report, numbers: list[int]) -> str:
    if not numbers:
        return ""
    left = len(report.run.faults) - len(numbers)
    told = (
        f"The {len(numbers)} with the longest time without a write; {left} more are not drawn."
        if left
        else ""
    )
    drawn = []
    for number in numbers:
        fault, cost = report.run.faults[number - 1], report.figures[number - 1]
        title = f"{number} · {words.fault(fault)}"
        cells = element("b", escape(title)) + escape(f" · no write for {words.ms(cost.unavailable_ms)}")
        picture = element("div", draw_timeline(report, closeup_window(report, number)), class_="wide")
        drawn.append(element("details", element("summary", cells) + picture, id=f"fault-{number}"))
    return element(
        "section", "<h2>Faults, close up</h2>" + element("p", told, class_="told") + "".join(drawn)
    )


def _plan(summary: dict[str, Any]) -> str:
    document = summary["plan"]
    return element("section", "<h2>The schedule</h2>" + tables.plan(document)) if document else ""


def _details(summary: dict[str, Any]) -> str:
    asked = summary["options"] | {"seed": summary["seed"], "commit": summary["commit"]}
    parts = [
        tables.pairs(("option", "value"), asked),
        tables.pairs(("checked", "how many"), summary["checked"]),
        tables.pairs(("outcome", "operations"), summary["outcomes"]),
    ]
    if summary["errors"]:
        parts.append(tables.pairs(("not acknowledged", "operations"), summary["errors"]))
    return element(
        "section", "<h2>Options and counts</h2>" + element("div", "".join(parts), class_="columns")
    )


_AROUND_TOLD: Final = "Below, the records that overlap it (pale) or share a key or the revision with it."
_RECOVERY_TOLD: Final = (
    "From the start of the fault. Detected: the first sign of it that was seen from outside. Elected: a "
    "leader of a later term was seen. First write: acknowledged after the pause that the fault made. "
    f"Full rate: the first second with {FULL_RATE:.0%} of the rate before. A dash: not before the next "
    "fault, or nothing of the kind."
)
_STRETCHES_TOLD: Final = (
    "Of acknowledged operations, from call to return; before and after reach at most "
    f"{STRETCH_S:g} s, or to the next fault. An operation that overlaps the fault counts as during."
)

_DOCUMENT: Final = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; \
script-src 'unsafe-inline'">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>
{css}</style></head><body>
{body}
<script>
{js}</script></body></html>
"""
