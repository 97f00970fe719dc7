"""Who a request comes from: the client certificate that TLS verified, or nobody."""

from __future__ import annotations

from typing import Final

from raftkube.api.status import unauthorized
from raftkube.apiserver.core.authorization import ANONYMOUS, User
from raftkube.net.http import Request

_AUTHENTICATED: Final = "system:authenticated"
_UNAUTHENTICATED: Final = "system:unauthenticated"


def authenticate(request: Request) -> User:
    """The user and groups: subject CN and O of the certificate (Kubernetes' X.509 authenticator).

    Raises ApiError 401: credentials of a kind that is not accepted here.
    """
    peer = request.peer
    if peer is not None and peer.common_name:
        return User(peer.common_name, (*peer.organizations, _AUTHENTICATED))
    if "authorization" in request.headers:
        raise unauthorized()
    return User(ANONYMOUS, (_UNAUTHENTICATED,))
