"""Names, labels and annotations: what their texts may be, in upstream's words.

Each `…_errors` function returns the details of what is wrong, [] if nothing.
Source: k8s.io/apimachinery/pkg/util/validation, pkg/api/validation, pkg/apis/meta/v1/validation.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from raftkube.api.fields import invalid, too_long
from raftkube.api.status import FieldError

ANNOTATIONS_BYTES_MAX: Final = 256 * 1024
_LABEL: Final = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN: Final = _LABEL + r"(\." + _LABEL + ")*"
_LABEL_1035: Final = "[a-z]([-a-z0-9]*[a-z0-9])?"
_QUALIFIED: Final = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
_LABEL_VALUE: Final = "(" + _QUALIFIED + ")?"
_CONFIG_KEY: Final = "[-._a-zA-Z0-9]+"
_ENV_NAME: Final = "[-._a-zA-Z][-._a-zA-Z0-9]*"

_LABEL_RE = re.compile(_LABEL)
_SUBDOMAIN_RE = re.compile(_SUBDOMAIN)
_LABEL_1035_RE = re.compile(_LABEL_1035)
_QUALIFIED_RE = re.compile(_QUALIFIED)
_LABEL_VALUE_RE = re.compile(_LABEL_VALUE)
_CONFIG_KEY_RE = re.compile(_CONFIG_KEY)
_PORT_NAME_RE = re.compile("[-a-z0-9]+")
_LETTER_RE = re.compile("[a-z]")


def _max_len(length: int) -> str:
    return f"must be no more than {length} bytes"


def regex_error(message: str, pattern: str, *examples: str) -> str:
    """`message` with examples and the expression, as upstream's RegexError."""
    if not examples:
        return f"{message} (regex used for validation is '{pattern}')"
    shown = " or ".join(f"'{example}', " for example in examples)
    return f"{message} (e.g. {shown}regex used for validation is '{pattern}')"


_LABEL_TEXT = regex_error(
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', "
    "and must start and end with an alphanumeric character",
    _LABEL, "my-name", "123-abc",
)  # fmt: skip
_SUBDOMAIN_TEXT = regex_error(
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', "
    "and must start and end with an alphanumeric character",
    _SUBDOMAIN, "example.com",
)  # fmt: skip
_LABEL_1035_TEXT = regex_error(
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an "
    "alphabetic character, and end with an alphanumeric character",
    _LABEL_1035, "my-name", "abc-123",
)  # fmt: skip
_QUALIFIED_TEXT = regex_error(
    "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end "
    "with an alphanumeric character",
    _QUALIFIED, "MyName", "my.name", "123-abc",
)  # fmt: skip
_LABEL_VALUE_TEXT = regex_error(
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', "
    "and must start and end with an alphanumeric character",
    _LABEL_VALUE, "MyValue", "my_value", "12345",
)  # fmt: skip
_CONFIG_KEY_TEXT = regex_error(
    "a valid config key must consist of alphanumeric characters, '-', '_' or '.'",
    _CONFIG_KEY, "key.name", "KEY_NAME", "key-name",
)  # fmt: skip


def dns_label_errors(name: str) -> list[str]:
    """RFC 1123 label: at most 63 bytes."""
    errors = [_max_len(63)] if len(name) > 63 else []
    return errors if _LABEL_RE.fullmatch(name) else [*errors, _LABEL_TEXT]


def dns_subdomain_errors(name: str) -> list[str]:
    """RFC 1123 subdomain: at most 253 bytes."""
    errors = [_max_len(253)] if len(name) > 253 else []
    return errors if _SUBDOMAIN_RE.fullmatch(name) else [*errors, _SUBDOMAIN_TEXT]


def dns_1035_label_errors(name: str) -> list[str]:
    """RFC 1035 label: at most 63 bytes, starts with a letter."""
    errors = [_max_len(63)] if len(name) > 63 else []
    return errors if _LABEL_1035_RE.fullmatch(name) else [*errors, _LABEL_1035_TEXT]


def path_segment_errors(name: str) -> list[str]:
    """What any name may be: it stands as one segment of a URL path."""
    if name in (".", ".."):
        return [f"may not be '{name}'"]
    return [f"may not contain '{char}'" for char in "/%" if char in name]


