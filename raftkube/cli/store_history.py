"""The flags of `raftkube store` that say how much it keeps: history, and all of it together."""

from __future__ import annotations

from typing import Any, Final

import click

_RETENTION_CHARACTERS_MAX: Final = 32


def history_options(function: Any) -> Any:
    """Decorates the command."""
    modes = click.Choice(["periodic", "revision"])
    for option in (
        click.option(
            "--quota-backend-bytes",
            type=int,
            default=0,
            help="Of keys, values and history; puts beyond are refused.  [default: 2 GiB; below 0: none]",
        ),
        click.option(
            "--auto-compaction-retention",
            help="History to keep: 5m or 1h30m (a plain number: hours), or so many revisions; 0: all.",
        ),
        click.option(
            "--auto-compaction-mode",
            type=modes,
            help="What --auto-compaction-retention counts.  [default: periodic]",
        ),
        click.option(
            "--history-revisions-max",
            type=int,
            help="More revisions are compacted; 0: none.  [default: 100000]",
        ),
        click.option(
            "--history-seconds", type=float, help="Older revisions are compacted; 0: none.  [default: 300]"
        ),
    ):
        function = option(function)
    return function


def history_settings(flags: dict[str, Any]) -> dict[str, Any]:
    """Fields of ServerSettings. Raises ConfigError naming the flag that is wrong and how to mend it."""
    from raftkube.errors import ConfigError
    from raftkube.store.server.settings import ServerSettings

    history = {"history_s": flags["history_seconds"], "history_revisions_max": flags["history_revisions_max"]}
    chosen = {name: value for name, value in history.items() if value is not None}
    for flag, value in (
        ("--history-seconds", "history_s"),
        ("--history-revisions-max", "history_revisions_max"),
    ):
        if not 0 <= chosen.get(value, 0) < float("inf"):  # nan is neither
            raise ConfigError(f"{flag} {chosen[value]:g} is negative or no number; 0 keeps everything")
    mode, retention = flags["auto_compaction_mode"], flags["auto_compaction_retention"]
    if mode is not None and retention is None:
        raise ConfigError(
            "--auto-compaction-mode needs --auto-compaction-retention, which says how much to keep"
        )
    if retention is not None:
        if chosen:
            raise ConfigError(
                "--auto-compaction-retention and --history-* say the same thing in two ways; give one"
            )
        chosen = _retained(mode or "periodic", retention.strip())
    quota = flags["quota_backend_bytes"]
    chosen["quota_bytes"] = max(quota, 0) if quota else ServerSettings().quota_bytes
    return chosen


def _retained(mode: str, retention: str) -> dict[str, Any]:
    """As etcd counts: one bound, and the other is off."""
    from raftkube.cli.durations import Duration
    from raftkube.errors import ConfigError

    flag = f"--auto-compaction-retention {retention!r} in mode {mode}"
    if len(retention) > _RETENTION_CHARACTERS_MAX:
        raise ConfigError("--auto-compaction-retention is longer than any history; 0 keeps everything")
    if mode == "revision":
        if not (retention.isascii() and retention.isdigit()):
            raise ConfigError(f"{flag} is no number of revisions; write for example 1000, or 0 for all")
        return {"history_s": 0.0, "history_revisions_max": int(retention)}
    if retention.isascii() and retention.isdigit():
        return {"history_s": int(retention) * 3600.0, "history_revisions_max": 0}
    try:
        return {"history_s": Duration().convert(retention, None, None), "history_revisions_max": 0}
    except click.BadParameter:
        raise ConfigError(
            f"{flag} is no duration; write for example 5m or 1h30m, or a number of hours"
        ) from None
