"""The catalogue of live faults: what can be chosen, what is skipped, by what a fault counts."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from chaos.live import faults as module
from chaos.live.disk_faults import flip_bit, zero_sector
from chaos.live.fault import effect_of
from chaos.live.faults import (
    FAULTS,
    GROUPS,
    LAUNCHER,
    choose_faults,
    default_config,
    obstacle,
    split_possible,
)
from chaos.live.shadow import SECTOR
from raftkube.clock import SystemClock
from raftkube.cluster.config import ClusterConfig, parse_cluster
from raftkube.disk import SystemDisk
from raftkube.errors import ConfigError, InvariantViolation
from raftkube.rng import seeded_rng
from raftkube.store.raft.journal import SegmentedJournal

ROOT = Path(__file__).parents[2]


def config(name: str) -> ClusterConfig:
    return parse_cluster((ROOT / "cluster_configs" / name).read_bytes(), name)


STORE_ONLY = parse_cluster(
    "apiVersion: raftkube.dev/v1alpha1\nkind: Cluster\nspec:\n  store: {replicas: 1}\n", "store.yaml"
)


# What can be chosen.


def test_names_and_groups_choose_and_everything_has_a_group() -> None:
    assert [fault.name for fault in choose_faults("kill-store-leader,clock")] == [
        "kill-store-leader", "clock-jump-store",
    ]  # fmt: skip
    assert {fault.group for fault in choose_faults("all")} == set(GROUPS)
    assert set(GROUPS) == {"kill", "pause", "partition", "power", "disk", "clock", "cpu"}
    assert sum(len(choose_faults(group)) for group in GROUPS) == len(FAULTS) == len(choose_faults("all"))
    assert choose_faults("") == []


def test_an_unknown_fault_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(
        ConfigError, match=r"'kill-store' is not known; there are all, kill, .* kill-store-leader"
    ):
        choose_faults("kill-store")


def test_the_cluster_file_follows_from_the_faults() -> None:
    assert default_config("kill,pause") == "cluster_configs/chaos-kill.yaml"
    assert default_config("all") == "cluster_configs/chaos-all.yaml"


def test_as_root_everything_is_possible_on_the_file_for_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(module.Freezer, "find", classmethod(lambda cls: cls(Path("/nowhere"))))
    chosen = split_possible("all", config("chaos-all.yaml"))
    assert [fault.name for fault in chosen.faults] == list(FAULTS)
    assert chosen.skipped == []


def test_an_ordinary_user_skips_what_needs_root_and_is_told_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    chosen = split_possible("all", config("chaos-all.yaml"))
    rootly = {fault.name for fault in FAULTS.values() if "root" in fault.needs}
    assert rootly
    assert {name for name, _ in chosen.skipped} == rootly
    assert all(why.startswith("needs root (") for _, why in chosen.skipped)
    with pytest.raises(ConfigError, match="--faults: freeze-store-leader needs root"):
        split_possible("freeze-store-leader,kill", config("chaos-all.yaml"))


def test_what_the_cluster_file_does_not_have_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    plain = split_possible("all", config("chaos-kill.yaml"))
    assert {fault.group for fault in plain.faults} == {"kill", "pause", "cpu"}
    assert ("delay-store", f"needs spec.store.launcher: {LAUNCHER} in the cluster file") in plain.skipped
    alone = split_possible("kill", STORE_ONLY)
    assert {fault.name for fault in alone.faults} == {
        "kill-store-leader",
        "kill-store-all",
        "rolling-restart",
    }
    with pytest.raises(
        ConfigError, match="--faults: kill-apiserver needs 1 of apiserver in the cluster file"
    ):
        split_possible("kill-apiserver", STORE_ONLY)
    with pytest.raises(ConfigError, match=r"partition-store-leader needs spec.store.launcher"):
        split_possible("partition", STORE_ONLY)


# By what a fault counts.

S = 1_000_000_000


def effect(name: str, target: str, *seen: dict[str, Any], whole_s: int = 12) -> dict[str, Any] | None:
    """Of a fault from second 10 to second 12."""
    record = {"name": name, "target": target, "start_ns": 10 * S, "end_ns": 12 * S, "whole_ns": whole_s * S}
    return effect_of(FAULTS[name], record, list(seen))


def term(leader: str, second: float) -> dict[str, Any]:
    return {"kind": "term", "term": 7, "leader": leader, "time_ns": int(second * S)}


def of(kind: str, component: str, second: float = 11.0) -> dict[str, Any]:
    return {"kind": kind, "component": component, "time_ns": int(second * S)}


@pytest.mark.parametrize("name", [name for name in FAULTS if FAULTS[name].role == "leader"])
def test_a_fault_of_a_leader_counts_by_who_comes_after(name: str) -> None:
    fault = FAULTS[name]
    if fault.kind == "store" and name != "bridge-store":
        assert effect(name, "store-1", term("store-1", 11)) is None
        assert effect(name, "store-1", term("store-2", 11)) == term("store-2", 11)
    elif fault.kind != "store":
        holder = {"kind": "holder", "lease": fault.kind, "holder": "x", "token": 9, "time_ns": 11 * S}
        assert effect(name, f"{fault.kind}-1", holder) == holder
        assert effect(name, f"{fault.kind}-1", holder | {"lease": "another"}) is None


def test_what_was_seen_before_or_long_after_does_not_count() -> None:
    assert effect("kill-store-leader", "store-1", term("store-2", 9.9)) is None
    assert effect("kill-store-leader", "store-1", term("store-2", 16.9)) is not None
    assert effect("kill-store-leader", "store-1", term("store-2", 17.1)) is None
    assert effect("kill-store-leader", "store-1", term("store-2", 17.1), whole_s=18) is not None


def test_what_was_seen_of_another_component_does_not_count() -> None:
    for name, kind in (
        ("enospc-store", "disk"),
        ("pause-store-follower", "silent"),
        ("power-loss-all", "power-loss"),
    ):
        assert effect(name, "store-1", of(kind, "store-3")) is None
        assert effect(name, "store-1,store-3", of(kind, "store-3")) == of(kind, "store-3")


def test_a_rolling_restart_counts_when_each_member_was_restarted() -> None:
    members = "store-1,store-2,store-3"
    resets = [of("reset", f"store-{number}", 10 + number / 2) for number in (1, 2, 3)]
    assert effect("rolling-restart", members, *resets[:2]) is None
    assert effect("rolling-restart", members, *resets) == resets[2]


@pytest.mark.parametrize("name", FAULTS)
def test_every_fault_without_a_consequence_is_without_effect(name: str) -> None:
    target = "store-1" if FAULTS[name].kind == "store" else f"{FAULTS[name].kind}-1"
    assert effect(name, target) is None
    assert effect(name, target, of("nothing of the kind", target)) is None


# Rot.


@pytest.mark.parametrize("damage", [flip_bit, zero_sector])
async def test_rot_is_put_where_the_store_must_find_it(tmp_path: Path, damage: Any) -> None:
    disk = SystemDisk(str(tmp_path))
    journal = SegmentedJournal(disk, seeded_rng(1), SystemClock(), segment_bytes=65_536)
    for number in range(1, 60):
        journal.add(b"x" * (number * 5), number, 1)
        journal.sync()
    journal.close()
    path = next(tmp_path.glob("journal-*"))
    sound = path.read_bytes()
    for seed in range(60):
        path.write_bytes(sound)
        at = damage(path, seeded_rng(seed))
        assert path.read_bytes()[at : at + SECTOR] != sound[at : at + SECTOR]
        with pytest.raises(InvariantViolation, match=r"journal-.* is damaged at byte"):
            SegmentedJournal(disk, seeded_rng(1), SystemClock(), segment_bytes=65_536)
    disk.close()


@pytest.mark.root
@pytest.mark.skipif(
    os.geteuid() != 0 or module.Freezer.find() is None,
    reason="needs root and a cgroup hierarchy of version 2",
)
def test_a_frozen_process_stands_still_and_goes_on(tmp_path: Path) -> None:
    code = "import time\nwhile True: print('x', end='', flush=True); time.sleep(0.001)"
    with (tmp_path / "out").open("wb") as out:
        process = subprocess.Popen([sys.executable, "-c", code], stdout=out)

    def written() -> int:
        return (tmp_path / "out").stat().st_size

    def until(holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 20
        while not holds():
            assert time.monotonic() < deadline
            time.sleep(0.01)

    try:
        until(lambda: written() > 0)
        freezer = module.Freezer.find()
        assert freezer is not None
        home = Path(f"/proc/{process.pid}/cgroup").read_text()
        try:
            freezer.freeze([process.pid])
            until(lambda: freezer.frozen)
            stands_at = written()
            time.sleep(0.1)
            assert written() == stands_at
        finally:
            freezer.thaw()
        until(lambda: written() > stands_at)
        assert Path(f"/proc/{process.pid}/cgroup").read_text() == home
        assert not freezer.exists
    finally:
        process.kill()
        process.wait()


# What is said.


def test_an_obstacle_is_a_sentence_that_follows_the_name() -> None:
    for fault in FAULTS.values():
        why = obstacle(fault, STORE_ONLY)
        assert not why or why.startswith("needs ")
