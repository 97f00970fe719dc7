"""Quantities: `500m`, `1.5Gi`, `12e6`. Exact: values are whole numbers of nano-units.

Source: k8s.io/apimachinery/pkg/api/resource (quantity.go, suffix.go): digits beyond nano are rounded away
from zero, what does not fit upstream's 18-digit fast path is capped at 2**63 - 1, and the canonical form
has no fraction and the largest suffix.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final, NamedTuple

NANO: Final = 10**9
VALUE_MAX: Final = 2**63 - 1

_PATTERN: Final = re.compile(
    r"(?P<sign>[+-]?)(?P<whole>\d*)(?:\.(?P<part>\d*))?"
    r"(?P<suffix>Ki|Mi|Gi|Ti|Pi|Ei|[numkMGTPE]|[eE](?P<exponent>[+-]?\d+)|)"
)
_DECIMAL: Final = {
    "n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18,
}  # fmt: skip
_BINARY: Final = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}
_DECIMAL_SUFFIX: Final = {exponent: suffix for suffix, exponent in _DECIMAL.items()}
_BINARY_SUFFIX: Final = {exponent: suffix for suffix, exponent in _BINARY.items()}
# Beyond this many digits or this exponent the value is over the cap (or rounds to one nano) anyway.
_TEXT_MAX: Final = 1_000
_EXPONENT_MAX: Final = 2_000


class Quantity(NamedTuple):
    """nanos: the value in billionths. form: "decimal", "binary" or "exponent", as it was written."""

    nanos: int
    form: str


def _power(exponent: int) -> tuple[int, int]:
    """10**exponent as (numerator, denominator)."""
    bounded = max(-_EXPONENT_MAX, min(_EXPONENT_MAX, exponent))
    return (10**bounded, 1) if bounded >= 0 else (1, 10**-bounded)


@lru_cache(maxsize=4096)
def parse(text: str) -> Quantity:
    """Read a quantity. Raises ValueError: it is none."""
    text = text.strip()
    found = _PATTERN.fullmatch(text) if len(text) <= _TEXT_MAX else None
    if found is None or not (found["whole"] or found["part"]):
        raise ValueError(f"{text[:64]!r} is not a quantity; write for example 500m, 2, 1.5Gi or 1e3")
    part, suffix = found["part"] or "", found["suffix"]
    if suffix in _BINARY:
        form, numerator, denominator = "binary", 1 << _BINARY[suffix], 1
    elif found["exponent"]:
        form, (numerator, denominator) = "exponent", _power(int(found["exponent"]))
    else:
        form, (numerator, denominator) = "decimal", _power(_DECIMAL[suffix])
    digits = int((found["whole"] or "") + part or "0")
    nanos = -(-digits * numerator * NANO // (denominator * 10 ** len(part)))
    if not _fits_fast_path(found["whole"] or "", part, form, denominator):
        nanos = min(nanos, VALUE_MAX * NANO)
    return Quantity(-nanos if found["sign"] == "-" else nanos, form)


def _fits_fast_path(whole_part: str, part: str, form: str, denominator: int) -> bool:
    """ParseQuantity keeps such decimals as an int64 and a power of ten, which is never capped."""
    if form == "binary" or len(whole_part) + len(part) > 18:
        return False
    return denominator * int("1" + "0" * len(part)) <= NANO


def nanos(text: str | float) -> int:
    """The value in billionths; a JSON number counts as its text."""
    return parse(text if isinstance(text, str) else repr(text)).nanos


def millis(text: str | float) -> int:
    """The value in thousandths, rounded up: CPU."""
    return -(-nanos(text) // 10**6)


def whole(text: str | float) -> int:
    """The value rounded up to a whole number: bytes, pods."""
    return -(-nanos(text) // NANO)


@lru_cache(maxsize=4096)
def canonical(text: str) -> str:
    """The one way in which Kubernetes writes this value. Raises ValueError: it is no quantity."""
    value = parse(text)
    return write(value.nanos, value.form)


def write(value_nanos: int, form: str = "decimal") -> str:
    """A value as text: no fraction, the largest suffix that keeps it exact."""
    if value_nanos == 0:
        return "0"
    magnitude, sign = abs(value_nanos), "-" if value_nanos < 0 else ""
    # Small and fractional values read better in decimals, and lose nothing (CanonicalizeBytes).
    if form == "binary" and magnitude >= 1024 * NANO and magnitude % NANO == 0:
        return sign + _binary(magnitude // NANO)
    mantissa, exponent = _thousands(magnitude, _EXPONENT_MAX if form == "exponent" else 18)
    if form == "exponent":
        return f"{sign}{mantissa}" + (f"e{exponent}" if exponent else "")
    return f"{sign}{mantissa}{_DECIMAL_SUFFIX[exponent]}"


def _binary(value: int) -> str:
    exponent = 0
    while value % 1024 == 0 and exponent < 60:
        value, exponent = value // 1024, exponent + 10
    return f"{value}{_BINARY_SUFFIX.get(exponent, '')}"


def _thousands(value_nanos: int, exponent_max: int) -> tuple[int, int]:
    value, exponent = value_nanos, -9
    while value % 1000 == 0 and exponent < exponent_max:
        value, exponent = value // 1000, exponent + 3
    return value, exponent
