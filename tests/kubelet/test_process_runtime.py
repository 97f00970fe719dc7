"""The process runtime with real, short processes: exits, logs, kills, and kubelets that crash."""

# ruff: noqa: ASYNC110, ASYNC240  (what other processes do is polled, from small local files)

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from raftkube.clock import SystemClock
from raftkube.kubelet.core.pods import Container
from raftkube.kubelet.log_reader import LogOptions, send_log
from raftkube.kubelet.runtimes import processes
from raftkube.kubelet.runtimes.base import ContainerConfig, PodRef, StartFailed
from raftkube.kubelet.runtimes.container_log import Rotation
from raftkube.kubelet.runtimes.process import Images, ProcessRuntime, kill_all
from raftkube.rng import seeded_rng, system_rng

POD = PodRef("uid-1", "default", "web-1", "node-1")
CLOCK = SystemClock()
ROTATION = Rotation()
ALL = LogOptions()


@pytest.fixture
def root(tmp_path: Path) -> Iterator[str]:
    yield str(tmp_path / "root")
    kill_all(str(tmp_path / "root"), grace_s=0)


def config(*command: str, name: str = "web", attempt: int = 0, **more: object) -> ContainerConfig:
    return ContainerConfig(POD, name, attempt, "web", command, **more)  # type: ignore[arg-type]


class Node:
    """A runtime that runs, and a way to wait for what it tells."""

    def __init__(self, root: str, images: Images = "stand-in", rotation: Rotation = ROTATION) -> None:
        self.runtime = ProcessRuntime(
            root, clock=CLOCK, rng=system_rng(), images=images, rotation=rotation
        )  # fmt: skip
        self._changed = trio.Event()

    def on_change(self, uid: str) -> None:
        assert uid == POD.uid
        self._changed.set()
        self._changed = trio.Event()

    def newest(self, name: str = "web") -> Container:
        return self.runtime.attempts(POD.uid)[name][0]

    async def wait_for(self, condition: Callable[[], bool]) -> None:
        with trio.fail_after(20):
            while not condition():
                await self._changed.wait()

    async def run(self, *command: str, **more: object) -> Container:
        """Start and wait for the end."""
        await self.runtime.start(config(*command, **more))  # type: ignore[arg-type]
        name = str(more.get("name", "web"))
        await self.wait_for(lambda: not self.newest(name).running)
        return self.newest(name)

    async def text(self, container: Container, options: LogOptions = ALL) -> bytes:
        source = self.runtime.log(container.id)
        assert source is not None
        parts: list[bytes] = []

        async def send(data: bytes) -> None:
            parts.append(data)

        await send_log(source, options, send)
        return b"".join(parts)


@asynccontextmanager
async def node(root: str, **more: object) -> AsyncIterator[Node]:
    """A kubelet's runtime; leaving is a crash: nothing is told to the containers."""
    made = Node(root, **more)  # type: ignore[arg-type]
    async with trio.open_nursery() as nursery:
        await nursery.start(made.runtime.run, made.on_change)
        yield made
        nursery.cancel_scope.cancel()


async def gone(pid: int) -> None:
    """Wait until this process has ended."""
    with trio.fail_after(10), contextlib.suppress(ProcessLookupError):
        handle = os.pidfd_open(pid)
        try:
            await trio.lowlevel.wait_readable(handle)
        finally:
            os.close(handle)


async def until_file(path: Path) -> str:
    """The text of a file that a container is about to write (to its end, a newline)."""
    with trio.fail_after(10):
        while not (path.exists() and path.read_text().endswith("\n")):
            await trio.sleep(0.005)
    return path.read_text()


@pytest.mark.parametrize(
    ("script", "exit_code"),
    [("exit 0", 0), ("exit 3", 3), ("kill -TERM $$", 143), ("kill -KILL $$", 137)],
    ids=["completed", "error", "sigterm", "sigkill"],
)
async def test_exit_codes(root: str, script: str, exit_code: int) -> None:
    async with node(root) as n:
        ended = await n.run("sh", "-c", script)
    assert ended.exit_code == exit_code
    assert ended.started_at <= ended.finished_at <= CLOCK.wall()


async def test_output_is_logged_by_stream_and_in_order(root: str) -> None:
    async with node(root) as n:
        ended = await n.run("sh", "-c", "echo one; printf 'no newline'")
        assert await n.text(ended) == b"one\nno newline"
        source = n.runtime.log(ended.id)
        assert source is not None
        lines = Path(source.path).read_text().splitlines()
        assert lines[0].split(" ", 3)[1:] == ["stdout", "F", "one"]
        assert lines[1].split(" ", 3)[1:] == ["stdout", "P", "no newline"]
        other = await n.run("sh", "-c", "echo bad >&2", name="other")
        source = n.runtime.log(other.id)
        assert source is not None
        assert Path(source.path).read_text().split(" ", 3)[1:] == ["stderr", "F", "bad\n"]


