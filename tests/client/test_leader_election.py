"""Leader election: one leads at a time, death and release hand over, the deposed are refused and exit."""

from __future__ import annotations

import pytest
import trio

from raftkube.api.status import ApiError, unavailable
from raftkube.client.endpoints import CONFIG_MAPS, LEASES
from raftkube.client.errors import FencingTokenStale, LeadershipEnded
from raftkube.client.leader_election import ElectionSettings, run_elected
from raftkube.client.rest import FencingToken, RestClient
from raftkube.clock import SystemClock
from raftkube.errors import ConfigError
from raftkube.net.http_client import ConnectError, ResponseLost
from raftkube.rng import seeded_rng
from raftkube.testing.fake_api import Call, FakeApi

NAME = "kube-scheduler"
USER = "system:kube-scheduler"
SETTINGS = ElectionSettings()


class Candidate:
    """A process that wants to lead; while it does, it writes every 0.2 s under its token."""

    def __init__(self, api: FakeApi, identity: str, seed: int) -> None:
        self.api = api
        self.identity = identity
        self.client: RestClient = api.client(user=USER, seed=seed)
        self.rng = seeded_rng(seed)
        self.scope = trio.CancelScope()
        self.leading = trio.Event()
        self.token = ""
        self.ended: BaseException | None = None
        self.refused: list[str] = []
        self.over = trio.Event()
        self.idle = False

    async def run(self) -> None:
        with self.scope:
            try:
                await run_elected(
                    self.client, NAME, self.identity, SETTINGS, self._work, clock=SystemClock(), rng=self.rng
                )
            except LeadershipEnded as error:
                self.ended = error
        self.over.set()

    async def _work(self, token: FencingToken) -> None:
        self.token = token.value
        self.leading.set()
        client = self.client.fenced(token)
        number = 0
        while True:
            await trio.sleep(0.2)
            if self.idle:
                continue
            number += 1
            name = f"{self.identity}-{number}"
            try:
                await client.create(CONFIG_MAPS, {"metadata": {"name": name, "namespace": "default"}})
            except FencingTokenStale as error:
                self.refused.append(error.message)
            except ApiError:
                pass


async def soon(event: trio.Event) -> None:
    with trio.fail_after(60):
        await event.wait()


def holder(api: FakeApi) -> str | None:
    lease = api.find(LEASES, NAME, "kube-system")
    return None if lease is None else lease["spec"]["holderIdentity"]


def written_by(api: FakeApi, identity: str) -> set[str]:
    names = {obj["metadata"]["name"] for obj in api.all(CONFIG_MAPS)}
    return {name for name in names if name.startswith(f"{identity}-")}


def is_renewal(call: Call) -> bool:
    return call.plural == "leases" and call.method == "PUT"


async def two(api: FakeApi, nursery: trio.Nursery) -> tuple[Candidate, Candidate]:
    """A leads, B waits."""
    nursery.start_soon(api.expire_leases)
    first, second = Candidate(api, "a", 1), Candidate(api, "b", 2)
    nursery.start_soon(first.run)
    await soon(first.leading)
    nursery.start_soon(second.run)
    return first, second


async def test_one_leads_and_keeps_the_lease(autojump_clock: trio.testing.MockClock) -> None:
    api = FakeApi()
    async with trio.open_nursery() as nursery:
        first, second = await two(api, nursery)
        await trio.sleep(120)
        assert holder(api) == "a"
        assert not second.leading.is_set()
        assert first.token == str(api.created["coordination.k8s.io", "leases", "kube-system", NAME])
        assert len(api.all(CONFIG_MAPS)) > 100
        nursery.cancel_scope.cancel()


async def test_death_hands_over_within_the_lease(autojump_clock: trio.testing.MockClock) -> None:
    api = FakeApi()
    async with trio.open_nursery() as nursery:
        _, second = await two(api, nursery)
        await trio.sleep(10)

        def dead(call: Call) -> None:
            if call.headers.get("Raftkube-Fencing-Token") == first_token:
                raise ConnectError("it is dead")

        first_token = str(api.created["coordination.k8s.io", "leases", "kube-system", NAME])
        api.intercept = dead
        died_at = trio.current_time()
        await soon(second.leading)
        assert trio.current_time() - died_at <= SETTINGS.lease_duration_s + 0.5
        assert int(second.token) > int(first_token)
        assert api.find(LEASES, NAME, "kube-system")["spec"]["leaseTransitions"] == 1
        nursery.cancel_scope.cancel()


async def test_graceful_stop_releases_at_once(autojump_clock: trio.testing.MockClock) -> None:
    api = FakeApi()
    async with trio.open_nursery() as nursery:
        first, second = await two(api, nursery)
        await trio.sleep(10.5)
        stopped_at = trio.current_time()
        first.scope.cancel()
        await soon(second.leading)
        assert trio.current_time() - stopped_at < 0.2
        assert first.ended is None
        nursery.cancel_scope.cancel()


