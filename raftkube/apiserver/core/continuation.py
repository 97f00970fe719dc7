"""The `continue` token of paged lists: opaque to clients, pinned to the first page's revision.

Source: k8s.io/apiserver/pkg/storage/continue.go.
"""

from __future__ import annotations

import base64
import binascii
from typing import Final, NamedTuple

import orjson

from raftkube.api.status import ApiError, bad_request, expired

_FORMAT: Final = "raftkube/v1"
INCONSISTENT: Final = -1  # continue at the newest revision: a client chose that after a 410


class Continuation(NamedTuple):
    """revision: the pinned one, or INCONSISTENT; start: the store key to go on from, inclusive."""

    revision: int
    start: bytes


def encode(continuation: Continuation, prefix: str) -> str:
    """The token. prefix: of all keys of the list, which the token must not carry."""
    start = continuation.start.decode()
    assert start.startswith(prefix)
    raw = orjson.dumps({"v": _FORMAT, "rv": continuation.revision, "start": start.removeprefix(prefix)})
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


def decode(token: str, prefix: str) -> Continuation:
    """Raises ApiError 400: not a token of ours (a forged one can name no key outside `prefix`)."""
    try:
        raw = orjson.loads(base64.urlsafe_b64decode(token.encode("ascii") + b"=" * (-len(token) % 4)))
        version, revision, start = raw["v"], raw["rv"], raw["start"]
    except (ValueError, binascii.Error, KeyError, TypeError) as error:
        raise _invalid() from error
    if version != _FORMAT or type(revision) is not int or type(start) is not str:
        raise _invalid()
    if revision < INCONSISTENT or revision == 0 or not start or start.startswith("/") or len(start) > 1_000:
        raise _invalid()
    return Continuation(revision, (prefix + start).encode())


def _invalid() -> ApiError:
    return bad_request("continue key is not valid: start the list again without it")


def continuation_expired(token: Continuation, prefix: str) -> ApiError:
    """410 for a page whose revision is compacted, with a token to go on inconsistently."""
    again = encode(token._replace(revision=INCONSISTENT), prefix)
    error = expired(
        "The provided continue parameter is too old to display a consistent list result. You can start a "
        "new list without the continue parameter, or use the continue token in this response to retrieve "
        "the remainder of the results. Continuing with the provided token results in an inconsistent list "
        "- objects that were created, modified, or deleted between the time the first chunk was returned "
        "and now may show up in the list."
    )
    return ExpiredContinuation(error, again)


class ExpiredContinuation(ApiError):
    """A 410 whose Status carries the inconsistent continuation in its metadata."""

    def __init__(self, error: ApiError, token: str) -> None:
        super().__init__(error.code, error.reason, error.message, details=error.details)
        self.token = token

    def status(self) -> dict[str, object]:
        """The Status with metadata.continue."""
        return {**super().status(), "metadata": {"continue": self.token}}
