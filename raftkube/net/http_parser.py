"""HTTP/1.1 requests out of bytes, without I/O: limits, framing rules, and nothing that smuggles.

llhttp (through httptools) reads the syntax; what it lets pass and we do not is checked here: a coding other
than `chunked`, an HTTP/1.0 body without a length, a missing or repeated Host (RFC 9112 §3.2, §6.1, §6.3).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import unquote_to_bytes

import httptools

from raftkube.api.status import ApiError
from raftkube.net import PeerIdentity
from raftkube.net.http import Request

_SINGLE: Final = frozenset(("host", "content-type", "authorization", "content-encoding"))
_REASONS: Final = {
    400: "BadRequest", 408: "Timeout", 413: "RequestEntityTooLarge", 417: "ExpectationFailed",
    431: "RequestHeaderFieldsTooLarge", 501: "NotImplemented", 505: "HTTPVersionNotSupported",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """What one connection may cost. Bytes count as they came; the header time runs from a request's first
    byte, so that a client that dribbles is cut off."""

    header_bytes_max: int = 65_536
    header_count_max: int = 100
    body_bytes_max: int = 3 * 1024 * 1024  # upstream's MaxRequestBodyBytes
    header_timeout_s: float = 10.0
    body_timeout_s: float = 60.0
    idle_timeout_s: float = 120.0
    write_timeout_s: float = 60.0
    drain_timeout_s: float = 10.0


def http_error(code: int, message: str) -> ApiError:
    """An answer to bytes that are no acceptable request; the connection ends after it."""
    return ApiError(code, _REASONS.get(code, "BadRequest"), message)


@dataclass(slots=True)
class Head:
    """What stood before the body. `keep_alive` is the client's wish; `close_after` is our rule."""

    method: str
    target: str
    headers: dict[str, str]
    http_1_0: bool
    keep_alive: bool
    upgrade: bool
    expects_continue: bool


@dataclass(slots=True)
class Parsed:
    """A request that is complete. `early` holds what came behind an upgrade's head."""

    head: Head
    body: bytes
    early: bytes = b""


@dataclass(slots=True)
class RequestParser:
    """Feed it bytes; take `Parsed` out of `requests` in order. `head` is set while a body is awaited.

    When `error` is set, the bytes after `requests` are no request: it is answered last, then the connection
    must end.
    """

    limits: HttpLimits
    requests: deque[Parsed] = field(default_factory=deque)
    error: ApiError | None = None
    head: Head | None = None
    started: bool = False  # some byte of an incomplete request is here
    _target: bytearray = field(default_factory=bytearray)
    _headers: dict[str, str] = field(default_factory=dict)
    _header_count: int = 0
    _fed: int = 0
    _body: list[bytes] = field(default_factory=list)
    _body_bytes: int = 0
    _parser: httptools.HttpRequestParser = field(init=False)

    def __post_init__(self) -> None:
        self._parser = httptools.HttpRequestParser(self)

    def feed(self, data: bytes) -> None:
        """Take what the socket gave; nothing after an error."""
        if self.error is not None:
            return
        self.started = True
        self._fed += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            if self.requests and upgrade.args:
                self.requests[-1].early = data[upgrade.args[0] :]
        except httptools.HttpParserError as error:
            self.error = self.error or _syntax_error(error)
        if self.head is None and self.started and self._fed > self.limits.header_bytes_max:
            self.error = self.error or self._too_many_headers()

    @property
    def awaits_head(self) -> bool:
        """A head has begun and is not complete."""
        return self.started and self.head is None and not self.requests and self.error is None

    @property
    def awaits_body(self) -> bool:
        """A head is complete and its body is not."""
        return self.head is not None and not self.requests and self.error is None

    # httptools calls these ------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self.started = True
        self._target.clear()
        self._headers = {}
        self._header_count = 0
        self._body = []
        self._body_bytes = 0

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._header_count += 1
        if self._header_count > self.limits.header_count_max:
            self._refuse(self._too_many_headers())
        if self.head is not None:
            return  # a trailer: counted and dropped (RFC 9110 §6.5.1 allows that)
        key = name.decode("latin-1").lower()
        text = value.decode("latin-1").strip()
        if key in self._headers:
            if key in _SINGLE:
                self._refuse(http_error(400, f"the header {key} must not be repeated"))
            text = f"{self._headers[key]}, {text}"
        self._headers[key] = text

    def on_headers_complete(self) -> None:
        parser, headers = self._parser, self._headers
        version = parser.get_http_version()
        error = framing_error(version, headers, self.limits)
        if error is not None:
            self._refuse(error)
        self.head = Head(
            method=parser.get_method().decode("ascii"),
            target=self._target.decode("latin-1"),
            headers=headers,
            http_1_0=version == "1.0",
            keep_alive=parser.should_keep_alive(),
            upgrade=parser.should_upgrade(),
            expects_continue=headers.get("expect", "").lower() == "100-continue" and version == "1.1",
        )

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        if self._body_bytes > self.limits.body_bytes_max:
            self._refuse(too_large(self.limits))
        self._body.append(body)

    def on_message_complete(self) -> None:
        head, self.head = self.head, None
        assert head is not None
        self.requests.append(Parsed(head, b"".join(self._body)))
        self._body = []
        self.started = False
        self._fed = 0

    def _refuse(self, error: ApiError) -> None:
        self.error = error
        raise error

    def _too_many_headers(self) -> ApiError:
        limits = self.limits
        return http_error(
            431,
            f"a head may have {limits.header_bytes_max} bytes and {limits.header_count_max} headers",
        )


