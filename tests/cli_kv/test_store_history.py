"""--auto-compaction-* as etcd counts, beside --history-*; and the quota."""

from __future__ import annotations

from typing import Any

import pytest

from raftkube.cli.store_history import history_settings
from raftkube.errors import ConfigError
from raftkube.store.server.compaction import HistoryWindow
from raftkube.store.server.settings import ServerSettings

NONE = {
    "history_seconds": None,
    "history_revisions_max": None,
    "auto_compaction_mode": None,
    "auto_compaction_retention": None,
    "quota_backend_bytes": 0,
}


def settings(**flags: Any) -> ServerSettings:
    return ServerSettings(**history_settings(NONE | flags))


def test_without_flags_the_defaults_hold() -> None:
    assert settings() == ServerSettings()
    assert settings(history_seconds=5.0).history_revisions_max == ServerSettings().history_revisions_max


@pytest.mark.parametrize(
    ("mode", "retention", "history_s", "revisions"),
    [
        (None, "5m", 300, 0),
        ("periodic", "1h30m", 5400, 0),
        ("periodic", "2", 7200, 0),  # a plain number is hours
        ("periodic", "0", 0, 0),
        ("revision", "1000", 0, 1000),
        ("revision", "0", 0, 0),
    ],
)
def test_retention(mode: str | None, retention: str, history_s: float, revisions: int) -> None:
    chosen = settings(auto_compaction_mode=mode, auto_compaction_retention=retention)
    assert (chosen.history_s, chosen.history_revisions_max) == (history_s, revisions)


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        ({"auto_compaction_mode": "revision"}, "--auto-compaction-retention"),
        ({"auto_compaction_retention": "soon"}, "5m or 1h30m"),
        ({"auto_compaction_retention": "-5m"}, "5m or 1h30m"),
        ({"auto_compaction_retention": ""}, "5m or 1h30m"),
        ({"auto_compaction_mode": "revision", "auto_compaction_retention": "5m"}, "number of revisions"),
        ({"auto_compaction_retention": "5m", "history_seconds": 3.0}, "give one"),
        ({"history_seconds": -1.0}, "--history-seconds"),
        ({"history_seconds": float("nan")}, "--history-seconds nan"),
        ({"history_seconds": float("inf")}, "0 keeps everything"),
        ({"auto_compaction_retention": "9" * 400}, "0 keeps everything"),
        ({"history_revisions_max": -1}, "--history-revisions-max"),
    ],
)
def test_what_is_wrong_is_named(flags: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        settings(**flags)


def test_the_quota_counts_as_etcd_s_flag() -> None:
    assert settings().quota_bytes == 2 * 1024**3
    assert settings(quota_backend_bytes=5).quota_bytes == 5
    assert settings(quota_backend_bytes=-1).quota_bytes == 0


def test_each_mode_keeps_what_it_says() -> None:
    periodic = HistoryWindow(settings(auto_compaction_retention="10s"))
    assert [periodic.target(float(now), 1_000 * now) for now in range(0, 25, 5)] == [0, 0, 0, 5_000, 10_000]
    revisions = HistoryWindow(settings(auto_compaction_mode="revision", auto_compaction_retention="100"))
    assert [revisions.target(1e6 * now, 150 * now) for now in range(3)] == [0, 50, 200]
    off = HistoryWindow(settings(auto_compaction_retention="0"))
    assert off.target(0.0, 10**9) == off.target(1e9, 10**9) == 0
