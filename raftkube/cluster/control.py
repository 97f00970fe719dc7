"""How the commands reach a running supervisor: one JSON object a line over the control socket.

Request {"verb": …, "component": …, "leader": …}; answer {"ok": …} or {"error": "one sentence"}.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

import orjson
import structlog
import trio

from raftkube.cluster.state import ClusterState
from raftkube.errors import ConfigError, RaftkubeError
from raftkube.net import Connection
from raftkube.net.unix import UnixListener, connect_unix

log = structlog.get_logger(__name__)

_LINE_BYTES_MAX: Final = 1_048_576

Verb = Callable[[dict[str, Any]], Awaitable[Any]]


async def serve_control(
    listener: UnixListener, handle: Verb, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Answer requests until cancelled; a bad request or a failed verb is an answer, not an end."""

    async def one(connection: Connection) -> None:
        try:
            request = orjson.loads(await _read_line(connection))
            answer = {"ok": await handle(request)}
        except RaftkubeError as error:
            answer = {"error": str(error)}
        except (trio.BrokenResourceError, orjson.JSONDecodeError):
            connection.abort()
            return
        except Exception as error:  # the boundary: a verb that fails must not end the supervisor
            log.exception("control_verb_failed")
            answer = {"error": f"{type(error).__name__}: {error}"}
        try:
            await connection.send_all(orjson.dumps(answer) + b"\n")
        except trio.BrokenResourceError:
            pass
        finally:
            connection.abort()

    try:
        async with trio.open_nursery() as nursery:
            task_status.started()
            while True:
                nursery.start_soon(one, await listener.accept())
    finally:
        with trio.move_on_after(2, shield=True):
            await listener.aclose()


async def ask(state: ClusterState, request: dict[str, Any]) -> Any:
    """One request to the supervisor of `state`.

    Raises ConfigError: the cluster does not run, or the supervisor's own sentence.
    """
    try:
        connection = await connect_unix(state.control_socket)
    except OSError as error:
        raise ConfigError(f"cluster {state.name!r} is not running; start it: raftkube up") from error
    try:
        await connection.send_all(orjson.dumps(request) + b"\n")
        answer = orjson.loads(await _read_line(connection))
    except (trio.BrokenResourceError, orjson.JSONDecodeError) as error:
        raise ConfigError(f"the supervisor of cluster {state.name!r} went away") from error
    finally:
        connection.abort()
    if "error" in answer:
        raise ConfigError(answer["error"])
    return answer["ok"]


async def _read_line(connection: Connection) -> bytes:
    line = bytearray()
    while not line.endswith(b"\n") and len(line) < _LINE_BYTES_MAX:
        data = await connection.receive_some()
        if not data:
            break
        line += data
    return bytes(line)
