"""How long a member stands still while snapshots are made, sent, installed and freed, and history goes.

    python scripts/snapshot_pauses.py [--keys 200000] [--value-bytes 1024] [--rate 1000]
    python scripts/snapshot_pauses.py --slices    each slice of that work, alone in one process

Three members, each a process of its own on loopback and a real disk, with a probe inside: a task that wakes
every 5 ms and notes how late it was, how much processor its thread used since, and how much of the time went
into syncs and into the cycle collector. Other load on the machine makes wakes late, but uses no processor of
this thread: read both columns. Prints a table in Markdown.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time  # noqa: TID251 the processor's time of a thread is measured here
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from raftkube.cli.collector import tune_collector
from raftkube.cli.logging import configure_logging
from raftkube.clock import SystemClock
from raftkube.disk import SystemDisk
from raftkube.errors import StoreError
from raftkube.net import Address
from raftkube.net.tcp import TcpNetwork
from raftkube.rng import system_rng
from raftkube.store.client import StoreClient
from raftkube.store.core import StateMachine
from raftkube.store.raft.settings import RaftSettings
from raftkube.store.server.member import MemberConfig, run_member
from raftkube.wire.store import Compact, Put

NAMES = ("store-1", "store-2", "store-3")
PROBE_S = 0.005
RNG = system_rng()
_END = object()
SNAPSHOT_S = 1_200.0  # at the rate of the load, twice the bytes of all keys take several minutes
LOG_BYTES = 24 * 1024 * 1024  # of log between snapshots: less than the default, so that there are more

COLUMNS = {
    "late_ms": "worst wake late, ms",
    "its_cpu_ms": "its processor",
    "its_sync_ms": "its syncs",
    "its_gc_ms": "its gc",
    "cpu_ms_max": "most processor",
    "sync_ms_max": "longest sync",
    "gc_ms_max": "longest gc",
}


class Probe:
    """The worst wake since the last report, and what its time went into."""

    def __init__(self) -> None:
        self.sync_s = self.gc_s = self._gc_since = 0.0
        self.worst: dict[str, float] = {}
        self.cpu_ms_max = self.gc_ms_max = self.sync_ms_max = 0.0
        gc.callbacks.append(self._note_gc)

    def _note_gc(self, phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            self._gc_since = time.thread_time()
        else:
            spent = time.thread_time() - self._gc_since
            self.gc_s += spent
            self.gc_ms_max = max(self.gc_ms_max, spent * 1000)

    def note_sync(self, spent: float) -> None:
        self.sync_s += spent
        self.sync_ms_max = max(self.sync_ms_max, spent * 1000)

    async def run(self) -> None:
        while True:
            self.sync_s = self.gc_s = 0.0
            wall, cpu = time.perf_counter(), time.thread_time()
            await trio.sleep(PROBE_S)
            late = (time.perf_counter() - wall - PROBE_S) * 1000
            used = (time.thread_time() - cpu) * 1000
            self.cpu_ms_max = max(self.cpu_ms_max, used)
            if late > self.worst.get("late_ms", -1.0):
                self.worst = {
                    "late_ms": late, "its_cpu_ms": used,
                    "its_sync_ms": self.sync_s * 1000, "its_gc_ms": self.gc_s * 1000,
                }  # fmt: skip

    def report(self) -> dict[str, float]:
        found = {
            **self.worst, "cpu_ms_max": self.cpu_ms_max,
            "sync_ms_max": self.sync_ms_max, "gc_ms_max": self.gc_ms_max,
        }  # fmt: skip
        self.worst, self.cpu_ms_max, self.gc_ms_max, self.sync_ms_max = {}, 0.0, 0.0, 0.0
        return found


class TimedDisk(SystemDisk):
    """Tells the probe what each sync took."""

    probe: Probe

    def open(self, name: str, *, create: bool = False) -> Any:
        file, probe = super().open(name, create=create), self.probe

        class TimedFile(type(file)):  # type: ignore[misc]
            __slots__ = ()

            def sync(self) -> None:
                began = time.perf_counter()
                super().sync()
                probe.note_sync(time.perf_counter() - began)

        file.__class__ = TimedFile
        return file


async def be_member(name: str, directory: str, ports: list[int]) -> None:
    addresses = [Address("127.0.0.1", port) for port in ports]
    config = MemberConfig(
        name=name,
        members=dict(zip(NAMES, addresses[:3], strict=True)),
        listen_client=addresses[3 + NAMES.index(name)],
        listen_peer=addresses[NAMES.index(name)],
        raft=RaftSettings(snapshot_log_bytes=LOG_BYTES),
    )
    configure_logging("text", 1, component=name)
    disk = TimedDisk(directory)
    disk.probe = probe = Probe()
    tune_collector()

    async def serve(*, task_status: Any) -> None:
        await run_member(
            config, network=TcpNetwork(), clock=SystemClock(), rng=system_rng(), disk=disk,
            task_status=task_status,
        )  # fmt: skip

    async with trio.open_nursery() as nursery:
        await nursery.start(serve)
        print(json.dumps({"cpu_s": time.process_time()}), flush=True)
        probe.report()
        nursery.start_soon(probe.run)
        async for _ in trio.lowlevel.FdStream(os.dup(0)):
            print(json.dumps(probe.report()), flush=True)


class Member:
    def __init__(self, name: str, directory: Path, ports: list[int]) -> None:
        self.name, self._ports = name, ports
        self.data, self.log = directory / name, directory / f"{name}.log"
        self.process: trio.Process

    async def start(self) -> tuple[float, float]:
        """Seconds until it served, and of its processor."""
        began = time.perf_counter()
        with self.log.open("ab") as log:
            self.process = await trio.lowlevel.open_process(
                [sys.executable, __file__, "--member", self.name, str(self.data), *map(str, self._ports)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
            )  # fmt: skip
        cpu_s = (await self._line())["cpu_s"]
        return time.perf_counter() - began, cpu_s

    async def _line(self) -> dict[str, float]:
        assert self.process.stdout is not None
        data = b""
        while not data.endswith(b"\n"):
            more = await self.process.stdout.receive_some()
            if not more:
                raise SystemExit(f"{self.name} ended: {self.log.read_text()[-2000:]}")
            data += more
        found: dict[str, float] = json.loads(data)
        return found

    async def report(self) -> dict[str, float]:
        assert self.process.stdin is not None
        await self.process.stdin.send_all(b"?")
        return await self._line()

    async def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        await self.process.wait()

    def count(self, event: str) -> int:
        return self.log.read_bytes().count(event.encode())

    def log_first(self) -> int:
        """The oldest entry that its log holds since the last snapshot it made."""
        return int(re.findall(rb"log_first=(\d+)", self.log.read_bytes())[-1])


class Run:
    """The phases, and the rows they make."""

    def __init__(self, options: argparse.Namespace, directory: Path, ports: list[int]) -> None:
        self.options = options
        self.members = {name: Member(name, directory, ports) for name in NAMES}
        self.addresses = [Address("127.0.0.1", port) for port in ports[3:]]
        self.rows: list[tuple[str, str, dict[str, float]]] = []
        self.notes: list[str] = []
        self.written = 0

    async def note(self, what: str, names: list[str]) -> None:
        for name in names:
            found = await self.members[name].report()
            if what:
                self.rows.append((what, name, found))

    async def clear(self, *names: str) -> None:
        await self.note("", [*names])

    @asynccontextmanager
    async def load(self, client: StoreClient) -> AsyncIterator[None]:
        """`rate` puts a second, spread over random keys."""
        value = RNG.randbytes(self.options.value_bytes)

        async def put_one() -> None:
            try:
                await client.put(b"/keys/%08d" % RNG.randrange(self.options.keys), value)
                self.written += 1
            except StoreError:
                pass

        async def pace() -> None:
            due = trio.current_time()
            async with trio.open_nursery() as puts:
                while True:
                    for _ in range(20):
                        puts.start_soon(put_one)
                    due += 20 / self.options.rate
                    await trio.sleep_until(due)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(pace)
            yield
            nursery.cancel_scope.cancel()

    async def fill(self, client: StoreClient) -> None:
        """Every key once, as fast as it goes."""
        limiter = trio.CapacityLimiter(400)

        async def put(number: int) -> None:
            async with limiter:
                await client.put(b"/keys/%08d" % number, RNG.randbytes(self.options.value_bytes))

        for begin in range(0, self.options.keys, 5_000):
            async with trio.open_nursery() as nursery:
                for number in range(begin, min(begin + 5_000, self.options.keys)):
                    nursery.start_soon(put, number)

    async def fill_for_ever(self, client: StoreClient) -> None:
        """Again and again, until cancelled."""
        while True:
            await self.fill(client)

    async def leader(self, client: StoreClient) -> str:
        async def known() -> bool:
            return bool((await client.status())["leader"])

        await self.until(known, 30)
        return str((await client.status())["leader"])

    async def until(self, condition: Any, seconds: float) -> float:
        began = time.perf_counter()
        with trio.fail_after(seconds):
            while not await condition():  # noqa: ASYNC110 what other processes do sets no event here
                await trio.sleep(0.05)
        return time.perf_counter() - began

    async def phases(self) -> None:
        for member in self.members.values():
            await member.start()
        async with StoreClient.open(TcpNetwork(), self.addresses, name="pauses") as client:
            await self.fill(client)
            leader = await self.leader(client)
            late = next(name for name in NAMES if name != leader)
            await self.note("filled as fast as it goes, snapshots made", [leader, late])
            async with self.load(client):
                await self.snapshot_made(leader, late)
                await self.install(client, leader, late)
                await self.compact(client, leader, late)
            await self.restart(late)

    async def snapshot_made(self, leader: str, late: str) -> None:
        made = self.members[leader].count("snapshot_made")
        await self.clear(leader, late)

        async def again() -> bool:
            return self.members[leader].count("snapshot_made") > made

        await self.until(again, SNAPSHOT_S)
        await self.note("(a) a snapshot made", [leader, late])

    async def install(self, client: StoreClient, leader: str, late: str) -> None:
        await self.members[late].kill()
        held = (await client.status(member=leader))["applied_index"]

        async def cut() -> bool:
            return self.members[leader].log_first() > held

        async with trio.open_nursery() as hurry:  # the next snapshot waits for twice the last one's bytes
            hurry.start_soon(self.fill_for_ever, client)
            await self.until(cut, SNAPSHOT_S)
            hurry.cancel_scope.cancel()
        await self.clear(leader)
        started_s, _ = await self.members[late].start()
        before = self.written

        async def caught_up() -> bool:
            mine = (await client.status(member=late))["applied_index"]
            theirs = (await client.status(member=leader))["applied_index"]
            return bool(mine >= theirs - 200)

        took_s = await self.until(caught_up, 120)
        rate = (self.written - before) / took_s
        installed = self.members[late].count("snapshot_installed")
        self.notes.append(
            f"A member that was behind the log served after {started_s:.1f} s and had caught up {took_s:.1f} "
            f"s later, while {rate:.0f} puts/s were acknowledged ({installed} snapshots installed)."
        )
        await self.note("(b) sent", [leader])
        await self.note("(c) installed", [late])
        await trio.sleep(5)
        await self.note("(e) the old state freed", [late])

    async def compact(self, client: StoreClient, leader: str, late: str) -> None:
        await self.clear(leader, late)
        await client.compact((await client.status(member=leader))["revision"])
        await trio.sleep(8)
        await self.note("(d) history compacted and trimmed", [leader, late])

    async def restart(self, late: str) -> None:
        await self.members[late].kill()
        took_s, cpu_s = await self.members[late].start()
        self.notes.append(
            f"Restart of a member with {self.options.keys:,} keys to serving: {took_s:.1f} s, of which "
            f"{cpu_s:.1f} s of processor."
        )
        for member in self.members.values():
            await member.kill()

    def print_table(self) -> None:
        options = self.options
        where = f"{platform.platform()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
        print(f"{time.strftime('%Y-%m-%d')}, {where}:")
        print(f"{options.keys:,} keys of {options.value_bytes} bytes, {options.rate} puts/s\n")
        print("| while | member | " + " | ".join(COLUMNS.values()) + " |")
        print("|---|---|" + "---|" * len(COLUMNS))
        for what, name, found in self.rows:
            cells = " | ".join(f"{found.get(key, 0.0):.1f}" for key in COLUMNS)
            print(f"| {what} | {name} | {cells} |")
        print()
        print("\n".join(self.notes))


def measure_slices(options: argparse.Namespace) -> None:
    """The processor that each slice takes, whatever else the machine does."""
    tune_collector()
    machine, chunks = StateMachine(), list[bytes]()
    for number in range(options.keys):
        machine.apply(Put(b"/keys/%08d" % number, RNG.randbytes(options.value_bytes)))
        machine.take_events()

    def snapshot() -> Iterator[None]:
        for chunk in machine.snapshot():
            chunks.append(chunk)
            yield

    _time_slices("a section of a snapshot", snapshot())
    restored = list[StateMachine]()

    def restore() -> Iterator[None]:
        restored.append((yield from StateMachine.restoring(iter(chunks))))

    _time_slices("a slice of an install", restore())
    copy = restored[0]
    copy.apply(Compact(copy.revision))
    _time_slices("256 revisions of history trimmed", iter(lambda: copy.trim(256), True))
    _time_slices("1,024 keys of an old state freed", iter(lambda: copy.discard(1_024), True))


def _time_slices(what: str, slices: Iterator[object]) -> None:
    taken_ms, done = [], False
    while not done:
        began = time.thread_time()
        done = next(slices, _END) is _END
        taken_ms.append((time.thread_time() - began) * 1000)
    taken_ms.sort()
    p99, worst, total_s = taken_ms[len(taken_ms) * 99 // 100], taken_ms[-1], sum(taken_ms) / 1000
    print(f"| {what} | {len(taken_ms)} | {p99:.1f} | {worst:.1f} | {total_s:.2f} |")


async def free_ports(count: int) -> list[int]:
    listeners = [await TcpNetwork().listen(Address("127.0.0.1", 0), None) for _ in range(count)]
    for listener in listeners:
        await listener.aclose()
    return [listener.address.port for listener in listeners]


async def measure(options: argparse.Namespace) -> None:
    directory = Path(tempfile.mkdtemp(prefix="pauses-", dir=options.directory))
    run = Run(options, directory, await free_ports(6))
    try:
        await run.phases()
        run.print_table()
    finally:
        for member in run.members.values():
            if hasattr(member, "process") and member.process.returncode is None:
                member.process.kill()
        shutil.rmtree(directory, ignore_errors=True)


def main() -> None:
    if sys.argv[1:2] == ["--member"]:
        trio.run(be_member, sys.argv[2], sys.argv[3], [int(port) for port in sys.argv[4:]])
        return
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--keys", type=int, default=200_000)
    parser.add_argument("--value-bytes", type=int, default=1024)
    parser.add_argument("--rate", type=int, default=1000)
    parser.add_argument("--slices", action="store_true", help="time the slices alone")
    parser.add_argument("--directory", help="where the members' data lies; the default is the temporary one")
    options = parser.parse_args()
    if options.slices:
        measure_slices(options)
    else:
        trio.run(measure, options)


if __name__ == "__main__":
    main()
