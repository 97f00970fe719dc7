"""A whole cluster moves to another authority while it serves: nobody restarts, and the old one ends."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from monitored import PEER, Certificates, get, members, scrape, until, value

from raftkube.clock import SystemClock
from raftkube.cluster.certificates import Authority
from raftkube.errors import StoreError
from raftkube.net import TlsFiles
from raftkube.store.client import StoreClient

NAMES = ("store-1", "store-2", "store-3")


def reissue(certificates: Certificates, authority: Authority) -> None:
    """New pairs for every member, of `authority`, in the files that they have."""
    for name in NAMES:
        hosts = (name, "127.0.0.1", "localhost")
        issued = authority.issue(name, organizations=(PEER,), hosts=hosts, server=True)
        issued.write(certificates.directory, name)


def client_of(authority: Authority, certificates: Certificates, name: str) -> TlsFiles:
    issued = authority.issue(name, organizations=("raftkube:store-admin",))
    return TlsFiles(certificates.ca, *issued.write(certificates.directory, name))


async def test_a_cluster_changes_its_authority_without_a_restart(tmp_path: Path) -> None:
    certificates = Certificates(tmp_path)
    old, new = certificates.authority, Authority.create("store-ca-2", SystemClock())
    trusted = Path(certificates.ca)
    old_admin = client_of(old, certificates, "old-admin")
    files = {name: certificates.member(name) for name in NAMES}
    async with members(tmp_path, NAMES, tls=files.__getitem__) as running:
        async with running.client(old_admin) as client:
            await client.put(b"k", b"of the old")
            trusted.write_bytes(old.certificate_pem + new.certificate_pem)
            reissue(certificates, new)
            trusted.write_bytes(new.certificate_pem)
            await client.put(b"k", b"on a connection from before")
        new_admin = client_of(new, certificates, "new-admin")
        async with running.client(new_admin) as client:
            await client.put(b"k", b"of the new")
            # One that comes back greets the others, and they it, with the new certificates.
            name = (await client.status())["leader"]
            await running.stop(name)
            await client.put(b"k", b"without it")
            await running.start(name)
            revision = (await client.status())["revision"]

            async def caught_up() -> bool:
                families = await scrape(running.metrics(name), new_admin)
                return value(families, "etcd_debugging_mvcc_current_revision") == revision

            await until(caught_up)
            kept = await client.get(b"k")
            assert kept is not None
            assert kept.value == b"without it"
        for name in NAMES:
            assert (await get(running.metrics(name), "/livez", new_admin))[0] == 200
            bound = running.bound[name]
            with pytest.raises((StoreError, OSError)):
                async with StoreClient.open(
                    running.network, [bound.client], old_admin, name="old", pinned=True
                ) as late:
                    with trio.fail_after(10):
                        await late.status()
