"""Amounts of CPU, memory and other resources: parsed, exact, and written in canonical form.

A quantity is held as a whole number of nano-units, to which it is rounded up (away from zero), as upstream
does; Python's integers make the arithmetic exact.
Source: k8s.io/apimachinery/pkg/api/resource/quantity.go.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, Literal

Format = Literal["DecimalSI", "BinarySI", "DecimalExponent"]

FORMAT_ERROR: Final = (
    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
)
SUFFIX_ERROR: Final = "unable to parse quantity's suffix"
NUMBER_ERROR: Final = "unable to parse numeric part of quantity"

_WHOLE = re.compile(r"([+-]?)([0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)")
_NUMBER = re.compile(r"([0-9]*)(?:\.([0-9]*))?")
_EXPONENT = re.compile(r"[eE]([+-]?[0-9]+)")
_BINARY: Final = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}
_DECIMAL: Final = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY_NAMES: Final = ("", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei")
_DECIMAL_NAMES: Final = {exponent: name for name, exponent in _DECIMAL.items()}
_NANO: Final = 10**9
_MAX_NANO: Final = (2**63 - 1) * _NANO
_FAST_DIGITS: Final = 18
_TEXT_MAX: Final = 128
_EXPONENT_MAX: Final = 64  # a larger one could only be a mistake, and would cost memory to hold


class QuantityError(ValueError):
    """The text is no quantity; str() is upstream's sentence."""


def _divide_up(value: int, divisor: int) -> int:
    """Rounded away from zero."""
    return -(-value // divisor) if value >= 0 else value // divisor


@dataclass(frozen=True, slots=True, order=False)
class Quantity:
    """`nano` is the amount times 10^9; `format` is how it was written and will be written again."""

    nano: int
    format: Format = "DecimalSI"

    @property
    def value(self) -> int:
        """In whole units (bytes), rounded up."""
        return _divide_up(self.nano, _NANO)

    @property
    def milli(self) -> int:
        """In thousandths (milli-CPU), rounded up."""
        return _divide_up(self.nano, 10**6)

    def __add__(self, other: Quantity) -> Quantity:
        return Quantity(self.nano + other.nano, self.format if self.nano else other.format)

    def __sub__(self, other: Quantity) -> Quantity:
        return Quantity(self.nano - other.nano, self.format if self.nano else other.format)

    def __neg__(self) -> Quantity:
        return Quantity(-self.nano, self.format)

    def __lt__(self, other: Quantity) -> bool:
        return self.nano < other.nano

    def __le__(self, other: Quantity) -> bool:
        return self.nano <= other.nano

    def __str__(self) -> str:
        """The canonical form: no precision lost, no fractional digits, the largest fitting suffix."""
        if self.nano == 0:
            return "0"
        whole = self.nano % _NANO == 0
        if self.format == "BinarySI" and whole and abs(self.nano) >= 1024 * _NANO:
            return _binary_text(self.nano // _NANO)
        return _decimal_text(self.nano, self.format)


def _binary_text(value: int) -> str:
    exponent = 0
    while value % 1024 == 0 and exponent < len(_BINARY_NAMES) - 1:
        value //= 1024
        exponent += 1
    return f"{value}{_BINARY_NAMES[exponent]}"


def _decimal_text(nano: int, form: Format) -> str:
    exponent = -9
    while nano % 1000 == 0 and (exponent < 18 or form == "DecimalExponent"):
        nano //= 1000
        exponent += 3
    if form == "DecimalExponent":
        return f"{nano}e{exponent}" if exponent else str(nano)
    return f"{nano}{_DECIMAL_NAMES[exponent]}"


@lru_cache(maxsize=8192)
def parse_quantity(text: str) -> Quantity:
    """Raises QuantityError: not a quantity."""
    if text == "0":
        return Quantity(0)
    match = _WHOLE.fullmatch(text) if len(text) <= _TEXT_MAX else None
    if match is None:
        raise QuantityError(FORMAT_ERROR)
    sign, number, suffix = match.groups()
    parts = _NUMBER.fullmatch(number)
    if parts is None or number == ".":
        raise QuantityError(NUMBER_ERROR if parts is None else FORMAT_ERROR)
    whole, fraction = parts.group(1), parts.group(2) or ""
    nano, form = _amount(int(whole + fraction), len(fraction), suffix)
    if len(whole + fraction) > _FAST_DIGITS or form == "BinarySI":
        nano = min(nano, _MAX_NANO)
    if form == "BinarySI" and 0 < nano < _NANO:
        form = "DecimalSI"
    return Quantity(-nano if sign == "-" else nano, form)


def _amount(digits: int, decimals: int, suffix: str) -> tuple[int, Format]:
    if suffix in _BINARY:
        return _divide_up(digits * _NANO << _BINARY[suffix], 10**decimals), "BinarySI"
    if suffix in _DECIMAL:
        return _scaled(digits, _DECIMAL[suffix] + 9 - decimals), "DecimalSI"
    match = _EXPONENT.fullmatch(suffix)
    if match is None or abs(int(match.group(1))) > _EXPONENT_MAX:
        raise QuantityError(SUFFIX_ERROR)
    return _scaled(digits, int(match.group(1)) + 9 - decimals), "DecimalExponent"


def _scaled(digits: int, power: int) -> int:
    return digits * 10**power if power >= 0 else _divide_up(digits, 10**-power)


def quantity(value: Any) -> Quantity:
    """Of a JSON value: text, or a bare number, which upstream reads as its own text.

    Raises QuantityError: not a quantity.
    """
    if isinstance(value, str):
        return parse_quantity(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return parse_quantity(str(value))
    raise QuantityError(FORMAT_ERROR)


def canonical(value: Any) -> Any:
    """The canonical text of a quantity; what is no quantity stays, for validation to name."""
    try:
        return str(quantity(value))
    except QuantityError:
        return value


def canonicalize(amounts: Any) -> None:
    """Rewrite a resource list (name → quantity) in place; anything else is left alone."""
    if isinstance(amounts, dict):
        for name, value in amounts.items():
            amounts[name] = canonical(value)
