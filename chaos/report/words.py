"""Figures in words, as tables and pictures write them."""

from __future__ import annotations

from typing import Any, Final

_NONE: Final = "–"
_GAP: Final = "\N{NO-BREAK SPACE}"


def ms(value: float | None) -> str:
    """A length of time given in ms, with three digits: 8.91 ms, 103 ms, 2.73 s."""
    if value is None:
        return _NONE
    if value >= 999.5:
        return f"{value / 1e3:.3g}{_GAP}s" if value < 999_500 else f"{value / 1e3:,.0f}{_GAP}s"
    return f"{value:.3g}{_GAP}ms"


def seconds(value: float) -> str:
    """A moment or a length in s, with as many decimals as its size needs."""
    return f"{value:.1f}{_GAP}s" if value >= 10 else f"{value:.2f}{_GAP}s"


def rate(value: float | None) -> str:
    """Per second."""
    return _NONE if value is None else f"{value:,.0f}" if value >= 10 else f"{value:.1f}"


def plain(value: Any) -> str:
    """A value of an option or a count."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: _NONE}[value]
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.6g}"
    if isinstance(value, dict):
        return ", ".join(f"{key} {plain(each)}" for key, each in value.items()) or _NONE
    if isinstance(value, (list, tuple)):
        return ", ".join(map(plain, value)) or _NONE
    return str(value)


def several(number: int, noun: str) -> str:
    """`1 fault`, `12 faults`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def fault(record: dict[str, Any]) -> str:
    """Its name, and whom it hit if that was recorded."""
    target = record.get("target")
    return f"{record['name']} on {target}" if target else str(record["name"])


def effect(record: dict[str, Any]) -> str:
    """The consequence by which a fault counts as effective."""
    if "effect" not in record:
        return {True: "had its effect", False: "none", None: _NONE}[record.get("effective")]
    seen = record["effect"]
    if seen is None:
        return "none"
    if not isinstance(seen, dict) or not seen:
        return plain(seen) if seen else "had its effect"
    known = {
        "term": "{leader} leads in term {term}",
        "reset": "connection to {component} lost",
        "holder": "{holder} holds the {lease} lease",
        "role": "{member} is {role} in term {term}",
    }.get(str(seen.get("kind")))
    try:
        return (
            known.format_map(seen | {"holder": str(seen.get("holder")).split("_")[0]})
            if known
            else _pairs(seen)
        )
    except KeyError:
        return _pairs(seen)


def who(record: dict[str, Any]) -> str:
    """Whose record it is."""
    if record["kind"] == "api":
        return str(record["request"].get("user", "nobody")).removeprefix("system:")
    if record["kind"] == "write":
        return "to the store"
    if "client" in record:
        return f"client {record['client']}"
    return f"watch {record['watch']}" if "watch" in record else "observer"


def request(record: dict[str, Any]) -> str:
    """What an operation asked for, without the keys' common prefix of folders."""
    asked, kind = record.get("request", {}), record["kind"]
    if record.get("type") == "observe":
        return f"seen: {effect({'effect': record})}"
    if record.get("type") == "event":
        value = f" = {record['value']}" if record.get("value") is not None else ""
        return f"event {kind} {_key(record.get('key', ''))}{value}"
    if kind == "txn":
        compares = " and ".join(_compare(item) for item in asked.get("compares", ()))
        branch = "; ".join(_item(item) for item in asked.get("success", ()))
        otherwise = "; ".join(_item(item) for item in asked.get("failure", ()))
        return f"txn if {compares or 'true'}: {branch or 'nothing'}, else {otherwise or 'nothing'}"
    return _item({"kind": kind, **asked})


def answer(record: dict[str, Any]) -> str:
    """What came back."""
    if record.get("type") == "event":
        return f"revision {record['revision']}"
    if record.get("type") == "observe":
        return "observed"
    if record["outcome"] != "ok":
        return f"{record['outcome']}: {record.get('error') or 'no code'}"
    response = record.get("response") or {}
    told = []
    if "kv" in response:
        told.append(_version(response["kv"]))
    if "kvs" in response:
        told.append(several(len(response["kvs"]), "key"))
    if "deleted" in response:
        told.append(f"{plain(response['deleted'])} deleted")
    if "succeeded" in response:
        told.append("succeeded" if response["succeeded"] else "compare failed")
    told += [f"revision {record['revision']}"] if "revision" in record else []
    return ", ".join(told) or "done"


def _item(item: dict[str, Any]) -> str:
    if "puts" in item:  # what an API server sent to the store
        return f"write {', '.join(map(_key, [*item['puts'], *item['deletes']]))}"
    if "verb" in item:  # of the Kubernetes API
        return f"{item['verb']} {item.get('name', '')}"
    if "method" in item:
        return f"{item['method']} {item.get('path', '')} by {item.get('user', 'nobody')}"
    if "key" not in item:
        return f"{item['kind']} {_pairs({name: item[name] for name in item if name != 'kind'})}"
    words = f"{item['kind']} {_key(item['key'])}"
    if item.get("range_end"):
        words += f" … {_key(item['range_end'])}"
    return words + (f" = {item['value']}" if "value" in item else "")


def _compare(item: dict[str, Any]) -> str:
    named = f"{item.get('target', '')} of {_key(item.get('key', ''))}"
    return f"{named} {item.get('result', '')} {plain(item.get('operand', ''))}"


def _key(key: str) -> str:
    return key.rstrip("/").rsplit("/", 1)[-1] or key


def _version(key_value: Any) -> str:
    if not key_value:
        return "no such key"
    return f"{key_value[1]} of {key_value[3]}" if len(key_value) > 3 else plain(key_value)


def _pairs(seen: dict[str, Any]) -> str:
    return ", ".join(f"{key} {plain(value)}" for key, value in seen.items() if key not in ("time_ns", "type"))
