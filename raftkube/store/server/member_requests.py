"""Requests that change the members, from the wire's arguments."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from raftkube.errors import ConfigError, InvalidRequest
from raftkube.net import parse_address
from raftkube.store.raft.membership import (
    AddLearner,
    MemberAddresses,
    MemberChange,
    Promote,
    Remove,
    UpdateAddress,
)
from raftkube.store.server.service import Service
from raftkube.wire import rpc

MEMBER_METHODS: Final = (rpc.MEMBER_ADD, rpc.MEMBER_REMOVE, rpc.MEMBER_PROMOTE, rpc.MEMBER_UPDATE)
MEMBER_NAME: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")


def change_of(request: rpc.Request, service: Service) -> MemberChange:
    """The change that is asked for. Raises InvalidRequest naming the field that is wrong."""
    arguments = request.arguments
    if request.method == rpc.MEMBER_ADD:
        return _add(arguments, service)
    if request.method == rpc.MEMBER_UPDATE:
        return _update(arguments, service)
    (member,) = _typed(arguments, {"member": (str,)})
    id_ = service.member_id(member)
    return Promote(id_) if request.method == rpc.MEMBER_PROMOTE else Remove(id_)


def _add(arguments: list[Any], service: Service) -> AddLearner:
    fields = {"name": (str,), "peer_address": (str,), "client_address": (str,), "learner": (bool,)}
    name, peer, client, learner = _typed(arguments, fields)
    if not MEMBER_NAME.fullmatch(name):
        raise InvalidRequest(
            f"{name!r} is not a member's name: 1 to 63 letters, digits, '.', '_' and '-', a letter or digit"
            " first and last",
            field="name",
        )
    addresses = MemberAddresses(
        _address(peer, "peer_address"), _address(client, "client_address") if client else ""
    )
    return AddLearner(service.new_member_id(name), addresses, promote=not learner)


def _update(arguments: list[Any], service: Service) -> UpdateAddress:
    none = type(None)
    fields = {"member": (str,), "peer_address": (str, none), "client_address": (str, none)}
    member, peer, client = _typed(arguments, fields)
    return UpdateAddress(
        service.member_id(member),
        None if peer is None else _address(peer, "peer_address"),
        None if client is None else _address(client, "client_address"),
    )


def _typed(arguments: list[Any], fields: Mapping[str, tuple[type, ...]]) -> list[Any]:
    if len(arguments) != len(fields):
        raise InvalidRequest(f"it takes {', '.join(fields)}", field="arguments")
    for (name, kinds), value in zip(fields.items(), arguments, strict=True):
        if type(value) not in kinds:
            raise InvalidRequest(f"{name} must be {kinds[0].__name__}", field=name)
    return arguments


def _address(text: str, field: str) -> str:
    """One spelling of an address, so that equal ones are seen to be."""
    try:
        return str(parse_address(text))
    except ConfigError as error:
        raise InvalidRequest(f"{field}: {error}", field=field) from None
