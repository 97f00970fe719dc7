"""A fault at every disk operation of a member's life: nothing acknowledged is lost, the member says what
happened and goes on answering, the others go on, and all converge once the disk is mended."""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
import trio

from chaos.sim.clock import run_simulation
from chaos.sim.disk import NEEDS_ROOM, SimDisk
from chaos.sim.simulated_store import NAMES, SimulatedStore, settled
from raftkube.errors import Indefinite, Stopped, StoreError
from raftkube.store.client import StoreClient
from raftkube.store.raft.settings import RaftSettings
from raftkube.wire.store import Range

# Small, so that a short life rolls, compacts, makes snapshots and installs one.
RAFT = RaftSettings(segment_bytes=2048, snapshot_log_entries=10, retain_entries=3, snapshot_chunk_bytes=400)
VALUE = b"v" * 200
Arm = Callable[[SimDisk, str], None]


@dataclass
class Life:
    """What one run did: `steps` are the victim's disk operations in order; `fired` the one that failed."""

    store: SimulatedStore
    victim: str = ""
    steps: list[str] = field(default_factory=list)
    lived: int = 0  # how many of them before the verdict
    fired: str | None = None
    acknowledged: set[bytes] = field(default_factory=set)
    said: list[str] = field(default_factory=list)


async def put(life: Life, client: StoreClient, *keys: bytes) -> None:
    for key in keys:
        try:
            with trio.fail_after(20):
                await client.put(key, VALUE)
        except Indefinite:
            continue
        life.acknowledged.add(key)


def keys(prefix: str, count: int) -> list[bytes]:
    return [f"k/{prefix}-{number:03d}".encode() for number in range(count)]


async def live(life: Life, client: StoreClient) -> None:
    """Appends, rolls, snapshots and compaction; the victim is cut off, so that entries of its own are
    truncated; it is down for so long that it is sent a snapshot afterwards."""
    store, victim = life.store, life.victim
    others = set(NAMES) - {victim}
    await put(life, client, *keys("a", 12))
    store.network.partition({victim}, others | {"client"})
    async with trio.open_nursery() as nursery:
        nursery.start_soon(propose_in_vain, life)
        await put(life, client, *keys("b", 3))
    store.network.heal()
    await put(life, client, *keys("c", 3))
    await trio.sleep(1)
    if victim in store.running and not await failed(life, client):
        await store.kill(victim)
        await put(life, client, *keys("d", 16))
        await start(life)
    await put(life, client, *keys("e", 4))
    await trio.sleep(1)
    await put(life, client, *keys("f", 4))
    await trio.sleep(1)


async def propose_in_vain(life: Life) -> None:
    """What a cut-off leader appends is overwritten by its successor's entries."""
    address = life.store.clients[life.victim]
    client = StoreClient.open(life.store.network.host(life.victim), [address], name="local", pinned=True)
    with trio.move_on_after(0.5):
        async with client as local:
            try:
                await local.put(b"k/vain", VALUE)
            except StoreError:
                return


async def failed(life: Life, client: StoreClient) -> bool:
    """Whether the victim says that its disk failed, and what is to be done. It answers in any case: what
    it holds can be read, unless it could not recover anything yet."""
    address = life.store.clients[life.victim]
    with trio.fail_after(10):
        status = await client.status(address)
        complaints = [error for error in status["errors"] if error.startswith("failed: ")]
        life.said += complaints
        if not complaints:
            return False
        assert any(advice in complaints[0] for advice in ("Free some", "Replace the disk"))
        assert status["role"] in ("follower", "recovering")
        assert not status["leader"]
        try:
            await client.range(Range(b"k/", b"k0"), serializable=True, member=address)
            await client.hash(address)
        except Stopped:
            assert status["role"] == "recovering"
        with pytest.raises(Stopped):
            await client.range(Range(b"k/", b"k0"), member=address)
    return True


async def start(life: Life) -> None:
    """Start the victim; a disk that fails before anything is recovered ends it, with the reason."""
    before = len(life.store.failures)
    try:
        await life.store.start(life.victim)
    except RuntimeError:  # it ended before it said that it has started
        assert "Input/output error" in life.store.failures[before]
        life.said.append(life.store.failures[before])


