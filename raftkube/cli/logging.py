"""How every component logs: structlog to standard error, as text or JSON lines. Data goes to stdout."""

from __future__ import annotations

import contextlib
import sys
from typing import Any, TextIO, cast

import click

_LEVELS = {"debug": 10, "info": 20, "warning": 30}


def log_options(function: Any) -> Any:
    """The flags that every component takes: `-v`, `--logging-format`."""
    function = click.option(
        "--logging-format", type=click.Choice(["text", "json"]), default="text", show_default=True,
        help="How log lines are written.",
    )(function)  # fmt: skip
    return click.option("-v", "--verbose", count=True, help="Log more.")(function)


def configure_logging(logging_format: str, verbose: int, *, component: str) -> None:
    """Log from `info` on (`-v`: from `debug`), each line naming `component`."""
    import structlog

    level = _LEVELS["debug" if verbose else "info"]
    renderer: Any = structlog.dev.ConsoleRenderer(colors=False, pad_event_to=0)
    if logging_format == "json":
        renderer = structlog.processors.JSONRenderer(serializer=_json)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _named(component),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(cast(TextIO, _StandardError())),
        cache_logger_on_first_use=True,
    )


class _StandardError:
    """It loses what it cannot take: a log on a full disk must not stop the member that tells of it."""

    def write(self, text: str) -> None:
        with contextlib.suppress(OSError):
            sys.stderr.write(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            sys.stderr.flush()


def _json(value: Any, **_: Any) -> str:
    import orjson

    return orjson.dumps(value, default=str).decode()


def _named(component: str) -> Any:
    def add(_: Any, __: str, event: dict[str, Any]) -> dict[str, Any]:
        event.setdefault("component", component)
        return event

    return add
