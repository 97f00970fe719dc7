"""TLS contexts from PEM files, made anew when a file is replaced: certificates rotate without a restart.

Each handshake looks at the files (three stat calls). A connection keeps what it began with; the next one
uses what the files hold then. While they hold nothing usable (a certificate without its key yet, half a
file), the last pair that could be used serves on, and a warning says so once.
"""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass

import structlog

from raftkube.errors import ConfigError
from raftkube.net import TlsFiles

log = structlog.get_logger(__name__)

# Of each file: change and modification time, size, inode; a replaced, rewritten or relinked file differs.
_Stamp = tuple[tuple[int, int, int, int], ...]


@dataclass(slots=True)
class _Made:
    context: ssl.SSLContext
    stamp: _Stamp
    refused: _Stamp | None = None  # what the files were when they could not be used


class TlsContexts:
    """One context for each set of files and side."""

    def __init__(self) -> None:
        self._made: dict[tuple[TlsFiles, bool], _Made] = {}

    def get(self, tls: TlsFiles, *, server: bool) -> ssl.SSLContext:
        """The context of what the files hold now. Raises ConfigError: they never were usable."""
        files = [name for name in (tls.ca_file, tls.cert_file, tls.key_file) if name]
        made = self._made.get((tls, server))
        stamp: _Stamp = ()
        try:
            stamp = tuple([_stamp(name) for name in files])
            if made is not None and stamp in (made.stamp, made.refused):
                return made.context
            context = _make_context(tls, server=server)
        except (OSError, ssl.SSLError) as error:
            if made is None:
                raise ConfigError(f"TLS files {', '.join(files)} cannot be used: {error}") from error
            if made.refused != stamp:
                log.warning("tls_files_unusable", files=files, error=str(error))
                made.refused = stamp
            return made.context
        if made is not None:
            log.info("tls_files_reloaded", files=files)
        self._made[tls, server] = _Made(context, stamp)
        return context


def _stamp(name: str) -> tuple[int, int, int, int]:
    seen = os.stat(name)
    return seen.st_ctime_ns, seen.st_mtime_ns, seen.st_size, seen.st_ino


def _make_context(tls: TlsFiles, *, server: bool) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if tls.ca_file:
        context.load_verify_locations(tls.ca_file)
    elif not server:
        context.load_default_certs()
    if tls.cert_file:
        context.load_cert_chain(tls.cert_file, tls.key_file)
    if server:
        wanted = ssl.CERT_REQUIRED if tls.require_peer else ssl.CERT_OPTIONAL
        context.verify_mode = wanted if tls.ca_file else ssl.CERT_NONE
    return context
