"""Many byte streams over one connection: frames, flow control, states. No sockets, no clock.

A frame is 8 bytes of header and up to `FRAME_BYTES_MAX` of payload, all integers big-endian:

    stream u32 | kind u8 | length u24 | payload

| kind | payload | meaning |
|---|---|---|
| DATA | bytes | the next bytes of a stream; what was written at once arrives at once |
| OPEN | - | a new stream; only the side that dialled opens, with rising numbers from 1 |
| CLOSE | - | the sender writes no more to this stream, but still reads |
| RESET | - | the sender neither writes nor reads any more |
| WINDOW | u32 | so many bytes more may be sent on this stream |
| PING, PONG | 8 bytes | is anybody there; stream 0 |
| GOAWAY | - | open no more streams; those that are open go on; stream 0 |

Every stream may have `WINDOW_BYTES` under way in each direction; the reader grants more when half
of it was taken up, so a small exchange costs one frame each way and nothing else. A stream that is
read slowly fills its own window and stops nobody else. When the connection itself is full, streams
queue what they are given and tell their owner to stop.

A stream ends when both sides have closed it, or one has reset it. What then is still under way is
dropped by number: numbers are never used again.
"""

from __future__ import annotations

import struct
from collections import deque
from typing import TYPE_CHECKING, Final

from lichen.wire.errors import MuxError

if TYPE_CHECKING:
    from collections.abc import Callable

FRAME_BYTES_MAX: Final = 64 * 1024
WINDOW_BYTES: Final = 256 * 1024
STREAMS_MAX: Final = 1024  # of one connection
OPENS_MAX: Final = 4 * STREAMS_MAX  # that a peer may ask for between two calls of `look`
NUMBER_MAX: Final = 2**32 - 1
HIGH_BYTES: Final = 64 * 1024  # queued on one stream before its owner is told to stop
LONELY_MAX: Final = 8  # flushes of one frame in a row, after which frames leave at once again
EAGER_BYTES: Final = 4 * 1024  # a payload that is not worth waiting for others to join it
WINDOW_HALF: Final = WINDOW_BYTES // 2
CONTROL_BYTES_MAX: Final = 64 * 1024  # we say unasked to a peer that does not read
HEADER_BYTES: Final = 8

DATA, OPEN, CLOSE, RESET, WINDOW, PING, PONG, GOAWAY = range(8)
_LENGTHS: Final = {OPEN: 0, CLOSE: 0, RESET: 0, WINDOW: 4, PING: 8, PONG: 8, GOAWAY: 0}
_OF_CONNECTION: Final = frozenset({PING, PONG, GOAWAY})
_HEADER: Final = struct.Struct(">II")
_pack: Final = _HEADER.pack
_unpack: Final = _HEADER.unpack_from


