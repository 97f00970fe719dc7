"""How `raftkube kv` finds a cluster and runs one command against it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from raftkube.net import Address, TlsFiles
    from raftkube.store.client import StoreClient

_COMMON = (
    ("--endpoints", "RAFTKUBE_KV_ENDPOINTS", "Members' client addresses, host:port,host:port."),
    ("--cacert", "RAFTKUBE_KV_CACERT", "The CA that signed the members' certificates."),
    ("--cert", "RAFTKUBE_KV_CERT", "The client's certificate."),
    ("--key", "RAFTKUBE_KV_KEY", "The client's private key."),
)


class KvCommand(click.Command):
    """A leaf of `raftkube kv`: takes the connection flags, which may also stand before it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.extend(connection_params())

    def invoke(self, ctx: click.Context) -> Any:
        given = ctx.ensure_object(dict)
        for name in CONNECTION_NAMES:
            value = ctx.params.pop(name)
            if value is not None:
                given[name] = value
        return super().invoke(ctx)


CONNECTION_NAMES = ("endpoints", "cacert", "cert", "key_file", "cluster", "command_timeout", "output")


def connection_params() -> list[click.Parameter]:
    """The flags that say which cluster, who asks, how long to wait and how to print."""
    made: list[click.Parameter] = [
        click.Option([flag, *(["key_file"] if flag == "--key" else [])], envvar=variable, help=text)
        for flag, variable, text in _COMMON
    ]
    made.append(click.Option(["--name", "cluster"], help="A cluster that `raftkube up` started. [default]"))
    made.append(click.Option(["--command-timeout"], type=float, help="Seconds to wait for an answer. [5]"))
    made.append(
        click.Option(
            ["-w", "--write-out", "output"],
            type=click.Choice(["simple", "json", "table"]),
            help="How results are printed. [simple]",
        )
    )
    return made


@dataclass(frozen=True, slots=True)
class Target:
    """The members to ask and the credentials to show."""

    addresses: list[Address]
    tls: TlsFiles | None


def target_of(given: dict[str, Any]) -> Target:
    """From flags and environment, else from what `raftkube up` left. Raises ConfigError."""
    from raftkube.errors import ConfigError
    from raftkube.net import TlsFiles, parse_address

    if given.get("endpoints"):
        files = {name: given.get(name) for name in ("cacert", "cert", "key_file")}
        endpoints = [part for part in given["endpoints"].split(",") if part]
    else:
        endpoints, files = _of_running_cluster(given.get("cluster") or "default")
    if not endpoints:
        raise ConfigError("--endpoints names no member; write host:port,host:port")
    if bool(files["cert"]) != bool(files["key_file"]):
        raise ConfigError("--cert and --key belong together; give both or neither")
    secure = files["cacert"] or files["cert"] or any(part.startswith("https://") for part in endpoints)
    tls = TlsFiles(files["cacert"], files["cert"], files["key_file"]) if secure else None
    return Target([parse_address(part) for part in endpoints], tls)


def _of_running_cluster(name: str) -> tuple[list[str], dict[str, Any]]:
    from raftkube.cluster.state import ClusterState
    from raftkube.errors import ConfigError

    state = ClusterState.of(name)
    if not (state.root / "store-admin.json").exists():
        raise ConfigError(
            f"cluster {name!r} has no store that was started here; start it (raftkube up) or give --endpoints"
        )
    known = state.read_json("store-admin.json")
    files = {"cacert": known.get("cacert"), "cert": known.get("cert"), "key_file": known.get("key")}
    return list(known.get("endpoints", ())), files


def call(ask: Callable[[StoreClient], Awaitable[Any]], *, forever: bool = False) -> Any:
    """Run `ask` with a client of the cluster that the flags name; its result.

    Raises Indefinite when no answer came in time, unless `forever`.
    """
    import trio

    given = click.get_current_context().ensure_object(dict)
    target = target_of(given)
    timeout_s = _timeout_s(given.get("command_timeout"))
    return trio.run(_ask, ask, target, float("inf") if forever else timeout_s)


def _timeout_s(asked: float | None) -> float:
    from raftkube.errors import ConfigError

    if asked is not None and not asked > 0:  # nan is none, either
        raise ConfigError(
            f"--command-timeout {asked:g} is no time to wait; write a number of seconds above 0"
        )
    return 5.0 if asked is None else asked


async def _ask(ask: Callable[[StoreClient], Awaitable[Any]], target: Target, timeout_s: float) -> Any:
    import trio

    from raftkube.errors import Indefinite
    from raftkube.net.tcp import TcpNetwork
    from raftkube.store.client import StoreClient

    last: list[str] = []
    with trio.move_on_after(timeout_s):
        async with StoreClient.open(
            TcpNetwork(), target.addresses, target.tls, name="raftkube-kv", on_retry=last.append
        ) as client:
            return await ask(client)
    why = f" (last: {last[-1]})" if last else ""
    raise Indefinite(f"no answer within {timeout_s:g} s{why}; a write may still happen")


def output_format() -> str:
    """simple, json or table."""
    return str(click.get_current_context().ensure_object(dict).get("output") or "simple")
