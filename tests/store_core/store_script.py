"""A little language for stories about the store: one command a line, `-> ` and what came of it.

    put KEY VALUE [lease=N] [prev]          grant LEASE ttl=S        compact REVISION
        [ignore_value] [ignore_lease]       open SESSION             close SESSION [highest=N]
    once SESSION SEQUENCE BELOW COMMAND     raise MEMBER             disarm [MEMBER]       alarms
    size
    del KEY [END] [prev]                    keepalive LEASE          events [after=N] [KEY [END]]
    range KEY [END] [rev=N] [limit=N]       revoke LEASE             restart   (through a snapshot)
          [keys_only] [count_only]          expire LEASE renewal=N
          [sort=FIELD] [order=ORDER] [mod_from=N] [mod_to=N] [create_from=N] [create_to=N]
    txn [if FIELD(KEY[,END]) OP VALUE, ...] ttl LEASE [keys]
        then COMMAND; ... else COMMAND; ... leases

END is a key, `*` for the keys that start with KEY, or `..` for all from KEY on; '' is the empty value.
A key-value is printed as key=value@create.mod.version, with ~lease if it has one.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from raftkube.errors import StoreError
from raftkube.store.core import StateMachine
from raftkube.types import Revision
from raftkube.wire import store as w

FLAGS = ("prev", "keys_only", "count_only", "keys", "ignore_value", "ignore_lease")
COMPARE = re.compile(r"(\w+)\((\S+?)(?:,(\S+))?\) (=|!=|<|>) (\S+)")


def run_script(text: str, *, after_each: Callable[[StateMachine], StateMachine] = lambda m: m) -> str:
    """The script with every outcome as it is now; `after_each` may replace the machine."""
    runner = Runner()
    lines = []
    for line in text.splitlines():
        command = line.split("->")[0].strip()
        if command and not command.startswith("#"):
            outcome = runner.run(command)
            runner.machine = after_each(runner.machine)
            line = f"{command:<46} -> {outcome}"
        lines.append(line)
    return "\n".join(lines) + "\n"


class Runner:
    def __init__(self) -> None:
        self.machine = StateMachine()

    def run(self, command: str) -> str:
        try:
            return self._run(command)
        except StoreError as error:
            return show(error)

    def _run(self, command: str) -> str:
        match command.split():
            case ["events", *words]:
                return self.events(words)
            case ["size"]:
                return f"{self.machine.db_size_in_use} bytes"
            case ["restart"]:
                before = self.machine.state_hash()
                self.machine = StateMachine.restore(self.machine.snapshot())
                return "same state" if self.machine.state_hash() == before else "ANOTHER STATE"
        outcome = show(self.machine.apply(parse(command)))
        for revision, events in self.machine.take_events():
            outcome += f" | {revision}: {show_events(events)}"
        return outcome

    def events(self, words: list[str]) -> str:
        plain, named = split(words)
        key, end = key_range(plain) if plain else (b"\x00", b"\x00")
        batch = self.machine.events_between(Revision(int(named["after"])), key, end, 1_000)
        shown = [f"{revision}: {show_events(events)}" for revision, events in batch.revisions]
        return " | ".join(shown) or "none"


def split(words: list[str]) -> tuple[list[str], dict[str, str]]:
    return [word for word in words if "=" not in word], dict(
        word.split("=", 1) for word in words if "=" in word
    )


def key_range(words: list[str]) -> tuple[bytes, bytes]:
    key = b"" if words[0] == "''" else words[0].encode()
    match words[1:]:
        case []:
            return key, b""
        case ["*"]:
            return key, w.prefix_end(key)
        case [".."]:
            return key, b"\x00"
        case [end]:
            return key, end.encode()
    raise ValueError(f"not a range: {words}")


def parse(command: str) -> w.Op:
    verb, *words = command.split()
    if verb == "txn":
        return parse_txn(command)
    if verb == "once":
        session, sequence, below, inner = command.split(maxsplit=4)[1:]
        return w.Once(int(session), int(sequence), int(below), parse(inner))
    flags = {word for word in words if word in FLAGS}
    plain, named = split([word for word in words if word not in flags])
    order, target = named.pop("order", ""), named.pop("sort", "")
    number = {name: int(value) for name, value in named.items()}
    match verb:
        case "put":
            key, _ = key_range(plain[:1])
            value = b"" if plain[1] == "''" else plain[1].encode()
            kept = ("ignore_value" in flags, "ignore_lease" in flags)
            return w.Put(key, value, number.get("lease", 0), "prev" in flags, *kept)
        case "del":
            return w.DeleteRange(*key_range(plain), "prev" in flags)
        case "range":
            return w.Range(
                *key_range(plain),
                number.get("rev", 0),
                number.get("limit", 0),
                "keys_only" in flags,
                "count_only" in flags,
                order,
                target,
                *(number.get(name, 0) for name in ("mod_from", "mod_to", "create_from", "create_to")),
            )
        case "compact":
            return w.Compact(int(plain[0]))
        case "ttl":
            return w.LeaseTimeToLive(int(plain[0]), "keys" in flags)
        case "leases":
            return w.LeaseList()
        case "open":
            return w.SessionOpen(int(plain[0]))
        case "close":
            return w.SessionClose(int(plain[0]), number.get("highest", -1))
        case "raise" | "disarm":
            return w.Alarm(verb == "raise", "NOSPACE", plain[0] if plain else "")
        case "alarms":
            return w.AlarmList()
    return parse_lease(verb, int(plain[0]), number)


def parse_lease(verb: str, lease: int, number: dict[str, int]) -> w.Op:
    match verb:
        case "grant":
            return w.LeaseGrant(lease, number["ttl"])
        case "revoke":
            return w.LeaseRevoke(lease)
        case "keepalive":
            return w.LeaseKeepAlive(lease)
        case "expire":
            return w.LeaseExpire(lease, number["renewal"])
    raise ValueError(f"no such command: {verb}")


def parse_txn(command: str) -> w.Txn:
    found = re.fullmatch(r"txn(?: if (.*?))?(?: then(.*?))?(?: else(.*))?", command)
    assert found, command
    guards, success, failure = found.groups()
    compares = tuple(parse_compare(guard.strip()) for guard in (guards or "").split(", ") if guard.strip())
    return w.Txn(compares, parse_branch(success), parse_branch(failure))


def parse_branch(text: str | None) -> tuple[w.Op, ...]:
    return tuple(parse(command.strip()) for command in (text or "").split(";") if command.strip())


def parse_compare(text: str) -> w.Compare:
    found = COMPARE.fullmatch(text)
    assert found, text
    target, key, end, result, operand = found.groups()
    start, range_end = key_range([key, end] if end else [key])
    value = ("" if operand == "''" else operand).encode() if target == "value" else int(operand)
    return w.Compare(start, target, result, value, range_end)


def show(answer: Any) -> str:
    match answer:
        case StoreError():
            fields = ", ".join(f"{name}={value!r}" for name, value in answer.fields.items())
            return f"error {type(answer).__name__}({fields})"
        case w.PutResult():
            return f"rev {answer.revision}" + (f", was {show_kv(answer.prev_kv)}" if answer.prev_kv else "")
        case w.DeleteRangeResult():
            was = f", was {show_kvs(answer.prev_kvs)}" if answer.prev_kvs else ""
            return f"rev {answer.revision}, {answer.deleted} deleted{was}"
        case w.RangeResult():
            more = ", more" if answer.more else ""
            kvs = f": {show_kvs(answer.kvs)}" if answer.kvs else ""
            return f"rev {answer.revision}, {answer.count} found{more}{kvs}"
        case w.TxnResult():
            branch = "then" if answer.succeeded else "else"
            return f"rev {answer.revision}, {branch} [{'; '.join(map(show, answer.responses))}]"
        case w.LeaseResult():
            keys = f", keys {b' '.join(answer.keys).decode()}" if answer.keys else ""
            numbers = f"lease {answer.lease} ttl {answer.ttl_s} renewal {answer.renewal}"
            return f"rev {answer.revision}, {numbers}{keys}"
        case w.LeaseListResult():
            return f"rev {answer.revision}, leases {list(answer.leases)}"
        case w.SessionResult():
            return f"rev {answer.revision}, session {answer.session} {'open' if answer.open else 'closed'}"
        case w.AlarmResult():
            shown = " ".join(f"{member}:{alarm}" for member, alarm in answer.alarms)
            return f"rev {answer.revision}, alarms [{shown}]"
        case w.CompactResult():
            return f"rev {answer.revision}"
    raise TypeError(f"no such answer: {answer!r}")


def show_kv(kv: w.KeyValue) -> str:
    lease = f"~{kv.lease}" if kv.lease else ""
    return f"{kv.key.decode()}={kv.value.decode()}@{kv.create_revision}.{kv.mod_revision}.{kv.version}{lease}"


def show_kvs(kvs: tuple[w.KeyValue, ...]) -> str:
    return " ".join(map(show_kv, kvs))


def show_events(events: tuple[w.Event, ...]) -> str:
    shown = []
    for event in events:
        name = f"put {show_kv(event.kv)}" if event.type == w.PUT_EVENT else f"del {event.kv.key.decode()}"
        shown.append(name + (f" was {show_kv(event.prev_kv)}" if event.prev_kv else ""))
    return ", ".join(shown)
