"""Field selectors: `metadata.name=web,status.phase!=Running`, with `\\\\`, `\\,` and `\\=` escaped.

Source: k8s.io/apimachinery/pkg/fields/selector.go.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from raftkube.api.fields import quoted
from raftkube.api.objects import section
from raftkube.api.resource import Object, Resource
from raftkube.api.status import bad_request

Getter = Callable[[Object], str]


@dataclass(frozen=True, slots=True)
class FieldTerm:
    """`path` must be, or with `negated` must not be, `value`."""

    path: str
    value: str
    negated: bool
    getter: Getter

    def matches(self, obj: Object) -> bool:
        """Whether the object meets this term."""
        return (self.getter(obj) == self.value) is not self.negated


@dataclass(frozen=True, slots=True)
class FieldSelector:
    """All terms must hold; without any it matches everything."""

    terms: tuple[FieldTerm, ...] = ()

    def matches(self, obj: Object) -> bool:
        """Whether the object is selected."""
        return all(term.matches(obj) for term in self.terms)

    @property
    def empty(self) -> bool:
        """True if it selects everything."""
        return not self.terms

    def required_value(self, path: str) -> str | None:
        """The value that `path` must have, if a term says so: a list by metadata.name is one get."""
        return next((term.value for term in self.terms if term.path == path and not term.negated), None)


def _meta(name: str) -> Getter:
    def get(obj: Object) -> str:
        return section(obj, "metadata").get(name) or ""

    return get


_EVERYWHERE: Final[Mapping[str, Getter]] = {
    "metadata.name": _meta("name"),
    "metadata.namespace": _meta("namespace"),
}


def parse_field_selector(text: str, resource: Resource) -> FieldSelector:
    """Of a `fieldSelector` parameter. Raises ApiError 400: no selector, or a field not selectable here."""
    return FieldSelector(tuple(_term(term, resource) for term in _split(text) if term))


def _split(text: str) -> list[str]:
    """At commas that no backslash escapes."""
    terms, start, escaped = [], 0, False
    for index, char in enumerate(text):
        if escaped:
            escaped = False
        elif char == "\\":
            escaped = True
        elif char == ",":
            terms.append(text[start:index])
            start = index + 1
    return [*terms, text[start:]]


def _term(term: str, resource: Resource) -> FieldTerm:
    path, operator, value = _operands(term)
    getter = resource.field_selectors.get(path) or _EVERYWHERE.get(path)
    if getter is None or (path == "metadata.namespace" and not resource.namespaced):
        names = ", ".join(selectable_fields(resource))
        raise bad_request(
            f"field label not supported: {path} (field selector {quoted(term)} on {resource.plural}; "
            f"selectable are {names})"
        )
    return FieldTerm(path, _unescape(value, term), operator == "!=", getter)


def selectable_fields(resource: Resource) -> list[str]:
    """Every path that a field selector may name."""
    everywhere = [name for name in _EVERYWHERE if resource.namespaced or name != "metadata.namespace"]
    return sorted({*everywhere, *resource.field_selectors})


def _operands(term: str) -> tuple[str, str, str]:
    """The first unescaped operator splits the term."""
    escaped = False
    for index, char in enumerate(term):
        if escaped:
            escaped = False
        elif char == "\\":
            escaped = True
        else:
            for operator in ("!=", "==", "="):
                if term.startswith(operator, index):
                    return term[:index].strip(), operator, term[index + len(operator) :]
    raise bad_request(
        f"invalid field selector {quoted(term)}; write field=value or field!=value, joined by commas"
    )


def _unescape(value: str, term: str) -> str:
    out: list[str] = []
    escaped = False
    for char in value:
        if escaped:
            if char not in "\\,=":
                raise bad_request(f"invalid field selector {quoted(term)}: invalid escape sequence: \\{char}")
            out.append(char)
            escaped = False
        elif char == "\\":
            escaped = True
        elif char in ",=":
            raise bad_request(f"invalid field selector {quoted(term)}: unescaped character in value: {char}")
        else:
            out.append(char)
    if escaped:
        raise bad_request(f"invalid field selector {quoted(term)}: invalid escape sequence: \\")
    return "".join(out)


def text_at(*path: str) -> Getter:
    """A getter of the text at a path; "" if absent, true/false for booleans."""

    def get(obj: Object) -> str:
        found: Any = obj
        for name in path:
            found = found.get(name) if isinstance(found, dict) else None
        return _text(found)

    return get


def flag_at(*path: str) -> Getter:
    """As `text_at`, for a boolean whose absence means false."""
    text = text_at(*path)

    def get(obj: Object) -> str:
        return text(obj) or "false"

    return get


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
