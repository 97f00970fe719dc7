from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftkube.api.quantity import (
    Quantity,
    QuantityError,
    canonical,
    parse_quantity,
    quantity,
)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("0", "0"), ("0.0", "0"), ("0Ki", "0"), ("-0", "0"), ("1", "1"), ("+1", "1"), ("-1", "-1"),
        ("0.5", "500m"), ("1000m", "1"), ("1500m", "1500m"), ("1.5", "1500m"), (".5", "500m"), ("1.", "1"),
        ("100", "100"), ("1000", "1k"), ("1k", "1k"), ("12345", "12345"), ("1000000", "1M"),
        ("1024Mi", "1Gi"), ("1536Mi", "1536Mi"), ("1.5Gi", "1536Mi"), ("1024", "1024"), ("512", "512"),
        ("0.5Mi", "512Ki"), ("0.5Ki", "512"), ("0.1Gi", "107374182400m"), ("1023Ki", "1023Ki"),
        ("1e3", "1e3"), ("1E3", "1e3"), ("1e-3", "1e-3"), ("129e6", "129e6"), ("1200e3", "1200e3"),
        ("1E", "1E"), ("9Ei", "9223372036854775807"), ("1n", "1n"), ("0.1n", "1n"), ("1u", "1u"),
        ("0.0001m", "100n"), ("123.4567m", "123456700n"),
    ],
)  # fmt: skip
def test_the_canonical_form(text: str, shown: str) -> None:
    assert str(parse_quantity(text)) == shown
    assert str(parse_quantity(shown)) == shown


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "regular expression"), ("x", "regular expression"), ("1 Gi", "regular expression"),
        ("1Zi", "regular expression"), ("--1", "regular expression"), (".", "regular expression"),
        ("1.2.3", "numeric part"), ("1e", "suffix"), ("1mm", "suffix"), ("1ki", "suffix"),
        ("1e999999999", "suffix"), ("1" * 5000, "regular expression"),
    ],
)  # fmt: skip
def test_what_is_no_quantity_is_named(text: str, sentence: str) -> None:
    with pytest.raises(QuantityError, match=sentence):
        parse_quantity(text)
    assert canonical(text) == text


def test_rounding_is_away_from_zero() -> None:
    assert (parse_quantity("1001m").value, parse_quantity("-1001m").value) == (2, -2)
    assert parse_quantity("1n").milli == 1
    assert parse_quantity("250m").milli == 250
    assert parse_quantity("1Ki").value == 1024


def test_a_bare_number_is_its_own_text() -> None:
    assert str(quantity(2)) == "2"
    assert str(quantity(0.5)) == "500m"
    with pytest.raises(QuantityError):
        quantity(True)


def test_arithmetic_keeps_the_format_of_the_left_side() -> None:
    assert str(parse_quantity("1Gi") + parse_quantity("1Gi")) == "2Gi"
    assert str(parse_quantity("1Gi") - parse_quantity("512Mi")) == "512Mi"
    assert str(parse_quantity("0") + parse_quantity("1Ki")) == "1Ki"
    assert str(-parse_quantity("1500m")) == "-1500m"
    assert parse_quantity("1Ki") < parse_quantity("1025") <= parse_quantity("1025")


_NUMBERS = st.tuples(st.sampled_from(["", "+", "-"]), st.integers(0, 10**9), st.integers(0, 999_999))
_SCALES = {
    "n": Fraction(1, 10**9), "u": Fraction(1, 10**6), "m": Fraction(1, 1000), "": Fraction(1),
    "k": Fraction(1000), "M": Fraction(10**6), "G": Fraction(10**9),
    "Ki": Fraction(2**10), "Mi": Fraction(2**20), "Gi": Fraction(2**30), "e3": Fraction(1000),
    "e-3": Fraction(1, 1000),
}  # fmt: skip


@given(_NUMBERS, st.sampled_from(sorted(_SCALES)))
def test_the_value_is_exact_up_to_a_nano_and_survives_its_own_text(
    number: tuple[str, int, int], suffix: str
) -> None:
    sign, units, decimals = number
    parsed = parse_quantity(f"{sign}{units}.{decimals:06d}{suffix}")
    exact = (Fraction(units) + Fraction(decimals, 10**6)) * _SCALES[suffix] * (-1 if sign == "-" else 1)
    error = abs(Fraction(parsed.nano, 10**9)) - abs(exact)
    assert 0 <= error < Fraction(1, 10**9)
    again = parse_quantity(str(parsed))
    assert again.nano == parsed.nano
    assert str(again) == str(parsed)


@given(st.integers(-(2**62), 2**62), st.integers(-(2**62), 2**62))
def test_sums_are_those_of_integers(left: int, right: int) -> None:
    assert (Quantity(left) + Quantity(right)).nano == left + right
    assert (Quantity(left) < Quantity(right)) == (left < right)
    assert Quantity(left).value * 10**9 >= left if left >= 0 else Quantity(left).value * 10**9 <= left


@given(st.text(max_size=12))
def test_any_text_is_a_quantity_or_a_clear_error(text: str) -> None:
    try:
        parsed = parse_quantity(text)
    except QuantityError as error:
        parsed, sentence = None, str(error)
    if parsed is None:
        assert "quantit" in sentence
    else:
        assert parse_quantity(str(parsed)).nano == parsed.nano