async def test_a_megabyte_of_output_arrives_whole(root: str) -> None:
    async with node(root) as n:
        ended = await n.run("sh", "-c", "i=0; while [ $i -lt 2000 ]; do echo $i-%0500d; i=$((i+1)); done")
        text = await n.text(ended)
    assert [line.split(b"-")[0] for line in text.splitlines()] == [b"%d" % i for i in range(2000)]


async def test_a_container_has_a_session_a_marker_and_its_own_environment(root: str) -> None:
    async with node(root) as n:
        environment = {"A": "x y", "odd.name": "z", "QUOTE": 'it\'s "$HOME"'}
        script = 'cut -d" " -f6 /proc/$$/stat; tr "\\0" "\\n" </proc/$$/environ'
        ended = await n.run("sh", "-c", script, environment=environment)
        session, *variables = (await n.text(ended)).decode().splitlines()
    assert int(session) != os.getsid(0)
    assert f"RAFTKUBE_CONTAINER_ID={ended.id}" in variables
    assert {"A=x y", "odd.name=z", 'QUOTE=it\'s "$HOME"', "HOSTNAME=web-1"} <= set(variables)


async def test_the_command_stands_in_ps_as_it_was_given(root: str) -> None:
    async with node(root) as n:
        container = await n.runtime.start(config("sleep", "3600"))
        shell = n.runtime._live[container.id].shell
        with trio.fail_after(10):
            while [processes.command_line(p.pid) for p in _members(n, container)] != [["sleep", "3600"]]:
                await trio.sleep(0.005)
        assert processes.command_line(shell.pid)[0] == "/bin/sh"
        assert "sleep" not in " ".join(processes.command_line(shell.pid))


async def test_without_a_command_a_named_process_stands_in(root: str) -> None:
    async with node(root) as n:
        container = await n.runtime.start(
            ContainerConfig(POD, "web", 0, "ghcr.io/x/nginx:1.27", environment={"PATH": "/nowhere"})
        )
        wanted = [["raftkube-stand-in:nginx:1.27", "infinity"]]
        with trio.fail_after(10):
            while [processes.command_line(p.pid) for p in _members(n, container)] != wanted:
                await trio.sleep(0.005)
        assert container.image_id == "stand-in://ghcr.io/x/nginx:1.27"


def _members(n: Node, container: Container) -> list[processes.Process]:
    return n.runtime._live[container.id].members()


async def test_stop_asks_first_and_then_kills_everything(root: str, tmp_path: Path) -> None:
    async with node(root) as n:
        script = f"trap 'echo asked' TERM; sleep 3600 & echo $! > {tmp_path}/pid; while :; do wait; done"
        container = await n.runtime.start(config("sh", "-c", script))
        child = int(await until_file(tmp_path / "pid"))
        n.runtime.stop(container.id, grace_s=3600)
        n.runtime.stop(container.id, grace_s=0.2)
        await n.wait_for(lambda: not n.newest().running)
        assert n.newest().exit_code == 137
        assert b"asked" in await n.text(n.newest())
        await gone(child)


async def test_stop_lets_a_container_end_by_itself(root: str, tmp_path: Path) -> None:
    async with node(root) as n:
        script = f"trap 'echo bye; exit 7' TERM; echo > {tmp_path}/up; while :; do sleep 0.01; done"
        container = await n.runtime.start(config("sh", "-c", script))
        await until_file(tmp_path / "up")
        n.runtime.stop(container.id, grace_s=3600)
        await n.wait_for(lambda: not n.newest().running)
        assert n.newest().exit_code == 7
        assert b"bye" in (await n.text(n.newest())).splitlines()


