"""A power loss: the directory of a killed member as the disk would show it after one.

What was synced is there. Of the sectors (512 bytes) written since, and of the directory's changes, either
nothing survives, or each sector by the toss of a coin and a prefix of the changes.
"""

from __future__ import annotations

import random
import shutil
from dataclasses import dataclass
from pathlib import Path

from chaos.live.shadow import SECTOR, Shadow, differing


@dataclass(frozen=True, slots=True)
class Dropped:
    """What was lost: sectors, and steps of the directory."""

    sectors: int
    changes: int


def lose_power(directory: Path, rng: random.Random, *, lose_all: bool) -> Dropped:
    """Replace `directory`, which no process uses, by what survives. Raises OSError."""
    shadow = Shadow(directory)
    kept = 0 if lose_all else rng.randint(0, len(shadow.names.changes))
    names = _surviving_names(shadow, kept)
    after = directory.with_name(f"{directory.name}.after-power-loss")
    shutil.rmtree(after, ignore_errors=True)
    after.mkdir(mode=0o700)
    live = {id_: name for name, (id_, _) in shadow.names.live.items()}
    sectors = 0
    for name, id_ in sorted(names.items()):
        live_path = directory / live[id_] if id_ in live else None
        image, dropped = _surviving_content(shadow.content(id_), live_path, rng, lose_all=lose_all)
        (after / name).write_bytes(image)
        (after / name).chmod(0o600)
        sectors += dropped
    gone = [id_ for id_ in live if id_ not in names.values()]
    sectors += sum(len(list(differing(directory / live[id_], Path("/dev/null")))) for id_ in gone)
    dropped_changes = len(shadow.names.changes) - kept
    shutil.rmtree(directory)
    after.rename(directory)
    return Dropped(sectors, dropped_changes)


def _surviving_names(shadow: Shadow, kept: int) -> dict[str, int]:
    """Name -> id after the first `kept` changes since the last directory sync."""
    names = dict(shadow.names.durable)
    for step, *of in shadow.names.changes[:kept]:
        if step == "create":
            names[str(of[0])] = int(of[1])
        elif step == "remove":
            names.pop(str(of[0]), None)
        elif of[0] in names:
            names[str(of[1])] = names.pop(str(of[0]))
    return names


def _surviving_content(
    durable: Path, live: Path | None, rng: random.Random, *, lose_all: bool
) -> tuple[bytes, int]:
    """The bytes of a file, and how many of its sectors were dropped."""
    image = bytearray(durable.read_bytes() if durable.exists() else b"")
    if live is None:
        return bytes(image), 0
    written = live.read_bytes()
    unsynced = list(differing(live, durable))
    keeps_size = not lose_all and rng.random() < 0.5
    if keeps_size:
        del image[len(written) :]
        image.extend(bytes(len(written) - len(image)))
    dropped = 0
    for sector in unsynced:
        at = sector * SECTOR
        end = min(at + SECTOR, len(written), len(image))
        if lose_all or at >= end or rng.random() < 0.5:
            dropped += 1
        else:
            image[at:end] = written[at:end]
    return bytes(image), dropped
