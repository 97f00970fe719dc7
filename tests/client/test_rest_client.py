"""The REST client: failover, what is retried and what is not, definite and indefinite errors."""

from __future__ import annotations

import pytest
import trio

from raftkube.api.status import ApiError, already_exists, too_many_requests, unavailable
from raftkube.api.status import timeout as timed_out
from raftkube.client.endpoints import CONFIG_MAPS, NODES, PODS, Endpoint
from raftkube.client.errors import FencingTokenStale, IndefiniteApiError, Unreachable
from raftkube.client.rest import FencingToken
from raftkube.net.http_client import ResponseLost
from raftkube.testing.fake_api import Call, FakeApi, Server


def config_map(name: str, **data: str) -> dict[str, object]:
    return {"metadata": {"name": name, "namespace": "default"}, "data": data}


@pytest.mark.parametrize(
    ("endpoint", "arguments", "path"),
    [
        (PODS, (), "/api/v1/pods"),
        (PODS, ("default",), "/api/v1/namespaces/default/pods"),
        (PODS, ("default", "a", "status"), "/api/v1/namespaces/default/pods/a/status"),
        (NODES, ("", "node-1"), "/api/v1/nodes/node-1"),
        (Endpoint("x.io", "v1", "things", "Thing"), ("n", "a/b"), "/apis/x.io/v1/namespaces/n/things/a%2Fb"),
    ],
)
def test_paths(endpoint: Endpoint, arguments: tuple[str, ...], path: str) -> None:
    assert endpoint.path(*arguments) == path


async def test_objects_round_trip() -> None:
    client = FakeApi().client()
    created = await client.create(CONFIG_MAPS, config_map("a", x="1"))
    created["data"] = {"x": "2"}
    updated = await client.update(CONFIG_MAPS, created)
    patched = await client.patch(CONFIG_MAPS, "a", {"data": {"y": "3"}}, "default")
    assert patched["data"] == {"x": "2", "y": "3"}
    with pytest.raises(ApiError, match="has been modified") as conflict:
        await client.update(CONFIG_MAPS, updated)
    assert (conflict.value.code, conflict.value.reason) == (409, "Conflict")
    assert [o["metadata"]["name"] for o in (await client.list(CONFIG_MAPS)).items] == ["a"]
    with pytest.raises(ApiError) as refused:
        await client.delete(CONFIG_MAPS, "a", "default", uid="other")
    assert refused.value.code == 409
    await client.delete(CONFIG_MAPS, "a", "default", uid=created["metadata"]["uid"])
    with pytest.raises(ApiError) as missing:
        await client.get(CONFIG_MAPS, "a", "default")
    assert missing.value.reason == "NotFound"


@pytest.mark.parametrize("down", [0, 1])
async def test_a_request_that_was_not_sent_goes_to_another_server(down: int) -> None:
    api = FakeApi()
    client = api.client()
    api.servers[down].down = True
    await client.create(CONFIG_MAPS, config_map("a"))
    await client.get(CONFIG_MAPS, "a", "default")
    assert {call.server for call in api.calls} == {1 - down}


async def test_no_server_is_unreachable_and_definite() -> None:
    api = FakeApi()
    client = api.client()
    for server in api.servers:
        server.down = True
    with pytest.raises(Unreachable):
        await client.create(CONFIG_MAPS, config_map("a"))
    assert not api.all(CONFIG_MAPS)


async def test_a_write_whose_answer_is_lost_is_indefinite_and_not_repeated() -> None:
    api = FakeApi()
    client = api.client()

    def lose(call: Call) -> None:
        raise ResponseLost("cut")

    api.after = lose
    with pytest.raises(IndefiniteApiError):
        await client.create(CONFIG_MAPS, config_map("a"))
    assert len(api.calls) == 1
    assert api.find(CONFIG_MAPS, "a", "default") is not None


async def test_a_read_whose_answer_is_lost_is_repeated_elsewhere() -> None:
    api = FakeApi()
    client = api.client()
    await client.create(CONFIG_MAPS, config_map("a"))
    lost: list[int] = []

    def lose_first(call: Call) -> None:
        if not lost:
            lost.append(call.server)
            raise ResponseLost("cut")

    api.after = lose_first
    await client.get(CONFIG_MAPS, "a", "default")
    assert api.calls[-1].server != lost[0]


async def test_504_to_a_write_is_indefinite() -> None:
    api = FakeApi()

    def time_out(call: Call) -> None:
        raise timed_out("no quorum in time")

    api.intercept = time_out
    with pytest.raises(IndefiniteApiError, match="no quorum"):
        await api.client().create(CONFIG_MAPS, config_map("a"))


@pytest.mark.parametrize("method", ["create", "list"])
async def test_a_silent_server_is_left(method: str, autojump_clock: trio.testing.MockClock) -> None:
    api = FakeApi()
    client = api.client()
    first = client._servers.current()
    api.servers[first].silent = True
    if method == "list":
        await client.list(CONFIG_MAPS)
    else:
        with pytest.raises(IndefiniteApiError, match="no answer within 10 s"):
            await client.create(CONFIG_MAPS, config_map("a"))
        await client.create(CONFIG_MAPS, config_map("a"))
    assert api.calls[-1].server == 1 - first


