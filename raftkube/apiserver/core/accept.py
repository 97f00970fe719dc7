"""Which form of an answer a client takes: JSON, a Table, or metadata alone.

Source: k8s.io/apiserver/pkg/endpoints/handlers/negotiation/negotiate.go.
"""

from __future__ import annotations

from enum import Enum
from functools import lru_cache
from typing import Final

from raftkube.api.status import not_acceptable

JSON_TYPE: Final = "application/json"
ACCEPTED: Final = (JSON_TYPE,)
_WILDCARDS: Final = frozenset((JSON_TYPE, "application/*", "*/*"))


class Form(Enum):
    """How objects are shown."""

    OBJECT = "object"
    TABLE = "Table"
    METADATA = "PartialObjectMetadata"


_TARGETS: Final = {
    "": Form.OBJECT,
    "Table": Form.TABLE,
    "PartialObjectMetadata": Form.METADATA,
    "PartialObjectMetadataList": Form.METADATA,
}


@lru_cache(maxsize=256)
def negotiate(accept: str) -> Form:
    """The form of the best clause that can be served. Raises ApiError 406: there is none."""
    if not accept.strip():
        return Form.OBJECT
    for media_type, parameters in _clauses(accept):
        if media_type not in _WILDCARDS:
            continue
        form = _form(parameters)
        if form is not None:
            return form
    raise not_acceptable(ACCEPTED)


def _form(parameters: dict[str, str]) -> Form | None:
    target = parameters.get("as", "")
    if not target:
        return Form.OBJECT
    if parameters.get("g", "") == "meta.k8s.io" and parameters.get("v", "") == "v1":
        return _TARGETS.get(target)
    return None


def _clauses(accept: str) -> list[tuple[str, dict[str, str]]]:
    """Media types with their parameters, the preferred ones first."""
    weighted: list[tuple[float, str, dict[str, str]]] = []
    for clause in accept.split(","):
        media_type, *rest = clause.split(";")
        pairs = (item.partition("=") for item in rest)
        parameters = {name.strip().lower(): value.strip().strip('"') for name, _, value in pairs}
        weighted.append((_quality(parameters.pop("q", "1")), media_type.strip().lower(), parameters))
    weighted.sort(key=lambda item: -item[0])
    return [(media_type, parameters) for quality, media_type, parameters in weighted if quality > 0]


def _quality(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0
