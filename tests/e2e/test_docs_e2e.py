"""The console examples of the docs, run as they stand against real clusters."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from conftest import Cluster, wait_until
from console_blocks import ROOT, Block, Names, blocks, fits

pytestmark = pytest.mark.e2e

BLOCKS = blocks()
TIMEOUT_S = 180


def marked(where: str) -> list[object]:
    """Parameters for the blocks that run there; the id says which page and line."""
    return [pytest.param(b, id=f"{b.page}:{b.line}") for b in BLOCKS if b.where == where]


def run_block(block: Block, env: Mapping[str, str]) -> None:
    """Every command ends with 0 and says what the page shows."""
    tools = Path(sys.executable).parent
    names = Names()
    for example in block.examples:
        done = subprocess.run(
            ["bash", "-c", names.in_text(example.command)],
            cwd=ROOT,
            env=dict(env) | {"PATH": f"{tools}{os.pathsep}{env['PATH']}"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        names.learn(example.shown, done.stdout)
        where = f"{block.page}:{block.line}: $ {example.command}"
        assert done.returncode == 0, f"{where}\nended with {done.returncode}:\n{done.stdout}"
        shown = names.in_text(example.shown)
        assert fits(shown, done.stdout), f"{where}\nthe page shows:\n{shown}\nit says:\n{done.stdout}"


def make_whole(cluster: Cluster) -> None:
    """Start what a block left killed; wait until all runs and the API answers."""
    for name, row in cluster.status().items():
        if row["phase"] in ("killed", "stopped"):
            cluster.raftkube("start", name)
    wait_until(lambda: all(row["phase"] == "running" for row in cluster.status().values()))
    wait_until(lambda: cluster.kubectl("get", "nodes", check=False).returncode == 0)


@pytest.mark.parametrize("block", marked("full"))
def test_examples_on_a_whole_cluster(block: Block, cluster: Cluster) -> None:
    try:
        run_block(block, cluster.environment)
    finally:
        make_whole(cluster)


@pytest.mark.parametrize("block", marked("store-only"))
def test_examples_on_a_store_alone(block: Block, tmp_path: Path) -> None:
    store = Cluster(tmp_path, "")
    try:
        run_block(block, store.environment)
    finally:
        store.raftkube("down", "--purge", check=False)
    assert store.processes() == []


def test_every_mark_is_known_and_there_are_examples_of_each() -> None:
    assert {block.where for block in BLOCKS} == {"full", "store-only"}
    assert all(block.examples for block in BLOCKS)


@pytest.mark.parametrize(
    ("shown", "actual", "same"),
    [
        ("a  b", "a b\n", True),
        ("web-6578b9b777-2r9sg 12s", "web-aaaaaaaaa1-zzzzz 1m3s", True),
        ("...\nlast", "one\ntwo\nlast\n", True),
        ("x ... y", "x 1 2 y", True),
        ("0 of 3", "1 of 3", False),
        ("one", "one\ntwo", False),
        ("...\nlast", "last\nmore", False),
    ],
)
def test_the_comparison_is_loose_but_not_blind(shown: str, actual: str, same: bool) -> None:
    assert fits(shown, actual) is same
