"""Event (core/v1)."""

from __future__ import annotations

from typing import Any

from raftkube.api import fields
from raftkube.api.field_selectors import text_at
from raftkube.api.objects import section
from raftkube.api.resource import Column, Object, Resource, Strategy
from raftkube.api.status import FieldError
from raftkube.api.tables import NAME, age


def _validate(event: Object) -> list[FieldError]:
    """The event lies in the namespace of what it is about; of cluster-scoped things, in `default`."""
    namespace = section(event, "metadata").get("namespace") or ""
    about = section(event, "involvedObject").get("namespace") or ""
    if namespace != about and not (about == "" and namespace in ("", "default")):
        return [fields.invalid("involvedObject.namespace", about, "does not match event.namespace")]
    return []


def _source(event: Object) -> str:
    return section(event, "source").get("component") or event.get("reportingComponent") or ""


def _row(event: Object, now: float) -> list[Any]:
    """pkg/printers/internalversion/printers.go, printEvent."""
    about, series = section(event, "involvedObject"), section(event, "series")
    first = age(event.get("firstTimestamp") or event.get("eventTime"), now)
    last = age(event["lastTimestamp"], now) if event.get("lastTimestamp") else first
    count = event.get("count") or 1
    if series:
        last, count = age(series.get("lastObservedTime"), now), series.get("count") or 0
    host = section(event, "source").get("host") or event.get("reportingInstance") or ""
    kind = (about.get("kind") or "").lower()
    return [
        last, event.get("type", ""), event.get("reason", ""),
        f"{kind}/{about['name']}" if about.get("name") else kind,
        about.get("fieldPath", ""),
        ", ".join(part for part in (_source(event), host) if part),
        (event.get("message") or "").strip(), first, count, event["metadata"].get("name", ""),
    ]  # fmt: skip


_ABOUT = ("kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath")

RESOURCE = Resource(
    group="", version="v1", kind="Event", plural="events", singular="event",
    namespaced=True, schema="io.k8s.api.core.v1.Event", short_names=("ev",),
    columns=(
        Column(
            "Last Seen",
            description="The time at which the most recent occurrence of this event was "
            "recorded.",
        ),
        Column(
            "Type",
            description="Type of this event (Normal, Warning), new types could be added in the "
            "future",
        ),
        Column("Reason", description="This should be a short, machine understandable string that gives the "
               "reason for the transition into the object's current status."),
        Column("Object", description="The object that this event is about."),
        Column("Subobject", description="If referring to a piece of an object, its field path.", priority=1),
        Column("Source", description="The component reporting this event.", priority=1),
        Column("Message", description="A human-readable description of the status of this operation."),
        Column("First Seen", description="The time at which the event was first recorded.", priority=1),
        Column("Count", description="The number of times this event has occurred.", priority=1),
        Column(NAME.name, format="name", description=NAME.description, priority=1),
    ),
    row=_row,
    field_selectors={
        **{f"involvedObject.{name}": text_at("involvedObject", name) for name in _ABOUT},
        "reason": text_at("reason"),
        "reportingComponent": text_at("reportingComponent"),
        "source": _source,
        "type": text_at("type"),
    },
    strategy=Strategy(validate=_validate, create_on_update=True),
)  # fmt: skip
