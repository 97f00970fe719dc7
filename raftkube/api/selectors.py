"""Label selectors: the query's text form, and metav1.LabelSelector objects.

Source: k8s.io/apimachinery/pkg/labels/selector.go and pkg/apis/meta/v1/{helpers.go,validation}.
Field selectors are in `raftkube.api.field_selectors`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from raftkube.api import fields
from raftkube.api.names import label_value_errors, qualified_name_errors, validate_labels
from raftkube.api.objects import items, section
from raftkube.api.status import FieldError, bad_request

Labels = Mapping[str, str]

_TOKEN = re.compile(r"\s*(==|!=|[=!(),<>]|[^=!(),<>\s]+)")
_SPECIAL: Final = frozenset("=!(),<>")
_TEXT_OPERATORS: Final = {"=": "=", "==": "=", "!=": "!=", "in": "in", "notin": "notin", ">": ">", "<": "<"}
OBJECT_OPERATORS: Final = {"In": "in", "NotIn": "notin", "Exists": "exists", "DoesNotExist": "!"}


@dataclass(frozen=True, slots=True)
class Requirement:
    """One condition on the label `key`. operator: =, !=, in, notin, exists, !, <, >."""

    key: str
    operator: str
    values: frozenset[str] = frozenset()

    def matches(self, labels: Labels) -> bool:
        """`!=` and `notin` match when the key is absent."""
        value = labels.get(self.key)
        match self.operator:
            case "=" | "in":
                return value in self.values
            case "!=" | "notin":
                return value not in self.values
            case "exists":
                return value is not None
            case "!":
                return value is None
            case _:
                return self._compares(value)

    def _compares(self, value: str | None) -> bool:
        try:
            found, bound = int(value or ""), int(next(iter(self.values)))
        except ValueError:
            return False
        return found > bound if self.operator == ">" else found < bound

    def __str__(self) -> str:
        joined = ",".join(sorted(self.values))
        match self.operator:
            case "exists":
                return self.key
            case "!":
                return f"!{self.key}"
            case "in" | "notin":
                return f"{self.key} {self.operator} ({joined})"
            case _:
                return f"{self.key}{self.operator}{joined}"


@dataclass(frozen=True, slots=True)
class LabelSelector:
    """All requirements must hold; without any it matches everything, unless `nothing`."""

    requirements: tuple[Requirement, ...] = ()
    nothing: bool = False

    def matches(self, labels: Labels | None) -> bool:
        """Whether an object with these labels is selected."""
        if self.nothing:
            return False
        found = labels or {}
        return all(requirement.matches(found) for requirement in self.requirements)

    @property
    def empty(self) -> bool:
        """True if it selects everything."""
        return not self.requirements and not self.nothing

    def __str__(self) -> str:
        return ",".join(str(requirement) for requirement in self.requirements)


EVERYTHING: Final = LabelSelector()
NOTHING: Final = LabelSelector(nothing=True)


@lru_cache(maxsize=1024)
def parse_label_selector(text: str) -> LabelSelector:
    """Of a `labelSelector` parameter. Raises ApiError 400: not a selector."""
    parser = _Parser(text, tuple(_tokens(text)))
    requirements: list[Requirement] = []
    while parser.peek():
        requirements.append(parser.requirement())
        token = parser.peek()
        if token and (parser.take() != "," or not parser.peek()):
            raise _unparsable(text, f"found '{token}', expected: identifier after ','")
    return LabelSelector(tuple(sorted(requirements, key=lambda requirement: requirement.key)))


def _tokens(text: str) -> Iterable[str]:
    position = 0
    while match := _TOKEN.match(text, position):
        yield match.group(1)
        position = match.end()


def _unparsable(text: str, why: str) -> Exception:
    return bad_request(f'unable to parse requirement: {why} in label selector "{text}"')


@dataclass(slots=True)
class _Parser:
    text: str
    tokens: tuple[str, ...]
    position: int = 0

    def peek(self) -> str:
        return self.tokens[self.position] if self.position < len(self.tokens) else ""

    def take(self) -> str:
        token = self.peek()
        self.position += 1
        return token

    def requirement(self) -> Requirement:
        negated = self.peek() == "!"
        if negated:
            self.take()
        key = self.take()
        if not key or key in _SPECIAL:
            raise _unparsable(self.text, f"found '{key}', expected: !, identifier, or 'end of string'")
        self._check(qualified_name_errors(key), "key", key)
        if negated:
            return Requirement(key, "!")
        token = self.peek()
        if token in ("", ","):
            return Requirement(key, "exists")
        return self._with_values(key, self.take())

    def _with_values(self, key: str, token: str) -> Requirement:
        operator = _TEXT_OPERATORS.get(token)
        if operator is None:
            raise _unparsable(self.text, f"found '{token}', expected: in, notin, =, ==, !=, gt, lt")
        values = self._set() if operator in ("in", "notin") else frozenset([self._value()])
        for value in values:
            self._check(label_value_errors(value), f"values[0][{key}]", value)
        if operator in "<>":
            self._check_integer(values)
        return Requirement(key, operator, values)

    def _value(self) -> str:
        if self.peek() in ("", ","):
            return ""
        token = self.take()
        if token in _SPECIAL or token in ("==", "!="):
            raise _unparsable(self.text, f"found '{token}', expected: identifier")
        return token

    def _set(self) -> frozenset[str]:
        if self.take() != "(":
            raise _unparsable(self.text, "expected: '(' after in or notin")
        if self.peek() == ")":
            self.take()
            return frozenset([""])
        values = [self._set_value()]
        while (token := self.take()) == ",":
            values.append(self._set_value())
        if token != ")":
            raise _unparsable(self.text, f"found '{token}', expected: ',' or ')'")
        return frozenset(values)

    def _set_value(self) -> str:
        """An element; `(,)` and `(a,)` hold empty ones."""
        return "" if self.peek() == ")" else self._value()

    def _check(self, errors: Sequence[str], field: str, value: str) -> None:
        if errors:
            raise _unparsable(self.text, f"{field}: Invalid value: {fields.quoted(value)}: {errors[0]}")

    def _check_integer(self, values: frozenset[str]) -> None:
        value = next(iter(values))
        if not re.fullmatch(r"[+-]?\d+", value):
            why = "for 'Gt', 'Lt' operators, the value must be an integer"
            raise _unparsable(self.text, f"values[0]: Invalid value: {fields.quoted(value)}: {why}")


def label_selector_of(obj: Mapping[str, Any] | None) -> LabelSelector:
    """Of a LabelSelector object (checked before): null selects nothing, {} everything."""
    if obj is None:
        return NOTHING
    requirements = [
        Requirement(key, "=", frozenset([value])) for key, value in (obj.get("matchLabels") or {}).items()
    ]
    requirements += [
        Requirement(term["key"], OBJECT_OPERATORS[term["operator"]], frozenset(term.get("values") or ()))
        for term in obj.get("matchExpressions") or ()
    ]
    return LabelSelector(tuple(sorted(requirements, key=lambda requirement: requirement.key)))


def format_label_selector(obj: Mapping[str, Any] | None) -> str:
    """As the Selector column shows a LabelSelector object (metav1.FormatLabelSelector)."""
    try:
        selector = label_selector_of(obj)
    except (KeyError, TypeError):
        return "<error>"
    return str(selector) or "<none>"


def format_labels(labels: Mapping[str, str] | None) -> str:
    """As columns show a label map: a=b,c=d."""
    return ",".join(f"{key}={labels[key]}" for key in sorted(labels)) if labels else "<none>"


def validate_label_selector(obj: dict[str, Any], path: str) -> list[FieldError]:
    """All that is wrong with a LabelSelector object."""
    errors = validate_labels(section(obj, "matchLabels"), f"{path}.matchLabels")
    for index, term in enumerate(items(obj, "matchExpressions")):
        errors += _validate_term(term, f"{path}.matchExpressions[{index}]")
    return errors


def _validate_term(term: dict[str, Any], path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    operator, values = term.get("operator"), items(term, "values")
    if operator in ("In", "NotIn") and not values:
        errors.append(
            fields.required(f"{path}.values", "must be specified when `operator` is 'In' or 'NotIn'")
        )
    elif operator in ("Exists", "DoesNotExist") and values:
        text = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
        errors.append(fields.forbidden(f"{path}.values", text))
    elif operator not in OBJECT_OPERATORS:
        errors.append(fields.invalid(f"{path}.operator", operator or "", "not a valid selector operator"))
    key = term.get("key") or ""
    errors += fields.all_invalid(f"{path}.key", key, qualified_name_errors(key))
    for index, value in enumerate(values):
        errors += fields.all_invalid(f"{path}.values[{index}]", value, label_value_errors(value))
    return errors
