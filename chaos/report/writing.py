"""Both files of a report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson

from chaos.checkers.history import History
from chaos.checkers.verdict import Verdict
from chaos.report.page import draw_page
from chaos.report.summary import make_report


def write_report(
    out: Path,
    history: History,
    verdict: Verdict,
    faults: list[dict[str, Any]],
    replay_line: str,
    *,
    skipped: Sequence[Any] = (),
) -> None:
    """Write report.json and report.html into the folder `out`.

    `faults` are the history's, each with its `effect` if that was looked for (None: it had none) and
    `detect_ms`. `skipped` are faults that could not be done: text, or objects with `name` and `why`; else
    `faults_skipped` of the history's header. A `plan` in the header is shown as the schedule.
    """
    report = make_report(history, verdict, faults, replay_line, list(skipped))
    options = orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS
    (out / "report.json").write_bytes(orjson.dumps(report.summary, option=options))
    (out / "report.html").write_text(draw_page(report), encoding="utf-8")
