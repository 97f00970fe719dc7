"""Every built-in resource, found by looking into `raftkube.api.kinds`: a file with RESOURCE (or RESOURCES)
there is a kind that is served."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from raftkube.api import kinds
from raftkube.api.resource import Resource


def _found() -> Iterator[Resource]:
    for module_info in pkgutil.iter_modules(kinds.__path__):
        module = importlib.import_module(f"{kinds.__name__}.{module_info.name}")
        several = getattr(module, "RESOURCES", ())
        yield from several or (module.RESOURCE,)


RESOURCES: Final[tuple[Resource, ...]] = tuple(
    sorted(_found(), key=lambda resource: (resource.group, resource.version, resource.plural))
)


@dataclass(frozen=True, slots=True)
class ApiGroup:
    """A group and its versions, the preferred one first; name "" is the core group under /api."""

    name: str
    versions: tuple[str, ...]

    @property
    def preferred(self) -> str:
        """The version that clients use by default."""
        return self.versions[0]


class Catalog:
    """Look-up over a set of resources: the built-in ones, or those and custom ones."""

    __slots__ = ("_by_kind", "_by_plural", "resources")

    def __init__(self, resources: Iterable[Resource]) -> None:
        self.resources = tuple(resources)
        self._by_plural = {(item.group, item.version, item.plural): item for item in self.resources}
        self._by_kind = {(item.group, item.version, item.kind): item for item in self.resources}

    def find(self, group: str, version: str, plural: str) -> Resource | None:
        """By the words of a URL; None if not served."""
        return self._by_plural.get((group, version, plural))

    def by_kind(self, group: str, version: str, kind: str) -> Resource | None:
        """By the words of an object; None if not served."""
        return self._by_kind.get((group, version, kind))

    def groups(self) -> tuple[ApiGroup, ...]:
        """All groups, the core group first, then by name; versions in order of preference."""
        names = sorted({item.group for item in self.resources})
        return tuple(ApiGroup(name, tuple(self._versions(name))) for name in names)

    def _versions(self, group: str) -> list[str]:
        versions = {item.version for item in self.resources if item.group == group}
        return sorted(versions, key=version_priority)

    def in_version(self, group: str, version: str) -> tuple[Resource, ...]:
        """The resources of one group and version, by name."""
        return tuple(item for item in self.resources if (item.group, item.version) == (group, version))


def version_priority(version: str) -> tuple[int, int, int, str]:
    """Sorts stable before beta before alpha, newer before older (k8s.io/apimachinery/pkg/version)."""
    stages = {"": 0, "beta": 1, "alpha": 2}
    for stage in ("beta", "alpha", ""):
        major, found, minor = version.removeprefix("v").partition(stage) if stage else (version[1:], "", "")
        if major.isdigit() and (not stage or found) and (not minor or minor.isdigit()):
            return stages[stage], -int(major), -int(minor or 0), version
    return 3, 0, 0, version


BUILT_IN: Final = Catalog(RESOURCES)
find = BUILT_IN.find
by_kind = BUILT_IN.by_kind
groups = BUILT_IN.groups
