"""A watch of etcd that goes on: over lost members, from the next revision on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any, Final

import orjson
import trio

from chaos.etcd.gateway import compact_revision, error_from_message, events_of, header_revision, watch_request
from raftkube.errors import Compacted, ConnectionLost, Indefinite, StoreError
from raftkube.net import Address
from raftkube.net.http_client import ClientStream, HttpClient, HttpClientError
from raftkube.store.client import WatchBatch

Json = dict[str, Any]

# With progress marks something comes every second; a member silent for longer was stopped or cut off.
_SILENCE_S: Final = 5.0
_ATTACH_S: Final = 3.0
_LINE_BYTES_MAX: Final = 64 * 1024 * 1024


class EtcdWatch:
    """An async iterator of WatchBatch; made by `EtcdClient.watch`, for one reader.

    Iterating raises Compacted when the next revision is gone; unless `resume` was asked for, ConnectionLost.
    """

    def __init__(
        self,
        next_member: Callable[[int], Awaitable[HttpClient]],
        key: bytes,
        range_end: bytes,
        start_revision: int,
        *,
        prev_kv: bool,
        progress_notify: bool,
        resume: bool,
        on_attach: Callable[[bytes, Address, int], None] | None = None,
    ) -> None:
        self._next_member = next_member
        self._key, self._range_end, self._next = key, range_end, start_revision
        self._prev_kv, self._progress_notify = prev_kv, progress_notify
        self._resume = resume
        self._on_attach = on_attach
        self._open: AsyncExitStack | None = None
        self._stream: ClientStream | None = None
        self._received = bytearray()
        self._attempt = 0

    @property
    def next_revision(self) -> int:
        """Everything below it has been delivered."""
        return self._next

    def __aiter__(self) -> EtcdWatch:
        return self

    async def __anext__(self) -> WatchBatch:
        while True:
            try:
                if self._stream is None:
                    await self.attach()
                response = await self._response(_SILENCE_S if self._progress_notify else float("inf"))
                self._attempt = 0
                return self._batch(response)
            except Indefinite as error:
                await self.detach()
                if not self._resume:
                    raise ConnectionLost("the member that fed the watch was lost") from error
                self._attempt += 1

    async def attach(self) -> None:
        """Be fed by some member, from the next revision on. Raises Compacted."""
        while self._stream is None:
            member = await self._next_member(self._attempt)
            if self._on_attach is not None:
                self._on_attach(self._key, member.address, self._next)
            try:
                await self._create(member)
            except Indefinite:
                await self.detach()
                self._attempt += 1

    async def detach(self) -> None:
        """Stop being fed."""
        opened, self._open, self._stream = self._open, None, None
        self._received.clear()
        if opened is not None:
            await opened.aclose()

    async def _create(self, member: HttpClient) -> None:
        body = watch_request(
            self._key, self._range_end, self._next,
            prev_kv=self._prev_kv, progress_notify=self._progress_notify,
        )  # fmt: skip
        self._open = AsyncExitStack()
        try:
            with trio.fail_after(_ATTACH_S):
                self._stream = await self._open.enter_async_context(
                    member.stream("POST", "/v3/watch", body=body)
                )
                response = await self._response(_ATTACH_S)
        except (HttpClientError, trio.TooSlowError) as error:
            raise Indefinite(f"no watch at {member.address}: {error}") from error
        if not response.get("created"):
            raise Indefinite(f"no watch at {member.address}: {response}")
        if not self._next:
            self._next = header_revision(response) + 1

    async def _response(self, patience_s: float) -> Json:
        """The next line of the answer. Raises Compacted; Indefinite: the member is lost to this watch."""
        with trio.move_on_after(patience_s) as patience:
            line = await self._line()
        if patience.cancelled_caught:
            raise Indefinite(f"silent for {patience_s:g} s")
        told = orjson.loads(line)
        if "error" in told:
            raise _indefinite(error_from_message(str(told["error"].get("message"))))
        response: Json = told["result"]
        if response.get("canceled"):
            gone = compact_revision(response)
            if gone:
                raise Compacted("the watch's next revision is gone", compact_revision=gone)
            raise Indefinite(f"cancelled: {response.get('cancel_reason')}")
        return response

    async def _line(self) -> bytes:
        assert self._stream is not None
        while b"\n" not in self._received:
            try:
                self._received += await self._stream.__anext__()
            except (HttpClientError, StopAsyncIteration) as error:
                raise Indefinite(f"the watch's stream ended: {error}") from error
            if len(self._received) > _LINE_BYTES_MAX:
                raise Indefinite("a watch's answer is larger than 64 MiB")
        line, _, rest = self._received.partition(b"\n")
        self._received = rest
        return bytes(line)

    def _batch(self, response: Json) -> WatchBatch:
        """A member that has still much to send names its newest revision beside old events: what counts is
        the last event's."""
        events = events_of(response)
        revision = events[-1].kv.mod_revision if events else header_revision(response)
        self._next = max(self._next, revision + 1)
        return WatchBatch(revision, events)


def _indefinite(error: StoreError) -> StoreError:
    return error if isinstance(error, Indefinite) else Indefinite(error.message)
