"""A store's first start makes the cluster; afterwards an empty directory only joins."""

from __future__ import annotations

from pathlib import Path

from raftkube.cluster.first_starts import FirstStarts
from raftkube.cluster.state import ClusterState


def test_a_directory_that_was_wiped_never_counts_as_new_again(tmp_path: Path) -> None:
    state = ClusterState("test", tmp_path)
    starts = FirstStarts(state)
    assert starts.flag("store-1") == "new"
    assert starts.flag("store-1") == "new"  # it ended before it had an identity
    identity = state.data_of("store-1") / "identity"
    identity.parent.mkdir(parents=True)
    identity.write_bytes(b"x")
    assert starts.flag("store-1") == "existing"
    identity.unlink()
    assert FirstStarts(state).flag("store-1") == "existing"
    assert FirstStarts(state).flag("store-2") == "new"


def test_stores_that_serve_are_noted(tmp_path: Path) -> None:
    state = ClusterState("test", tmp_path)
    for name in ("store-1", "store-2"):
        state.data_of(name).mkdir(parents=True)
        (state.data_of(name) / "identity").write_bytes(b"x")
    FirstStarts(state).note(["store-1", "store-2", "store-3"])
    for name in ("store-1", "store-2"):
        (state.data_of(name) / "identity").unlink()
    assert [FirstStarts(state).flag(f"store-{n}") for n in (1, 2, 3)] == ["existing", "existing", "new"]
