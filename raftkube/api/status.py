"""API errors: each is a `metav1.Status` with upstream's reason, code and wording.

Source: k8s.io/apimachinery/pkg/api/errors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class FieldError:
    """One thing that is wrong with an object. `reason` is upstream's cause type (FieldValueInvalid,
    FieldValueRequired, FieldValueForbidden, FieldValueNotSupported, FieldValueDuplicate, …);
    `message` is the text after the field, e.g. `Invalid value: "x": must be …`."""

    field: str
    reason: str
    message: str

    def __str__(self) -> str:
        return f"{self.field}: {self.message}"


class ApiError(Exception):
    """An answer that is an error. `status()` is its body."""

    def __init__(
        self,
        code: int,
        reason: str,
        message: str,
        *,
        details: dict[str, Any] | None = None,
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.details = dict(details or {})
        self.retry_after_s = retry_after_s
        if retry_after_s is not None:
            self.details["retryAfterSeconds"] = retry_after_s

    def status(self) -> dict[str, Any]:
        """The metav1.Status object."""
        body: dict[str, Any] = {
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "reason": self.reason,
        }  # fmt: skip
        if self.details:
            body["details"] = self.details
        body["code"] = self.code
        return body


def _about(group: str, resource: str, name: str, **more: Any) -> dict[str, Any]:
    details: dict[str, Any] = {}
    if name:
        details["name"] = name
    if group:
        details["group"] = group
    if resource:
        details["kind"] = resource
    return details | more


def _qualified(group: str, resource: str) -> str:
    return f"{resource}.{group}" if group else resource


def bad_request(message: str) -> ApiError:
    """400: the request cannot be understood."""
    return ApiError(400, "BadRequest", message)


def unauthorized() -> ApiError:
    """401: who are you?"""
    return ApiError(401, "Unauthorized", "Unauthorized")


def forbidden(group: str, resource: str, name: str, why: str) -> ApiError:
    """403: known, but not allowed."""
    quoted = f' "{name}"' if name else ""
    return ApiError(
        403, "Forbidden", f"{_qualified(group, resource)}{quoted} is forbidden: {why}",
        details=_about(group, resource, name),
    )  # fmt: skip


def not_found(group: str, resource: str, name: str) -> ApiError:
    """404: no such object."""
    return ApiError(
        404, "NotFound", f'{_qualified(group, resource)} "{name}" not found',
        details=_about(group, resource, name),
    )  # fmt: skip


def path_not_found(asked_for: str = "") -> ApiError:
    """404: no such path. asked_for: what lies there in servers that have it, e.g. `jobs in batch/v1`."""
    missing = f" (not served here: {asked_for})" if asked_for else ""
    return ApiError(404, "NotFound", f"the server could not find the requested resource{missing}")


def method_not_supported(group: str, resource: str, verb: str, *, subresource: str = "") -> ApiError:
    """405: the resource exists and does not know this verb."""
    kind = _qualified(group, resource) + (f"/{subresource}" if subresource else "")
    return ApiError(
        405, "MethodNotAllowed", f'{verb} is not supported on resources of kind "{kind}"',
        details=_about(group, resource, ""),
    )  # fmt: skip


def not_acceptable(accepted: Sequence[str]) -> ApiError:
    """406: no representation that the client takes."""
    return ApiError(
        406, "NotAcceptable", "only the following media types are accepted: " + ", ".join(accepted)
    )


def unsupported_media_type(accepted: Sequence[str]) -> ApiError:
    """415: the body's type is not read here."""
    return ApiError(
        415,
        "UnsupportedMediaType",
        "the body of the request was in an unknown format - accepted media types include: "
        + ", ".join(accepted),
    )


def already_exists(group: str, resource: str, name: str) -> ApiError:
    """409: create of a name that is taken."""
    return ApiError(
        409, "AlreadyExists", f'{_qualified(group, resource)} "{name}" already exists',
        details=_about(group, resource, name),
    )  # fmt: skip


def conflict(group: str, resource: str, name: str, why: str, **details: Any) -> ApiError:
    """409: the object changed, or a precondition does not hold."""
    return ApiError(
        409, "Conflict", f'Operation cannot be fulfilled on {_qualified(group, resource)} "{name}": {why}',
        details=_about(group, resource, name, **details),
    )  # fmt: skip


OBJECT_MODIFIED = (
    "the object has been modified; please apply your changes to the latest version and try again"
)


def expired(message: str, **more: Any) -> ApiError:
    """410: the asked resourceVersion is compacted."""
    return ApiError(410, "Expired", message, details=more or None)


def invalid(group: str, kind: str, name: str, errors: Sequence[FieldError]) -> ApiError:
    """422: the object breaks rules; every one is listed."""
    texts = [str(error) for error in errors]
    joined = texts[0] if len(texts) == 1 else "[" + ", ".join(texts) + "]"
    causes = [{"reason": e.reason, "message": e.message, "field": e.field} for e in errors]
    return ApiError(
        422, "Invalid", f'{kind}{"." + group if group else ""} "{name}" is invalid: {joined}',
        details=_about(group, kind, name, causes=causes),
    )  # fmt: skip


def too_many_requests(message: str, retry_after_s: int) -> ApiError:
    """429: later."""
    return ApiError(429, "TooManyRequests", message, retry_after_s=retry_after_s)


def internal_error(message: str) -> ApiError:
    """500: a bug of ours."""
    return ApiError(500, "InternalError", f"Internal error occurred: {message}")


def unavailable(message: str) -> ApiError:
    """503: definitely not done; try again."""
    return ApiError(503, "ServiceUnavailable", message, retry_after_s=1)


def timeout(message: str, *, retry_after_s: int | None = None, **details: Any) -> ApiError:
    """504: it may have happened (a write whose outcome is unknown), or a resourceVersion is ahead of us.

    `retry_after_s` only if nothing was written: clients such as client-go then send the same again unasked.
    """
    return ApiError(504, "Timeout", message, details=details or None, retry_after_s=retry_after_s)
