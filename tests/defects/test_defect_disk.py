"""Defects of pysyncobj's journal on a disk that loses power, or rots. Each beside raftkube."""

from __future__ import annotations

import pytest

from chaos.sim.groups import GroupOptions, Kind
from chaos.sim.scenario import Scenario, run

KINDS = pytest.mark.parametrize("kind", ["stock", "raftkube"])
_WRITES = [b"%04d" % number + b"x" * 700 for number in range(20)]


def _journal_with(scenario: Scenario, name: str, value: bytes) -> tuple[str, int]:
    """The file of that member that holds the value, and where."""
    disk = scenario.group.disk(name)
    for file in disk.names():
        at = disk.read_all(file).find(value)
        if at >= 0:
            return file, at
    raise AssertionError("no file holds the value")


@KINDS
def test_a_power_loss_of_all_loses_nothing_acknowledged(kind: Kind) -> None:
    """Stock's journal is a mapping that nothing syncs before the acknowledgement."""

    async def story(scenario: Scenario) -> int:
        await scenario.write(await scenario.leader(), *_WRITES)
        for name in scenario.group.names:
            await scenario.group.crash(name, lose_all=True)
        try:
            await scenario.group.start_all()
        except ValueError:
            return len(_WRITES)  # the journal exists without a byte: stock does not start
        leader = await scenario.leader()
        return len([write for write in _WRITES if write not in scenario.group.operations(leader)])

    assert run(kind, story) == (len(_WRITES) if kind == "stock" else 0)


async def _rotten(scenario: Scenario) -> tuple[str, list[bytes]]:
    """Flip one bit in the middle of a client's value, in one stopped member's journal; what it then says."""
    group, name = scenario.group, "store-1"
    await scenario.leader()
    await scenario.write("store-1", *_WRITES)
    await group.stop(name)
    file, at = _journal_with(scenario, name, _WRITES[7])

    def flip(data: bytearray) -> None:
        data[at + 300] ^= 1

    group.disk(name).damage(file, flip)
    try:
        await group.start(name)
    except Exception as error:  # noqa: BLE001 whatever a kind raises
        return str(error), []
    await scenario.leader()
    return "", list(group.operations(name))


@KINDS
def test_rot_is_found(kind: Kind) -> None:
    """No checksum: stock applies what the disk made of a value."""
    said, operations = run(kind, _rotten, GroupOptions(size=1))
    if kind == "stock":
        assert len(operations) == len(_WRITES)
        assert _WRITES[7] not in operations  # and nobody was told
    else:
        assert "damaged at byte" in said


@KINDS
def test_damage_is_said_where_it_is(kind: Kind) -> None:
    """A page that never reached the disk reads as zeros."""

    async def story(scenario: Scenario) -> str:
        group, name = scenario.group, "store-1"
        await scenario.leader()
        await scenario.write(name, *_WRITES)
        await group.stop(name)

        file, at = _journal_with(scenario, name, _WRITES[7])

        def zero(data: bytearray) -> None:
            data[at : at + 4096] = bytes(4096)

        group.disk(name).damage(file, zero)
        try:
            await group.start(name)
        except Exception as error:  # noqa: BLE001 whatever a kind raises
            return f"{type(error).__name__}: {error}"
        return ""

    said = run(kind, story, GroupOptions(size=1))
    print(said)
    assert (said.startswith("error: unpack")) if kind == "stock" else ("damaged at byte" in said)
