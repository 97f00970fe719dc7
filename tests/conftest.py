"""What all tests share.

A shell without job control starts background commands with SIGINT ignored, and children inherit that: tests
that interrupt a process would then wait for ever. And a command that is run inside the tests' process
configures logging for all of it, with loggers that are kept: each test begins with structlog's defaults.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


_CLUSTERS = {"e2e", "chaos_live", "chaos_etcd", "cli_kv"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """For workers side by side (`-n`): a file's tests run in one of them, and those that start whole
    clusters, which share one, all in the same."""
    for item in items:
        clusters = item.get_closest_marker("e2e") or item.path.parent.name in _CLUSTERS
        together = "clusters" if clusters else str(item.path)
        item.add_marker(pytest.mark.xdist_group(together))


@pytest.fixture(autouse=True)
def _logging_of_its_own() -> Iterator[None]:
    configure = structlog.configure

    def configure_uncached(**settings: Any) -> None:
        configure(**settings | {"cache_logger_on_first_use": False})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(structlog, "configure", configure_uncached)
        yield
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()
