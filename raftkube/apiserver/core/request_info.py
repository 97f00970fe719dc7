"""What a request asks for, read out of its method, path and query.

Source: k8s.io/apiserver/pkg/endpoints/request/requestinfo.go.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote_to_bytes

from raftkube.api.names import path_segment_errors
from raftkube.api.status import ApiError, bad_request, path_not_found

_VERBS: Final = {
    "GET": "get", "HEAD": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete",
}  # fmt: skip
_NAMESPACE_SUBRESOURCES: Final = frozenset(("status", "finalize"))


@dataclass(frozen=True, slots=True)
class RequestInfo:
    """verb: get, list, watch, create, update, patch, delete, deletecollection; for paths that are no
    resource the method in lower case. For those only `path` is set beside it, without a trailing slash."""

    verb: str
    path: str
    group: str = ""
    version: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""

    @property
    def is_resource(self) -> bool:
        """Whether it names a resource."""
        return bool(self.resource)


def parse_request(method: str, raw_path: str, *, watch: bool) -> RequestInfo:
    """Of a request line. raw_path: as it came, percent-encoded; watch: the query asks for one.

    Raises ApiError: 400 a segment that no name can be, 404 a path too deep, 405 a method without verb.
    """
    segments = _segments(raw_path)
    path = "/" + "/".join(segments)
    group, version, rest = _group_version(segments)
    if not rest:
        return RequestInfo(method.lower(), path)
    if method not in _VERBS:
        raise ApiError(405, "MethodNotAllowed", f"the method {method} is not supported")
    namespace, rest = _namespace(rest)
    if len(rest) > 3:
        raise path_not_found()
    resource, name, subresource = (*rest, "", "", "")[:3]
    verb = _VERBS[method]
    if not name:
        verb = {"get": "watch" if watch else "list", "delete": "deletecollection"}.get(verb, verb)
    elif watch and verb == "get" and not subresource:
        verb = "watch"
    return RequestInfo(verb, path, group, version, resource, subresource, namespace, name)


def _segments(raw_path: str) -> list[str]:
    segments = [_decode(segment) for segment in raw_path.split("/")[1:]]
    while segments and not segments[-1]:
        segments.pop()  # a trailing slash is the same path
    for segment in segments:
        if not segment:
            raise path_not_found()
    return segments


def _decode(segment: str) -> str:
    try:
        text = unquote_to_bytes(segment.encode("latin-1")).decode("utf-8")
    except UnicodeDecodeError as error:
        raise bad_request("the path is not UTF-8") from error
    errors = [error for error in path_segment_errors(text) if text]
    if "\x00" in text:
        errors.append("may not contain a NUL character")
    if errors:
        shown = text.encode("unicode_escape").decode("ascii")
        raise bad_request(f'invalid path segment "{shown}": {"; ".join(errors)}')
    return text


def _group_version(segments: list[str]) -> tuple[str, str, list[str]]:
    """(group, version, what follows); nothing follows for paths that are no resource."""
    if len(segments) > 2 and segments[0] == "api":
        return "", segments[1], segments[2:]
    if len(segments) > 3 and segments[0] == "apis":
        return segments[1], segments[2], segments[3:]
    return "", "", []


def _namespace(rest: list[str]) -> tuple[str, list[str]]:
    """(namespace, resource and what follows). /namespaces/x is the resource itself, with x as name and
    as namespace, so that it is authorized like what lies in it."""
    if rest[0] != "namespaces" or len(rest) == 1:
        return "", rest
    if len(rest) > 2 and rest[2] not in _NAMESPACE_SUBRESOURCES:
        return rest[1], rest[2:]
    return rest[1], rest
