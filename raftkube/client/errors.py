"""Errors of a client of the API, beside the Status errors that a server answers with.

All are `ApiError`s, so that a loop that retries needs one except clause; `FencingTokenStale` ends it.
"""

from __future__ import annotations

from typing import Any, Final

import orjson

from raftkube.api.status import ApiError
from raftkube.errors import RaftkubeError
from raftkube.net.http_client import ClientResponse

FENCING_TOKEN_STALE: Final = "FencingTokenStale"


class Unreachable(ApiError):
    """Definite: no server was reached, nothing was sent (or it was a read)."""

    def __init__(self, message: str) -> None:
        super().__init__(503, "ServiceUnavailable", message)


class IndefiniteApiError(ApiError):
    """The write may have happened: the answer is missing, or says that the server does not know."""


class FencingTokenStale(ApiError):
    """Definite: another leader holds the Lease; whoever gets this must stop leading and exit."""


class LeadershipEnded(RaftkubeError):
    """This process led, and no longer does; it exits so that nothing of its state acts on."""


def error_of(reply: ClientResponse, *, write: bool) -> ApiError:
    """The ApiError that an answer of status 400 or more describes, whatever its body is.

    A 500 or 504 to a write is indefinite; 503 is definite ("definitely not done").
    """
    status = _status_body(reply)
    return from_status(status, code=reply.status, write=write, retry_after=reply.headers.get("retry-after"))


def from_status(
    status: dict[str, Any], *, code: int = 500, write: bool = False, retry_after: str | None = None
) -> ApiError:
    """The ApiError of a metav1.Status object."""
    code = int(status.get("code") or code)
    details = status.get("details") or {}
    cls: type[ApiError] = ApiError
    if write and code >= 500 and code not in (501, 503):
        cls = IndefiniteApiError
    elif code == 409 and any(cause.get("reason") == FENCING_TOKEN_STALE for cause in causes_of(details)):
        cls = FencingTokenStale
    error = ApiError.__new__(cls)
    ApiError.__init__(
        error,
        code,
        str(status.get("reason") or ""),
        str(status.get("message") or f"the server answered {code}"),
        details=details,
        retry_after_s=_seconds(retry_after) or details.get("retryAfterSeconds"),
    )
    return error


def causes_of(details: dict[str, Any]) -> list[dict[str, Any]]:
    """The causes in a Status' details; an empty list if there are none."""
    causes = details.get("causes")
    return [cause for cause in causes if isinstance(cause, dict)] if isinstance(causes, list) else []


def _status_body(reply: ClientResponse) -> dict[str, Any]:
    try:
        body = orjson.loads(reply.body)
    except orjson.JSONDecodeError:
        body = None
    if isinstance(body, dict) and body.get("kind") == "Status":
        return body
    return {"message": f"the server answered {reply.status}: {reply.body[:200].decode('utf-8', 'replace')}"}


def _seconds(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdigit() else None
