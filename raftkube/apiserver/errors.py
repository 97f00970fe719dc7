"""What a failure of the storage means to an API client.

Definite failures say that nothing happened and when to come again; indefinite ones are 504 Timeout, as
upstream's when etcd does not answer in time: the client reads again before it decides.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from raftkube.api.status import ApiError, expired, internal_error, timeout, too_many_requests, unavailable
from raftkube.errors import (
    Compacted,
    Indefinite,
    NoSpace,
    Overloaded,
    RequestTooLarge,
    StoreError,
    TooManyOperations,
)

_UNKNOWN_OUTCOME = "the outcome of the request is unknown, it may have been carried out: read again"


def from_store(error: StoreError) -> ApiError:
    """The Status for `error`."""
    match error:
        case Indefinite():
            return timeout(f"{_UNKNOWN_OUTCOME} ({error.message})")
        case RequestTooLarge() | TooManyOperations():
            return ApiError(413, "RequestEntityTooLarge", f"Request entity too large: {error.message}")
        case NoSpace():
            # Upstream passes etcd's text on as a 500 without a reason. This says the same by its code.
            return ApiError(507, "InsufficientStorage", f"the store is full: {error.message}")
        case Overloaded():
            retry_after_s = max(1, round(float(error.fields.get("retry_after_s") or 1)))
            return too_many_requests(f"the store is overloaded: {error.message}", retry_after_s)
        case Compacted():
            return expired("The resourceVersion for the provided list is too old.")
        case _ if error.code in ("invalid_request", "duplicate_key", "lease_exists"):
            return internal_error(f"the store refused the request: {error.message}")
        case _:
            return unavailable(f"the store is not available: {error.message}")


@contextmanager
def store_errors() -> Iterator[None]:
    """Turns StoreError into ApiError."""
    try:
        yield
    except StoreError as error:
        raise from_store(error) from error
