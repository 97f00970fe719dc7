"""No pickle is read, whatever comes over the network: not by raftkube, and not by pysyncobj under it."""

from __future__ import annotations

import ast
import pickle
import sys
from pathlib import Path
from typing import Any

import pysyncobj.pickle
import pytest
import trio
from monitored import Members, members, scrape, until, value

from raftkube.net.tcp import TcpNetwork
from raftkube.wire.frames import FrameReader, frame_body

ROOT = Path(__file__).parents[2]
# Modules whose loaders run code that their input chooses.
LOADERS = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "shelve", "marshal", "jsonpickle"}


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return {part for name in names for part in name.split(".")}


def test_no_module_of_the_product_imports_a_loader() -> None:
    files = list((ROOT / "raftkube").rglob("*.py"))
    assert len(files) > 100
    assert {str(path): found for path in files if (found := imported(path) & LOADERS)} == {}
    assert imported(Path(pysyncobj.pickle.__file__)) & LOADERS == {"pickle", "cPickle"}  # it sees one


class Unpickled(BaseException):
    """Something tried to."""


@pytest.fixture
def no_loader(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every way into a pickle notes itself and fails."""
    tried: list[str] = []

    def refuse(*args: Any, **kwargs: Any) -> Any:
        tried.append(repr(args)[:200])
        raise Unpickled(args)

    for name in ("load", "loads", "_load", "_loads"):
        monkeypatch.setattr(pickle, name, refuse)
    for name, module in list(sys.modules.items()):
        if name.startswith("pysyncobj") and module is not None:
            for loader in ("load", "loads"):
                if hasattr(module, loader):
                    monkeypatch.setattr(module, loader, refuse)
    return tried


class Bomb:
    def __reduce__(self) -> Any:
        return (exec, ("raise SystemExit('unpickled')",))


def hostile() -> list[bytes]:
    """A pickle bare, framed as pysyncobj frames it, framed as we do, and inside msgpack."""
    data = pickle.dumps(Bomb())
    return [
        data,
        len(data).to_bytes(4, "little") + data,
        frame_body(data),
        frame_body(b"\xc4" + data[:1] + data),
    ]


async def throw(running: Members) -> None:
    bound = running.bound["store-1"]
    for address in (bound.client, bound.peer, bound.metrics[0]):
        for data in hostile():
            with trio.fail_after(20):
                connection = await TcpNetwork().connect(address, None)
                try:
                    await connection.send_all(data + b"\r\n\r\n")
                    with trio.move_on_after(0.2):
                        await connection.receive_some()
                except trio.BrokenResourceError:
                    pass
                connection.abort()


async def test_three_members_unpickle_nothing(tmp_path: Path, no_loader: list[str]) -> None:
    names = ("store-1", "store-2", "store-3")
    async with members(tmp_path, names) as running, running.client() as client:
        await client.put(b"before", b"1")
        await throw(running)
        await client.put(b"after", b"2")

        async def everywhere() -> bool:
            scraped = [await scrape(running.metrics(name)) for name in names]
            return all(value(each, "etcd_debugging_mvcc_keys_total") == 2 for each in scraped)

        await until(everywhere)
    assert no_loader == []


def test_the_alarm_rings(no_loader: list[str]) -> None:
    with pytest.raises(Unpickled):
        pysyncobj.pickle.loads(b"anything")
    assert len(no_loader) == 1


def test_a_pickle_is_no_frame() -> None:
    reader = FrameReader(1024)
    with pytest.raises(Exception, match="frame length"):
        next(reader.feed(pickle.dumps(Bomb())))
