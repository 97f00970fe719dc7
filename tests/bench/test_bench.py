"""The bench counts only what it has checked: lost, doubled and wrong events are violations."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import orjson
import pytest

from bench.errors import BenchError, Violation
from bench.etcd import EtcdWatch, field, fields
from bench.generator import Writer
from bench.job import Job
from bench.kv import Answer, make_kv
from bench.loop import Endpoint
from bench.machine import describe
from bench.ours import OursWatch
from bench.runner import _generator_doubts, _peer_doubts
from bench.session import Expected
from bench.stub import EtcdStub, Hub, OursStub
from raftkube.wire import rpc

SIDES = {"ours": (OursWatch, OursStub), "etcd": (EtcdWatch, EtcdStub)}


@pytest.mark.parametrize("protocol", SIDES)
def test_puts_are_acknowledged_with_their_revisions(protocol: str) -> None:
    _, make_stub = SIDES[protocol]
    session, stub = make_kv(protocol), make_stub(Hub())
    back = stub.feed(session.hello() + session.put(b"/bench/1", b"x" * 512) + session.put(b"/bench/2", b"y"))
    halves = session.feed(back[: len(back) // 2])[1] + session.feed(back[len(back) // 2 :])[1]
    assert halves == [Answer(0, 2), Answer(1, 3)]


def watched(protocol: str, watches: int = 3) -> tuple[object, Expected, object]:
    make_watch, make_stub = SIDES[protocol]
    expected, hub = Expected(), Hub()
    session, stub = make_watch(watches, expected), make_stub(hub)
    session.feed(stub.feed(session.hello()))
    assert session.created == watches
    return session, expected, stub


def write(expected: Expected, first: int, count: int) -> list[tuple[int, bytes, bytes]]:
    writes = [(first + n, b"/bench/%d" % n, b"value %d" % (first + n)) for n in range(count)]
    expected.written |= {revision: (key, value) for revision, key, value in writes}
    return writes


def send(stub: object, writes: list[tuple[int, bytes, bytes]]) -> bytes:
    stub._hub.take()  # type: ignore[attr-defined]
    return stub.events(writes)  # type: ignore[attr-defined, no-any-return]


@pytest.mark.parametrize("protocol", SIDES)
def test_every_watch_gets_every_event_once(protocol: str) -> None:
    session, expected, stub = watched(protocol)
    for first, count in ((2, 5), (7, 1), (8, 300)):
        session.feed(send(stub, write(expected, first, count)))
    assert (session.delivered, session.reached) == (3 * 306, 307)
    expected.check()


@pytest.mark.parametrize("protocol", SIDES)
@pytest.mark.parametrize("next_write", [9, 6], ids=["gap", "doubled"])
def test_a_gap_or_a_doubled_event_is_a_violation(protocol: str, next_write: int) -> None:
    session, expected, stub = watched(protocol)
    session.feed(send(stub, write(expected, 2, 5)))
    with pytest.raises(Violation):
        session.feed(send(stub, write(expected, next_write, 1)))


@pytest.mark.parametrize("protocol", SIDES)
def test_a_wrong_value_is_a_violation(protocol: str) -> None:
    session, expected, stub = watched(protocol)
    session.feed(send(stub, write(expected, 2, 5)))
    expected.written[4] = (b"/bench/2", b"what was really written")
    with pytest.raises(Violation, match="came wrong"):
        expected.check()


@pytest.mark.parametrize("protocol", SIDES)
def test_an_event_that_never_comes_is_a_violation(protocol: str) -> None:
    session, expected, stub = watched(protocol)
    session.feed(send(stub, write(expected, 2, 5)))
    expected.written[7] = (b"k", b"v")
    with pytest.raises(Violation, match="1 writes never came"):
        expected.check()


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

    options = Options("watch", "etcd", 1, 100, 1000, 1, 512, 1.0, 1, "no", 0, "x")
    assert _peer_doubts(options, {"rate": 90_000.0})[0].startswith("suspect: etcd did 90000/s")
    assert _peer_doubts(options, {"rate": 100_000.0}) == []
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


@pytest.mark.e2e
def test_a_short_run_prints_both_sides(tmp_path: Path) -> None:
    out = tmp_path / "report.json"
    command = [
        sys.executable,
        "-m",
        "bench",
        "watch",
        "--against",
        "etcd",
        "--watchers",
        "5",
        "--seconds",
        "1",
    ]
    command += [
        "--repeat",
        "1",
        "--tls",
        "yes",
        "--seed",
        "7",
        "--out",
        str(out),
        "--data-dir",
        str(tmp_path / "d"),
    ]
    done = subprocess.run(command, capture_output=True, check=False, timeout=180)
    assert done.returncode == 0, done.stderr.decode()
    report = orjson.loads(out.read_bytes())
    run = report["runs"][0]
    assert run["ours"]["rate"] > 0
    assert run["peer"]["name"] == "etcd 3.5.1"
    assert run["ratio"] == pytest.approx(run["ours"]["rate"] / run["peer"]["rate"], abs=0.01)
    assert report["seed"] == 7
    assert "times etcd" in done.stdout.decode()
