"""The multiplexer without sockets: two ends, and whatever order the bytes between them take."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lichen.wire.errors import MuxError
from lichen.wire.mux import (
    CLOSE,
    CONTROL_BYTES_MAX,
    DATA,
    FRAME_BYTES_MAX,
    GOAWAY,
    HEADER_BYTES,
    OPEN,
    OPENS_MAX,
    PING,
    PONG,
    RESET,
    STREAMS_MAX,
    WINDOW,
    WINDOW_BYTES,
    Mux,
    Stream,
)


def frame(number: int, kind: int, payload: bytes = b"") -> bytes:
    return struct.pack(">II", number, kind << 24 | len(payload)) + payload


class Owner(Stream):
    """A stream that writes down what its owner hears."""

    def __init__(self, mux: Mux, number: int) -> None:
        super().__init__(mux, number)
        self.got = bytearray()
        self.wrote = bytearray()
        self.segments: list[bytes] = []
        self.heard: list[str] = []
        self.error: Exception | None = None
        self.read_by(self.take_in)

    def take_in(self, data: bytes) -> None:
        assert not self.paused
        self.segments.append(data)
        self.got += data

    def say(self, data: bytes) -> None:
        if not self.ending:
            self.wrote += data
        self.write(data)

    def on_open(self) -> None:
        self.heard.append("open")

    def on_end(self) -> None:
        self.heard.append("end")

    def on_sent(self) -> None:
        self.heard.append("sent")

    def on_gone(self, error: Exception | None) -> None:
        self.heard.append("gone")
        self.error = error

    def on_full(self) -> None:
        self.heard.append("full")

    def on_drained(self) -> None:
        self.heard.append("drained")

    def on_crash(self, error: Exception) -> None:
        self.heard.append("crash")


class End:
    """One end, its accepted streams, and the bytes it has sent that are still under way."""

    def __init__(self, *, accepts: bool) -> None:
        self.wire = bytearray()
        self.sends = 0
        self.owners: dict[int, Owner] = {}
        self.woken = 0
        self.mux = Mux(self.send, self.send_all, self.wake, self.accept if accepts else None)

    def send(self, data: bytes) -> None:
        self.sends += 1
        self.wire += data

    def send_all(self, pieces: list[bytes]) -> None:
        self.send(b"".join(pieces))

    def wake(self) -> None:
        self.woken += 1

    def accept(self, mux: Mux, number: int) -> Owner:
        owner = self.owners[number] = Owner(mux, number)
        return owner

    def open(self) -> Owner:
        owner = Owner(self.mux, self.mux.last + 1)
        self.owners[owner.number] = owner
        self.mux.open(owner)
        return owner


class Pair:
    def __init__(self) -> None:
        self.dialling = End(accepts=False)
        self.listening = End(accepts=True)

    def carry(self, source: End, target: End, size: int | None = None) -> None:
        """Let bytes arrive, at most `size` of them."""
        source.mux.flush()
        piece = bytes(source.wire[:size])
        del source.wire[: len(piece)]
        if piece:
            target.mux.receive(piece)

    def settle(self) -> None:
        """Carry until nothing is under way."""
        for _ in range(10_000):
            self.carry(self.dialling, self.listening)
            self.carry(self.listening, self.dialling)
            ends = (self.dialling, self.listening)
            if not any(end.wire or end.mux.out for end in ends):
                return
        raise AssertionError("they never come to rest")

    def stream(self) -> tuple[Owner, Owner]:
        here = self.dialling.open()
        self.settle()
        return here, self.listening.owners[here.number]


def pattern(size: int, seed: int) -> bytes:
    return bytes((seed * 31 + at * 7) % 251 for at in range(257)) * (size // 257 + 1)


ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(
            ["open", "write", "write", "write", "carry", "carry", "pause", "resume", "block",
             "unblock", "end", "leave", "reset", "flush"]
        ),
        st.integers(0, 2),
        st.booleans(),
        st.sampled_from([1, 9, 5000, 65_537, 150_000, 300_000, 1_000_000]),
    ),
    max_size=60,
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(ACTIONS)
def test_every_stream_keeps_its_bytes_and_their_order_whatever_happens(actions) -> None:
    pair = Pair()
    for _ in range(2):
        pair.stream()
    cut: set[int] = set()  # streams whose bytes may be lost: reset, or left unread
    for step, (action, which, dialling, size) in enumerate(actions):
        here, there = (
            (pair.dialling, pair.listening) if dialling else (pair.listening, pair.dialling)
        )
        if action == "open":
            pair.dialling.open()
            continue
        if action == "carry":
            pair.carry(here, there, size)
            continue
        if action in {"block", "unblock", "flush"}:
            getattr(here.mux, action)()
            continue
        owner = here.owners.get(which + 1)
        if owner is None:
            continue
        if action == "write":
            owner.say(pattern(size, step)[:size])
        else:
            getattr(owner, action)()
            if action in {"leave", "reset"}:
                cut.add(owner.number)
        assert sum(map(len, owner.held)) <= WINDOW_BYTES
    for end in (pair.dialling, pair.listening):
        end.mux.unblock()
        for owner in end.owners.values():
            owner.resume()
    pair.settle()
    for number, one in pair.dialling.owners.items():
        other = pair.listening.owners[number]
        for source, target in ((one, other), (other, one)):
            assert source.wrote.startswith(target.got)
            assert target.heard.count("gone") <= 1
            if number not in cut:
                assert target.got == source.wrote
                assert not source.queued
                assert ("end" in target.heard or "gone" in target.heard) == source.ending


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 400), max_size=40))
def test_frames_may_be_cut_anywhere(cuts: list[int]) -> None:
    pair = Pair()
    here, there = pair.stream()
    for size in (1, 10, 300, 2000):
        here.say(pattern(size, size)[:size])
    for cut in cuts:
        pair.carry(pair.dialling, pair.listening, cut)
    pair.settle()
    assert there.got == here.wrote
    assert [len(segment) for segment in there.segments] == [1, 10, 300, 2000]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.binary(max_size=40), max_size=8), st.booleans())
def test_garbage_is_a_typed_error_or_nothing(pieces: list[bytes], accepts: bool) -> None:
    end = End(accepts=accepts)
    try:
        for piece in pieces:
            end.mux.receive(piece)
    except MuxError:  # any other error fails the test
        return
    assert len(end.mux.streams) <= sum(map(len, pieces)) // HEADER_BYTES


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 3),
            st.integers(0, 8),
            st.sampled_from([0, 1, 4, 8]),
            st.binary(max_size=8),
        ),
        max_size=20,
    )
)
def test_well_formed_frames_in_any_order_are_taken_or_refused(frames) -> None:
    end = End(accepts=True)
    try:
        for number, kind, size, payload in frames:
            end.mux.receive(frame(number, kind, payload.ljust(size, b"\0")[:size]))
    except MuxError:
        return
    assert len(end.mux.streams) <= 3


def test_a_small_exchange_costs_one_frame_each_way() -> None:
    pair = Pair()
    here, there = pair.stream()
    before = pair.dialling.sends, pair.listening.sends
    here.say(b"question")
    pair.settle()
    there.say(b"answer")
    pair.settle()
    assert (pair.dialling.sends, pair.listening.sends) == (before[0] + 1, before[1] + 1)
    assert (there.got, here.got) == (b"question", b"answer")


def test_what_is_written_in_one_turn_leaves_together_once_frames_come_together() -> None:
    pair = Pair()
    streams = [pair.stream() for _ in range(5)]
    for _ in range(2):  # the first round teaches the listening end, the second uses it
        for here, _ in streams:
            here.say(b"question")
        pair.settle()
        sends = pair.listening.sends
        for _, there in streams:
            there.say(b"answer")
        pair.settle()
    assert pair.listening.sends == sends + 1
    assert all(here.got == b"answeranswer" for here, _ in streams)


def test_a_stream_that_is_not_read_stops_only_itself() -> None:
    pair = Pair()
    slow, slow_there = pair.stream()
    quick, quick_there = pair.stream()
    slow_there.pause()
    slow.say(bytes(4 * WINDOW_BYTES))
    quick.say(b"here I am")
    pair.settle()
    assert quick_there.got == b"here I am"
    assert slow.heard == ["full"]
    assert slow.queued == 3 * WINDOW_BYTES
    assert sum(map(len, slow_there.held)) == WINDOW_BYTES
    slow_there.resume()
    pair.settle()
    assert slow_there.got == slow.wrote
    assert slow.heard == ["full", "drained"]


def test_a_full_connection_makes_streams_queue_and_then_take_turns() -> None:
    pair = Pair()
    first, first_there = pair.stream()
    second, second_there = pair.stream()
    pair.dialling.mux.block()
    first.say(b"1" * 1000)
    second.say(b"2" * 1000)
    pair.settle()
    assert not first_there.got
    pair.dialling.mux.unblock()
    pair.settle()
    assert (first_there.got, second_there.got) == (first.wrote, second.wrote)


def test_the_two_directions_end_apart() -> None:
    pair = Pair()
    here, there = pair.stream()
    here.say(b"all I have")
    here.end()
    pair.settle()
    assert there.heard == ["open", "end"]
    there.say(b"more from me")
    there.end()
    pair.settle()
    assert here.got == b"more from me"
    assert here.heard == ["sent", "gone"]
    assert there.heard == ["open", "end", "sent", "gone"]
    assert here.error is None
    assert not pair.dialling.mux.streams
    assert not pair.listening.mux.streams


def test_the_end_comes_after_what_was_held() -> None:
    pair = Pair()
    here, there = pair.stream()
    there.pause()
    here.say(b"before")
    here.end()
    pair.settle()
    assert there.heard == ["open"]
    there.resume()
    assert there.got == b"before"
    assert there.heard == ["open", "end"]


def test_a_reset_ends_both_sides_at_once() -> None:
    pair = Pair()
    here, there = pair.stream()
    here.say(b"x")
    here.reset()
    pair.settle()
    assert isinstance(there.error, ConnectionResetError)
    there.say(b"late")
    pair.settle()
    assert not here.got


def test_who_writes_to_a_stream_that_was_left_is_told() -> None:
    pair = Pair()
    here, there = pair.stream()
    here.leave()
    there.say(b"nobody reads this")
    pair.settle()
    assert isinstance(there.error, ConnectionResetError)
    assert not here.got


def test_an_owner_that_fails_loses_only_its_own_stream() -> None:
    pair = Pair()
    bad, bad_there = pair.stream()
    good, good_there = pair.stream()

    def fail(data: bytes) -> None:
        raise ValueError(data)

    bad_there.read_by(fail)
    bad.say(b"x")
    good.say(b"y")
    pair.settle()
    assert "crash" in bad_there.heard
    assert "gone" in bad.heard
    assert good_there.got == b"y"


def test_a_ping_is_answered() -> None:
    end = End(accepts=True)
    end.mux.receive(frame(0, PING, b"12345678"))
    end.mux.flush()
    assert end.wire == frame(0, PONG, b"12345678")


def test_after_goaway_open_streams_go_on_and_new_ones_are_refused() -> None:
    pair = Pair()
    here, there = pair.stream()
    pair.listening.mux.go_away()
    late = pair.dialling.open()
    pair.settle()
    assert not pair.dialling.mux.can_open
    assert late.heard == ["gone"]
    here.say(b"still here")
    pair.settle()
    assert there.got == b"still here"


def test_a_lost_connection_ends_every_stream_with_its_error() -> None:
    pair = Pair()
    streams = [pair.stream()[0] for _ in range(3)]
    lost = ConnectionResetError("gone")
    pair.dialling.mux.broke(lost)
    assert all(stream.error is lost for stream in streams)
    assert not pair.dialling.mux.can_open


def test_streams_over_the_bound_are_reset() -> None:
    pair = Pair()
    for _ in range(STREAMS_MAX):
        pair.dialling.open()
    assert not pair.dialling.mux.can_open
    one_more = pair.dialling.open()
    pair.settle()
    assert one_more.heard == ["gone"]
    assert len(pair.listening.mux.streams) == STREAMS_MAX


def test_a_peer_that_asks_and_never_reads_is_cut_off() -> None:
    end = End(accepts=True)
    end.mux.block()
    pings = frame(0, PING, bytes(8)) * (CONTROL_BYTES_MAX // 16 + 2)
    with pytest.raises(MuxError, match="does not read"):
        end.mux.receive(pings)


@pytest.mark.parametrize(
    "frames",
    [
        frame(1, DATA, b"x"),
        frame(2, RESET),
        frame(1, OPEN) + frame(1, OPEN),
        frame(0, OPEN),
        frame(1, OPEN) + frame(1, DATA),
        frame(1, OPEN) + frame(1, CLOSE) + frame(1, DATA, b"x"),
        frame(1, OPEN) + frame(1, CLOSE) + frame(1, CLOSE),
        frame(1, OPEN) + frame(1, WINDOW, (1).to_bytes(4)),
        frame(1, OPEN) + frame(1, WINDOW, bytes(4)),
        frame(1, OPEN, b"x"),
        frame(1, PING, bytes(8)),
        frame(1, GOAWAY),
        frame(0, PING, bytes(7)),
        frame(0, 8),
        frame(0, 255),
        frame(1, OPEN) + frame(1, DATA, bytes(FRAME_BYTES_MAX + 1)),
    ],
)
def test_a_peer_that_breaks_the_rules_is_told_from_one_that_does_not(frames: bytes) -> None:
    end = End(accepts=True)
    with pytest.raises(MuxError):
        end.mux.receive(frames)


def test_more_than_the_window_is_refused() -> None:
    end = End(accepts=True)
    end.mux.receive(frame(1, OPEN))
    end.owners[1].pause()
    full = frame(1, DATA, bytes(FRAME_BYTES_MAX))
    for _ in range(WINDOW_BYTES // FRAME_BYTES_MAX):
        end.mux.receive(full)
    with pytest.raises(MuxError, match="window"):
        end.mux.receive(frame(1, DATA, b"x"))


def test_streams_opened_and_reset_in_a_flood_end_the_connection() -> None:
    end = End(accepts=True)
    numbers = range(1, OPENS_MAX + 2)
    flood = b"".join(frame(number, OPEN) + frame(number, RESET) for number in numbers)
    with pytest.raises(MuxError, match="faster"):
        end.mux.receive(flood)


def test_only_the_side_that_dialled_opens() -> None:
    end = End(accepts=False)
    with pytest.raises(MuxError, match="wrong side"):
        end.mux.receive(frame(1, OPEN))
