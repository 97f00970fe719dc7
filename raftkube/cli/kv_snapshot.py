"""`raftkube kv snapshot save|status|restore`, in etcdctl's and etcdutl's manner."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from raftkube.cli.kv_connect import KvCommand, call, output_format

if TYPE_CHECKING:
    from raftkube.store.client import StoreClient
    from raftkube.store.core.backup import BackupStatus

BUMP_REVISION = 1_000_000_000


@click.group()
def snapshot() -> None:
    """Backups of the store, and new clusters made of them."""


@snapshot.command("save", cls=KvCommand)
@click.argument("file")
@click.option(
    "--consistency",
    type=click.Choice(["l", "s"]),
    default="l",
    help="s: what the member asked has applied; needs no majority.",
)
def save(file: str, consistency: str) -> None:
    """Write a backup of the whole store to FILE, in one step: it is whole or not there.

    Without --command-timeout it takes as long as it takes.
    """
    from raftkube.cli.kv_print import write_json, write_text
    from raftkube.files import NewFile

    given = click.get_current_context().ensure_object(dict)
    with NewFile(file) as target:

        async def receive(client: StoreClient) -> None:
            await client.snapshot(target.write, linearizable=consistency == "l")

        _explained(lambda: call(receive, forever=given.get("command_timeout") is None), file)
        status = _check(target.reader().read, file)
        target.publish()
    if output_format() == "json":
        write_json(status._asdict())
    else:
        write_text(f"Snapshot saved at {file}", f"revision {status.revision}, {status.total_keys} keys")


def _explained(receive: Callable[[], Any], file: str) -> None:
    from raftkube.errors import ConfigError

    try:
        receive()
    except OSError as error:
        raise ConfigError(f"{file!r} cannot be written: {error.strerror}") from error


def _check(read: Callable[[int], bytes], file: str) -> BackupStatus:
    from raftkube.errors import BackupDamaged
    from raftkube.store.core.backup import check_backup

    try:
        return check_backup(read)
    except BackupDamaged as error:
        raise BackupDamaged(f"{file!r} is no whole backup: {error}") from error


@snapshot.command("status")
@click.argument("file")
@click.option("-w", "--write-out", "output", type=click.Choice(["simple", "json", "table"]), default="simple")
def status(file: str, output: str) -> None:
    """Check FILE to its last byte and say what it holds."""
    from raftkube.cli.kv_print import write_json, write_table, write_text
    from raftkube.files import open_file

    with open_file(file, what="the backup") as stream:
        found = _check(stream.read, file)
    fields = found._asdict()
    if output == "json":
        write_json(fields)
    elif output == "table":
        write_table(
            [name.upper().replace("_", " ") for name in fields], [[str(value) for value in fields.values()]]
        )
    else:
        write_text(", ".join(str(value) for value in fields.values()))


@snapshot.command("restore")
@click.argument("file")
@click.option("--name", required=True, help="The member whose directory is made, as in --initial-cluster.")
@click.option(
    "--initial-cluster", required=True, help="All members of the new cluster: name=host:peer-port,…"
)
@click.option("--initial-client-urls", help="Their client addresses: name=host:port,…")
@click.option(
    "--initial-cluster-token", default="raftkube", show_default=True, help="The new cluster's token."
)
@click.option("--data-dir", required=True, help="The directory to make; it must not exist, or be empty.")
@click.option(
    "--bump-revision",
    type=click.IntRange(1, 2**62),
    default=BUMP_REVISION,
    show_default=True,
    help="How far above the backup's the new cluster's revision begins: above any that was ever served.",
)
def restore(file: str, data_dir: str, bump_revision: int, **flags: Any) -> None:
    """Make the data directory of one member of a new cluster, with the backup's keys and leases.

    Run it once per member, with the same FILE. The new cluster has an id of its own; nobody can watch or
    read at a revision of the old one (they are compacted), and API servers make their clients list anew.
    """
    import trio

    from raftkube.cli.kv_print import write_text
    from raftkube.clock import SystemClock
    from raftkube.disk import SystemDisk
    from raftkube.errors import BackupDamaged, ConfigError
    from raftkube.files import open_file
    from raftkube.rng import system_rng
    from raftkube.store.server.backup import NewMember, read_state, write_member
    from raftkube.store.server.member import parse_members

    members = parse_members(flags["initial_cluster"], flag="--initial-cluster")
    clients = flags["initial_client_urls"]
    known = parse_members(clients, flag="--initial-client-urls") if clients else {}
    name = flags["name"]
    if name not in members:
        raise ConfigError(
            f"member {name!r} is not in --initial-cluster ({', '.join(sorted(members))}); add it"
        )
    _refuse_used(data_dir)
    with open_file(file, what="the backup") as stream:
        try:
            machine, sha256 = read_state(stream.read, bump_revision)
        except BackupDamaged as error:
            raise BackupDamaged(f"{file!r} is no whole backup: {error}; nothing was written") from error
    disk = SystemDisk(data_dir)
    try:
        new = NewMember(
            name=name, members=members, clients=known, token=flags["initial_cluster_token"], sha256=sha256
        )

        async def write() -> str:  # under trio, where the clock is
            return write_member(disk, machine, new, clock=SystemClock(), rng=system_rng())

        cluster_id = trio.run(write)
    except OSError as error:
        raise ConfigError(f"{data_dir!r} cannot be written: {error.strerror}; remove it") from error
    finally:
        disk.close()
    write_text(f"{data_dir}: member {name} of cluster {cluster_id}, at revision {machine.revision}")


def _refuse_used(data_dir: str) -> None:
    from raftkube.errors import ConfigError

    if os.path.exists(data_dir) and (not os.path.isdir(data_dir) or os.listdir(data_dir)):
        raise ConfigError(f"--data-dir {data_dir!r} exists and is not empty; name one that does not exist")
