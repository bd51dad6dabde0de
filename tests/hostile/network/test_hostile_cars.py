"""CARs that lie, end early or never: refused as a whole, and nothing of them is left."""

from __future__ import annotations

import random
import re
from typing import TYPE_CHECKING

import pytest

from lichen.content import CID, varint, write_car
from lichen.content.cid import RAW
from lichen.errors import LichenError
from tests.hostile.network.world import Dag, Process, ask, bounded, stream_of, version_2

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from lichen.sdk.client import Client
    from lichen.testing.network import LocalNetwork

LEAF = CID.of(RAW, b"leaf")
GIB = 1 << 30
TINY_BLOCKS = 20_000
UPLOAD_MB_MAX = 64


@pytest.fixture(scope="module")
def client(network: LocalNetwork) -> Iterator[Client]:
    with network.client(network.key("developer")) as client:
        yield client


def stored_bytes(network: LocalNetwork) -> int:
    found = re.search(
        rb"^lichen_gateway_content_bytes (\d+)", ask(network.port, "/metrics").body, re.MULTILINE
    )
    assert found is not None
    return int(found[1])


def refusal(client: Client, parts: Iterable[bytes]) -> LichenError:
    with pytest.raises(LichenError) as caught:
        client.upload_car(parts)
    assert 400 <= caught.value.status < 500, caught.value
    assert caught.value.what
    return caught.value


def good_car() -> bytes:
    dag = Dag()
    leaves = [dag.raw(random.Random(number).randbytes(5000)) for number in range(30)]
    return dag.car(dag.file([(leaf, 5000) for leaf in leaves]))


def header(roots: bytes) -> bytes:
    return varint.encode(len(roots)) + roots


WRONG = {
    "empty": b"",
    "a header of 1 GB": varint.encode(GIB) + b"\xa2" * 4096,
    "a header that never ends": b"\xff" * 64,
    "a header of 1 MiB of nesting": header(b"\x81" * (1 << 20)),
    "a header of 1 MiB of roots": header(
        b"\xa2\x65roots" + b"\x9a\x00\x03\xff\xff" + b"\xf6" * 900_000
    ),
    "no roots": header(b"\xa1\x67version\x01"),
    "version 3": header(b"\xa1\x67version\x03"),
    "a section of 1 GB": b"".join(write_car([LEAF], [])) + varint.encode(GIB) + LEAF.encode(),
    "a section of nothing": b"".join(write_car([LEAF], [])) + b"\0" * 4096,
    "a block of other bytes": b"".join(write_car([LEAF], [(LEAF, b"leag")])),
    "a hash nobody can check": b"".join(write_car([LEAF], [(CID(RAW, bytes(32), 0xB220), b"x")])),
    "a version 2 that starts at 1 TB": version_2(b"", data_offset=1 << 40),
    "a version 2 inside its own header": version_2(good_car(), data_offset=11),
    "a version 2 of 1 GB that is short": version_2(good_car(), data_bytes=GIB),
    "a version 2 in a version 2": version_2(version_2(good_car())),
    "no CAR at all": random.Random(1).randbytes(100_000),
}


@pytest.mark.parametrize("data", WRONG.values(), ids=WRONG)
def test_a_car_that_is_wrong_is_refused_and_leaves_nothing(
    network: LocalNetwork, gateway: Process, client: Client, data: bytes
) -> None:
    before = stored_bytes(network)
    with bounded(gateway, mb_max=UPLOAD_MB_MAX, what="a wrong CAR"):
        refusal(client, stream_of(data))
    assert stored_bytes(network) == before


def test_a_car_cut_off_anywhere_is_refused_and_leaves_nothing(
    network: LocalNetwork, client: Client
) -> None:
    car, before = good_car(), stored_bytes(network)
    dice = random.Random(3)
    for cut in [1, 30, 59, 60, len(car) - 1, *(dice.randrange(61, len(car)) for _ in range(10))]:
        ends_between_blocks = cut in _ends(car)
        if not ends_between_blocks:
            refusal(client, [car[:cut]])
    assert stored_bytes(network) == before


def _ends(car: bytes) -> set[int]:
    ends, at = set(), 0
    while at < len(car):
        size, at = varint.decode(car, at)
        at += size
        ends.add(at)
    return ends


def test_blocks_that_come_again_and_again_are_stored_once(
    network: LocalNetwork, gateway: Process, client: Client
) -> None:
    before = stored_bytes(network)
    block = random.Random(9).randbytes(10_000)
    cid = CID.of(RAW, block)
    with bounded(gateway, mb_max=UPLOAD_MB_MAX, what="a block 3,000 times"):
        client.upload_car(write_car([cid], ((cid, block) for _ in range(3000))))
    assert stored_bytes(network) - before == len(block)
    assert ask(network.port, f"/ipfs/{cid}?format=raw").body == block


def test_many_tiny_blocks_take_bounded_memory(
    network: LocalNetwork, gateway: Process, client: Client
) -> None:
    blocks = [b"%d tiny" % number for number in range(TINY_BLOCKS)]
    named = [(CID.of(RAW, block), block) for block in blocks]
    with bounded(gateway, mb_max=96, what=f"{TINY_BLOCKS} tiny blocks"):
        client.upload_car(stream_of(b"".join(write_car([named[0][0]], named))))
    assert ask(network.port, f"/ipfs/{named[-1][0]}?format=raw").body == blocks[-1]
