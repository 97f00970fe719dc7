"""Durations on the command line, as Go writes them: 15s, 500ms, 1m30s."""

from __future__ import annotations

import re
from typing import Any

import click

_UNITS_S = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_PART = re.compile(r"(\d+(?:\.\d+)?|\.\d+)(h|ms|m|s|us|µs|ns)")


class Duration(click.ParamType[float]):
    """A flag's value in seconds (float)."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, int | float):
            return float(value)
        text = str(value)
        parts = _PART.findall(text)
        if text == "0":
            return 0.0
        if not parts or "".join(number + unit for number, unit in parts) != text:
            self.fail(f"{text!r} is not a duration; write for example 15s, 500ms or 1m30s", param, ctx)
        return sum(float(number) * _UNITS_S[unit] for number, unit in parts)