def qualified_name_errors(value: str) -> list[str]:
    """A label or annotation key: `name` or `prefix/name`."""
    parts = value.split("/")
    errors: list[str] = []
    name = parts[-1]
    if len(parts) == 2:
        if not parts[0]:
            errors.append("prefix part must be non-empty")
        else:
            errors += ["prefix part " + text for text in dns_subdomain_errors(parts[0])]
    elif len(parts) > 2:
        return [
            regex_error(
                "a qualified name must consist of alphanumeric characters, '-', '_' or '.', and must start "
                "and end with an alphanumeric character",
                _QUALIFIED, "MyName", "my.name", "123-abc",
            )
            + " with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
        ]  # fmt: skip
    if not name:
        errors.append("name part must be non-empty")
    elif len(name) > 63:
        errors.append("name part " + _max_len(63))
    if not _QUALIFIED_RE.fullmatch(name):
        errors.append(_QUALIFIED_TEXT)
    return errors


def label_value_errors(value: str) -> list[str]:
    """A label's value: "" or at most 63 bytes."""
    errors = [_max_len(63)] if len(value) > 63 else []
    return errors if _LABEL_VALUE_RE.fullmatch(value) else [*errors, _LABEL_VALUE_TEXT]


def config_key_errors(value: str) -> list[str]:
    """A key of a ConfigMap or Secret."""
    errors = [_max_len(253)] if len(value) > 253 else []
    if not _CONFIG_KEY_RE.fullmatch(value):
        errors.append(_CONFIG_KEY_TEXT)
    if value == ".":
        errors.append("must not be '.'")
    elif value == "..":
        errors.append("must not be '..'")
    elif value.startswith(".."):
        errors.append("must not start with '..'")
    return errors


def env_name_errors(value: str) -> list[str]:
    """An environment variable: printable ASCII but '='."""
    errors = [] if value else ["environment variable name must be non-empty"]
    if any(not " " <= char <= "~" or char == "=" for char in value):
        errors.append(
            "a valid environment variable name must consist only of printable ASCII characters other than '='"
        )
    return errors


def port_name_errors(value: str) -> list[str]:
    """An IANA service name: at most 15 bytes, a letter in it, no double hyphen."""
    errors = ["must be no more than 15 bytes"] if len(value) > 15 else []
    if not _PORT_NAME_RE.fullmatch(value):
        errors.append("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)")
    if not _LETTER_RE.search(value):
        errors.append("must contain at least one letter (a-z)")
    if "--" in value:
        errors.append("must not contain consecutive hyphens")
    if value.startswith("-") or value.endswith("-"):
        errors.append("must not begin or end with a hyphen")
    return errors


def port_errors(port: int) -> list[str]:
    """A port number."""
    return [] if 1 <= port <= 65535 else ["must be between 1 and 65535, inclusive"]


NAME_FORMATS: Final[Mapping[str, Callable[[str], list[str]]]] = {
    "dns_subdomain": dns_subdomain_errors,
    "dns_label": dns_label_errors,
    "dns_1035_label": dns_1035_label_errors,
    "path_segment": path_segment_errors,
}


def validate_labels(labels: Mapping[str, Any], path: str) -> list[FieldError]:
    """Keys and values of a label map."""
    errors: list[FieldError] = []
    for key, value in labels.items():
        errors += [invalid(path, key, text) for text in _qualified_cached(key)]
        errors += [invalid(path, value, text) for text in label_value_errors(value or "")]
    return errors


def _qualified_cached(key: str) -> list[str]:
    return [] if len(key) <= 63 and _QUALIFIED_RE.fullmatch(key) else qualified_name_errors(key)


def validate_annotations(annotations: Mapping[str, Any], path: str) -> list[FieldError]:
    """Keys of an annotation map, and the size of it all: 256 KiB."""
    errors: list[FieldError] = []
    size = 0
    for key, value in annotations.items():
        # Upstream checks the key in lower case: annotations were once allowed upper-case prefixes.
        errors += [invalid(path, key, text) for text in qualified_name_errors(key.lower())]
        size += len(key.encode()) + len((value or "").encode())
    if size > ANNOTATIONS_BYTES_MAX:
        errors.append(too_long(path, ANNOTATIONS_BYTES_MAX))
    return errors
