"""Finding free ports on loopback for servers that must know each other's before they start."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Container
from typing import Final

from raftkube.errors import ConfigError
from raftkube.rng import Rng

# Below Linux' ephemeral range (32768…), so that no outgoing connection takes a chosen port by chance.
_LOW: Final = 20_000
_HIGH: Final = 32_000
_TRIES: Final = 2_000


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Whether `port` can be bound at this moment."""
    with contextlib.closing(socket.socket(socket.AF_INET, socket.SOCK_STREAM)) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((host, port))
        except OSError:
            return False
    return True


def free_port(rng: Rng, taken: Container[int], host: str = "127.0.0.1") -> int:
    """A port that is free now and not in `taken`. Raises ConfigError: none was found."""
    for _ in range(_TRIES):
        port = rng.randrange(_LOW, _HIGH)
        if port not in taken and is_free(port, host):
            return port
    raise ConfigError(f"no free port between {_LOW} and {_HIGH} on {host}")
