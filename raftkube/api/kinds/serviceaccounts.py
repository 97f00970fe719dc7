"""ServiceAccount."""

from __future__ import annotations

from typing import Any

from raftkube.api.objects import items
from raftkube.api.resource import Column, Object, Resource
from raftkube.api.tables import AGE, NAME, created


def _row(account: Object, now: float) -> list[Any]:
    return [account["metadata"].get("name", ""), len(items(account, "secrets")), created(account, now)]


RESOURCE = Resource(
    group="", version="v1", kind="ServiceAccount", plural="serviceaccounts", singular="serviceaccount",
    namespaced=True, schema="io.k8s.api.core.v1.ServiceAccount", short_names=("sa",),
    columns=(
        NAME,
        Column("Secrets", description="Secrets is a list of the secrets in the same namespace that pods "
               "running using this ServiceAccount are allowed to use."),
        AGE,
    ),
    row=_row,
)  # fmt: skip