def too_large(limits: HttpLimits) -> ApiError:
    """413 in upstream's words."""
    return http_error(413, f"Request entity too large: limit is {limits.body_bytes_max}")


def framing_error(version: str, headers: dict[str, str], limits: HttpLimits) -> ApiError | None:
    """What is wrong with where this request would end, or None."""
    if version not in ("1.0", "1.1"):
        return http_error(505, "only HTTP/1.0 and HTTP/1.1 are spoken here")
    if version == "1.1" and "host" not in headers:
        return http_error(400, "a request needs the header Host")
    coding = headers.get("transfer-encoding")
    if coding is not None:
        if version == "1.0" or "content-length" in headers:
            return http_error(400, "Transfer-Encoding must not come with Content-Length or HTTP/1.0")
        if coding.lower() != "chunked":
            return http_error(501, "the only transfer coding known here is chunked")
    length = headers.get("content-length", "0")
    if not (length.isascii() and length.isdigit()):
        return http_error(400, "Content-Length must be one decimal number")
    if int(length) > limits.body_bytes_max:
        return too_large(limits)
    if headers.get("expect", "100-continue").lower() != "100-continue":
        return http_error(417, "the only expectation known here is 100-continue")
    return None


def _syntax_error(error: Exception) -> ApiError:
    text = str(error).replace("\n", " ")
    return http_error(400, f"the request is not valid HTTP/1.1: {text}")


def to_request(parsed: Parsed, peer: PeerIdentity | None) -> Request:
    """The request as handlers see it. Raises ApiError 400: a target that names no path."""
    target = parsed.head.target
    if not target.startswith("/"):  # absolute form (RFC 9112 §3.2.2)
        scheme, separator, rest = target.partition("://")
        if not separator or scheme.lower() not in ("http", "https"):
            raise http_error(400, "the request target must be a path or an http(s) URL")
        slash = rest.find("/")
        target = rest[slash:] if slash >= 0 else "/"
    raw_path, _, query = target.partition("?")
    path = raw_path
    if "%" in raw_path or not raw_path.isascii():
        try:
            path = unquote_to_bytes(raw_path.encode("latin-1")).decode("utf-8")
        except UnicodeDecodeError as error:
            raise http_error(400, "the path is not UTF-8") from error
    return Request(parsed.head.method, path, query, parsed.head.headers, parsed.body, peer, raw_path=raw_path)
