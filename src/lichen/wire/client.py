"""A small HTTP/1.1 client over a `Pool`, for calls between our own processes.

`request` returns a whole response within bounds of time and bytes; `stream` hands the body out as
it comes, with back-pressure. Both use the same strict reading of responses as the proxy.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections import deque
from typing import TYPE_CHECKING, Final

import msgspec

from lichen.errors import LichenError
from lichen.wire.errors import (
    BodyTooLargeError,
    UpstreamBusyError,
    UpstreamError,
    UpstreamTimeoutError,
)
from lichen.wire.framing import UntilCloseFraming, framing_for
from lichen.wire.heads import IDEMPOTENT, Fields, ResponseHead, parse_response

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from lichen.wire.framing import Framing
    from lichen.wire.upstream import Pool, Upstream

TIMEOUT_S: Final = 10.0
BODY_BYTES_MAX: Final = 16 * 1024 * 1024
HEAD_BYTES_MAX: Final = 64 * 1024
QUEUED_BYTES_MAX: Final = 256 * 1024
_BODILESS: Final = frozenset({b"GET", b"HEAD", b"DELETE", b"OPTIONS"})
_LINE_ENDS: Final = re.compile(rb"[\r\n\0]")


class Response(msgspec.Struct, frozen=True):
    """A whole response; header names are lower-case."""

    status: int
    headers: Fields
    body: bytes

    def get(self, name: bytes, default: bytes = b"") -> bytes:
        """Return the first field of this lower-case name."""
        return next((value for key, value in self.headers if key == name), default)


class StreamedResponse:
    """A response whose body is still coming: iterate over `chunks()` once."""

    def __init__(self, call: _Call, head: ResponseHead, idle_s: float) -> None:
        self.status = head.status
        self.headers = head.headers
        self._call = call
        self._idle_s = idle_s

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the payload as it comes; raise when it stalls for `idle_s` or breaks off."""
        while True:
            try:
                async with asyncio.timeout(self._idle_s):
                    chunk = await self._call.next_chunk()
            except TimeoutError as error:
                raise _timed_out(self._call.pool, self._idle_s) from error
            if not chunk:
                return
            yield chunk


async def request(
    pool: Pool,
    method: bytes,
    target: bytes,
    *,
    headers: Iterable[tuple[bytes, bytes]] = (),
    body: bytes = b"",
    timeout_s: float = TIMEOUT_S,
    body_bytes_max: int = BODY_BYTES_MAX,
) -> Response:
    """Send one request and return the whole response.

    `timeout_s` bounds everything together. Raise UpstreamBusyError when the peer cannot be reached,
    UpstreamTimeoutError when it is late, UpstreamError when it breaks off or talks nonsense, and
    BodyTooLargeError when the response is longer than `body_bytes_max`.
    """
    call = _Call(pool, method, request_bytes(method, target, headers, body))
    try:
        async with asyncio.timeout(timeout_s):
            head = await call.head()
            body = await call.whole_body(body_bytes_max)
    except TimeoutError as error:
        raise _timed_out(pool, timeout_s) from error
    finally:
        call.close()
    return Response(head.status, head.headers, body)


@contextlib.asynccontextmanager
async def stream(
    pool: Pool,
    method: bytes,
    target: bytes,
    *,
    headers: Iterable[tuple[bytes, bytes]] = (),
    body: bytes = b"",
    timeout_s: float = TIMEOUT_S,
    idle_s: float = 60.0,
) -> AsyncIterator[StreamedResponse]:
    """Send one request; the block gets the response as soon as its head is here.

    `timeout_s` bounds the wait for the head, `idle_s` every wait for a part of the body. Leaving
    the block early ends the connection.
    """
    call = _Call(pool, method, request_bytes(method, target, headers, body))
    try:
        try:
            async with asyncio.timeout(timeout_s):
                head = await call.head()
        except TimeoutError as error:
            raise _timed_out(pool, timeout_s) from error
        yield StreamedResponse(call, head, idle_s)
    finally:
        call.close()


def request_bytes(
    method: bytes, target: bytes, headers: Iterable[tuple[bytes, bytes]], body: bytes
) -> bytes:
    """Write a whole request; Host is added if missing, Content-Length is ours.

    Raise UpstreamError when a value holds a line end, which would be read as another field.
    """
    fields = list(headers)
    if not any(name.lower() == b"host" for name, _ in fields):
        fields.insert(0, (b"host", b"lichen"))
    if body or method not in _BODILESS:
        fields.append((b"content-length", b"%d" % len(body)))
    lines = [b"%b %b HTTP/1.1" % (method, target), *[b"%b: %b" % field for field in fields]]
    if b" " in target or any(_LINE_ENDS.search(line) for line in lines):
        raise UpstreamError("a request line or field holds a line end", hint="quote the value")
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def _timed_out(pool: Pool, timeout_s: float) -> UpstreamTimeoutError:
    return UpstreamTimeoutError(
        f"{pool.address} did not answer within {timeout_s:g} s", hint="try again"
    )


