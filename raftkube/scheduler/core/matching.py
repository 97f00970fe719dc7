"""Whether labels match node selectors, and tolerations match taints.

Source: k8s.io/component-helpers/scheduling/corev1 (nodeaffinity, helpers.go) and core/v1/toleration.go.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from raftkube.api.selectors import OBJECT_OPERATORS, Requirement

Object = Mapping[str, Any]
_OPERATORS = OBJECT_OPERATORS | {"Gt": ">", "Lt": "<"}


def matches_term(term: Object, name: str, labels: Mapping[str, str]) -> bool:
    """A NodeSelectorTerm: all of its expressions and fields hold; one without any matches no node."""
    expressions, fields = term.get("matchExpressions") or (), term.get("matchFields") or ()
    if not expressions and not fields:
        return False
    return all(_holds(e, labels) for e in expressions) and all(
        _holds(f, {"metadata.name": name}) for f in fields
    )


def _holds(expression: Object, labels: Mapping[str, str]) -> bool:
    operator = _OPERATORS.get(str(expression.get("operator")))
    if operator is None:
        return False
    values = frozenset(expression.get("values") or ())
    return Requirement(str(expression["key"]), operator, values).matches(labels)


def tolerates(toleration: Object, taint: Object) -> bool:
    """Whether one toleration covers one taint. No effect: all effects; no key (with Exists): all keys."""
    if (toleration.get("effect") or taint.get("effect")) != taint.get("effect"):
        return False
    if (toleration.get("key") or taint.get("key")) != taint.get("key"):
        return False
    match toleration.get("operator") or "Equal":
        case "Exists":
            return True
        case "Equal":
            return (toleration.get("value") or "") == (taint.get("value") or "") and bool(
                toleration.get("key")
            )
        case _:
            return False


def untolerated(
    taints: Iterable[Object], tolerations: Iterable[Object], effects: tuple[str, ...]
) -> list[Object]:
    """The taints with one of these effects that no toleration covers."""
    given = list(tolerations)
    return [
        taint
        for taint in taints
        if taint.get("effect") in effects and not any(tolerates(toleration, taint) for toleration in given)
    ]
