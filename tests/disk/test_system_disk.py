"""The real directory: what must be synced for its own existence."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from raftkube.disk import SystemDisk


def test_a_new_directory_is_durable_in_its_parents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A journal synced inside a directory whose own name a power loss forgets is lost whole."""
    synced: list[int] = []
    fsync = os.fsync

    def recording(fd: int) -> None:
        synced.append(os.fstat(fd).st_ino)
        fsync(fd)

    monkeypatch.setattr(os, "fsync", recording)
    SystemDisk(str(tmp_path / "a" / "b")).close()
    assert synced == [tmp_path.stat().st_ino, (tmp_path / "a").stat().st_ino]
    SystemDisk(str(tmp_path / "a" / "b")).close()
    assert len(synced) == 2
