"""The bench counts only what it has checked: lost, doubled and wrong events are violations."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import pytest

from bench.errors import BenchError, Violation
from bench.etcd import field, fields
from bench.generator import Writer
from bench.job import Job
from bench.kv import Answer, make_kv
from bench.loop import Endpoint
from bench.machine import describe
from bench.runner import _generator_doubts, _peer_doubts
from bench.stub import EtcdStub, Hub, OursStub
from raftkube.wire import rpc

SIDES = {"ours": OursStub, "etcd": EtcdStub}


@pytest.mark.parametrize("protocol", SIDES)
def test_puts_are_acknowledged_with_their_revisions(protocol: str) -> None:
    session, stub = make_kv(protocol), SIDES[protocol](Hub())
    back = stub.feed(session.hello() + session.put(b"/bench/1", b"x" * 512) + session.put(b"/bench/2", b"y"))
    halves = session.feed(back[: len(back) // 2])[1] + session.feed(back[len(back) // 2 :])[1]
    assert halves == [Answer(0, 2), Answer(1, 3)]


def test_an_error_instead_of_an_acknowledgement_is_a_violation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.generator.Connection", Mock())
    nowhere = Endpoint("127.0.0.1", 1)
    job = Job("put", "ours", nowhere, [nowhere], 1, 64, 0.0, 1.0, seed=1)
    writer = Writer(job, 0, on_ack=Mock(side_effect=AssertionError("no put was acknowledged")))
    writer.put(1)
    with pytest.raises(Violation, match="overloaded"):
        writer._on_data(rpc.member_hello("m", "c") + rpc.error(0, ["overloaded", "", {}]))


def test_protobuf_fields_survive() -> None:
    message = field(1, b"abc") + field(11, 2**40) + field(200, b"")
    assert fields(message) == [(1, b"abc"), (11, 2**40), (200, b"")]


def test_a_weak_peer_and_a_slow_generator_are_said() -> None:
    from bench.runner import Options

    options = Options("put", "etcd", 8, 100, 512, 1.0, 1, "no", 0, "x")
    assert _peer_doubts(options, {"rate": 2_400.0})[0].startswith("suspect: etcd did 2400/s")
    assert _peer_doubts(options, {"rate": 2_500.0}) == []
    assert "less than 2 times" in _generator_doubts("etcd", {"generator_limit": 199.0, "rate": 100.0})[0]
    assert _generator_doubts("etcd", {"generator_limit": 200.0, "rate": 100.0}) == []


def test_memory_is_no_disk() -> None:
    shm = Path("/dev/shm")
    if not shm.is_dir():
        pytest.skip("this machine has no /dev/shm")
    with pytest.raises(BenchError, match="on tmpfs: a durable store needs a disk"):
        describe(shm)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["put", "--bogus"], "No such option"),
        (["watch", "--watchers", "0"], "--watchers"),
        (["put", "--against", "consul"], "--against"),
        (["explode"], "No such command"),
    ],
)
def test_wrong_input_is_one_sentence(arguments: list[str], says: str) -> None:
    done = subprocess.run([sys.executable, "-m", "bench", *arguments], capture_output=True, check=False)
    assert done.returncode == 2
    assert says in done.stderr.decode()
    assert "Traceback" not in done.stderr.decode()