class Stream:
    """One stream's state. `deliver` takes its bytes; the `on_...` methods tell its owner the rest.

    `credit` is what the peer lets us send, `room` what we still let it send. `take` is what happens
    to data now; `_settle` alone decides which: deliver, hold (paused), drop (the owner left), or
    refuse (the peer had ended).
    """

    deliver: Callable[[bytes], None]
    take: Callable[[bytes], None]

    def __init__(self, mux: Mux, number: int) -> None:
        self.mux = mux
        self.number = number
        self.credit = WINDOW_BYTES
        self.room = WINDOW_BYTES
        self.high = HIGH_BYTES
        self.low = HIGH_BYTES // 4
        self.queue: deque[bytes | memoryview] = deque()
        self.queued = 0
        self.full = False  # the owner was told to stop
        self.ending = False  # the owner writes no more
        self.sent_end = False
        self.got_end = False
        self.left = False  # the owner reads no more either
        self.paused = False
        self.held: deque[bytes] = deque()  # came while paused; at most a window

    # What the owner hears.

    def on_open(self) -> None:
        """Begin: the peer opened the stream."""

    def on_end(self) -> None:
        """Expect nothing more: the peer writes no more."""

    def on_sent(self) -> None:
        """Know that all that was written went out, and the end after it."""

    def on_gone(self, error: Exception | None) -> None:
        """Let go: the stream is over, by both sides (None) or not. Called at most once."""

    def on_full(self) -> None:
        """Write no more for now."""

    def on_drained(self) -> None:
        """Write on."""

    def on_crash(self, error: Exception) -> None:
        """Report that `deliver` raised; the stream is reset next."""

    # What the owner says.

    def read_by(self, deliver: Callable[[bytes], None]) -> None:
        """Give what comes to `deliver`."""
        self.deliver = deliver
        self._settle()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send bytes; the short way is for what fits into one frame now."""
        size = len(data)
        mux = self.mux
        if (
            0 < size <= self.credit
            and size <= FRAME_BYTES_MAX
            and not self.queue
            and not self.ending
            and not mux.blocked
        ):
            self.credit -= size
            if size > EAGER_BYTES:
                mux.send_now([_pack(self.number, size), data])
                return
            if not mux.gathers and not mux.out:
                mux.send(_pack(self.number, size) + data)
                return
            out = mux.out
            if not out:
                mux.wake()
            out.append(_pack(self.number, size) + data)
        elif size and not self.ending:
            self.queue.append(bytes(data))
            self.queued += size
            self.pump()
            if self.queued > self.high and not self.full:
                self.full = True
                self.on_full()

    def end(self) -> None:
        """Write no more; what is queued still goes out."""
        if not self.ending:
            self.ending = True
            self.pump()

    def leave(self) -> None:
        """Neither write nor read any more; what is queued still goes out."""
        if not self.left:
            self.left = True
            self.held.clear()
            self._settle()
            self.end()

    def reset(self) -> None:
        """End the stream now, both ways; its owner hears `on_gone`."""
        if self.is_open:
            self.mux.control(self.number, RESET)
            self.over(None)

    def pause(self) -> None:
        """Deliver nothing until `resume`; the window bounds what is held."""
        self.paused = True
        self._settle()

    def resume(self) -> None:
        """Deliver what was held, then on."""
        self.paused = False
        held = self.held
        while held and not self.paused:
            self.mux.hand_over(self, held.popleft())
        if self.paused or self.left:
            return
        self._settle()
        if self.got_end:
            self.ended()
        elif self.room < WINDOW_HALF:
            self.grant()

    @property
    def is_open(self) -> bool:
        """Whether the peer still knows this stream."""
        return self.mux.streams.get(self.number) is self

    # What the connection says.

    def pump(self) -> None:
        """Send of the queue what window and connection take; then the end, if it is due."""
        queue, mux = self.queue, self.mux
        out: list[bytes | bytearray | memoryview] = []
        while queue and self.credit and not mux.blocked:
            piece = queue[0]
            size = min(len(piece), self.credit, FRAME_BYTES_MAX)
            if size == len(piece):
                queue.popleft()
            else:
                queue[0] = memoryview(piece)[size:]
                piece = piece[:size]
            self.credit -= size
            self.queued -= size
            out += (_pack(self.number, size), piece)
        if out:
            mux.send_now(out)
        if queue:
            if self.credit:
                mux.stalled[self.number] = self
            return
        if self.full and self.queued <= self.low:
            self.full = False
            self.on_drained()
        if self.ending and not self.sent_end and not queue:
            self.sent_end = True
            mux.control(self.number, CLOSE)
            self.on_sent()
            if self.got_end and not self.held:  # else the owner still reads what came before
                self.over(None)

    def grant(self) -> None:
        """Let the peer fill the window again."""
        taken, self.room = WINDOW_BYTES - self.room, WINDOW_BYTES
        self.mux.control(self.number, WINDOW, taken.to_bytes(4))

    def granted(self, more: int) -> None:
        """Take credit from the peer."""
        if not 0 < more <= WINDOW_BYTES - self.credit:
            raise broken("a window that nobody used up")
        self.credit += more
        if self.queue:
            self.pump()

    def running_low(self) -> None:
        """Less than half of the window is left: grant more, if what comes is taken up."""
        if self.room < 0:
            raise broken("more data than its window allows")
        if not (self.paused or self.left or self.got_end):
            self.grant()

    def peer_ended(self) -> None:
        """Note that the peer writes no more."""
        if self.got_end:
            raise broken("a stream ended twice")
        self.got_end = True
        self._settle()
        if not self.held:
            self.ended()

    def ended(self) -> None:
        """Act on the peer's end, now that all that came before it is delivered."""
        if self.sent_end:
            self.over(None)
        elif not self.left:
            self.on_end()

    def over(self, error: Exception | None) -> None:
        """Forget the stream and tell its owner."""
        mux = self.mux
        if mux.streams.pop(self.number, None) is None:
            return
        mux.stalled.pop(self.number, None)
        self.ending = self.sent_end = self.left = True
        self.queue.clear()
        self.held.clear()
        self.queued = 0
        self.on_gone(error)

    def _settle(self) -> None:
        if self.got_end:
            self.take = self._refuse
        elif self.left:
            self.take = self._drop
        elif self.paused:
            self.take = self._hold
        else:
            self.take = self.deliver

    def _hold(self, data: bytes) -> None:
        """Keep what came, small pieces joined: a bytes object costs 40 bytes of its own."""
        held = self.held
        if held and len(held[-1]) < EAGER_BYTES:
            held[-1] += data
        else:
            held.append(data)

    def _refuse(self, data: bytes) -> None:
        del data
        raise broken("data after the end of its stream")

    def _drop(self, data: bytes) -> None:
        """Take what nobody reads; say so once our own bytes are out, as TCP does."""
        del data
        if self.sent_end:
            self.reset()


