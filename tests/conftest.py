"""What all tests share.

A shell without job control starts background commands with SIGINT ignored, and children inherit that: tests
that interrupt a process would then wait for ever. And a command that is run inside the tests' process
configures logging for all of it, with loggers that are kept: each test begins with structlog's defaults.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import structlog
from xdist.scheduler import LoadScopeScheduling

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


# How fast a machine makes examples is no property of ours.
hypothesis.settings.register_profile(
    "raftkube", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("raftkube")

_CLUSTERS = {"e2e", "chaos_live", "chaos_etcd", "cli_kv"}


class _ByFile(LoadScopeScheduling):
    """For workers side by side (`-n`): a file's tests run in one of them, in their order, and those that
    start whole clusters, some of which share one, all in the same."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return "clusters" if _starts_clusters(self.config.rootpath / file) else file


@cache
def _starts_clusters(file: Path) -> bool:
    return file.parent.name in _CLUSTERS or "pytest.mark.e2e" in file.read_text()


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> _ByFile:
    """The marks of `--dist loadgroup` do not reach xdist 3.8 under pytest 9.2: it changes a node's id, which
    is not read any more."""
    return _ByFile(config, log)


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