@pytest.mark.parametrize("error", [too_many_requests("slow down", 3), unavailable("starting")], ids=str)
async def test_refusals_are_waited_out(error: ApiError, autojump_clock: trio.testing.MockClock) -> None:
    api = FakeApi()
    left = [error] * 4

    def refuse(call: Call) -> None:
        if left:
            raise left.pop()

    api.intercept = refuse
    await api.client().create(CONFIG_MAPS, config_map("a"))
    assert len(api.calls) == 5
    assert len(api.all(CONFIG_MAPS)) == 1


async def test_refusals_end_after_ten(autojump_clock: trio.testing.MockClock) -> None:
    api = FakeApi()

    def refuse(call: Call) -> None:
        raise too_many_requests("slow down", 1)

    api.intercept = refuse
    with pytest.raises(ApiError, match="slow down"):
        await api.client().create(CONFIG_MAPS, config_map("a"))
    assert len(api.calls) == 10


async def test_other_errors_are_the_answer() -> None:
    api = FakeApi()

    def refuse(call: Call) -> None:
        raise already_exists("", "configmaps", "a")

    api.intercept = refuse
    with pytest.raises(ApiError) as error:
        await api.client().create(CONFIG_MAPS, config_map("a"))
    assert error.value.reason == "AlreadyExists"
    assert error.value.details["name"] == "a"
    assert len(api.calls) == 1


async def test_a_stale_token_is_told_once_and_for_all() -> None:
    api = FakeApi()
    client = api.client(user="system:kube-scheduler")
    token = FencingToken("7")
    with pytest.raises(FencingTokenStale):
        await client.fenced(token).create(CONFIG_MAPS, config_map("a"))
    assert token.stale.is_set()
    assert api.calls[-1].headers["Raftkube-Fencing-Token"] == "7"


async def test_reads_carry_no_token() -> None:
    api = FakeApi()
    await api.client().fenced(FencingToken("7")).list(CONFIG_MAPS)
    assert "Raftkube-Fencing-Token" not in api.calls[-1].headers


async def test_bind_goes_through_the_subresource_with_the_uid() -> None:
    api = FakeApi()
    pod = api.put(PODS, {"metadata": {"name": "a", "namespace": "default"}, "spec": {}})
    await api.client().bind(pod, "node-1")
    assert api.find(PODS, "a", "default")["spec"]["nodeName"] == "node-1"
    assert api.calls[-1].body["metadata"]["uid"] == pod["metadata"]["uid"]


async def test_watch_gives_events_and_bookmarks_and_410() -> None:
    api = FakeApi()
    client = api.client()
    start = (await client.list(CONFIG_MAPS)).resource_version
    async with client.watch(CONFIG_MAPS, resource_version=start) as events:
        api.put(CONFIG_MAPS, config_map("a"))
        api.put(CONFIG_MAPS, config_map("a", x="1"))
        api.remove(CONFIG_MAPS, "a", "default")
        api.bookmark()
        assert [(await anext(events)).type for _ in range(4)] == ["ADDED", "MODIFIED", "DELETED", "BOOKMARK"]
    api.compact()
    async with client.watch(CONFIG_MAPS, resource_version=start) as events:
        with pytest.raises(ApiError) as error:
            await anext(events)
    assert (error.value.code, error.value.reason) == (410, "Expired")


async def test_a_watch_notices_a_silent_server(autojump_clock: trio.testing.MockClock) -> None:
    api = FakeApi()
    client = api.client()
    start = (await client.list(CONFIG_MAPS)).resource_version
    used = client._servers.current()
    async with client.watch(CONFIG_MAPS, resource_version=start) as events:
        api.servers[used].silent = True
        with trio.fail_after(60), pytest.raises(Unreachable, match="fell silent"):
            await anext(events)
    assert client._servers.current() != used


async def test_a_watch_opens_on_another_server_when_the_first_is_down() -> None:
    api = FakeApi()
    client = api.client()
    api.servers[client._servers.current()].down = True
    api.put(CONFIG_MAPS, config_map("a"))
    async with client.watch(CONFIG_MAPS, resource_version="1") as events:
        assert (await anext(events)).object["metadata"]["name"] == "a"


async def test_a_watch_without_a_server_is_unreachable() -> None:
    api = FakeApi()
    for server in api.servers:
        server.down = True
    with pytest.raises(Unreachable):
        async with api.client().watch(CONFIG_MAPS, resource_version="1"):
            pass


async def test_concurrent_failures_move_on_once() -> None:
    api = FakeApi(servers=[Server() for _ in range(4)])
    client = api.client()
    first = client._servers.current()
    api.servers[first].down = True
    async with trio.open_nursery() as nursery:
        for number in range(8):
            nursery.start_soon(client.create, CONFIG_MAPS, config_map(f"a{number}"))
    assert {call.server for call in api.calls} == {(first + 1) % 4}
