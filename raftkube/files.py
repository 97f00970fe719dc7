"""The door to ordinary files: configuration, certificates, kubeconfigs. Durable data goes through `disk`."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import BinaryIO

from raftkube.errors import ConfigError


def read_file(path: str | Path, *, what: str) -> bytes:
    """The bytes of `path`. Raises ConfigError that says `what` could not be read and why."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"{what} {str(path)!r} cannot be read: {error.strerror}") from error


def open_file(path: str | Path, *, what: str) -> BinaryIO:
    """`path` for reading. Raises ConfigError that says `what` could not be read and why."""
    try:
        return Path(path).open("rb")
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


class NewFile:
    """`path` in the making: written as `path`.part, and renamed once it is whole and durable.

    Raises ConfigError from its methods: the file cannot be written. As a context manager it leaves nothing
    behind but a published file.
    """

    def __init__(self, path: str | Path, *, mode: int = 0o600) -> None:
        self._path = Path(path)
        self.part = self._path.with_name(self._path.name + ".part")
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
            self._stream = os.fdopen(os.open(self.part, flags, mode), "w+b")
        except OSError as error:
            raise ConfigError(f"{str(self.part)!r} cannot be written: {error.strerror}") from error

    def __enter__(self) -> NewFile:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._stream.close()
        self.part.unlink(missing_ok=True)

    def write(self, data: bytes) -> None:
        """Add `data`. Raises OSError."""
        self._stream.write(data)

    def reader(self) -> BinaryIO:
        """What was written, from the beginning."""
        self._stream.flush()
        self._stream.seek(0)
        return self._stream

    def publish(self) -> None:
        """Make it durable and give it its name."""
        try:
            self._stream.flush()
            os.fsync(self._stream.fileno())
            os.rename(self.part, self._path)
            directory = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)
        except OSError as error:
            raise ConfigError(f"{str(self._path)!r} cannot be written: {error.strerror}") from error
