"""The way back: an upstream's response, read strictly and passed on to the client.

A response that came in one segment leaves in one write. Chunked and close-delimited bodies are
framed anew, and a 101 turns the exchange into a tunnel.
"""

from __future__ import annotations

import asyncio
from typing import Final

from lichen.errors import LichenError
from lichen.wire.answers import Ready
from lichen.wire.errors import (
    MalformedError,
)
from lichen.wire.exchange import (
    OVER,
    PASSING,
    SENDING,
    TUNNEL,
    Exchange,
    Retry,
)
from lichen.wire.framing import LAST_CHUNK, chunk, framing_for
from lichen.wire.heads import (
    CHUNKED,
    HOP_BY_HOP,
    UNTIL_CLOSE,
    ResponseHead,
    named_by_connection,
    parse_response,
    usual_response,
    without_fields,
    without_named,
)

HINTS_MAX: Final = 8  # informational responses before the final one


class Reply(Exchange):
    """Reads the response head, then passes the body on, or carries a tunnel."""

    # Reading the response.

    def on_upstream_data(self, data: bytes) -> None:
        """Take response bytes."""
        if self._state == SENDING:
            if self._framing is None and not self._partial and not self._held_tunnel:
                usual = usual_response(data)
                if (
                    usual is not None
                    and usual[1] == len(data) - usual[2]
                    and usual[2] <= self.response_head_bytes_max
                    and self.head.keep_alive
                    and self.head.method != b"HEAD"
                ):
                    self._pass_usual(usual, data)
                    return
            self._read_head(data)
        elif self._state == PASSING:
            self._moved = self.connection.listener.now
            self._pass_body(data)
        elif self._state == TUNNEL:
            self._moved = self.connection.listener.now
            self.response_bytes += len(data)
            if self._sees_response:
                self.on_response_body(data)
            self.connection.write(data)

    def _read_head(self, data: bytes) -> None:
        if self._partial:
            data = self._partial + data
            self._partial = b""
        end = data.find(b"\r\n\r\n") + 4
        if end < 4:
            self._partial = data
            if len(data) > self.response_head_bytes_max:
                self._failed("malformed")
            return
        if end > self.response_head_bytes_max:
            self._failed("malformed")
            return
        size = len(data)
        try:
            head = parse_response(data if size == end else data[:end], self.head.method)
        except LichenError:
            self._failed("malformed")
            return
        if head.status < 200:
            self._informational(head, data[end:])
            return
        added = b""
        if self._sees_head:
            change = self._guard(self.on_response_head, head)
            if self._state != SENDING:
                return
            if type(change) is bytes:
                added = change
            elif self._changed_course(change, head, data[end:]):
                return
        self.status = head.status
        self.connection.counters.statuses[head.status // 100 if head.status < 600 else 5] += 1
        if head.length == size - end and (self._framing is None or self._framing.done):
            self._pass_whole(head, added, data, end)
        else:
            self._begin_passing(head, added, data[end:])

    def _pass_usual(self, usual: tuple[bytes, int, int, int], data: bytes) -> None:
        """Pass on a usual response that came whole: most of them do, so this path is short."""
        status, length, end, fields_at = usual
        self.status = code = int(status)
        out = data
        if self._sees_head:
            head = ResponseHead()
            head.block = data[:end]
            head.fields_at = fields_at
            head.status = code
            head.length = length
            change = self._guard(self.on_response_head, head)
            if self._state != SENDING:
                return
            if type(change) is bytes:
                if head.removed:
                    out = self._head_out(head, change, keep_alive=True) + data[end:]
                elif change:
                    out = b"%b%b%b" % (data[: end - 2], change, data[end - 2 :])
            elif self._changed_course(change, head, data[end:]):
                return
        self.response_bytes = length
        if self._sees_response and length:
            self.on_response_body(data[end:])
        connection = self.connection
        counters = connection.counters
        counters.statuses[code // 100] += 1
        counters.bytes_out += len(out)
        connection.transport.write(out)
        upstream = self._upstream
        self._upstream = None
        if upstream is not None:
            upstream.pool.give_back(upstream)
        if self._sees_done:
            self._over("complete")
        else:
            self._state = OVER
        if connection.held or connection.flow.read_paused or connection.stopping:
            connection.finished(None, keep_alive=True)
        else:
            connection.work = None

    def _pass_whole(self, head: ResponseHead, added: bytes, data: bytes, end: int) -> None:
        """Write a response that came in one segment in one go, and be done."""
        length = head.length
        if length:
            self.response_bytes = length
            if self._sees_response:
                self.on_response_body(data[end:])
        keep_alive = self.head.keep_alive
        if keep_alive and not added and not head.removed and head.minor and head.plain:
            out = data
        else:
            out = self._head_out(head, added, keep_alive=keep_alive)
            if length:
                out += data[end:]
        connection = self.connection
        connection.counters.bytes_out += len(out)
        connection.transport.write(out)
        self._release(head)
        self._over("complete")
        connection.finished(self._framing, keep_alive=keep_alive)

    def _head_out(self, head: ResponseHead, added: bytes, *, keep_alive: bool) -> bytes:
        """Write the response head for the client: no hop-by-hop fields but our own."""
        block = head.block
        drop = head.removed
        if not head.plain:
            drop |= HOP_BY_HOP
            named = named_by_connection(head.get(b"connection"))
            block = without_named(block, named) if named else block
        if drop:
            block = without_fields(block, drop)
        if not head.minor:
            block = b"HTTP/1.1" + block[8:]
        if self._rechunk:
            added += b"transfer-encoding: chunked\r\n"
        if not keep_alive:
            added += b"connection: close\r\n"
        return block[:-2] + added + b"\r\n" if added else block

    def _begin_passing(self, head: ResponseHead, added: bytes, body: bytes) -> None:
        self._state = PASSING
        self._reply_head = head
        self._reply_framing = framing_for(head.length)
        framed = head.length in {CHUNKED, UNTIL_CLOSE}
        self._rechunk = framed and self.head.minor == 1
        keep_alive = self.head.keep_alive and (self._rechunk or not framed)
        self._moved = self.connection.listener.now
        out = self._head_out(head, added, keep_alive=keep_alive)
        if self._reply_framing.done and not body:
            self.connection.write(out)
            self._complete()
        else:
            self._pass_body(body, out)

    def _pass_body(self, data: bytes, before: bytes = b"") -> None:
        framing = self._reply_framing
        assert framing is not None
        try:
            payload = framing.feed(data)
        except MalformedError:
            self._cut("upstream-broke")
            return
        self.response_bytes += len(payload)
        if self._sees_response and payload:
            self.on_response_body(payload)
        out = chunk(payload) if self._rechunk else payload
        if self._rechunk and framing.done:
            out += LAST_CHUNK
        if before or out:
            self.connection.write(before + out if before else out)
        if framing.done:
            self._complete()

    def _complete(self) -> None:
        head, framing = self._reply_head, self._reply_framing
        assert head is not None
        assert framing is not None
        unread = self._framing is not None and not self._framing.done
        if framing.rest or unread:  # bytes nobody asked for, or a request never sent whole
            self._let_go()
        else:
            self._release(head)
        self._over("complete")
        keep_alive = self.head.keep_alive and (self._rechunk or head.length >= 0)
        self.connection.finished(self._framing, keep_alive=keep_alive)

    def _end_until_close(self) -> None:
        if self._rechunk:
            self.connection.write(LAST_CHUNK)
        self._over("complete")
        self.connection.finished(self._framing, keep_alive=self.head.keep_alive and self._rechunk)

    def _changed_course(
        self, change: Ready | Retry | None, head: ResponseHead, body: bytes
    ) -> bool:
        """Do what an observer asked for instead of passing the response on."""
        if isinstance(change, Retry):
            if not self._replayable or self.attempts >= self.attempts_max:
                if asyncio.iscoroutine(change.upstream):
                    change.upstream.close()
                return False
            self._drop_response(head, body)
            if change.request is not None:
                self.request = change.request
            self._choose(change.upstream)
            return True
        if isinstance(change, Ready):
            self._drop_response(head, body)
            self._replace(change)
            return True
        return False

    def _drop_response(self, head: ResponseHead, body: bytes) -> None:
        sent = self._framing is None or self._framing.done
        if sent and head.length == len(body):
            self._release(head)
        else:
            self._let_go()

    # 1xx and tunnels.

    def _informational(self, head: ResponseHead, rest: bytes) -> None:
        if head.status == 101:
            self._switch(head, rest)
            return
        self._hints += 1
        if self._hints > HINTS_MAX:
            self._failed("malformed")
            return
        # Our own 100 was sent when it was due.
        if head.status not in {100, 102} and self.head.minor:
            self.connection.write(self._head_out(head, b"", keep_alive=True))
        if rest:
            self._read_head(rest)

    def _switch(self, head: ResponseHead, rest: bytes) -> None:
        if not self.head.upgrade:
            self._failed("malformed")
            return
        added = b"connection: upgrade\r\nupgrade: websocket\r\n"
        if self._sees_head:
            change = self._guard(self.on_response_head, head)
            if self._state != SENDING:
                return
            if isinstance(change, Ready):
                self._let_go()
                self._replace(change)
                return
            if isinstance(change, bytes):
                added += change
        connection = self.connection
        self.status = 101
        connection.counters.statuses[1] += 1
        connection.counters.tunnels += 1
        self._state = TUNNEL
        connection.write(self._head_out(head, added, keep_alive=True))
        if rest:
            self.on_upstream_data(rest)
        held, self._held_tunnel = self._held_tunnel, b""
        connection.flow.resume_reading()
        if held:
            self._pass_up(held)

    def _hold_tunnel(self, data: bytes) -> None:
        """Keep what the client says before the upstream agreed to switch."""
        self._held_tunnel += data
        if len(self._held_tunnel) > self.connection.limits.pipelined_bytes_max:
            self.connection.flow.pause_reading()

    def _pass_up(self, data: bytes) -> None:
        self.request_bytes += len(data)
        if self._sees_request:
            self.on_request_body(data)
        if self._upstream is not None:
            self._upstream.transport.write(data)
