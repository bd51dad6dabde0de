"""CARs: round trips, the order of blocks, and input that lies about itself."""

import contextlib
import io
import itertools
import time
import tracemalloc

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
from lichen.content.car import AHEAD_BYTES, HEADER_BYTES_MAX, ROOTS_MAX, CarError
from lichen.content.cid import BLAKE3, CID, DAG_PB, IDENTITY, RAW, SHA2_512
from lichen.content.dag_pb import Link
from lichen.errors import LichenError, LimitError, VerificationError


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
        except CarError:
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
    with pytest.raises(CarError):
        parse(data)
    assert time.process_time() - start < 1


def test_a_block_over_the_bound_is_refused_before_it_is_read():
    class Endless(io.BytesIO):
        def read(self, size=-1):
            return super().read(size) or b"x" * min(size, 1 << 16)

    car = car_of(b"first") + varint.encode(1 << 30)
    with pytest.raises(CarError):
        list(CarReader(Endless(car)))
    with pytest.raises(LimitError):
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


class Made:
    """A stream of pieces that are made as they are read, and nowhere kept."""

    def __init__(self, pieces):
        self._pieces = iter(pieces)
        self._rest = b""

    def read(self, size):
        while len(self._rest) < size and (piece := next(self._pieces, None)) is not None:
            self._rest += piece
        data, self._rest = self._rest[:size], self._rest[size:]
        return data


def peak_bytes(work):
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_very_many_tiny_blocks_take_no_more_memory_than_a_few():
    def read(count):
        named = ((CID.of(RAW, b"%d" % number), b"%d" % number) for number in range(count))
        stream = Made(write_car([CID.of(RAW, b"0")], named))
        assert sum(1 for _ in CarReader(stream)) == count

    few = peak_bytes(lambda: read(5000))
    assert peak_bytes(lambda: read(30_000)) < few + AHEAD_BYTES


@pytest.mark.parametrize("claimed", [1 << 30, (1 << 63) - 1, HEADER_BYTES_MAX + 1])
def test_a_length_that_is_claimed_is_not_set_aside(claimed):
    header = next(iter(write_car([], [])))
    endless = itertools.repeat(b"x" * 1000)
    for before in (b"", header):

        def read(before=before):
            with pytest.raises(CarError):
                list(CarReader(Made(itertools.chain([before + varint.encode(claimed)], endless))))

        if before == b"" or claimed > BLOCK_BYTES_MAX + 256:
            assert peak_bytes(read) < 1 << 20


def test_a_large_header_or_block_that_never_comes_is_waited_for_in_bounded_memory():
    for size in (HEADER_BYTES_MAX, BLOCK_BYTES_MAX):
        car = (
            (b"" if size == HEADER_BYTES_MAX else car_of(roots=[]))
            + varint.encode(size)
            + b"x" * 10
        )

        def read(car=car):
            with pytest.raises(CarError):
                parse(car)

        assert peak_bytes(read) < 1 << 20


def car_of_nothing(*sections):
    return b"".join([next(iter(write_car([], []))), *sections])


def section(data):
    return varint.encode(len(data)) + data


@pytest.mark.parametrize(
    "cid",
    [
        b"\x01\x55\x11\x14" + b"h" * 20,  # SHA-1
        b"\x01\x55\xd5\x01\x10" + b"h" * 16,  # MD5: too short to name anything
        b"\x01\x55\xb2\x40\x20" + b"h" * 32,  # one of murmur3's
        b"\x02\x55\x12\x20" + b"h" * 32,  # version 2
        b"\x01\x55\x12\xff\x01" + b"h" * 255,
        b"\x01\xd5\x00\x12\x20" + b"h" * 32,  # 0x55 in two bytes
        b"\x01\x55\x12\xa0\x00" + b"h" * 32,
        b"\x81\x00\x55\x12\x20" + b"h" * 32,
        b"\x01" + b"\xff" * 300,
        b"\x12\x20" + b"h" * 31,
        b"\x01",
    ],
)
def test_cids_of_unknown_hash_functions_and_other_spellings_are_named_as_the_fault(cid):
    with pytest.raises(CarError, match="block 2"):
        parse(car_of(b"first") + section(cid))


def test_blocks_of_every_known_hash_function_are_verified():
    for made in (CID.of(RAW, b"x"), CID(RAW, b"x", IDENTITY)):
        assert parse(car_of_nothing(section(made.encode() + b"x")))[1] == [(made, b"x")]
    for code, size in ((SHA2_512, 64), (BLAKE3, 32), (0x12, 32), (IDENTITY, 1)):
        wrong = CID(RAW, b"h" * size, code)
        with pytest.raises(VerificationError):
            parse(car_of_nothing(section(wrong.encode() + b"x")))


@pytest.mark.parametrize("spelt", [b"\x81\x00", b"\xa5\x80\x00", b"\x80\x00", b"\x00"])
def test_a_length_in_more_bytes_than_it_takes_is_refused(spelt):
    with pytest.raises(CarError):
        parse(car_of_nothing(spelt + CID.of(RAW, b"").encode()))


@pytest.mark.parametrize(
    ("start", "size"),
    [(0, 100), (11, 100), (50, 100), (1 << 63, 100), (HEADER_BYTES_MAX * 2, 100), (51, 0),
     (51, 1), (51, 40), (51, 1 << 62), (52, 100), (1 << 20, 100)],
)  # fmt: skip
def test_a_version_2_header_that_points_elsewhere_is_refused(start, size):
    inner = car_of(b"first", b"second")
    pragma = bytes.fromhex("0aa16776657273696f6e02")
    header = bytes(16) + start.to_bytes(8, "little") + size.to_bytes(8, "little") + bytes(8)
    with pytest.raises(CarError):
        parse(pragma + header + inner)


def test_a_version_2_inside_of_another_is_none():
    with pytest.raises(CarError):
        parse(version_2(version_2(car_of(b"first"))))


def test_too_many_roots_are_refused():
    root = CID.of(RAW, b"x")
    assert len(parse(car_of(b"x", roots=[root] * ROOTS_MAX))[0]) == ROOTS_MAX
    with pytest.raises(CarError):
        parse(car_of(b"x", roots=[root] * (ROOTS_MAX + 1)))


@given(
    st.lists(st.binary(max_size=300), min_size=1, max_size=6),
    st.booleans(),
    st.data(),
)
def test_a_changed_byte_never_passes_as_other_content(blocks, is_second, data):
    whole = car_of(*blocks)
    car = bytearray(version_2(whole) if is_second else whole)
    place = data.draw(st.integers(0, len(car) - 1))
    car[place] ^= data.draw(st.integers(1, 255))
    try:
        _, read = parse(bytes(car))
    except LichenError:
        return
    assert all(CID.of(cid.codec, block).digest == cid.digest for cid, block in read)
    assert [block for _, block in read] == blocks[: len(read)]


@given(st.lists(st.binary(max_size=300), max_size=6), st.lists(st.integers(1, 70), min_size=1))
def test_a_stream_may_give_as_little_as_it_likes(blocks, sizes):
    class Little(io.BytesIO):
        turns = itertools.cycle(sizes)

        def read(self, size=-1):
            return super().read(min(size, next(self.turns)))

    car = car_of(*blocks, roots=[])
    assert [block for _, block in CarReader(Little(car))] == blocks
    assert list(CarReader(Little(version_2(car)))) == parse(car)[1]
