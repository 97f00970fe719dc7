"""docs/METRICS.md says of every metric what the code says."""

from __future__ import annotations

from pathlib import Path

from raftkube.store.raft.settings import RaftSettings
from raftkube.store.server.health import Health
from raftkube.store.server.metrics import METRICS
from raftkube.store.server.monitor import METRICS_ROLES
from raftkube.store.server.settings import ServerSettings

PAGE = (Path(__file__).parents[2] / "docs" / "METRICS.md").read_text()


def rows(text: str) -> list[tuple[str, ...]]:
    lines = [line for line in text.splitlines() if line.startswith("|")][2:]
    return [tuple(cell.strip().strip("`") for cell in line.strip("|").split("|")) for line in lines]


def test_the_table_is_the_list_in_the_code() -> None:
    table = rows(PAGE.split("<!-- metrics -->\n")[1].split("\n\n")[0])
    assert table == [(row.name, row.kind, row.label, row.help) for row in METRICS]


def test_thresholds_are_those_of_the_settings() -> None:
    raft, server = RaftSettings(), ServerSettings()
    assert dict(rows(PAGE.split("## Logs")[1])) == {
        "slow_apply": f"{raft.slow_apply_s * 1000:.0f} ms for one log entry",
        "slow_fsync": f"{raft.slow_fsync_s:.0f} s for one sync of the journal",
        "slow_read_index": f"{raft.slow_read_s * 1000:.0f} ms until a leader confirmed a read",
        "event_loop_late": f"{server.loop_lag_warn_s * 1000:.0f} ms behind a timer",
    }
    assert server.health_timeout_s == 2.0
    assert "within two seconds" in PAGE


def test_roles_and_paths_are_those_of_the_code() -> None:
    assert all(f"`{role}`" in PAGE for role in METRICS_ROLES)
    assert Health.respond.__doc__ is not None
    assert [path for path, _ in rows(PAGE.split("## Health")[1].split("\n\n")[1])] == [
        "/livez",
        "/readyz",
        "/health",
    ]
