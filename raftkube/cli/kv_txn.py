"""etcdctl's text of a transaction: compares, blank line, success, blank line, failure. Pure.

    value("user1") = "bad"          targets: value, version, create, mod, lease (c, m, ver, val, l)

    del user1

    put user1 good

Source: https://etcd.io/docs/v3.5/tutorials/how-to-transactional-write/
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Sequence

from raftkube.errors import ConfigError
from raftkube.wire.store import Compare, DeleteRange, Put, Range, Txn, prefix_end

_COMPARE = re.compile(
    r"""^\s*(?P<target>[a-z]+)\((?P<key>"(?:[^"\\]|\\.)*"|'[^']*'|[^)]*)\)\s*(?P<result>!=|[=<>])\s*(?P<operand>.*?)\s*$"""
)
_TARGETS = {
    "value": "value", "val": "value", "version": "version", "ver": "version", "create": "create",
    "c": "create", "mod": "mod", "m": "mod", "lease": "lease", "l": "lease",
}  # fmt: skip


def parse_txn(text: str) -> Txn:
    """What is no UTF-8 stands for its bytes as os.fsdecode has it. Raises ConfigError naming the line that
    is wrong."""
    sections: list[list[str]] = [[]]
    for line in text.split("\n"):  # no other character ends a line: values may hold them
        if line.strip():
            sections[-1].append(line)
        else:
            sections.append([])
    while len(sections) > 3 and not sections[-1]:
        sections.pop()
    if len(sections) > 3:
        raise ConfigError(
            "a transaction has three parts (compares, success, failure) with a blank line between"
        )
    compares, success, failure = (*sections, [], [], [])[:3]
    return Txn(
        tuple(map(parse_compare, compares)),
        tuple(map(parse_operation, success)),
        tuple(map(parse_operation, failure)),
    )


def parse_compare(line: str) -> Compare:
    """One guard, for example `mod("key") > "0"`."""
    match = _COMPARE.match(line)
    if match is None or match["target"] not in _TARGETS:
        raise ConfigError(f'{line.strip()!r} is not a compare; write for example value("key") = "text"')
    target = _TARGETS[match["target"]]
    operand = _unquote(match["operand"])
    if target == "value":
        return Compare(os.fsencode(_unquote(match["key"])), target, match["result"], os.fsencode(operand))
    try:
        number = int(operand, 16 if target == "lease" else 10)
    except ValueError as error:
        raise ConfigError(
            f"{line.strip()!r} compares {target} with {operand!r}, which is no number"
        ) from error
    if not -(2**63) <= number < 2**63:
        raise ConfigError(f"{line.strip()!r} compares {target} with a number beyond 64 bits")
    return Compare(os.fsencode(_unquote(match["key"])), target, match["result"], number)


def parse_operation(line: str) -> Put | DeleteRange | Range:
    """`put KEY VALUE [--lease HEX]`, `get KEY [END] [--prefix]` or `del KEY [END] [--prefix]`."""
    try:
        words = shlex.split(line)
    except ValueError as error:
        raise ConfigError(f"{line.strip()!r}: {error}") from error
    verb, arguments = words[0], words[1:]
    flags = [word for word in arguments if word.startswith("--")]
    plain = [os.fsencode(word) for word in arguments if not word.startswith("--")]
    if verb == "put" and len(plain) == 2:
        return Put(plain[0], plain[1], lease=_lease(flags, line))
    if verb in ("get", "del") and 1 <= len(plain) <= 2 and set(flags) <= {"--prefix"}:
        end = prefix_end(plain[0]) if flags else (plain[1] if len(plain) == 2 else b"")
        return Range(plain[0], end) if verb == "get" else DeleteRange(plain[0], end)
    raise ConfigError(f"{line.strip()!r} is not an operation; write put KEY VALUE, get KEY or del KEY")


def _lease(flags: Sequence[str], line: str) -> int:
    for flag in flags:
        name, _, value = flag.partition("=")
        if name != "--lease":
            raise ConfigError(f"{line.strip()!r}: put takes --lease=HEX, not {flag}")
        return parse_lease(value)
    return 0


def parse_lease(text: str) -> int:
    """A lease id in hexadecimal, as etcdctl writes it. Raises ConfigError."""
    try:
        lease = int(text, 16)
    except ValueError as error:
        raise ConfigError(f"{text!r} is not a lease id; it is a hexadecimal number") from error
    if not 0 <= lease < 2**63:
        raise ConfigError(f"lease id {text!r} does not fit in 63 bits")
    return lease


def _unquote(text: str) -> str:
    if len(text) >= 2 and text[0] == text[-1] and text[0] in "\"'":
        return re.sub(r"\\(.)", r"\1", text[1:-1]) if text[0] == '"' else text[1:-1]
    return text
