"""Which representation an answer takes, from the Accept header.

`application/json;as=Table;v=v1;g=meta.k8s.io` asks for the object turned into another kind first.
Source: k8s.io/apiserver/pkg/endpoints/handlers/negotiation/negotiate.go.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final, NamedTuple

from raftkube.api.status import not_acceptable

JSON: Final = "application/json"
YAML: Final = "application/yaml"
_MEDIA: Final = {
    JSON: JSON, YAML: YAML, "text/yaml": YAML, "application/x-yaml": YAML, "*/*": JSON, "application/*": JSON,
    "": JSON,
}  # fmt: skip
_CLAUSES_MAX: Final = 100


class Transform(NamedTuple):
    """Another kind to answer with: `Table` of meta.k8s.io/v1, `APIGroupDiscoveryList` of …"""

    kind: str
    group: str
    version: str

    @property
    def api_version(self) -> str:
        """`meta.k8s.io/v1`."""
        return f"{self.group}/{self.version}"


class Representation(NamedTuple):
    """media: JSON or YAML. transform: None for the object as it is."""

    media: str
    transform: Transform | None = None

    @property
    def is_table(self) -> bool:
        """Whether a Table is asked for."""
        return self.transform is not None and self.transform.kind == "Table"

    @property
    def is_metadata(self) -> bool:
        """Whether PartialObjectMetadata or a list of it is asked for."""
        return self.transform is not None and self.transform.kind.startswith("PartialObjectMetadata")


def _meta(kind: str) -> tuple[Transform, ...]:
    return tuple(Transform(kind, "meta.k8s.io", version) for version in ("v1", "v1beta1"))


TABLE: Final = frozenset(_meta("Table"))
# PartialObjectMetadata asked of a list is upstream's 406, and the other way round.
OBJECT_FORMS: Final = TABLE | frozenset(_meta("PartialObjectMetadata"))
LIST_FORMS: Final = TABLE | frozenset(_meta("PartialObjectMetadataList"))
WATCH_FORMS: Final = OBJECT_FORMS | LIST_FORMS
DISCOVERY_FORMS: Final = frozenset(
    Transform("APIGroupDiscoveryList", "apidiscovery.k8s.io", version) for version in ("v2", "v2beta1")
)
PLAIN: Final[frozenset[Transform]] = frozenset()

DEFAULT: Final = Representation(JSON)


@lru_cache(maxsize=512)
def negotiate(accept: str | None, allowed: frozenset[Transform] = PLAIN) -> Representation:
    """The first clause of `accept` (by quality, then by place) that can be served, where `allowed` are the
    transforms that this answer knows. No header means JSON.

    Raises ApiError 406: none can.
    """
    if not accept or not accept.strip():
        return DEFAULT
    for media, parameters in _clauses(accept):
        served = _MEDIA.get(media)
        if served is None:
            continue
        if "as" not in parameters:
            return Representation(served)
        wanted = Transform(parameters["as"], parameters.get("g", ""), parameters.get("v", ""))
        if wanted in allowed:
            return Representation(served, wanted)
    raise not_acceptable((JSON, YAML))


def _clauses(accept: str) -> list[tuple[str, dict[str, str]]]:
    clauses = []
    for text in accept.split(",")[:_CLAUSES_MAX]:
        media, *rest = text.split(";")
        parameters = {}
        for parameter in rest:
            name, _, value = parameter.partition("=")
            parameters[name.strip().lower()] = value.strip().strip('"')
        clauses.append((media.strip().lower(), parameters))
    clauses.sort(key=lambda clause: -_quality(clause[1]))
    return [clause for clause in clauses if _quality(clause[1]) > 0]


def _quality(parameters: dict[str, str]) -> float:
    try:
        return float(parameters.get("q", "1"))
    except ValueError:
        return 1.0
