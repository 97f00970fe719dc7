"""The table of messages: which number is which JSON field.

A message is looked up when it is first met; what is never sent costs nothing but the 2 ms that it takes
to load the file.
"""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import Any, Final, NamedTuple

import orjson

META: Final = "k8s.io.apimachinery.pkg.apis.meta.v1"


class Field(NamedTuple):
    """One field. manner: "" (single), "repeated" or "map" (of strings to `type`).

    type: a scalar's name or a message's full name. inline: its fields belong to the parent in JSON.
    zero_left_out: Go's `omitempty` on a value that is no pointer; the zero value means absent.
    empty_left_out: Go's `omitzero`, for messages.
    """

    name: str
    manner: str
    type: str
    inline: bool
    zero_left_out: bool
    empty_left_out: bool


@cache
def _table() -> dict[str, Any]:
    loaded: dict[str, Any] = orjson.loads(resources.files(__package__).joinpath("fields.json").read_bytes())
    return loaded


@cache
def fields_of(message: str) -> dict[int, Field]:
    """Number → field. Raises KeyError: no such message."""
    rows = _table()["messages"][message]
    return {
        number: Field(name, manner, type_, "i" in flags, "o" in flags and "p" not in flags, "z" in flags)
        for number, name, manner, type_, flags in rows
    }


def message_of(api_version: str, kind: str) -> str | None:
    """The message of a kind; options (DeleteOptions, …) are known in every group and version."""
    messages, package = _table()["messages"], _table()["packages"].get(api_version)
    for name in (f"{package}.{kind}", f"{META}.{kind}"):
        if name in messages:
            return name
    return None


def all_messages() -> tuple[str, ...]:
    """Every message name, for tests."""
    return tuple(_table()["messages"])
