"""The parameters of requests, from the query string to checked values.

Source: k8s.io/apimachinery/pkg/apis/meta/v1/types.go (ListOptions, CreateOptions, …),
pkg/apis/meta/internalversion/validation/validation.go, pkg/conversion/queryparams.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qsl

from raftkube.api.fields import forbidden, not_supported
from raftkube.api.status import FieldError, bad_request, invalid

Params = dict[str, str]
_RESOURCE_VERSION_MAX: Final = 2**63 - 1
_FIELD_VALIDATIONS: Final = ("Ignore", "Warn", "Strict")
_PARAMETERS_MAX: Final = 100
MATCH_EXACT: Final = "Exact"
MATCH_NOT_OLDER: Final = "NotOlderThan"


def parse_query(query: str) -> Params:
    """The first value of each parameter. Raises ApiError 400: too many, or not UTF-8."""
    if not query:
        return {}
    try:
        pairs = parse_qsl(query, keep_blank_values=True, max_num_fields=_PARAMETERS_MAX, errors="strict")
    except ValueError as error:
        raise bad_request(f"the query cannot be read: {error}") from error
    params: Params = {}
    for name, value in pairs:
        params.setdefault(name, value)
    return params


def flag(params: Params, name: str) -> bool:
    """Present means true, except "0" and "false" in any case (queryparams: Convert_Slice_string_To_bool)."""
    value = params.get(name)
    return value is not None and value.lower() not in ("0", "false")


def integer(params: Params, name: str) -> int | None:
    """Raises ApiError 400: not an integer of 64 bits."""
    value = params.get(name)
    if not value:
        return None
    try:
        number = int(value) if value.isascii() and "_" not in value else None
    except ValueError:
        number = None
    if number is None or not -(2**63) <= number < 2**63:
        raise bad_request(f'{name}: "{value}" is not an integer')
    return number


def parse_resource_version(text: str) -> int:
    """Raises ApiError 400: not a decimal number."""
    if not (text.isascii() and text.isdigit()) or int(text) > _RESOURCE_VERSION_MAX:
        raise bad_request(f'resourceVersion: Invalid value: "{text}": it must be a decimal number')
    return int(text)


@dataclass(frozen=True, slots=True)
class ListOptions:
    """Of list and watch. resource_version None: unset, the newest is meant; timeout_s of a watch."""

    label_selector: str = ""
    field_selector: str = ""
    resource_version: int | None = None
    match: str = ""
    limit: int = 0
    continue_: str = ""
    timeout_s: int | None = None
    allow_bookmarks: bool = False
    send_initial_events: bool | None = None


def list_options(params: Params, *, watch: bool) -> ListOptions:
    """Raises ApiError: 400 a value of the wrong form, 422 parameters that do not go together."""
    version = params.get("resourceVersion")
    options = ListOptions(
        label_selector=params.get("labelSelector", ""),
        field_selector=params.get("fieldSelector", ""),
        resource_version=parse_resource_version(version) if version else None,
        match=params.get("resourceVersionMatch", ""),
        limit=max(integer(params, "limit") or 0, 0),
        continue_=params.get("continue", ""),
        timeout_s=integer(params, "timeoutSeconds"),
        allow_bookmarks=flag(params, "allowWatchBookmarks"),
        send_initial_events=flag(params, "sendInitialEvents") if params.get("sendInitialEvents") else None,
    )
    errors = _watch_errors(options) if watch else _list_errors(options)
    if errors:
        raise invalid("meta.k8s.io", "ListOptions", "", errors)
    return options


def _list_errors(options: ListOptions) -> list[FieldError]:
    errors: list[FieldError] = []
    if options.send_initial_events is not None:
        errors.append(forbidden("sendInitialEvents", "sendInitialEvents is forbidden for list"))
    if not options.match:
        if options.continue_ and options.resource_version:
            raise bad_request("specifying resource version is not allowed when using continue")
        return errors
    text = "resourceVersionMatch is forbidden"
    if options.resource_version is None:
        errors.append(forbidden("resourceVersionMatch", f"{text} unless resourceVersion is provided"))
    if options.continue_:
        errors.append(forbidden("resourceVersionMatch", f"{text} when continue is provided"))
    if options.match not in (MATCH_EXACT, MATCH_NOT_OLDER):
        errors.append(
            not_supported("resourceVersionMatch", options.match, (MATCH_EXACT, MATCH_NOT_OLDER, ""))
        )
    if options.match == MATCH_EXACT and options.resource_version == 0:
        text = 'resourceVersionMatch "Exact" is forbidden for resourceVersion "0"'
        errors.append(forbidden("resourceVersionMatch", text))
    return errors


def _watch_errors(options: ListOptions) -> list[FieldError]:
    match, initial = options.match, options.send_initial_events
    if initial is None:
        if match:
            text = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided"
            return [forbidden("resourceVersionMatch", text)]
        return []
    errors: list[FieldError] = []
    if match != MATCH_NOT_OLDER:
        text = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"
        errors.append(forbidden("resourceVersionMatch", text))
    if options.continue_:
        errors.append(forbidden("continue", "continue is forbidden for watch"))
    return errors


@dataclass(frozen=True, slots=True)
class WriteOptions:
    """Of create, update and patch. field_validation: Ignore, Warn or Strict."""

    dry_run: bool = False
    field_validation: str = "Warn"
    field_manager: str = ""
    force: bool = False


def write_options(params: Params, kind: str) -> WriteOptions:
    """kind: CreateOptions, UpdateOptions or PatchOptions, for messages. Raises ApiError 422."""
    errors: list[FieldError] = []
    dry_run = params.get("dryRun", "")
    if dry_run not in ("", "All"):
        errors.append(not_supported("dryRun", dry_run, ("All",)))
    validation = params.get("fieldValidation") or "Warn"
    if validation not in _FIELD_VALIDATIONS:
        errors.append(not_supported("fieldValidation", validation, _FIELD_VALIDATIONS))
    if errors:
        raise invalid("meta.k8s.io", kind, "", errors)
    return WriteOptions(bool(dry_run), validation, params.get("fieldManager", ""), flag(params, "force"))


def delete_body(params: Params) -> dict[str, Any]:
    """What the query says of DeleteOptions; the body, if there is one, wins over it as a whole."""
    body: dict[str, Any] = {}
    if (grace := integer(params, "gracePeriodSeconds")) is not None:
        body["gracePeriodSeconds"] = grace
    if params.get("propagationPolicy"):
        body["propagationPolicy"] = params["propagationPolicy"]
    if "orphanDependents" in params:
        body["orphanDependents"] = flag(params, "orphanDependents")
    if params.get("dryRun"):
        body["dryRun"] = [params["dryRun"]]
    return body
