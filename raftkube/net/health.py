"""Health endpoints in Kubernetes' manner: named checks, `?verbose`, `?exclude=`, single checks as paths.

Source: k8s.io/apiserver/pkg/server/healthz/healthz.go; etcd's server/etcdserver/api/etcdhttp/health.go
answers in the same form.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Final
from urllib.parse import parse_qs

from raftkube.net.http import Response

TEXT: Final = "text/plain; charset=utf-8"
Check = Callable[[], Awaitable[str]]  # "" is good, else why not


async def respond(endpoint: str, checks: Mapping[str, Check], query: str) -> Response:
    """Every check but those that the query excludes; 500 with all of them if one fails."""
    params = parse_qs(query, keep_blank_values=True)
    excluded = {name for value in params.get("exclude", []) for name in value.split(",")}
    lines, failed = [], False
    for name, check in checks.items():
        if name in excluded:
            lines.append(f"[+]{name} excluded: ok")
            continue
        why = await check()
        failed = failed or bool(why)
        lines.append(f"[-]{name} failed: {why}" if why else f"[+]{name} ok")
    if failed:
        lines.append(f"{endpoint} check failed")
        return Response(500, ("\n".join(lines) + "\n").encode(), TEXT)
    if "verbose" not in params:
        return Response(200, b"ok", TEXT)
    lines.append(f"{endpoint} check passed")
    return Response(200, ("\n".join(lines) + "\n").encode(), TEXT)


async def respond_single(checks: Mapping[str, Check], name: str) -> Response:
    """One check by its name; 404 if there is none."""
    check = checks.get(name)
    if check is None:
        return not_found()
    why = await check()
    if why:
        return Response(500, f"internal server error: {why}\n".encode(), TEXT)
    return Response(200, b"ok", TEXT)


def not_found() -> Response:
    """As Go's http.NotFound."""
    return Response(404, b"404 page not found\n", TEXT)
