"""A peer on a multiplexed connection costs what its bytes cost."""

import struct

from lichen.wire.mux import DATA, OPEN, WINDOW_BYTES, Mux, Stream

PIECES = 20_000


def frame(number: int, kind: int, payload: bytes = b"") -> bytes:
    return struct.pack(">II", number, kind << 24 | len(payload)) + payload


def test_a_window_of_single_bytes_is_held_in_few_pieces() -> None:
    opened: list[Stream] = []
    got = bytearray()

    def accept(mux: Mux, number: int) -> Stream:
        stream = Stream(mux, number)
        stream.read_by(got.extend)
        stream.pause()
        opened.append(stream)
        return stream

    mux = Mux(lambda _data: None, lambda _pieces: None, lambda: None, accept)
    mux.receive(frame(1, OPEN))
    sent = bytes(number & 0xFF for number in range(PIECES))
    mux.receive(b"".join(frame(1, DATA, sent[n : n + 1]) for n in range(PIECES)))
    (stream,) = opened
    assert len(stream.held) <= PIECES // 4096 + 1
    assert sum(map(len, stream.held)) == PIECES <= WINDOW_BYTES
    stream.resume()
    assert bytes(got) == sent
