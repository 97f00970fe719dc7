"""kubeconfigs are merged without losing what is there."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import pytest
import yaml

from raftkube.cluster.kubeconfig import make_kubeconfig, merge_context, remove_context
from raftkube.errors import ConfigError


def config(name: str) -> dict[str, Any]:
    return make_kubeconfig(
        name=name, user="admin", servers=["https://a:1", "https://b:2"], ca=b"CA", certificate=b"C", key=b"K"
    )


def test_a_context_comes_and_goes_and_others_stay(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "config"
    merge_context(path, config("raftkube-one"))
    merge_context(path, config("raftkube-two"))
    merge_context(path, config("raftkube-two"))
    merged = yaml.safe_load(path.read_text())
    assert [entry["name"] for entry in merged["contexts"]] == ["raftkube-one", "raftkube-two"]
    assert merged["current-context"] == "raftkube-two"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    remove_context(path, "raftkube-two")
    left = yaml.safe_load(path.read_text())
    assert [entry["name"] for entry in left["users"]] == ["raftkube-one-admin"]
    assert [entry["name"] for entry in left["clusters"]] == ["raftkube-one"]
    assert left["current-context"] == ""


@pytest.mark.parametrize("text", ["a: [", "- 1"])
def test_a_file_that_is_no_kubeconfig_is_left_alone(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config"
    path.write_text(text)
    with pytest.raises(ConfigError, match="mend or move it"):
        merge_context(path, config("x"))
    assert path.read_text() == text


def test_all_servers_are_listed_for_our_own_clients() -> None:
    cluster = config("x")["clusters"][0]["cluster"]
    assert cluster["server"] == "https://a:1"
    assert cluster["extensions"][0]["extension"]["servers"] == ["https://a:1", "https://b:2"]
