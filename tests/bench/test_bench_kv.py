"""Gets and mixed loads count only what they have checked: a stale or foreign value is a violation."""

from __future__ import annotations

import pytest

from bench.errors import Violation
from bench.kv import Answer, EtcdKv, OursKv
from bench.kv_load import Written
from bench.soak import steadiness
from bench.stub import EtcdStub, Hub, OursStub
from raftkube.errors import NotLeader
from raftkube.wire import rpc

KEY = b"/bench/1"
SIDES = {"ours": (OursKv, OursStub), "etcd": (EtcdKv, EtcdStub)}


@pytest.mark.parametrize("side", SIDES)
def test_gets_find_what_was_put(side: str) -> None:
    make_session, make_stub = SIDES[side]
    session, stub = make_session(), make_stub(Hub())
    asked = session.hello() + session.put(KEY, b"x" * 600) + session.get(KEY)
    back = stub.feed(asked)
    answers = [answer for half in (back[:40], back[40:]) for answer in session.feed(half)[1]]
    assert answers == [Answer(0, 2), Answer(1, 2, b"x" * 600)]


def test_a_refusal_is_told() -> None:
    session = OursKv()
    number_zero = rpc.error(0, NotLeader("store-2 leads", leader="store-2").to_wire())
    session.put(KEY, b"x")
    (answer,) = session.feed(rpc.member_hello("store-1", "c") + number_zero)[1]
    assert answer.number == 0
    assert "store-2" in answer.error


def test_a_read_may_find_the_last_acknowledged_or_something_later() -> None:
    written = Written()
    written.acknowledge(KEY, 5, b"mark-a")
    written.found(KEY, 5, Answer(0, 5, b"mark-a"))
    written.found(KEY, 5, Answer(1, 8, b"mark-b"))  # not acknowledged yet
    written.acknowledge(KEY, 8, b"mark-b")
    written.check()


def test_stale_foreign_and_invented_values_are_violations() -> None:
    written = Written()
    written.acknowledge(KEY, 5, b"mark-a")
    with pytest.raises(Violation, match="stale"):
        written.found(KEY, 5, Answer(0, 4, b"old"))
    with pytest.raises(Violation, match="stale"):
        written.found(KEY, 5, Answer(0, 0))
    with pytest.raises(Violation, match="written was"):
        written.found(KEY, 5, Answer(0, 5, b"mark-b"))
    with pytest.raises(Violation, match="two puts"):
        written.acknowledge(KEY, 5, b"mark-c")
    written.found(KEY, 5, Answer(0, 9, b"mark-z"))
    with pytest.raises(Violation, match="never acknowledged"):
        written.check()
    with pytest.raises(Violation, match="written was"):
        written.acknowledge(KEY, 9, b"mark-d")


def test_growth_is_not_flat() -> None:
    def windows(*megabytes: float) -> list[dict[str, float]]:
        return [{"rss_mb": rss, "descriptors": 50} for rss in megabytes]

    assert steadiness(windows(100, 300, 310, 305, 300, 310, 308, 306))["flat"]
    grown = steadiness(windows(100, 300, 310, 320, 330, 340, 350, 360))
    assert not grown["flat"]
    assert grown["memory_growth"] > 1.1
