"""What has to happen, sooner or later: V1, once faults stop the members come together in bounded time; V2,
no member ends by itself, unless its disk failed or it was removed.

Both are recorded as observations: `settled` {within_s} or `unsettled` {why}, and `member_ended`
{member, error, expected}.
"""

from __future__ import annotations

from chaos.checkers.history import History
from chaos.checkers.verdict import Verdict


def check_liveness(history: History, verdict: Verdict) -> None:
    """Judge the observations; a history without any of them is not judged."""
    for seen in history.observations:
        if seen["kind"] == "settled":
            verdict.count("settled")
        elif seen["kind"] == "unsettled":
            verdict.add("V1", f"after the last fault: {seen['why']}")
        elif seen["kind"] == "member_ended" and not seen["expected"]:
            verdict.add("V2", f"{seen['member']} ended by itself: {seen['error']}")
