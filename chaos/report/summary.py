"""report.json: everything that report.html shows as figures, for programs."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any, Final

from chaos.checkers.history import History
from chaos.checkers.judge import INVARIANTS
from chaos.checkers.verdict import VIOLATIONS_SHOWN, Verdict
from chaos.report.calls import Call, Run, read_run
from chaos.report.figures import FaultFigures, Figures
from chaos.report.lanes import slow_ms
from chaos.report.leaders import Leadership, leaderships
from chaos.report.neighbours import Neighbour, explanation, neighbours
from chaos.report.series import percentile

Json = dict[str, Any]


# What has to have been counted for an invariant to have been judged at all: one of these.
EVIDENCE: Final = (
    (("S1", "S2", "S3", "S6"), ("revisions",)),
    (("S1b",), ("keys judged by the second opinion",)),
    (("S4",), ("member hashes",)),
    (("S5",), ("leaders seen", "applied entries seen")),
    (("W2", "W3", "W7"), ("watch events", "API watch events")),
    (("W1", "W4", "W5", "W8", "W9", "W10"), ("watch events",)),
    (("W6",), ("watches resumed",)),
    (("W11",), ("watches refused as compacted",)),
    (("L1", "L2", "L4"), ("leases",)),
    (("L3",), ("leases", "fenced writes")),
    (("L6",), ("fenced writes",)),
    (("V1", "V2"), ("settled",)),
    (("C1", "C4"), ("objects at the end",)),
    (("C2", "C5"), ("bindings",)),
    (("C3",), ("pods created by control loops",)),
    (("C6",), ("deletes by control loops",)),
    (("L5", "A3"), ("changes",)),
    (("A1",), ("acknowledged user writes",)),
    (("A2",), ("shown by the API",)),
)


@dataclass(frozen=True, slots=True)
class Report:
    """`summary` is report.json; the rest is what the pictures are drawn from."""

    summary: Json
    run: Run
    led: list[Leadership]
    figures: list[FaultFigures]
    around: list[Neighbour]  # of the first violation
    members: list[str]
    slow_ms: float  # acknowledged calls that took longer are drawn as slow


def make_report(
    history: History, verdict: Verdict, faults: list[Json], replay_line: str, skipped: list[Any]
) -> Report:
    """Compute all of it; `faults` may carry `effect` and `detect_ms`."""
    run = read_run(history, faults)
    led = leaderships(history.observations, run.end_ns)
    figures = Figures(run, history.observations).of_faults()
    first = verdict.violations[0] if verdict.violations else None
    around = neighbours(history, first) if first else []
    header = history.header
    plan = schedule(header)
    summary = {
        "verdict": verdict.word,
        "exit_code": verdict.exit_code,
        "seed": header.get("seed"),
        "commit": header.get("commit"),
        "options": {} if plan is header.get("options") else header.get("options", {}),
        "replay": replay_line,
        "seconds": round(run.seconds(run.load_end_ns), 3),
        "clients": len(run.clients),
        "checked": verdict.checked,
        "outcomes": dict(Counter(op["outcome"] for op in history.operations)),
        "errors": _errors(history),
        "latency_ms": latency(run.calls),
        "unknown_because": verdict.unknown_because,
        "invariants": invariants(verdict),
        "violations": [_violation(item) for item in verdict.first(VIOLATIONS_SHOWN)],
        "violations_found": len(verdict.violations),
        "first_violation": _first(first, run, around) if first else None,
        "faults": [_fault(*pair, run) for pair in zip(run.faults, figures, strict=True)],
        "faults_effective": sum(map(had_effect, faults)),
        "faults_without_effect": [fault["name"] for fault in run.faults if has_no_effect(fault)],
        "faults_skipped": list(skipped or header.get("faults_skipped") or []),
        "leaders": [led_words(each, run) for each in led],
        "plan": plan,
    }
    return Report(summary, run, led, figures, around, list(header.get("members", [])), slow_ms(run.calls))


def schedule(header: Json) -> Json | None:
    """The plan of a simulation: under `plan`, or what its `options` are."""
    plan, options = header.get("plan"), header.get("options")
    return plan or (options if isinstance(options, dict) and "world" in options else None)


def has_no_effect(fault: Json) -> bool:
    """Whether it was looked for an effect and none was found: `effect` None, or `effective` false."""
    return ("effect" in fault and fault["effect"] is None) or fault.get("effective") is False


def had_effect(fault: Json) -> bool:
    return fault.get("effect") is not None or fault.get("effective") is True


def invariants(verdict: Verdict) -> list[Json]:
    """A verdict for each: invalid if it was broken; else unknown if the run is, for it proves nothing; else
    unjudged if there was nothing in the history that could have broken it."""
    found = []
    for name, count in verdict.by_invariant(INVARIANTS).items():
        word = "invalid" if count else verdict.word if verdict.word == "unknown" else _held(name, verdict)
        found.append(
            {"name": name, "promise": INVARIANTS.get(name, ""), "violations": count, "verdict": word}
        )
    return found


def _held(name: str, verdict: Verdict) -> str:
    needed = next((counts for names, counts in EVIDENCE if name in names), ())
    return "valid" if not needed or any(verdict.checked.get(count) for count in needed) else "unjudged"


def latency(calls: list[Call]) -> dict[str, float]:
    """Of acknowledged operations, from call to return."""
    took = sorted(call.took_ns or 0 for call in calls if call.outcome == "ok")
    shares = (("p50", 0.5), ("p99", 0.99), ("max", 1.0)) if took else ()
    return {name: round(percentile(took, share) / 1e6, 3) for name, share in shares}


def skip_words(item: Any) -> str:
    """A skipped fault and why: given as text, or as an object with `name` and `why`."""
    if not isinstance(item, dict):
        return str(item)
    why = str(item.get("why") or "").removeprefix("skipped: ")
    return f"{item.get('name', '?')}: {why}" if why else str(item.get("name", item))


def led_words(led: Leadership, run: Run) -> Json:
    return {
        "member": led.member,
        "term": led.term,
        "from_s": round(run.seconds(led.start_ns), 3),
        "to_s": round(run.seconds(led.end_ns), 3),
    }


def _errors(history: History) -> dict[str, int]:
    """By outcome and code, the most frequent first."""
    codes = Counter(
        f"{op['outcome']}: {op.get('error') or 'no code'}"
        for op in history.operations
        if op["outcome"] != "ok"
    )
    return dict(codes.most_common())


def _violation(item: Any) -> Json:
    return {"invariant": item.invariant, "sentence": item.sentence, "operations": list(item.operations)}


def _first(violation: Any, run: Run, around: list[Neighbour]) -> Json:
    return {
        "invariant": violation.invariant,
        "promise": INVARIANTS.get(violation.invariant, ""),
        "explanation": explanation(violation, run),
        "neighbours": [{"why": item.why, "record": item.record} for item in around],
    }


def _fault(fault: Json, cost: FaultFigures, run: Run) -> Json:
    figures = asdict(cost)
    figures["unavailable_from_s"] = round(run.seconds(figures.pop("unavailable_from_ns")), 3)
    figures["until_s"] = round(run.seconds(figures.pop("until_ns")), 3)
    return fault | {"at_s": round(run.seconds(fault["start_ns"]), 3), "figures": figures}
