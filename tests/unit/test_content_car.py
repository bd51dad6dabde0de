"""CARs: round trips, the order of blocks, and input that lies about itself."""

import contextlib
import io
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lichen.content import (
    V1_2025,
    CarReader,
    MissingBlockError,
    dag_pb,
    export_car,
    import_bytes,
    import_directory,
    varint,
    walk,
    write_car,
)
from lichen.content.blocks import BLOCK_BYTES_MAX
from lichen.content.cid import CID, DAG_PB, IDENTITY, RAW
from lichen.content.dag_pb import Link
from lichen.errors import LichenError, UserError, VerificationError


class Memory(dict):
    def get_block(self, cid):
        return self.get(cid)


def parse(data):
    reader = CarReader(io.BytesIO(data))
    return reader.roots, list(reader)


def car_of(*blocks, roots=None):
    named = [(CID.of(RAW, block), block) for block in blocks]
    return b"".join(write_car([named[0][0]] if roots is None else roots, named))


def version_2(inner, padding=b"", index=b"index bytes"):
    pragma = bytes.fromhex("0aa16776657273696f6e02")
    start = len(pragma) + 40 + len(padding)
    header = bytes(16) + b"".join(
        number.to_bytes(8, "little") for number in (start, len(inner), start + len(inner))
    )
    return pragma + header + padding + inner + index


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=8))
def test_a_car_reads_back(blocks):
    roots, read = parse(car_of(*blocks))
    assert roots == (CID.of(RAW, blocks[0]),)
    assert [block for _, block in read] == blocks


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=4), st.binary(max_size=20))
def test_a_version_2_car_reads_as_the_one_inside(blocks, padding):
    inner = car_of(*blocks)
    assert parse(version_2(inner, padding)) == parse(inner)


def test_the_known_header_bytes_are_written():
    cid = CID.parse("bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku")
    expected = "3aa265726f6f747381d82a58250001551220" + cid.digest.hex() + "6776657273696f6e01"
    assert car_of(b"")[:59].hex() == expected


def test_an_export_is_depth_first_with_each_block_once():
    blocks = Memory()
    put = blocks.__setitem__
    file = import_bytes(bytes(5 << 20), V1_2025, put)
    folder = import_directory([file.link("z"), file.link("same")], V1_2025, put)
    root = import_directory([folder.link("a"), file.link("b")], V1_2025, put)
    roots, read = parse(b"".join(export_car(blocks, root.cid)))
    leaf = CID.of(RAW, bytes(1 << 20))
    assert roots == (root.cid,)
    assert [cid for cid, _ in read] == [root.cid, folder.cid, file.cid, leaf]


def test_identity_cids_stay_out_of_exports_and_are_followed():
    blocks = Memory()
    leaf = CID.of(RAW, b"leaf")
    inline = CID(DAG_PB, dag_pb.encode([Link(leaf)], None), IDENTITY)
    root_block = dag_pb.encode([Link(inline)], None)
    root = CID.of(DAG_PB, root_block)
    blocks.update({leaf: b"leaf", root: root_block})
    assert [cid for cid, _ in walk(blocks, root)] == [root, leaf]


def test_an_export_of_an_incomplete_dag_fails():
    blocks = Memory()
    root = import_bytes(bytes(5 << 20), V1_2025, blocks.__setitem__)
    del blocks[CID.of(RAW, bytes(1 << 20))]
    with pytest.raises(MissingBlockError):
        list(export_car(blocks, root.cid))


@pytest.mark.parametrize("wrap", [bytes, version_2])
def test_a_car_cut_off_anywhere_is_refused_or_ends_between_blocks(wrap):
    blocks = [b"first", b"second" * 30, b""]
    car = wrap(car_of(*blocks))
    whole = parse(car)
    complete = 0
    for size in range(len(car)):
        try:
            _, read = parse(car[:size])
        except UserError:
            continue
        complete += 1
        assert read == whole[1][: len(read)]
    assert complete <= (3 if wrap is bytes else len(b"index bytes"))


def test_a_wrong_byte_in_a_block_is_refused():
    car = car_of(b"first", b"second")
    damaged = car[:-1] + b"X"
    with pytest.raises(VerificationError):
        parse(damaged)


@pytest.mark.parametrize("garbage", [b"\0", b"\0" * 64, b"garbage", b"\x05abc", b"\xff" * 20])
def test_bytes_behind_the_last_block_are_refused(garbage):
    with pytest.raises(LichenError):
        parse(car_of(b"first") + garbage)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        varint.encode(1 << 30),
        varint.encode(1 << 62) + b"x",
        b"\xff" * 100_000,
        b"\x80" * 100_000,
        b"\x80\x00",
        b"\x01\xa0",
        varint.encode(1 << 20) + b"\x81" * (1 << 20),
        bytes.fromhex("0aa16776657273696f6e03"),
        bytes.fromhex("0aa16776657273696f6e02") + b"\xff" * 40,
        bytes.fromhex("0aa16776657273696f6e02") + bytes(40),
    ],
)
def test_headers_that_lie_are_refused_at_once(data):
    start = time.process_time()
    with pytest.raises(UserError):
        parse(data)
    assert time.process_time() - start < 1


def test_a_block_over_the_bound_is_refused_before_it_is_read():
    class Endless(io.BytesIO):
        def read(self, size=-1):
            return super().read(size) or b"x" * min(size, 1 << 16)

    car = car_of(b"first") + varint.encode(1 << 30)
    with pytest.raises(UserError):
        list(CarReader(Endless(car)))
    with pytest.raises(LichenError):
        parse(car_of(bytes(BLOCK_BYTES_MAX + 1)))


@given(st.binary(max_size=300))
def test_random_bytes_never_raise_anything_but_our_errors(data):
    for prefix in (b"", car_of(b"first")):
        with contextlib.suppress(LichenError):
            parse(prefix + data)


def test_a_stream_that_gives_a_byte_at_a_time_is_read_whole():
    class Trickle(io.BytesIO):
        def read(self, size=-1):
            return super().read(min(size, 1))

    car = car_of(b"first", b"second" * 100)
    assert list(CarReader(Trickle(car))) == parse(car)[1]


def test_a_version_2_car_is_read_to_the_end_of_its_stream():
    stream = io.BytesIO(version_2(car_of(b"first"), index=b"i" * 200_000))
    assert len(list(CarReader(stream))) == 1
    assert stream.read() == b""