async def test_what_a_container_leaves_behind_ends_with_it(root: str, tmp_path: Path) -> None:
    async with node(root) as n:
        script = (
            f"(setsid sleep 3600 & echo $! > {tmp_path}/far.tmp); sleep 3600 & echo $! > {tmp_path}/near; "
            f"mv {tmp_path}/far.tmp {tmp_path}/far; exit 4"
        )
        ended = await n.run("sh", "-c", script)
        assert ended.exit_code == 4
        for name in ("near", "far"):
            await gone(int((tmp_path / name).read_text()))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (config("no-such-program-at-all"), r"executable file not found in \$PATH"),
        (config("/no/such"), r'exec: "/no/such": stat /no/such: no such file or directory'),
        (config("/etc/passwd"), r'exec: "/etc/passwd": permission denied'),
        (config("true", working_directory="/no/such"), r'working directory "/no/such" does not exist'),
        (config("true", "a\0b"), "zero byte"),
        (config("true", environment={"A": "\0"}), "environment variable 'A' holds a zero byte"),
    ],
    ids=["unknown", "missing", "not-executable", "directory", "nul", "nul-env"],
)  # fmt: skip
async def test_a_start_that_cannot_be(root: str, given: ContainerConfig, message: str) -> None:
    async with node(root) as n:
        with pytest.raises(StartFailed, match=message):
            await n.runtime.start(given)
        assert n.newest().exit_code == 128
        assert n.newest().reason == "StartError"
    async with node(root) as again:  # and it is still known after a restart
        assert again.newest().exit_code == 128
        assert again.newest().reason == "StartError"


async def test_two_attempts_are_kept(root: str) -> None:
    async with node(root) as n:
        first = await n.run("sh", "-c", "echo 0", attempt=0)
        await n.run("sh", "-c", "echo 1", attempt=1)
        await n.run("sh", "-c", "echo 2", attempt=2)
        assert [c.attempt for c in n.runtime.attempts(POD.uid)["web"]] == [2, 1]
        assert n.runtime.log(first.id) is None
        assert await n.text(n.runtime.attempts(POD.uid)["web"][1]) == b"1\n"
        assert sorted(p.name for p in Path(root, "pods/uid-1/containers/web").iterdir()) == ["1", "2"]
    async with node(root) as n:
        assert [c.attempt for c in n.runtime.attempts(POD.uid)["web"]] == [2, 1]
        assert await n.text(n.newest()) == b"2\n"
        n.runtime.remove_pod(POD.uid)
        assert n.runtime.pods() == []
        assert not Path(root, "pods/uid-1").exists()
        assert list(Path(root, "logs").iterdir()) == []


async def test_a_container_outlives_its_kubelet_and_nothing_is_lost(root: str, tmp_path: Path) -> None:
    script = (
        f"echo before; echo > {tmp_path}/up; while [ ! -e {tmp_path}/go ]; do sleep 0.01; done; "
        f"echo after; echo > {tmp_path}/said; while [ ! -e {tmp_path}/end ]; do sleep 0.01; done; exit 9"
    )
    async with node(root) as n:
        container = await n.runtime.start(config("sh", "-c", script))
        await until_file(tmp_path / "up")
    (tmp_path / "go").touch()
    await until_file(tmp_path / "said")  # written to the pipe while there is no kubelet
    async with node(root) as n:
        adopted = n.newest()
        assert adopted.running
        assert adopted.id == container.id
        assert adopted.started_at == container.started_at
        assert await n.runtime.execute(adopted.id, ["sh", "-c", "echo $RAFTKUBE_CONTAINER_ID"]) == (
            0, f"{adopted.id}\n".encode(),
        )  # fmt: skip
        (tmp_path / "end").touch()
        await n.wait_for(lambda: not n.newest().running)
        assert n.newest().exit_code == 9
        assert await n.text(n.newest()) == b"before\nafter\n"


async def test_an_end_between_two_kubelets_is_known_exactly(root: str, tmp_path: Path) -> None:
    async with node(root) as n:
        script = f"while [ ! -e {tmp_path}/go ]; do sleep 0.01; done; echo last words; exit 5"
        await n.runtime.start(config("sh", "-c", script))
        exit_file = n.runtime._live[n.newest().id].directory / "exit"
    (tmp_path / "go").touch()
    await until_file(exit_file)
    async with node(root) as n:
        await n.wait_for(lambda: not n.newest().running)
        assert n.newest().exit_code == 5
        assert await n.text(n.newest()) == b"last words\n"


async def test_an_end_that_nobody_saw_is_said_so(root: str) -> None:
    async with node(root) as n:
        container = await n.runtime.start(config("sleep", "3600"))
        shell = n.runtime._live[container.id].shell
        await n.wait_for(lambda: bool(_members(n, container)) or True)
    os.killpg(shell.pid, signal.SIGKILL)
    await gone(shell.pid)
    processes.reap(shell.pid)
    async with node(root) as n:
        assert n.newest().exit_code == 137
        assert n.newest().reason == "ContainerStatusUnknown"


