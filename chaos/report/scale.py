"""Axes: places of values, and where ticks stand."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

_STEPS: Final = (1.0, 2.0, 5.0)


@dataclass(frozen=True, slots=True)
class TimeScale:
    """A stretch of time in ns over x in [left, left + width] px."""

    start_ns: int
    end_ns: int
    left: float
    width: float

    @property
    def length_s(self) -> float:
        return (self.end_ns - self.start_ns) / 1e9

    def x(self, time_ns: float) -> float:
        """The place of a moment, clipped to the axis."""
        share = (time_ns - self.start_ns) / max(self.end_ns - self.start_ns, 1)
        return self.left + min(max(share, 0.0), 1.0) * self.width

    def holds(self, start_ns: int, end_ns: int) -> bool:
        """Whether a part of [start_ns, end_ns] lies on the axis."""
        return start_ns <= self.end_ns and end_ns >= self.start_ns


@dataclass(frozen=True, slots=True)
class LogScale:
    """Values in [low, high], both > 0, over y from `bottom` up to `top` px."""

    low: float
    high: float
    top: float
    bottom: float

    def y(self, value: float) -> float:
        """The place of a value, clipped to the axis."""
        share = math.log(max(value, self.low) / self.low) / math.log(self.high / self.low)
        return self.bottom - min(share, 1.0) * (self.bottom - self.top)

    def decades(self) -> list[float]:
        """The powers of ten on the axis."""
        first = math.ceil(math.log10(self.low) - 1e-9)
        last = math.floor(math.log10(self.high) + 1e-9)
        return [10.0**power for power in range(first, last + 1)]


def log_scale(values: list[float], top: float, bottom: float) -> LogScale:
    """Whole steps of 1, 2, 5 around the values, at least one decade; 1 to 10 without any."""
    positive = [value for value in values if value > 0]
    low = _step_below(min(positive, default=1.0))
    high = max(_step_above(max(positive, default=10.0)), low * 10)
    return LogScale(low, high, top, bottom)


def ticks(low: float, high: float, about: int) -> list[float]:
    """Round values in [low, high], about so many; [] if there is no room."""
    if high <= low or about < 1:
        return []
    step = _step_above((high - low) / about)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(number * step, 12) for number in range(first, last + 1)]


def _step_above(value: float) -> float:
    """The smallest of 1, 2, 5 times a power of ten that is not below `value`."""
    power = 10.0 ** math.floor(math.log10(value))
    return next((step * power for step in _STEPS if step * power >= value * (1 - 1e-9)), 10 * power)


def _step_below(value: float) -> float:
    power = 10.0 ** math.floor(math.log10(value) + 1e-9)
    return max(step * power for step in _STEPS if step * power <= value * (1 + 1e-9))
