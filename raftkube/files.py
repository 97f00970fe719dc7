"""The door to ordinary files: configuration, certificates, kubeconfigs. Durable data goes through `disk`."""

from __future__ import annotations

import os
from pathlib import Path

from raftkube.errors import ConfigError


def read_file(path: str | Path, *, what: str) -> bytes:
    """The bytes of `path`. Raises ConfigError that says `what` could not be read and why."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"{what} {str(path)!r} cannot be read: {error.strerror}") from error


def write_file(path: str | Path, data: bytes, *, mode: int = 0o600) -> None:
    """Replace `path` by `data` in one step, with `mode`; parents are made with 0700.

    Raises ConfigError: it cannot be written.
    """
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
        os.replace(temporary, target)
    except OSError as error:
        raise ConfigError(f"{str(target)!r} cannot be written: {error.strerror}") from error
