"""YAML bodies: one document, as sigs.k8s.io/yaml reads it, bounded in depth and in what aliases expand to.

The text is scanned event by event first: libyaml's composer recurses in C and would overflow the stack on
a body that is nothing but brackets.
"""

from __future__ import annotations

import re
from typing import Any, Final

import orjson
import yaml

DEPTH_MAX: Final = 200  # as for JSON
NODES_MAX: Final = 1_000_000  # after aliases are expanded


class YamlError(ValueError):
    """The text is no YAML that stands for one JSON value."""


class _Loader(yaml.CSafeLoader):
    """Scalars as sigs.k8s.io/yaml resolves them: a timestamp stays a string, 1:30 is no number."""


_Loader.yaml_implicit_resolvers = {
    first: [
        (tag, pattern)
        for tag, pattern in resolvers
        if tag not in ("tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
    ]
    for first, resolvers in yaml.CSafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\d[\d_]*\.[\d_]*([eE][-+]?\d+)?|\d[\d_]*[eE][-+]?\d+|\.\d[\d_]*([eE][-+]?\d+)?)\Z"),
    list("-+0123456789."),
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int",
    re.compile(r"([-+]?0b[01_]+|[-+]?0x[\da-fA-F_]+|[-+]?0[0-7_]*|[-+]?[1-9][\d_]*)\Z"),
    list("-+0123456789"),
)


def load(text: bytes) -> tuple[Any, list[str]]:
    """(JSON value, duplicate keys as `duplicate field "name"`). Raises YamlError."""
    try:
        duplicates = _scan(text)
        # A round trip through JSON gives aliases objects of their own and refuses what JSON cannot hold.
        value = yaml.load(text, Loader=_Loader)
        return orjson.loads(orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS)), duplicates
    except yaml.YAMLError as error:
        raise YamlError(" ".join(str(error).split())) from error
    except (ValueError, TypeError, RecursionError, UnicodeDecodeError) as error:
        raise YamlError(str(error)) from error


def dump(value: Any) -> bytes:
    """A JSON value as YAML, keys in the order of the object."""
    text = yaml.dump(
        value, Dumper=yaml.CSafeDumper, default_flow_style=False, sort_keys=False, allow_unicode=True
    )
    return str(text).encode()


class _Frame:
    """An open list or mapping while scanning."""

    __slots__ = ("anchor", "is_mapping", "keys", "members", "nodes")

    def __init__(self, anchor: str | None, *, is_mapping: bool) -> None:
        self.anchor = anchor
        self.is_mapping = is_mapping
        self.nodes = 1
        self.members = 0
        self.keys: set[str] = set()


class _Scan:
    """Counts what the document will expand to; refuses what is too deep, too big or more than one."""

    def __init__(self) -> None:
        self.open: list[_Frame] = []
        self.sizes: dict[str, int] = {}
        self.documents = 0
        self.duplicates: list[str] = []

    def take(self, event: yaml.Event) -> None:
        if isinstance(event, yaml.DocumentStartEvent):
            self.documents += 1
            if self.documents > 1:
                raise YamlError("the body holds more than one document; send them one by one")
        elif isinstance(event, yaml.CollectionStartEvent):
            self.member(None)
            self.open.append(_Frame(event.anchor, is_mapping=isinstance(event, yaml.MappingStartEvent)))
            if len(self.open) > DEPTH_MAX:
                raise YamlError(f"nested more than {DEPTH_MAX} deep")
        elif isinstance(event, yaml.CollectionEndEvent):
            frame = self.open.pop()
            self.close(frame.anchor, frame.nodes)
        elif isinstance(event, yaml.AliasEvent):
            self.member(None)
            self.close(None, self.sizes.get(event.anchor or "", 0))
        elif isinstance(event, yaml.ScalarEvent):
            self.member(event.value)
            self.close(event.anchor, 1)

    def member(self, scalar: str | None) -> None:
        """A node begins: in a mapping every other one is a key."""
        if not self.open:
            return
        frame = self.open[-1]
        if frame.is_mapping and frame.members % 2 == 0 and scalar is not None:
            if scalar in frame.keys and scalar != "<<":
                self.duplicates.append(f'duplicate field "{scalar}"')
            frame.keys.add(scalar)
        frame.members += 1

    def close(self, anchor: str | None, nodes: int) -> None:
        """A node is complete: its parent grows by its size."""
        if anchor is not None:
            self.sizes[anchor] = nodes
        if self.open:
            self.open[-1].nodes += nodes
            if self.open[-1].nodes > NODES_MAX:
                raise YamlError(f"it expands to more than {NODES_MAX} values")


def _scan(text: bytes) -> list[str]:
    scan = _Scan()
    for event in yaml.parse(text, Loader=yaml.CSafeLoader):
        scan.take(event)
    return scan.duplicates
