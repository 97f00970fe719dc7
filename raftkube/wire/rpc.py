"""The store's RPC: what a client and a member say to each other, as frames of `raftkube.wire.frames`.

A connection starts with one hello from each side, client first:

    [MAGIC, PROTOCOL_VERSION, name]                      client
    [MAGIC, PROTOCOL_VERSION, member name, cluster id]   member, or an error frame and the end

Then the client sends requests, many in flight, each with an id of its own choosing:

    [id, method, arguments, deadline_ms]     deadline_ms: time left when it was sent, 0 for none

and the member answers in any order:

    [ANSWER, id, result]                     the whole result
    [PART, id, bytes]                        a piece of a long result: the pieces' concatenation is the
                                             msgpack of what ANSWER carries; the last one is an empty PART
                                             (a snapshot's pieces are followed by an ANSWER instead)
    [ERROR, id, error]                       raftkube.errors' wire shape
    [EVENTS, watch ids, revision, events]    everything that these watches shall see up to `revision`;
                                             without events it is a progress mark
    [FRAGMENT, watch ids, revision, events]  events of one revision that continue in the next frame
    [ENDED, watch ids, error]                these watches are over
    [GOODBYE]                                the member stops: it answers what it has been sent, refusing
                                             definitely what it has not begun; the client sends nothing
                                             more and closes the connection once it has every answer

Watch ids are chosen by the client, unique on its connection; one frame may serve many watches of one
connection, so that an event crosses it once.
"""

from __future__ import annotations

import struct
from typing import Any, Final, NamedTuple

from raftkube.errors import InvalidRequest
from raftkube.wire.frames import FrameError, frame, pack

MAGIC: Final = "raftkube-store"
PROTOCOL_VERSION: Final = 1
# length | array of 3, kind, uint 32 | array of 3, number, uint 64, nil
_PUT_ANSWER: Final = struct.Struct(">IBBBIBBBQB")

ANSWER: Final = 0
ERROR: Final = 1
EVENTS: Final = 2
FRAGMENT: Final = 3
ENDED: Final = 4
PART: Final = 5
GOODBYE: Final = 6

# A result longer than this leaves in parts, so that a long range holds up nobody on the connection.
PART_BYTES: Final = 1_048_576

OP: Final = "op"  # [operation's wire]
RANGE_SERIALIZABLE: Final = "range_serializable"  # [Range's wire]: from this member's own state
WATCH_CREATE: Final = "watch_create"  # WatchRequest's fields; answers [revision]
WATCH_CANCEL: Final = "watch_cancel"  # [watch id]; answers [existed]
WATCH_PROGRESS: Final = "watch_progress"  # [watch id]; answers [revision], a mark of at least it follows
STATUS: Final = "status"  # []; answers {field: value}
HASH: Final = "hash"  # []; answers {"revision", "hash", "compact_revision", "applied_index"}
# []; answers [{"id", "name", "peer_address", "client_address", "leader", "learner", "voter", "started",
# "committed"}]
MEMBER_LIST: Final = "member_list"
MEMBER_ADD: Final = "member_add"  # [name, peer address, client address, stay a learner]; answers [id]
MEMBER_REMOVE: Final = "member_remove"  # [id or name]; answers [id]
MEMBER_PROMOTE: Final = "member_promote"  # [id or name]; answers [id]
MEMBER_UPDATE: Final = "member_update"  # [id or name, peer address or nil, client address or nil]
MOVE_LEADER: Final = "move_leader"  # [name, id or nil: the best]; answers [who leads]
# [linearizable]; answers a backup (raftkube.store.core.backup) in PARTs, which are its bytes as they are,
# and then ANSWER [bytes]
SNAPSHOT: Final = "snapshot"
PING: Final = "ping"  # []; answers []


class ClientHello(NamedTuple):
    name: str


class MemberHello(NamedTuple):
    name: str
    cluster_id: str


class Request(NamedTuple):
    id: int
    method: str
    arguments: list[Any]
    deadline_ms: int


class WatchRequest(NamedTuple):
    """What a watch shall see. `start_revision` 0: what happens from now on; `no_put`, `no_delete` filter."""

    watch_id: int
    key: bytes
    range_end: bytes = b""
    start_revision: int = 0
    prev_kv: bool = False
    progress_notify: bool = False
    no_put: bool = False
    no_delete: bool = False


_WATCH_FIELD_TYPES: Final = (int, bytes, bytes, int, bool, bool, bool, bool)


def client_hello(name: str) -> bytes:
    """The first frame of a connection."""
    return frame([MAGIC, PROTOCOL_VERSION, name])


def member_hello(name: str, cluster_id: str) -> bytes:
    """The member's answer to `client_hello`."""
    return frame([MAGIC, PROTOCOL_VERSION, name, cluster_id])


