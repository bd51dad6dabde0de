"""Blocks that come in one long answer: in order, verified, bounded, and singly where they do not."""

import os

import pytest

from lichen.cli.project import stream
from lichen.cli.project.stream import StreamedBlocks
from lichen.content import CID, RAW
from lichen.content.car import CarError
from lichen.errors import PeerUnavailableError, VerificationError

BLOCKS = [(CID.of(RAW, data), data) for data in (os.urandom(1000) for _ in range(50))]
ROOT = BLOCKS[0][0]


class Source:
    """A gateway that has BLOCKS, and notes what it is asked for singly."""

    def __init__(self):
        self.asked = []

    def get_block(self, cid):
        self.asked.append(cid)
        return dict(BLOCKS).get(cid)


def streamed(source, sections):
    blocks = StreamedBlocks(source, lambda _root: iter(sections))
    blocks.follow(ROOT)
    return blocks


def test_what_comes_in_order_is_never_asked_for_singly():
    source = Source()
    blocks = streamed(source, BLOCKS)
    assert [blocks.get_block(cid) for cid, _ in BLOCKS] == [data for _, data in BLOCKS]
    assert blocks.get_block(BLOCKS[3][0]) == BLOCKS[3][1]  # a second look
    assert source.asked == []


def test_what_was_passed_over_is_still_at_hand():
    source = Source()
    blocks = streamed(source, BLOCKS)
    assert all(blocks.get_block(cid) == data for cid, data in reversed(BLOCKS))
    assert source.asked == []


@pytest.mark.parametrize("failure", [PeerUnavailableError("gone"), CarError("cut off")])
def test_after_a_break_the_rest_is_asked_for_singly(failure):
    def sections():
        yield from BLOCKS[:10]
        raise failure

    source = Source()
    blocks = streamed(source, sections())
    assert [blocks.get_block(cid) for cid, _ in BLOCKS] == [data for _, data in BLOCKS]
    assert source.asked == [cid for cid, _ in BLOCKS[10:]]


def test_wrong_bytes_in_the_stream_are_no_break():
    def sections():
        yield BLOCKS[0]
        raise VerificationError("wrong")

    blocks = streamed(Source(), sections())
    blocks.get_block(ROOT)
    with pytest.raises(VerificationError):
        blocks.get_block(BLOCKS[1][0])


def test_a_stream_of_other_blocks_is_given_up_and_memory_stays_bounded(monkeypatch):
    monkeypatch.setattr(stream, "PASSED_OVER_BYTES_MAX", 20_000)
    monkeypatch.setattr(stream, "KEPT_BYTES_MAX", 30_000)
    taken = []

    def sections():
        while True:
            data = os.urandom(1000)
            taken.append(data)
            yield CID.of(RAW, data), data

    source = Source()
    blocks = streamed(source, sections())
    assert [blocks.get_block(cid) for cid, _ in BLOCKS] == [data for _, data in BLOCKS]
    assert len(taken) < 20
    assert source.asked == [cid for cid, _ in BLOCKS]
    assert blocks._kept_bytes <= 30_000


def test_a_block_that_carries_itself_is_not_looked_for_in_the_stream():
    source = Source()
    blocks = streamed(source, BLOCKS)
    blocks.get_block(CID.parse("bafkqaaa"))
    assert [str(cid) for cid in source.asked] == ["bafkqaaa"]
    assert blocks.get_block(ROOT) == BLOCKS[0][1]
    assert len(source.asked) == 1
