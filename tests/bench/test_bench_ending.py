"""A bench that is ended by a signal leaves nothing behind: no store, no API server, no generator, no data."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from bench.ending import Ending

_START_S = 120.0


def servers_of(bench: psutil.Process, words: tuple[str, ...], count: int) -> None:
    """Wait until `count` of its children have one of `words` in their command."""
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline:
        found = 0
        for child in bench.children():
            try:
                found += any(word in child.cmdline() for word in words)
            except psutil.Error:
                continue
        if found >= count:
            return
        assert bench.is_running()
        assert bench.status() != psutil.STATUS_ZOMBIE, "the bench has ended"
        time.sleep(0.02)
    raise AssertionError(f"{count} servers were not started within {_START_S:g} s")


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("arguments", "words", "count"),
    [
        (["put", "--tls", "no", "--clients", "1"], ("store",), 2),  # while the third is being started
        (["put", "--tls", "no", "--clients", "1"], ("store", "bench.generator"), 4),
        (["api-rates", "--servers", "2", "--clients", "2"], ("store", "apiserver"), 5),
        (["api-rates", "--servers", "1", "--clients", "2"], ("store", "bench.api_process"), 4),
    ],
    ids=["starting", "loaded", "api-starting", "api-loaded"],
)
def test_what_it_started_ends_with_it(
    tmp_path: Path, arguments: list[str], words: tuple[str, ...], count: int
) -> None:
    data_dir = tmp_path / "data"
    command = [sys.executable, "-m", "bench", *arguments, "--seconds", "300", "--data-dir", str(data_dir)]
    bench = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    started: list[psutil.Process] = []
    try:
        told = psutil.Process(bench.pid)
        servers_of(told, words, count)
        started = told.children(recursive=True)
        bench.send_signal(signal.SIGTERM)
        code = bench.wait(60)
        _, alive = psutil.wait_procs(started, timeout=20)
        assert alive == []
        assert code == 128 + signal.SIGTERM
        assert {path.name for path in data_dir.iterdir()} <= {"pki"}  # certificates may stay
    finally:
        bench.kill()
        bench.wait()
        for process in started:
            if process.is_running():  # by pid and start time
                process.kill()


def test_a_second_signal_does_not_break_the_clean_up() -> None:
    ending = Ending()
    with pytest.raises(SystemExit) as ended:
        ending._on_signal(signal.SIGTERM, None)
    assert ended.value.code == 143
    ending._on_signal(signal.SIGHUP, None)
    assert ending.told == signal.SIGTERM


def test_a_signal_that_is_ignored_stays_so(monkeypatch: pytest.MonkeyPatch) -> None:
    installed: dict[int, object] = {}
    monkeypatch.setattr(
        signal, "getsignal", {signal.SIGTERM: signal.SIG_DFL, signal.SIGHUP: signal.SIG_IGN}.get
    )
    monkeypatch.setattr(signal, "signal", installed.__setitem__)
    Ending().install()
    assert list(installed) == [signal.SIGTERM]
