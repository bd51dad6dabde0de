"""Attacks that take minutes or much of a machine: `make test-hostile`."""

from __future__ import annotations

import hashlib
import random
import time
from typing import TYPE_CHECKING

import pytest

from lichen.content import CID, V1_2025, import_bytes, varint, write_car
from lichen.content.cid import RAW
from tests.hostile.network.test_hostile_clients import (
    READERS_MB_MAX,
    crowd,
    get,
    many_files,  # noqa: F401 (a fixture)
)
from tests.hostile.network.world import (
    Dag,
    Neighbour,
    Process,
    ask,
    bounded,
    read_answer,
    stream_of,
    wait,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lichen.testing.network import LocalNetwork
    from tests.hostile.network.world import Truth

MILLION = 1_000_000
MILLION_MB_MAX = 600
CONNECTIONS_BEYOND = 14_000
SEND_IDLE_S = 30
HEADER_S = 15
ROUNDS = 6
READERS = 200


def million_blocks() -> Iterator[bytes]:
    """A CAR of a million blocks of a few bytes; its header names the first."""
    first = CID.of(RAW, b"0 of a million")
    yield from write_car([first], ())
    batch = bytearray()
    for number in range(MILLION):
        block = b"%d of a million" % number
        digest = hashlib.sha256(block).digest()
        batch += varint.encode(36 + len(block)) + b"\x01\x55\x12\x20" + digest + block
        if len(batch) > 1 << 20:
            yield bytes(batch)
            batch.clear()
    yield bytes(batch)


def test_a_million_tiny_blocks_in_one_car_take_bounded_memory(
    network: LocalNetwork, gateway: Process, truth: Truth
) -> None:
    started = time.monotonic()
    with (
        network.client(network.key("developer")) as client,
        Neighbour(truth) as neighbour,
        bounded(gateway, mb_max=MILLION_MB_MAX, what="a million blocks"),
    ):
        client.upload_car(million_blocks())
        neighbour.wait_for_visits()
    print(f"\na million blocks took {time.monotonic() - started:.0f} s")
    for number in (0, 777_777, MILLION - 1):
        block = b"%d of a million" % number
        assert ask(network.port, f"/ipfs/{CID.of(RAW, block)}?format=raw").body == block


def test_more_connections_than_there_is_room_for_shut_nobody_out(
    network: LocalNetwork,
    gateway: Process,
    truth: Truth,
    many_files: int,  # noqa: F811
) -> None:
    count = min(CONNECTIONS_BEYOND, many_files)
    with (
        Neighbour(truth) as neighbour,
        bounded(gateway, mb_max=256, what=f"{count} silent connections"),
        crowd(network.port, count) as wires,
    ):
        assert gateway.files <= 13_500
        neighbour.wait_for_visits(5)
        assert len(wires) == count
        with crowd(network.port, 200, get("/healthz")) as newcomers:
            for wire in newcomers:
                assert read_answer(wire).status == 200


@pytest.fixture(scope="module")
def file(network: LocalNetwork) -> CID:
    dag = Dag()
    root = import_bytes(random.Random(8).randbytes(24 << 20), V1_2025, dag.blocks.__setitem__).cid
    with network.client(network.key("developer")) as client:
        client.upload_car(stream_of(dag.car(root)))
    return root


@pytest.mark.parametrize("form", ["", "?format=car", "?format=tar"])
def test_readers_that_never_read_are_cut_off(
    network: LocalNetwork, gateway: Process, truth: Truth, file: CID, form: str
) -> None:
    with (
        Neighbour(truth),
        bounded(gateway, mb_max=READERS_MB_MAX, what=f"{READERS} readers until they are cut"),
        crowd(network.port, READERS, get(f"/ipfs/{file}{form}")) as wires,
    ):
        for wire in wires:
            assert wire.recv(1) == b"H"
        held = gateway.files
        assert held > READERS
        deadline = time.monotonic() + SEND_IDLE_S + 30
        while gateway.files > held - READERS:
            assert time.monotonic() < deadline, "they are still there"
            time.sleep(0.5)


def test_heads_that_drip_are_answered_408(network: LocalNetwork, truth: Truth) -> None:
    with (
        Neighbour(truth),
        crowd(network.port, 300, b"GET / HTTP/1.1\r\nhost: localhost\r\n") as wires,
    ):
        deadline = time.monotonic() + HEADER_S - 3
        while time.monotonic() < deadline:
            for wire in wires:
                wire.sendall(b"x: y\r\n")
            time.sleep(1)
        for wire in wires:
            assert read_answer(wire).status == 408


def test_the_same_attack_again_and_again_takes_no_more_memory(
    network: LocalNetwork, gateway: Process, truth: Truth, file: CID
) -> None:
    took = []
    for number in range(ROUNDS):
        with crowd(network.port, READERS, get(f"/ipfs/{file}?format=car")) as wires:
            for wire in wires:
                assert wire.recv(1) == b"H"
        truth.check_all()
        took.append(gateway.rss_bytes >> 20)
        print(f"\nround {number}: {took[-1]} MB")
    assert took[-1] <= took[1] * 1.3 + 32, took
    wait(lambda: gateway.files < READERS, "descriptors stay open")