def parse_client_hello(message: Any) -> ClientHello:
    """Raises FrameError: not this protocol, or another version of it."""
    _check_hello(message, 3)
    return ClientHello(message[2])


def parse_member_hello(message: Any) -> MemberHello:
    """Raises FrameError: not this protocol, or another version of it."""
    _check_hello(message, 4)
    return MemberHello(message[2], str(message[3]))


def _check_hello(message: Any, length: int) -> None:
    if not isinstance(message, list) or len(message) < 3 or message[0] != MAGIC:
        raise FrameError("the other end does not speak the store's protocol")
    if message[1] != PROTOCOL_VERSION:
        raise FrameError(f"protocol version {message[1]!r}; this end speaks version {PROTOCOL_VERSION}")
    if len(message) < length or not isinstance(message[2], str):
        raise FrameError("a hello is [magic, version, name, ...]")


def request(request_id: int, method: str, arguments: list[Any], deadline_ms: int) -> bytes:
    """A request's frame."""
    return frame([request_id, method, arguments, deadline_ms])


def parse_request(message: Any) -> Request:
    """Raises FrameError: without an id nothing can be answered, so the connection is closed."""
    if not isinstance(message, list) or len(message) != 4:
        raise FrameError("a request is [id, method, arguments, deadline_ms]")
    request_id, method, arguments, deadline_ms = message
    if type(request_id) is not int or type(method) is not str or type(arguments) is not list:
        raise FrameError("a request is [integer, string, array, integer]")
    if type(deadline_ms) is not int or deadline_ms < 0:
        raise FrameError("deadline_ms is a number of milliseconds, 0 for none")
    return Request(request_id, method, arguments, deadline_ms)


def parse_watch_request(arguments: list[Any]) -> WatchRequest:
    """Raises InvalidRequest naming the field that is wrong."""
    if not 2 <= len(arguments) <= len(WatchRequest._fields):
        raise InvalidRequest(f"a watch takes {', '.join(WatchRequest._fields)}", field="watch")
    for name, value, wanted in zip(WatchRequest._fields, arguments, _WATCH_FIELD_TYPES, strict=False):
        if type(value) is not wanted:
            raise InvalidRequest(f"a watch's {name} must be {wanted.__name__}", field=name)
    parsed = WatchRequest(*arguments)
    if not 0 <= parsed.start_revision < 2**63:
        raise InvalidRequest("a watch's start_revision must be 0 or a revision", field="start_revision")
    if not 0 < parsed.watch_id < 2**31:
        raise InvalidRequest("a watch_id is a positive 31-bit number", field="watch_id")
    return parsed


def answer(request_id: int, result: Any) -> bytes:
    """The frames of a result: one ANSWER, or PARTs when it is long."""
    body = pack(result)
    if len(body) <= PART_BYTES:
        return frame_raw(b"\x93\x00" + pack(request_id) + body)
    parts = [
        frame([PART, request_id, body[start : start + PART_BYTES]])
        for start in range(0, len(body), PART_BYTES)
    ]
    return b"".join([*parts, frame([PART, request_id, b""])])


def put_answer(request_id: int, revision: int) -> bytes:
    """`answer` of a PutResult without prev_kv, in one go: [ANSWER, id, [1, revision, nil]]."""
    if not 0 <= request_id < 1 << 32:
        return answer(request_id, [1, revision, None])
    return _PUT_ANSWER.pack(19, 0x93, ANSWER, 0xCE, request_id, 0x93, 1, 0xCF, revision, 0xC0)


def part(request_id: int, data: bytes) -> bytes:
    """A piece of a stream."""
    return frame([PART, request_id, data])


def error(request_id: int, error_wire: list[Any]) -> bytes:
    """An error's frame."""
    return frame([ERROR, request_id, error_wire])


def ended(watch_ids: list[int], error_wire: list[Any]) -> bytes:
    """The last frame of these watches."""
    return frame([ENDED, watch_ids, error_wire])


def goodbye() -> bytes:
    """The last frame of a member that stops but for the answers it owes."""
    return frame([GOODBYE])


def frame_raw(body: bytes) -> bytes:
    """A packed body with its length in front (kept here: answers and events are packed piecewise)."""
    return len(body).to_bytes(4, "big") + body


def events_frame(kind: int, ids: bytes, revision: int, count: int, encoded: bytes) -> bytes:
    """An EVENTS or FRAGMENT frame from a packed list of ids and `count` packed events, joined."""
    header = b"\x94" + bytes([kind]) + ids + pack(revision)
    return b"".join(
        [
            (len(header) + 5 + len(encoded)).to_bytes(4, "big"),
            header,
            b"\xdd" + count.to_bytes(4, "big"),  # array 32: always five bytes
            encoded,
        ]
    )
