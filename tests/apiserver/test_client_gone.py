"""A write whose client has hung up is not begun: it may have been made again elsewhere since."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest
import trio
from api_world import World, config_map, world

CM = "/api/v1/namespaces/default/configmaps"


def request_bytes(method: str, target: str, body: object, content_type: str = "application/json") -> bytes:
    data = orjson.dumps(body)
    head = f"{method} {target} HTTP/1.1\r\nHost: x\r\nContent-Type: {content_type}\r\n"
    return f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data


async def send_and_go(w: World, data: bytes) -> None:
    """Hand the request to the socket and close it before the server can have read it."""
    connection = await w.network.connect(w.addresses[0], w.tls("admin", "system:masters"))
    assert connection.send_nowait(data)
    connection.abort()


async def send_and_stay(w: World, data: bytes) -> bytes:
    connection = await w.network.connect(w.addresses[0], w.tls("admin", "system:masters"))
    await connection.send_all(data)
    with trio.fail_after(20):
        answer = await connection.receive_some()
    connection.abort()
    return answer


MERGE = "application/merge-patch+json"
WRITES = {
    "create": request_bytes("POST", CM, config_map("new")),
    "update": request_bytes("PUT", f"{CM}/old", config_map("old", {"a": "2"})),
    "patch": request_bytes("PATCH", f"{CM}/old", {"data": {"a": "2"}}, MERGE),
    "delete": request_bytes("DELETE", f"{CM}/old", {}),
    "deletecollection": request_bytes("DELETE", CM, {}),
}


@pytest.mark.parametrize("write", WRITES)
async def test_what_nobody_waits_for_is_not_begun(write: str, tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        client = w.client()
        assert (await client.post(CM, config_map("old", {"a": "1"}))).code == 201
        before = (await client.get(CM)).body
        await send_and_go(w, WRITES[write])
        for _ in range(10):  # each takes the server longer than what it was left with
            seen = (await client.get(CM)).body
        assert seen["items"] == before["items"]
        answer = await send_and_stay(w, WRITES[write])
        assert answer.startswith(b"HTTP/1.1 20")
        assert (await client.get(CM)).body["items"] != before["items"]