class Mux:
    """One end of a connection.

    `send` takes bytes, `send_all` pieces of them; `wake` asks for `flush` at the end of the turn.
    `accept` makes a stream of an OPEN; without it this is the end that dialled, which alone may
    `open`. `receive` raises MuxError when the peer breaks the rules: the connection is then of no
    use any more.

    While several frames arrive together, what is written is gathered until the turn's end, so that
    many exchanges share a segment. While they come one by one, each leaves at once.
    """

    def __init__(
        self,
        send: Callable[[bytes], None],
        send_all: Callable[[list[bytes | bytearray | memoryview]], None],
        wake: Callable[[], object],
        accept: Callable[[Mux, int], Stream] | None = None,
    ) -> None:
        self.send = send
        self.send_all = send_all
        self.wake = wake
        self.accept = accept
        self.out: list[bytes] = []
        self.gathers = False
        self.streams: dict[int, Stream] = {}
        self.stalled: dict[int, Stream] = {}  # have something to send, and wait for the connection
        self.blocked = False
        self.going = False  # one side said GOAWAY: there will be no new streams
        self.last = 0  # the highest number used
        self._parts: list[bytes] = []  # of an incomplete frame
        self._size = 0
        self._wanted = 0
        self._lonely = 0  # flushes in a row that carried one frame
        self._unread = 0  # control bytes given to a connection that is full
        self._opens = 0

    @property
    def can_open(self) -> bool:
        """Whether one more stream may be opened."""
        return not self.going and self.last < NUMBER_MAX and len(self.streams) < STREAMS_MAX

    def open(self, stream: Stream) -> None:
        """Begin a stream that was made with the number `last` + 1."""
        self.last = stream.number
        self.streams[stream.number] = stream
        self.control(stream.number, OPEN)

    def go_away(self) -> None:
        """Say that no more streams are taken."""
        if not self.going:
            self.going = True
            self.control(0, GOAWAY)

    def ping(self, payload: bytes = bytes(8)) -> None:
        """Ask for a sign of life."""
        self.control(0, PING, payload)

    def look(self) -> None:
        """Begin a new period of counting; called now and then."""
        self._opens = 0

    def block(self) -> None:
        """Queue from now on: the connection takes no more."""
        self.blocked = True

    def unblock(self) -> None:
        """Let each stalled stream send, in turn: the connection takes more."""
        self.blocked = False
        self._unread = 0
        while self.stalled and not self.blocked:
            number = next(iter(self.stalled))
            self.stalled.pop(number).pump()

    def broke(self, error: Exception) -> None:
        """End all streams: the connection is lost."""
        self.going = True
        self.blocked = True
        self.out.clear()
        for stream in list(self.streams.values()):
            stream.over(error)

    def control(self, number: int, kind: int, payload: bytes = b"") -> None:
        """Send a frame that is not data, behind those that were written before."""
        if self.blocked:
            self._unread += HEADER_BYTES + len(payload)
        if not self.out:
            self.wake()
        self.out.append(_pack(number, kind << 24 | len(payload)) + payload)

    def send_now(self, pieces: list[bytes | bytearray | memoryview]) -> None:
        """Send large frames without copying them, behind what has gathered."""
        gathered = b"".join(self.out)
        self.out.clear()
        self.send_all([gathered, *pieces] if gathered else pieces)

    def flush(self) -> None:
        """Send what has gathered."""
        out = self.out
        if not out:
            return
        if len(out) > 1:
            data = b"".join(out)
            self._lonely = 0
        else:
            data = out[0]
            self._lonely += 1
            if self._lonely > LONELY_MAX:
                self.gathers = False
        out.clear()
        self.send(data)

    def receive(self, data: bytes) -> None:
        """Take bytes of the connection; what they complete is acted on at once."""
        at = 0
        while self._parts:
            part = data[at : at + self._wanted - self._size]
            at += len(part)
            self._parts.append(part)
            self._size += len(part)
            if self._size < self._wanted:
                return
            whole, self._parts = b"".join(self._parts), []
            self._parse(whole, 0)
        self._parse(data, at)

    def _parse(self, data: bytes, at: int) -> None:
        """Act on all whole frames from `at` on; keep what follows."""
        end = len(data)
        begin, second = 0, at + HEADER_BYTES
        streams = self.streams
        wanted = HEADER_BYTES
        while end - at >= HEADER_BYTES:
            number, word = _unpack(data, at)
            begin = at + HEADER_BYTES
            if 0 < word <= FRAME_BYTES_MAX:  # DATA is kind 0
                if begin + word > end:
                    wanted += word
                    break
                at = begin + word
                stream = streams.get(number)
                if stream is None:
                    self._stray(number)
                    continue
                stream.room = room = stream.room - word
                if room < WINDOW_HALF:
                    stream.running_low()
                try:
                    stream.take(data[begin:at])
                except MuxError:
                    raise
                except Exception as error:  # noqa: BLE001 (one stream's bug must not end the others)
                    self._crashed(stream, error)
            else:
                size = word & 0xFFFFFF
                if size != _LENGTHS.get(word >> 24):
                    raise broken("a frame of unknown kind or wrong length")
                if begin + size > end:
                    wanted += size
                    break
                at = begin + size
                self._act(number, word >> 24, data[begin:at])
        if begin > second:  # more than one frame
            self.gathers = True
        if at < end:
            self._parts = [data[at:]]
            self._size = end - at
            self._wanted = wanted

    def hand_over(self, stream: Stream, payload: bytes) -> None:
        """Deliver; an owner that fails loses its stream, not the connection."""
        try:
            stream.deliver(payload)
        except Exception as error:  # noqa: BLE001 (one stream's bug must not end the others)
            self._crashed(stream, error)

    def _crashed(self, stream: Stream, error: Exception) -> None:
        stream.on_crash(error)
        stream.reset()

    def _stray(self, number: int) -> None:
        """Drop data of a stream that is over."""
        if not 0 < number <= self.last:
            raise broken("data for a stream that was never opened")

    def _act(self, number: int, kind: int, payload: bytes) -> None:
        if self._unread > CONTROL_BYTES_MAX:
            raise broken("it asks and does not read the answers")
        if kind == OPEN:
            self._accept(number)
        elif kind in _OF_CONNECTION:
            if number:
                raise broken("a frame of the connection names a stream")
            if kind == PING:
                self.control(0, PONG, payload)
            elif kind == GOAWAY:
                self.going = True
        else:
            self._act_on(number, kind, payload)

    def _act_on(self, number: int, kind: int, payload: bytes) -> None:
        stream = self.streams.get(number)
        if stream is None:
            self._stray(number)
        elif kind == WINDOW:
            stream.granted(int.from_bytes(payload))
        elif kind == RESET:
            stream.over(ConnectionResetError("the peer reset the stream"))
        else:
            stream.peer_ended()

    def _accept(self, number: int) -> None:
        if self.accept is None or not self.last < number:
            raise broken("a stream opened by the wrong side, or out of turn")
        self.last = number
        self._opens += 1
        if self._opens > OPENS_MAX:
            raise broken("it opens streams faster than they can be of use")
        if self.going or len(self.streams) >= STREAMS_MAX:
            self.control(number, RESET)
        else:
            self.streams[number] = stream = self.accept(self, number)
            stream.on_open()


def broken(why: str) -> MuxError:
    """Return what a peer did against the rules."""
    return MuxError(
        f"the multiplexed connection is broken: {why}", hint="both ends must speak the same version"
    )