async def test_a_deposed_leader_is_refused_and_ends(autojump_clock: trio.testing.MockClock) -> None:
    """The Lease is gone and held by another (SIGSTOP past the lease, SIGCONT): 409, and the end."""
    api = FakeApi()
    async with trio.open_nursery() as nursery:
        first, second = await two(api, nursery)
        await trio.sleep(5.05)
        api.remove(LEASES, NAME, "kube-system")  # as the store does while the leader is stopped
        await soon(second.leading)
        await soon(first.over)
        assert isinstance(first.ended, LeadershipEnded)
        assert "409" in str(first.ended)
        assert first.refused or "b leads now" in str(first.ended)
        written_by_first = {
            o["metadata"]["name"] for o in api.all(CONFIG_MAPS) if o["metadata"]["name"][0] == "a"
        }
        await trio.sleep(30)
        assert written_by(api, "a") == written_by_first
        assert holder(api) == "b"
        nursery.cancel_scope.cancel()


async def test_an_idle_deposed_leader_ends_by_its_renewal(autojump_clock: trio.testing.MockClock) -> None:
    """It has nothing to write: the renewal is its next write. It must not take the other's Lease over."""
    api = FakeApi()
    async with trio.open_nursery() as nursery:
        first, second = await two(api, nursery)
        await trio.sleep(5.05)
        first.idle = True
        api.remove(LEASES, NAME, "kube-system")
        await soon(first.over)
        assert "the renewal was refused with 409: b leads now" in str(first.ended)
        await trio.sleep(10)
        assert holder(api) == "b"
        assert second.ended is None
        renewals = [c for c in api.calls if is_renewal(c) and c.body["spec"]["holderIdentity"] == "b"]
        assert {c.headers["Raftkube-Fencing-Token"] for c in renewals} == {second.token}
        nursery.cancel_scope.cancel()


async def test_a_refused_write_of_the_work_ends_it(autojump_clock: trio.testing.MockClock) -> None:
    api = FakeApi()
    async with trio.open_nursery() as nursery:
        first, _ = await two(api, nursery)

        def no_renewals(call: Call) -> None:  # only the work's writes reach a server
            if (
                call.plural == "leases"
                and call.method == "PUT"
                and call.body["spec"]["holderIdentity"] == "a"
            ):
                raise ConnectError("lost")

        api.intercept = no_renewals
        await soon(first.over)
        assert first.refused
        assert "a write was refused with 409 FencingTokenStale" in str(first.ended)
        nursery.cancel_scope.cancel()


async def test_a_lost_answer_to_the_create_still_leads(autojump_clock: trio.testing.MockClock) -> None:
    api = FakeApi()
    lost: list[Call] = []

    def lose_first(call: Call) -> None:
        if not lost and call.method == "POST" and call.plural == "leases":
            lost.append(call)
            raise ResponseLost("cut")

    api.after = lose_first
    async with trio.open_nursery() as nursery:
        nursery.start_soon(api.expire_leases)
        only = Candidate(api, "a", 1)
        nursery.start_soon(only.run)
        with trio.fail_after(2):
            await only.leading.wait()
        assert lost
        assert only.token == str(api.created["coordination.k8s.io", "leases", "kube-system", NAME])
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("kind", ["answer lost", "changed by another", "refused for 2 s", "server dies"])
async def test_leadership_survives(kind: str, autojump_clock: trio.testing.MockClock) -> None:
    api = FakeApi()
    renewals: list[float] = []
    meddled: set[int] = set()

    def trouble(call: Call) -> None:
        if not is_renewal(call):
            return
        renewals.append(trio.current_time())
        if kind == "answer lost" and len(renewals) % 3 == 0:
            raise ResponseLost("cut")

    def before(call: Call) -> None:
        if call.plural == "leases" and call.method == "PUT":
            if kind == "changed by another" and len(renewals) % 5 == 2 and len(renewals) not in meddled:
                meddled.add(len(renewals))
                lease = api.find(LEASES, NAME, "kube-system")
                labels = {"labels": {"by": str(len(renewals))}}
                api.put(LEASES, lease | {"metadata": lease["metadata"] | labels})
            if kind == "refused for 2 s" and 10 < trio.current_time() - start < 12:
                raise unavailable("no leader")

    start = trio.current_time()
    api.after, api.intercept = trouble, before
    async with trio.open_nursery() as nursery:
        first, second = await two(api, nursery)
        await trio.sleep(15)
        if kind == "server dies":
            api.servers[first.client._servers.current()].down = True
            api.break_watches()
        await trio.sleep(45)
        assert first.ended is None
        assert holder(api) == "a"
        assert not second.leading.is_set()
        assert len(renewals) > 40
        nursery.cancel_scope.cancel()


async def test_a_silent_server_does_not_cost_the_leadership(autojump_clock: trio.testing.MockClock) -> None:
    api = FakeApi()
    async with trio.open_nursery() as nursery:
        first, second = await two(api, nursery)
        await trio.sleep(10.5)
        api.servers[first.client._servers.current()].silent = True
        await trio.sleep(30)
        assert holder(api) == "a"
        assert first.ended is None
        assert not second.leading.is_set()
        nursery.cancel_scope.cancel()