async def test_a_killed_shell_takes_its_container_with_it(root: str, tmp_path: Path) -> None:
    async with node(root) as n:
        script = f"echo $$ > {tmp_path}/pid; exec sleep 3600"
        container = await n.runtime.start(config("sh", "-c", script))
        pid = int(await until_file(tmp_path / "pid"))
        os.kill(n.runtime._live[container.id].shell.pid, signal.SIGKILL)
        await n.wait_for(lambda: not n.newest().running)
        assert (n.newest().exit_code, n.newest().reason) == (137, "ContainerStatusUnknown")
        await gone(pid)


async def test_signals_for_the_group_do_not_end_the_shell(root: str, tmp_path: Path) -> None:
    async with node(root) as n:
        container = await n.runtime.start(config("sh", "-c", f"echo > {tmp_path}/up; sleep 3600"))
        await until_file(tmp_path / "up")
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
            os.killpg(n.runtime._live[container.id].shell.pid, number)
        await n.wait_for(lambda: not n.newest().running)
        assert n.newest().reason == ""  # the shell was there to see it
        assert n.newest().exit_code in (129, 130, 143)


async def test_kill_all_ends_every_container_and_nobody_else(root: str, tmp_path: Path) -> None:
    stranger = await trio.lowlevel.open_process(["sleep", "3600"])
    other_root = str(tmp_path / "other")
    async with node(root) as n, node(other_root) as other:
        await n.runtime.start(config("sleep", "3600"))
        stubborn = f"trap '' TERM; echo $$ > {tmp_path}/pid; while :; do sleep 1; done"
        await n.runtime.start(config("sh", "-c", stubborn, name="stubborn"))
        kept = await other.runtime.start(config("sleep", "3600"))
        pid = int(await until_file(tmp_path / "pid"))
        shells = [live.shell.pid for live in n.runtime._live.values()]
    assert kill_all(root, grace_s=0.1) >= 2
    for each in (pid, *shells):
        await gone(each)
    assert kill_all(root) == 0
    assert stranger.poll() is None
    async with node(other_root) as other:
        assert other.newest().id == kept.id
        assert other.newest().running
    assert kill_all(other_root, grace_s=1) == 1
    stranger.kill()
    await stranger.wait()
    async with node(root) as n:
        codes = {name: c[0].exit_code for name, c in n.runtime.attempts(POD.uid).items()}
    assert codes == {"web": 143, "stubborn": 137}


async def test_execute(root: str) -> None:
    async with node(root) as n:
        container = await n.runtime.start(config("sleep", "3600", environment={"A": "b"}))
        assert await n.runtime.execute(container.id, ["sh", "-c", "echo $A; exit 3"]) == (3, b"b\n")
        with pytest.raises(StartFailed, match="not found"):
            await n.runtime.execute(container.id, ["no-such-program-at-all"])
        with pytest.raises(StartFailed, match="does not run"):
            await n.runtime.execute("other", ["true"])


async def test_usage_counts_the_processes_of_the_container(root: str) -> None:
    async with node(root) as n:
        container = await n.runtime.start(config("sleep", "3600"))
        with trio.fail_after(10):
            while (usage := n.runtime.usage(container.id)) is None or not usage.rss_bytes:
                await trio.sleep(0.005)
        assert usage.cpu_s < 10
        assert n.runtime.usage("unknown") is None


async def test_logs_are_rotated_and_followed_through_it(root: str) -> None:
    async with node(root, rotation=Rotation(4096, 3)) as n:
        script = "i=0; while [ $i -lt 400 ]; do echo line $i; i=$((i+1)); done"
        container = await n.runtime.start(config("sh", "-c", script))
        followed: list[bytes] = []

        async def send(data: bytes) -> None:
            followed.append(data)

        source = n.runtime.log(container.id)
        assert source is not None
        with trio.fail_after(20):
            await send_log(source, LogOptions(follow=True), send)
        names = sorted(path.name for path in Path(source.path).parent.iterdir())
        assert names == ["0.log", "0.log.1", "0.log.2"]
        assert all(Path(source.path).with_name(name).stat().st_size <= 4096 for name in names)
        assert b"".join(followed).splitlines()[-1] == b"line 399"


@pytest.mark.parametrize(
    ("images", "has_command", "refused", "said"),
    [
        ("strict", True, True, 'image "web" cannot be unpacked'),
        ("stand-in", True, False, 'image "web" was not unpacked: the command runs as a stand-in'),
        ("stand-in", False, False, "names no command"),
    ],
)
def test_what_is_said_of_images(
    root: str, images: Images, has_command: bool, refused: bool, said: str
) -> None:
    runtime = ProcessRuntime(root, clock=CLOCK, rng=seeded_rng(1), images=images)
    verdict = runtime.image("web", has_command=has_command)
    assert bool(verdict.refusal) == refused
    assert said in verdict.refusal + verdict.warning
