"""Which resources the API server serves, asked of its discovery: the garbage collector and the namespace
controller act on all of them, also on those that nobody here has heard of."""

from __future__ import annotations

from typing import Any, NamedTuple

from raftkube.client.endpoints import EVENTS, Endpoint
from raftkube.client.rest import RestClient


class Served(NamedTuple):
    """A resource and what may be done with it."""

    endpoint: Endpoint
    verbs: frozenset[str]

    @property
    def collectable(self) -> bool:
        """Whether its objects may own or be owned. Events come and go by themselves."""
        is_event = self.endpoint.plural == EVENTS.plural
        return not is_event and self.verbs >= {"list", "watch", "delete"}


async def discover(client: RestClient) -> list[Served]:
    """Every resource of every group, in the version that the server prefers. Raises ApiError."""
    found = _resources("", "v1", await client.request("GET", "/api/v1"))
    groups = await client.request("GET", "/apis")
    for group in groups.get("groups") or ():
        preferred = group["preferredVersion"]["version"]
        path = f"/apis/{group['name']}/{preferred}"
        found += _resources(group["name"], preferred, await client.request("GET", path))
    return found


def _resources(group: str, version: str, listed: dict[str, Any]) -> list[Served]:
    return [
        Served(
            Endpoint(group, version, item["name"], item["kind"], bool(item["namespaced"])),
            frozenset(item.get("verbs") or ()),
        )
        for item in listed.get("resources") or ()
        if "/" not in item["name"]
    ]