async def run(seed: int, victim: str, at: int, fault: Callable[[SimDisk], None], mend: str) -> Life:
    async with trio.open_nursery() as nursery:
        store = SimulatedStore(seed, nursery, raft=RAFT)
        life = Life(store, victim)
        disk = store.disks[victim]

        def before(step: str) -> None:
            life.steps.append(step)
            if len(life.steps) - 1 == at:
                life.fired = step
                fault(disk)

        disk.before, disk.before_read = before, lambda: before("read")
        for name in NAMES:
            if name != victim:
                await store.start(name)
        await start(life)
        with trio.fail_after(600):
            async with store.client("client") as client:
                await live(life, client)
                life.lived = len(life.steps)
                if life.fired is not None:
                    await mended(life, client, mend)
                await judge(life, client)
        nursery.cancel_scope.cancel()
    return life


async def mended(life: Life, client: StoreClient, mend: str) -> None:
    """`free`: the disk has room again, and nobody touches the member; `replace`: an operator restarts it."""
    store, victim = life.store, life.victim
    if mend == "free":
        await trio.sleep(5)
        if victim in store.running:
            await failed(life, client)
        store.disks[victim].full = False
        if not any("failed" in said and "Free some" not in said for said in life.said):
            return
    for number in range(50):
        if victim not in store.running or await failed(life, client):
            break
        await trio.sleep(0.1 * number)
    assert life.said, f"{life.fired} failed and nothing was said"
    await put(life, client, *keys("g", 3))  # the others go on
    await (store.crash if len(life.steps) % 2 else store.kill)(victim)
    await start(life)


async def judge(life: Life, client: StoreClient) -> None:
    await client.put(b"barrier", b"")
    await settled(client)
    assert not await failed(life, client)
    found = {kv.key for kv in (await client.range(Range(b"k/", b"k0"))).kvs}
    assert life.acknowledged <= found, "an acknowledged write is missing"
    assert len(life.acknowledged) > 20


def no_fault(disk: SimDisk) -> None:
    pass


def fill(disk: SimDisk) -> None:
    disk.full = True


def break_once(disk: SimDisk) -> None:
    raise OSError(errno.EIO, "Input/output error")


def one(victim: str, at: int, fault: Callable[[SimDisk], None], mend: str, seed: int = 3) -> Life:
    return run_simulation(seed, run, seed, victim, at, fault, mend)


SEED, LEADER = 3, "store-1"  # who leads first under this seed: the truncation is its own


def undisturbed() -> list[str]:
    """The steps of the life without a fault, which are those of each life up to its fault."""
    life = one(LEADER, -1, no_fault, "")
    assert life.said == []
    return life.steps[: life.lived]


def test_the_life_reaches_every_kind_of_disk_operation(capsys: pytest.CaptureFixture[str]) -> None:
    kinds = {
        "create",
        "preallocate",
        "write",
        "sync",
        "rename",
        "sync_directory",
        "remove",
        "read",
        "truncate",
    }
    assert set(undisturbed()) == kinds
    logged = capsys.readouterr().out
    for event in ("snapshot_made", "snapshot_sending", "snapshot_installed"):
        assert event in logged


# The default run takes a sample, the long one everything.
SAMPLE = [pytest.param(0, 17, id="sample"), *(
    pytest.param(first, 5, id=f"part-{first}", marks=pytest.mark.long) for first in range(5)
)]  # fmt: skip


@pytest.mark.parametrize(("first", "stride"), SAMPLE)
def test_a_full_disk_at_every_operation(first: int, stride: int) -> None:
    """The member says so and goes on by itself once there is room; nobody touches it."""
    steps = undisturbed()
    for at in [at for at, step in enumerate(steps) if step in NEEDS_ROOM][first::stride]:
        life = one(LEADER, at, fill, "free")
        assert life.fired == steps[at], at
        assert life.store.failures == [], at


@pytest.mark.parametrize(("first", "stride"), SAMPLE)
def test_a_failing_disk_at_every_operation(first: int, stride: int) -> None:
    """The member says so and writes nothing more; after a restart by an operator it is whole."""
    steps = undisturbed()
    for at in range(first, len(steps), stride):
        assert one(LEADER, at, break_once, "replace").fired == steps[at], at