async def test_without_any_server_it_gives_up_at_the_deadline(autojump_clock: trio.testing.MockClock) -> None:
    api = FakeApi()
    async with trio.open_nursery() as nursery:
        first, _ = await two(api, nursery)
        await trio.sleep(10)
        for server in api.servers:
            server.down = True
        cut_at = trio.current_time()
        await soon(first.over)
        assert (
            SETTINGS.renew_deadline_s - 1.1 <= trio.current_time() - cut_at <= SETTINGS.renew_deadline_s + 2
        )
        assert "no renewal for" in str(first.ended)
        nursery.cancel_scope.cancel()


async def test_many_deaths_never_two_leaders(autojump_clock: trio.testing.MockClock) -> None:
    """Every write that was accepted was made under the token that was current at that moment."""
    api = FakeApi()
    tokens: list[int] = []

    def note(call: Call) -> None:
        if call.plural == "configmaps":
            tokens.append(int(call.headers["Raftkube-Fencing-Token"]))

    api.after = note
    rng = seeded_rng(5)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(api.expire_leases)
        candidates: list[Candidate] = []
        for number in range(20):
            candidates.append(Candidate(api, f"c{number}", number))
            nursery.start_soon(candidates[-1].run)
            await trio.sleep(rng.uniform(0, 4))
            if rng.random() < 0.5:
                api.objects.get(("coordination.k8s.io", "leases", "kube-system", NAME)) and api.remove(
                    LEASES, NAME, "kube-system"
                )
            else:
                candidates[rng.randrange(len(candidates))].scope.cancel()
        await trio.sleep(20)
        assert tokens == sorted(tokens)
        assert len(set(tokens)) > 5
        assert tokens[-1] == api.created["coordination.k8s.io", "leases", "kube-system", NAME]
        nursery.cancel_scope.cancel()


async def test_a_lease_that_passed_on_since_it_was_listed_is_not_ours(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The create's answer is lost and the list shows the Lease; before its token is read it ends, and
    another process creates it: that one's token is not ours."""
    api = FakeApi()
    happened: list[str] = []

    def lose_first_create(call: Call) -> None:
        if not happened and call.method == "POST" and call.plural == "leases":
            happened.append("lost")
            raise ResponseLost("cut")

    def pass_on_before_it_is_read(call: Call) -> None:
        if happened == ["lost"] and call.method == "GET" and call.name == NAME:
            happened.append("passed on")
            lease = api.find(LEASES, NAME, "kube-system")
            assert lease is not None
            assert lease["spec"]["holderIdentity"] == "a"
            api.remove(LEASES, NAME, "kube-system")
            api.put(
                LEASES,
                {
                    "metadata": {k: v for k, v in lease["metadata"].items() if k != "uid"},
                    "spec": lease["spec"] | {"holderIdentity": "b"},
                },
            )

    api.after, api.intercept = lose_first_create, pass_on_before_it_is_read
    async with trio.open_nursery() as nursery:
        first = Candidate(api, "a", 1)
        nursery.start_soon(first.run)
        await trio.sleep(SETTINGS.lease_duration_s / 2)
        assert happened == ["lost", "passed on"]
        assert not first.leading.is_set()
        assert holder(api) == "b"
        nursery.start_soon(api.expire_leases)
        await soon(first.leading)
        assert holder(api) == "a"
        nursery.cancel_scope.cancel()


async def test_a_lease_of_plain_client_go_is_outwaited(autojump_clock: trio.testing.MockClock) -> None:
    api = FakeApi()
    spec = {"holderIdentity": "somebody", "leaseDurationSeconds": 15}
    api.put(LEASES, {"metadata": {"name": NAME, "namespace": "kube-system"}, "spec": spec})
    api.fences = False
    async with trio.open_nursery() as nursery:
        only = Candidate(api, "a", 1)
        nursery.start_soon(only.run)
        start = trio.current_time()
        await only.leading.wait()
        assert 15 <= trio.current_time() - start < 17
        nursery.cancel_scope.cancel()


async def test_a_server_that_does_not_fence_is_refused() -> None:
    api = FakeApi()
    client = api.client(user=USER)
    client.impatient = lambda seconds: client  # type: ignore[method-assign]
    client.create = _creates_without_token  # type: ignore[method-assign]

    async def work(token: FencingToken) -> None:
        raise AssertionError("must not lead")

    with pytest.raises(LeadershipEnded, match="does not fence leaders"):
        await run_elected(client, NAME, "a", SETTINGS, work, clock=SystemClock(), rng=seeded_rng(1))


async def _creates_without_token(endpoint: object, obj: dict[str, object]) -> dict[str, object]:
    await trio.lowlevel.checkpoint()
    return obj


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ({"lease_duration_s": 0}, "lease-duration"),
        ({"retry_period_s": 0}, "retry-period"),
        ({"renew_deadline_s": 0.1}, "renew-deadline"),
    ],
)
def test_settings_that_make_no_sense_name_the_flag(values: dict[str, float], names: str) -> None:
    with pytest.raises(ConfigError, match=names):
        ElectionSettings(**values)  # type: ignore[arg-type]
