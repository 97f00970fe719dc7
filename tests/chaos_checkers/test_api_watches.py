"""Watches through API servers, held against the log."""

from __future__ import annotations

from typing import Any

import pytest

from chaos.checkers.api_watches import check_api_watches
from chaos.checkers.history import History, Watch
from chaos.checkers.verdict import Verdict

KEYS = "/registry/core/configmaps/default/"
# (revision, kind, key) as the store has them; one of another namespace, one of another kind of object
LOG = [
    (2, "put", KEYS + "a"),
    (3, "put", "/registry/core/configmaps/other/a"),
    (4, "put", KEYS + "a"),
    (5, "delete", KEYS + "a"),
    (6, "put", KEYS + "b"),
    (6, "put", "/registry/core/pods/default/b"),
    (8, "put", KEYS + "c"),
]
CAME = [one for one in LOG if one[2].startswith(KEYS) and one[0] > 2]


def judge(came: list[tuple[int, str, str]], since: int = 2) -> Verdict:
    log = Watch(0, "\0", "\0", 1, log=True)
    log.events = [{"revision": at, "kind": kind, "key": key} for at, kind, key in LOG]
    log.events.append({"kind": "progress", "revision": 9})
    seen: list[dict[str, Any]] = [{"kind": "api-watch", "watch": 1, "keys": KEYS, "revision": since}]
    seen += [{"kind": "api-event", "watch": 1, "event": k, "key": key, "revision": at} for at, k, key in came]
    verdict = Verdict()
    check_api_watches(History({}, watches={0: log}, observations=seen), verdict)
    return verdict


def test_everything_in_order_is_right() -> None:
    assert judge(CAME).violations == []
    assert judge(CAME).checked == {"API watches": 1, "API watch events": 4}


def test_a_watch_that_was_cut_early_is_right() -> None:
    assert judge(CAME[:2]).violations == []
    assert judge([]).violations == []


@pytest.mark.parametrize(
    ("came", "broken"),
    [
        (CAME[:1] + CAME[2:], "W7"),
        (CAME[1:], "W7"),
        ([*CAME[:2], CAME[1], *CAME[2:]], "W3"),
        ([*CAME[:2], CAME[3], CAME[2]], "W2"),
        ([(2, "put", KEYS + "a"), *CAME], "W7"),
        ([*CAME[:1], (5, "put", KEYS + "a"), *CAME[2:]], "W7"),
        ([*CAME, (9, "put", KEYS + "z")], "W7"),
    ],
    ids=["gap", "gap at the start", "twice", "order", "too early", "kind", "invented"],
)
def test_what_is_wrong_is_named(came: list[tuple[int, str, str]], broken: str) -> None:
    assert broken in {violation.invariant for violation in judge(came).violations}


def test_two_revisions_in_one_history_are_told_apart_by_watch() -> None:
    assert [violation.sentence for violation in judge(CAME[1:]).violations] == [
        f"API watch 1: put {KEYS}a at revision 4 never came, though revision 8 did"
    ]
