"""What members say to each other: msgpack arrays [kind, *fields] in frames, checked before use.

The other end is a member with a certificate, yet its version may differ and its memory may be bad: a
message of the wrong shape ends the connection, never the member.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from raftkube.limits import LOG_ENTRY_BYTES_MAX
from raftkube.wire.frames import FrameError, unpack

PROTOCOL: Final = "raftkube-peer"
VERSION: Final = 3

# [protocol, version, cluster id, from, to, incarnation of the sender's data directory, the newest cluster
# version that its program knows, the cluster's version as it knows it]; more fields may come later
HELLO = 0
APPEND = 1  # [term, commit_index, prev_index, prev_term, [[command, index, term], ...]]
APPENDED = 2  # [term, next_index, reset, success]
REQUEST_VOTE = 3  # [term, last_index, last_term, transfer]: the leader asked for this election
VOTE = 4  # [term]
PRE_VOTE = 5  # [round, next term, last_index, last_term]
PRE_VOTE_OK = 6  # [round]
TERM_AHEAD = 7  # [term]: whoever sent a message of an older term learns it
READ_ROUND = 8  # [term, round]
READ_ROUND_OK = 9  # [term, round]
READ_REQUEST = 10  # [id]: a follower asks the leader for a read index
READ_INDEX = 11  # [id, index]
SNAPSHOT = 12  # [term, snapshot index, snapshot term, offset, data, last]
SNAPSHOT_OK = 13  # [term, snapshot index, next offset, done]
PING = 14  # []
PONG = 15  # []
TIMEOUT_NOW = 16  # [term]: the leader of that term hands over; campaign at once
REFUSED = 17  # [sentence], the answer to a hello: the sender must never take part again under its id

# What may come back on a connection that only its other end speaks on.
ANSWERS: Final = frozenset((APPENDED, VOTE, PRE_VOTE_OK, TERM_AHEAD, READ_ROUND_OK, READ_INDEX, SNAPSHOT_OK))

Message = list[Any]

_SHAPES: Final[dict[int, tuple[type, ...]]] = {
    HELLO: (str, int, str, str, str, str, int, int),
    APPEND: (int, int, int, int, list),
    APPENDED: (int, int, bool, bool),
    REQUEST_VOTE: (int, int, int, bool),
    VOTE: (int,),
    PRE_VOTE: (int, int, int, int),
    PRE_VOTE_OK: (int,),
    TERM_AHEAD: (int,),
    READ_ROUND: (int, int),
    READ_ROUND_OK: (int, int),
    READ_REQUEST: (int,),
    READ_INDEX: (int, int),
    SNAPSHOT: (int, int, int, int, bytes, bool),
    SNAPSHOT_OK: (int, int, int, bool),
    PING: (),
    PONG: (),
    TIMEOUT_NOW: (int,),
    REFUSED: (str,),
}
# A group commit of the largest size carries its envelope beside the operations.
_COMMAND_BYTES_MAX: Final = LOG_ENTRY_BYTES_MAX + 1024 * 1024


def decode(body: bytes) -> Message:
    """The message of a frame. Raises FrameError: not one of ours."""
    message = unpack(body)
    if type(message) is not list or not message or type(message[0]) is not int:
        raise FrameError("a peer message is an array that begins with its kind")
    if message[0] == HELLO:
        message = _greeting(message)
    shape = _SHAPES.get(message[0])
    if shape is None or len(message) != len(shape) + 1:
        raise FrameError(f"unknown peer message {message[0]} with {len(message) - 1} fields")
    for field, wanted in zip(message[1:], shape, strict=True):
        if type(field) is not wanted or (type(field) is int and field < 0):
            raise FrameError(f"peer message {message[0]}: a field is not a {wanted.__name__}")
    if message[0] == APPEND:
        _check_entries(message[3], message[4], message[5])
    return message


def _greeting(message: Message) -> Message:
    """A hello without the fields that this version does not know. Raises FrameError: of another version,
    whose fields may be others."""
    if message[1:2] == [PROTOCOL] and message[2:3] != [VERSION]:
        raise FrameError(f"the peer speaks version {str(message[2:3])[:32]}, this member speaks {VERSION}")
    return message[: len(_SHAPES[HELLO]) + 1]


def _check_entries(prev_index: int, prev_term: int, entries: list[Any]) -> None:
    """Entries follow `prev_index` one by one and their terms never fall."""
    term = prev_term
    for position, entry in enumerate(entries, prev_index + 1):
        if type(entry) is not list or len(entry) != 3 or type(entry[0]) is not bytes:
            raise FrameError("an entry is [command, index, term]")
        command, index, entry_term = entry
        if index != position or type(entry_term) is not int or entry_term < term:
            raise FrameError(f"entry {index!r} stands where {position} belongs")
        if not 0 < len(command) <= _COMMAND_BYTES_MAX:
            raise FrameError(f"entry {index} has {len(command)} bytes")
        term = entry_term


class Hello(NamedTuple):
    """What a member says of itself. `newest`: the highest cluster version that its program knows."""

    sender: str
    incarnation: str
    newest: int
    cluster_version: int


def hello(cluster_id: str, receiver: str, mine: Hello) -> Message:
    """The first message on a connection."""
    sender, incarnation, *versions = mine
    return [HELLO, PROTOCOL, VERSION, cluster_id, sender, receiver, incarnation, *versions]


def check_hello(message: Message, *, cluster_id: str, receiver: str) -> Hello:
    """What the sender says. Raises FrameError: another protocol, cluster or addressee."""
    if message[0] != HELLO or message[1] != PROTOCOL:
        raise FrameError("the peer did not say hello")
    _, _, _, cluster, sender, addressee, incarnation, newest, cluster_version = message
    if cluster != cluster_id:
        raise FrameError(f"the peer belongs to cluster {cluster!r}, this member to {cluster_id!r}")
    if addressee != receiver:
        raise FrameError(f"the peer looks for {addressee!r}, this is {receiver!r}")
    return Hello(sender, incarnation, newest, cluster_version)