class _Call:
    """One request in flight: a borrower of the pool that wakes the coroutine waiting for it."""

    def __init__(self, pool: Pool, method: bytes, data: bytes) -> None:
        self.pool = pool
        self._method = method
        self._data = data
        self._upstream: Upstream | None = None
        self._head: ResponseHead | None = None
        self._framing: Framing | None = None
        self._partial = b""
        self._chunks: deque[bytes] = deque()
        self._queued = 0
        self._error: LichenError | None = None
        self._wake: asyncio.Future[None] | None = None
        self._repeated = False
        self._closed = False
        pool.acquire(self)

    # For the coroutine.

    async def head(self) -> ResponseHead:
        """Wait for the response head."""
        while self._head is None:
            await self._wait()
        return self._head

    async def next_chunk(self) -> bytes:
        """Wait for payload; empty at the end of the body."""
        while not self._chunks:
            if self._framing is None or self._framing.done:
                return b""
            await self._wait()
        chunk = self._chunks.popleft()
        self._queued -= len(chunk)
        if self._upstream is not None:
            self._upstream.resume_reading()
        return chunk

    async def whole_body(self, bytes_max: int) -> bytes:
        """Collect the body up to a bound."""
        pieces: list[bytes] = []
        size = 0
        while piece := await self.next_chunk():
            size += len(piece)
            if size > bytes_max:
                raise BodyTooLargeError(
                    f"{self.pool.address} answered with more than {bytes_max} bytes",
                    hint="ask for less",
                )
            pieces.append(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def close(self) -> None:
        """Give up what is not over yet."""
        self._closed = True
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            upstream.drop()
        else:
            self.pool.cancel(self)

    async def _wait(self) -> None:
        if self._error is not None:
            raise self._error
        self._wake = asyncio.get_running_loop().create_future()
        try:
            await self._wake
        finally:
            self._wake = None

    def _notify(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    def _fail(self, error: LichenError) -> None:
        self._error = error
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            upstream.drop()
        self._notify()

    # For the pool.

    def on_connected(self, upstream: Upstream) -> None:
        """Send the request."""
        if self._closed:
            self.pool.give_back(upstream)
            return
        self._upstream = upstream
        upstream.transport.write(self._data)

    def on_connect_failed(self, reason: str) -> None:
        """Raise in the coroutine."""
        self._fail(
            UpstreamBusyError(f"{self.pool.address} cannot be reached ({reason})", hint="try later")
        )

    def on_upstream_data(self, data: bytes) -> None:
        """Read the head, then queue the payload."""
        if self._head is None:
            data = self._read_head(self._partial + data)
            if self._head is None:
                return
        framing = self._framing
        assert framing is not None
        try:
            payload = framing.feed(data)
        except LichenError as error:
            self._fail(UpstreamError(f"{self.pool.address}: {error.what}", hint="try again"))
            return
        if payload:
            self._chunks.append(payload)
            self._queued += len(payload)
        if framing.done:
            self._release(framing)
        elif self._queued > QUEUED_BYTES_MAX and self._upstream is not None:
            self._upstream.pause_reading()
        self._notify()

    def on_upstream_lost(self, error: Exception | None) -> None:
        """Finish a close-delimited body, repeat on a stale connection, or fail."""
        upstream, self._upstream = self._upstream, None
        if isinstance(self._framing, UntilCloseFraming) and error is None:
            self._framing.done = True
            self._notify()
        elif self._may_repeat(upstream):
            self._repeated = True
            self.pool.acquire(self, fresh=True)
        else:
            self._fail(UpstreamError(f"{self.pool.address} broke off", hint="try again"))

    def on_upstream_full(self) -> None:
        """Nothing to stop: the whole request was written."""

    def on_upstream_drained(self) -> None:
        """Nothing to go on with."""

    def _may_repeat(self, upstream: Upstream | None) -> bool:
        stale = upstream is not None and upstream.used and self._head is None and not self._partial
        return stale and not self._repeated and self._method in IDEMPOTENT

    def _read_head(self, data: bytes) -> bytes:
        """Take heads off until the final one; return what follows it."""
        while True:
            end = data.find(b"\r\n\r\n") + 4
            if end < 4:
                self._partial = data
                if len(data) > HEAD_BYTES_MAX:
                    self._fail(UpstreamError(f"{self.pool.address}: the head is too long"))
                return b""
            try:
                head = parse_response(data[:end], self._method)
            except LichenError as error:
                self._fail(UpstreamError(f"{self.pool.address}: {error.what}", hint="try again"))
                return b""
            data = data[end:]
            if head.status >= 200:
                self._head = head
                self._framing = framing_for(head.length)
                return data

    def _release(self, framing: Framing) -> None:
        upstream, self._upstream = self._upstream, None
        head = self._head
        if upstream is None or head is None:
            return
        if head.keep_alive and not framing.rest:
            upstream.pool.give_back(upstream)
        else:
            upstream.drop()
