"""Fixtures for the tests of operators and controllers: a real control plane, one a test session.

    def test_my_operator(raftkube_kubeconfig, raftkube_namespace): ...

Nothing is automatic: a cluster starts when a test first asks for it, in a folder and on ports of its own
(so that parallel sessions do not meet), and is deleted at the end.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import pytest

_NAME = "pytest"
_TIMEOUT_S = 120


def _raftkube(state: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "raftkube", *arguments, "--name", _NAME],
        env=os.environ | {"RAFTKUBE_STATE_DIR": str(state)},
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S + 60,
        check=False,
    )


@pytest.fixture(scope="session")
def raftkube_kubeconfig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The kubeconfig of a cluster with one of each component (`cluster_configs/single.yaml`)."""
    state = tmp_path_factory.mktemp("raftkube")
    config = resources.files("cluster_configs") / "single.yaml"
    started = _raftkube(
        state, "up", "--config", str(config), "--detach", "--no-context", "--timeout", str(_TIMEOUT_S)
    )
    if started.returncode != 0:
        pytest.fail(f"no cluster: {started.stderr.strip()}", pytrace=False)
    try:
        yield state / _NAME / "admin.kubeconfig"
    finally:
        _raftkube(state, "down", "--purge")


@pytest.fixture
def raftkube_namespace(raftkube_kubeconfig: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """A namespace of the test's own, deleted after it (its contents follow in the background)."""
    import functools

    import trio

    from raftkube.rng import name_suffix, system_rng

    name = f"test-{name_suffix(system_rng(), 10)}"
    trio.run(functools.partial(_with_namespace, raftkube_kubeconfig, name, delete=False))
    yield name
    trio.run(functools.partial(_with_namespace, raftkube_kubeconfig, name, delete=True))


async def _with_namespace(kubeconfig: Path, name: str, *, delete: bool) -> None:
    from raftkube.client.endpoints import NAMESPACES
    from raftkube.client.kubeconfig import load_kubeconfig
    from raftkube.clock import SystemClock
    from raftkube.net.tcp import TcpNetwork
    from raftkube.rng import system_rng

    access = load_kubeconfig(str(kubeconfig))
    client = access.client(TcpNetwork(), user_agent="raftkube-pytest", clock=SystemClock(), rng=system_rng())
    if delete:
        await client.delete(NAMESPACES, name)
    else:
        await client.create(NAMESPACES, {"metadata": {"name": name}})
