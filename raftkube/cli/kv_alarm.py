"""`raftkube kv alarm …`."""

from __future__ import annotations

from typing import Any

import click

from raftkube.cli.kv_connect import KvCommand, call, output_format


class _Alarms(click.Group):
    command_class = KvCommand


@click.group(cls=_Alarms)
def alarm() -> None:
    """The alarms that are on. NOSPACE: the quota is used up, and puts are refused until it is disarmed."""


def _show(result: Any) -> None:
    from raftkube.cli.kv_print import write_json, write_text

    if output_format() == "json":
        alarms = [{"member": member, "alarm": name} for member, name in result.alarms]
        write_json({"header": {"revision": result.revision}, "alarms": alarms})
    else:
        write_text(*(f"member:{member} alarm:{name}" for member, name in result.alarms))


@alarm.command("list")
def list_alarms() -> None:
    """Print the alarms that are on."""
    _show(call(lambda client: client.alarms()))


@alarm.command("disarm")
def disarm() -> None:
    """Put out all alarms, once there is room again; prints those that were on."""
    _show(call(lambda client: client.alarm_disarm()))
