"""/livez, /readyz and /health: what they check, how they say it, and that a bound ends each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest
import trio
from monitored import Members, get, members, scrape, until, value

from raftkube.errors import Stopped
from raftkube.store.raft.settings import RaftSettings
from raftkube.store.server.health import Health, alarms_on
from raftkube.store.server.service import Suspension
from raftkube.store.server.settings import ServerSettings

NAMES = ("store-1", "store-2", "store-3")
QUICK = ServerSettings(health_timeout_s=0.3)
IMPATIENT = RaftSettings(read_timeout_s=0.6, slow_read_s=0.2)


async def _ready(running: Members, name: str = "store-1") -> None:
    async def holds() -> bool:
        return (await get(running.metrics(name), "/readyz"))[0] == 200

    await until(holds)


async def test_a_member_that_serves_is_live_ready_and_healthy(tmp_path: Path) -> None:
    async with members(tmp_path) as running:
        await _ready(running)
        port = running.metrics()
        assert await get(port, "/livez") == (200, "ok")
        assert await get(port, "/readyz") == (200, "ok")
        assert await get(port, "/livez?verbose") == (
            200,
            "[+]ping ok\n[+]serializable_read ok\nlivez check passed\n",
        )
        assert await get(port, "/readyz?verbose") == (
            200,
            "[+]ping ok\n[+]serializable_read ok\n[+]member ok\n[+]shutdown ok\n[+]alarms ok\n"
            "[+]linearizable_read ok\nreadyz check passed\n",
        )
        assert await get(port, "/readyz/alarms") == (200, "ok")
        assert (await get(port, "/readyz/nothing"))[0] == 404
        assert (await get(port, "/readyz/alarms/x"))[0] == 404
        for path in ("/health", "/health?serializable=true"):
            status, body = await get(port, path)
            assert (status, orjson.loads(body)) == (200, {"health": "true", "reason": ""})


async def test_without_a_majority_a_member_is_live_and_not_ready(tmp_path: Path) -> None:
    async with members(tmp_path, NAMES, settings=QUICK, raft=IMPATIENT) as running:
        for name in NAMES:
            await _ready(running, name)
        for name in NAMES[1:]:
            running.scopes[name].cancel()
        port = running.metrics()

        async def not_ready() -> bool:
            return (await get(port, "/readyz"))[0] == 500

        await until(not_ready)
        assert await get(port, "/livez") == (200, "ok")
        status, body = await get(port, "/readyz?verbose")
        assert status == 500
        assert "[-]linearizable_read failed: " in body
        assert body.endswith("readyz check failed\n")
        status, body = await get(port, "/readyz?exclude=linearizable_read&verbose")
        assert status == 200
        assert "[+]linearizable_read excluded: ok" in body

        async def leader_is_lost() -> bool:
            answered, body = await get(port, "/health")
            return answered == 503 and orjson.loads(body) == {
                "health": "false",
                "reason": "RAFT NO LEADER",
            }

        await until(leader_is_lost)
        status, body = await get(port, "/health?serializable=true")
        assert (status, orjson.loads(body)["health"]) == (200, "true")

        async def counted() -> bool:
            families = await scrape(port)
            slow = value(families, "etcd_server_slow_read_indexes_total")
            failed = value(families, "etcd_server_read_indexes_failed_total")
            return slow > 0 and failed > 0 and not value(families, "etcd_server_has_leader")

        await until(counted)


class _Stub:
    """A service of which one can say what is wrong."""

    def __init__(self, *, alarms: Any = (), errors: tuple[str, ...] = (), leader: str | None = "s") -> None:
        from raftkube.store.server.consensus import ConsensusView
        from raftkube.store.server.machine import StoreMachine

        self.machine = StoreMachine()
        view = ConsensusView("follower", leader, 1, 1, 1, errors=errors)
        self.consensus = type("C", (), {"view": lambda _: view})()
        self.reads = type("R", (), {"submit": lambda _, done: self.on_read(done)})()
        self.on_read = lambda done: done(None)
        self._alarms = alarms
        self.suspension = Suspension()

    def status(self) -> dict[str, Any]:
        return {"alarms": self._alarms}


async def _answer(stub: _Stub, target: str) -> tuple[int, str]:
    path, _, query = target.partition("?")
    response = await Health(stub, 0.5).respond(path, query)  # type: ignore[arg-type]
    assert response is not None
    return response.status, response.body.decode()


@pytest.mark.parametrize("alarms", [["NOSPACE"], [["store-2", "NOSPACE"]], [("store-2", "NOSPACE")]])
async def test_an_alarm_makes_it_unready_until_it_is_excluded(alarms: Any) -> None:
    stub = _Stub(alarms=alarms)
    assert await _answer(stub, "/livez") == (200, "ok")
    status, body = await _answer(stub, "/readyz")
    assert status == 500
    assert "[-]alarms failed: NOSPACE\n" in body
    assert (await _answer(stub, "/readyz?exclude=alarms"))[0] == 200
    status, body = await _answer(stub, "/health")
    assert (status, orjson.loads(body)) == (503, {"health": "false", "reason": "ALARM NOSPACE"})
    assert (await _answer(stub, "/health?exclude=NOSPACE"))[0] == 200


async def test_a_failed_member_says_why() -> None:
    stub = _Stub(errors=("failed: disk: No space left on device",))
    status, body = await _answer(stub, "/readyz")
    assert status == 500
    assert "[-]member failed: failed: disk: No space left on device\n" in body
    assert "No space" in orjson.loads((await _answer(stub, "/health"))[1])["reason"]
    assert (await _answer(stub, "/livez"))[0] == 200


async def test_a_read_that_never_comes_back_is_bounded(autojump_clock: trio.testing.MockClock) -> None:
    stub = _Stub()
    stub.on_read = lambda done: None
    started = trio.current_time()
    status, body = await _answer(stub, "/readyz")
    assert status == 500
    assert "[-]linearizable_read failed: no leader confirmed a read within 0.5 s\n" in body
    assert trio.current_time() - started == pytest.approx(0.5)


async def test_a_member_that_leaves_is_not_ready() -> None:
    health = Health(_Stub(), 0.5, leaving=lambda: True)  # type: ignore[arg-type]
    response = await health.respond("/readyz", "")
    assert response is not None
    assert (response.status, b"[-]shutdown failed: this member is shutting down\n" in response.body) == (
        500,
        True,
    )
    assert (await Health(_Stub(), 0.5).respond("/readyz", "")).status == 200  # type: ignore[arg-type,union-attr]


async def test_a_member_without_state_reads_nothing() -> None:
    stub = _Stub()
    stub.suspension.reads = Stopped("failed: disk; there is no state here")
    status, body = await _answer(stub, "/livez")
    assert status == 500
    assert "[-]serializable_read failed: failed: disk; there is no state here\n" in body


async def test_answers_are_counted() -> None:
    stub = _Stub(errors=("broken",))
    await _answer(stub, "/livez")
    await _answer(stub, "/readyz")
    await _answer(stub, "/health")
    assert stub.machine.activity.health_checks == {"ok": 1, "failed": 2}


def test_alarms_by_name() -> None:
    assert alarms_on({}) == []
    assert alarms_on({"alarms": [["a", "NOSPACE"], ["b", "NOSPACE"], "CORRUPT"]}) == ["CORRUPT", "NOSPACE"]
