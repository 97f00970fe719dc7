"""The report of a run: report.json for programs, report.html for people (one file, works offline)."""

from __future__ import annotations

import html
from collections import Counter
from pathlib import Path
from typing import Any, Final

import orjson

from chaos.checkers.history import History
from chaos.checkers.judge import INVARIANTS
from chaos.checkers.verdict import VIOLATIONS_SHOWN, Verdict

_WIDTH: Final = 960
_HEIGHT: Final = 160


def write_report(
    out: Path, history: History, verdict: Verdict, faults: list[dict[str, Any]], replay_line: str
) -> None:
    """Write both files into `out`."""
    summary = _summary(history, verdict, faults, replay_line)
    (out / "report.json").write_bytes(orjson.dumps(summary, option=orjson.OPT_INDENT_2))
    (out / "report.html").write_text(_page(summary, history))


def _summary(
    history: History, verdict: Verdict, faults: list[dict[str, Any]], replay_line: str
) -> dict[str, Any]:
    outcomes = Counter(op["outcome"] for op in history.operations)
    return {
        "verdict": verdict.word,
        "exit_code": verdict.exit_code,
        "seed": history.header.get("seed"),
        "commit": history.header.get("commit"),
        "replay": replay_line,
        "checked": verdict.checked,
        "outcomes": dict(outcomes),
        "latency_ms": _latency(history),
        "unknown_because": verdict.unknown_because,
        "invariants": [
            {"name": name, "promise": promise, "violations": count}
            for (name, promise), count in zip(
                INVARIANTS.items(), verdict.by_invariant(INVARIANTS).values(), strict=False
            )
        ],
        "violations": [
            {"invariant": item.invariant, "sentence": item.sentence, "operations": list(item.operations)}
            for item in verdict.violations[:VIOLATIONS_SHOWN]
        ],
        "faults": faults,
        "faults_effective": sum(fault.get("effect") is not None for fault in faults),
    }


def _latency(history: History) -> dict[str, float]:
    """Of acknowledged operations, from call to return."""
    took = sorted(op["return_ns"] - op["call_ns"] for op in history.operations if op["outcome"] == "ok")
    if not took:
        return {}
    return {
        name: round(took[min(len(took) - 1, int(len(took) * share))] / 1e6, 3)
        for name, share in (("p50", 0.5), ("p99", 0.99), ("max", 1.0))
    }


def _page(summary: dict[str, Any], history: History) -> str:
    escape = html.escape
    violations = "".join(
        f"<li><b>{escape(item['invariant'])}</b> {escape(item['sentence'])}"
        f"<pre>{escape(orjson.dumps(item['operations'], option=orjson.OPT_INDENT_2).decode())}</pre></li>"
        for item in summary["violations"]
    )
    doubts = "".join(f"<li>{escape(text)}</li>" for text in summary["unknown_because"])
    return _PAGE.format(
        word=escape(summary["verdict"]),
        seed=escape(str(summary["seed"])),
        commit=escape(str(summary["commit"])),
        replay=escape(summary["replay"]),
        checked=_table(("what", "how many"), summary["checked"].items()),
        outcomes=_table(("outcome", "operations"), summary["outcomes"].items()),
        latency=_table(("latency", "ms"), summary["latency_ms"].items()),
        invariants=_table(
            ("invariant", "promise", "violations"),
            [(item["name"], item["promise"], item["violations"]) for item in summary["invariants"]],
        ),
        violations=f"<h2>Violations</h2><ul>{violations}</ul>" if violations else "",
        doubts=f"<h2>Why unknown</h2><ul>{doubts}</ul>" if doubts else "",
        faults=_table(
            ("fault", "target", "seconds down", "consequence", "seen after ms"), _fault_rows(summary)
        ),
        timeline=_timeline(history, summary["faults"]),
    )


def _fault_rows(summary: dict[str, Any]) -> list[tuple[Any, ...]]:
    rows = []
    for fault in summary["faults"]:
        effect = fault.get("effect")
        told = (
            "none" if effect is None else ", ".join(f"{k} {v}" for k, v in effect.items() if k != "time_ns")
        )
        down_s = round((fault["end_ns"] - fault["start_ns"]) / 1e9, 1)
        rows.append((fault["name"], fault["target"], down_s, told, fault.get("detect_ms", "")))
    return rows


def _table(head: tuple[str, ...], rows: Any) -> str:
    def cells(tag: str, values: Any) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(str(value))}</{tag}>" for value in values) + "</tr>"

    return "<table>" + cells("th", head) + "".join(cells("td", row) for row in rows) + "</table>"


def _timeline(history: History, faults: list[dict[str, Any]]) -> str:
    """Acknowledged operations per half second, with the faults as bands."""
    times = [op["return_ns"] for op in history.operations if op["outcome"] == "ok"]
    if not times:
        return "<p>no acknowledged operation</p>"
    start, step = min(times), 500_000_000
    counts = Counter((at - start) // step for at in times)
    buckets = max(counts) + 1
    highest = max(counts.values())
    width = _WIDTH / buckets
    bars = "".join(
        f'<rect class="bar" x="{index * width:.1f}" width="{max(width - 0.5, 0.5):.1f}" '
        f'y="{_HEIGHT - count / highest * _HEIGHT:.1f}" height="{count / highest * _HEIGHT:.1f}"/>'
        for index, count in sorted(counts.items())
    )
    scale = _WIDTH / (buckets * step)
    bands = "".join(
        f'<rect class="fault" x="{(fault["start_ns"] - start) * scale:.1f}" y="0" height="{_HEIGHT}" '
        f'width="{max((fault["end_ns"] - fault["start_ns"]) * scale, 2):.1f}">'
        f"<title>{html.escape(fault['name'])} {html.escape(fault['target'])}</title></rect>"
        for fault in faults
    )
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="rate over time">{bands}{bars}</svg>'
        f"<p>Acknowledged operations per half second, at most {highest}; the bands are faults.</p>"
    )


_PAGE: Final = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>chaos: {word}</title><style>
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }}
table {{ border-collapse: collapse; margin: 1rem 0; }} td, th {{ border: 1px solid #bbb; padding: .2rem .6rem;
text-align: left; }} pre {{ overflow: auto; background: #f4f4f4; padding: .5rem; }} svg {{ width: 100%; }}
.bar {{ fill: #3571b8; }} .fault {{ fill: #d9534f; opacity: .35; }}
.valid {{ color: #1a7f37; }} .invalid {{ color: #b3261e; }} .unknown {{ color: #9a6700; }}
</style></head><body>
<h1>Verdict: <span class="{word}">{word}</span></h1>
<p>seed {seed}, commit {commit}</p><pre>{replay}</pre>
{timeline}
{violations}{doubts}
<h2>Faults</h2>{faults}
<h2>Invariants</h2>{invariants}
<h2>Checked</h2>{checked}{outcomes}{latency}
</body></html>
"""
