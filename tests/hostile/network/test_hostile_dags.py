"""DAGs that claim more than they are: a few blocks stand for petabytes, or for nothing."""

from __future__ import annotations

import io
import json
import tarfile
from typing import TYPE_CHECKING

import pytest

from lichen.content import CarReader
from tests.hostile.network.world import (
    Dag,
    Neighbour,
    Process,
    ask,
    bounded,
    connected,
    stream_of,
)

if TYPE_CHECKING:
    from lichen.content import CID
    from lichen.testing.network import LocalNetwork
    from tests.hostile.network.world import Answer, Truth

LEAF = bytes(range(250)) * 4
FAN = 100
LEVELS = 7  # 1000 * 100^7 bytes: 100 PB
READ_MB_MAX = 48
FORMS = ("", "?format=raw", "?format=car", "?format=tar", "?format=json", "?format=dag-json",
         "?format=car&dag-scope=entity", "?format=car&dag-scope=entity&entity-bytes=5:*", "?from=1000000")  # fmt: skip


@pytest.fixture
def put(network: LocalNetwork):
    """Upload a DAG and return its root."""

    def put(dag: Dag, root: CID) -> CID:
        with network.client(network.key("developer")) as client:
            client.upload_car(stream_of(dag.car(root)))
        return root

    return put


def bomb(dag: Dag) -> tuple[CID, int]:
    cid, size = dag.raw(LEAF), len(LEAF)
    for _ in range(LEVELS):
        cid, size = dag.file([(cid, size)] * FAN), size * FAN
    return cid, size


def begin(port: int, target: str, bytes_max: int = 300_000) -> bytes:
    """Read the beginning of an answer, and leave."""
    with connected(port) as wire:
        wire.sendall(
            f"GET {target} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n".encode()
        )
        found = bytearray()
        while len(found) < bytes_max:
            part = wire.recv(65_536)
            if not part:
                break
            found += part
    return bytes(found)


def all_forms(port: int, root: CID, *, path: str = "") -> list[bytes]:
    """Ask for every form of something, and read at most a little of each."""
    answers = [begin(port, f"/ipfs/{root}{path}{form}") for form in FORMS]
    for form, answer in zip(FORMS, answers, strict=True):
        assert answer.startswith(b"HTTP/1.1 "), form
        status = int(answer[9:12])
        assert status < 500 or status == 501, (form, answer[:400])
    return answers


def test_a_file_of_100_petabytes_in_8_blocks_is_served_as_far_as_it_is_read(
    network: LocalNetwork, gateway: Process, truth: Truth, put
) -> None:
    dag = Dag()
    root, size = bomb(dag)
    put(dag, root)
    with Neighbour(truth), bounded(gateway, mb_max=READ_MB_MAX, what="a file of 100 PB"):
        head = ask(network.port, f"/ipfs/{root}", method="HEAD")
        assert (head.status, head.headers["content-length"]) == (200, str(size))
        for start in (0, 999, size // 2 + 1, size - 1000):
            part = ask(network.port, f"/ipfs/{root}", range=f"bytes={start}-{start + 998}")
            expected = (LEAF + LEAF)[start % 1000 : start % 1000 + 999]
            assert part.status == 206
            assert part.body == expected[: size - start]
        all_forms(network.port, root)
        car = ask(network.port, f"/ipfs/{root}?format=car")
        assert len(list(CarReader(io.BytesIO(car.body)))) == LEVELS + 1


def test_sizes_that_contradict_each_other_are_refused(
    network: LocalNetwork, gateway: Process, put
) -> None:
    dag = Dag()
    leaf = dag.raw(LEAF)
    liars = [
        dag.file([(leaf, 2**60)]),
        dag.file([(leaf, 2**64 - 1)] * 9, file_bytes=2**64 - 9),
        dag.file([(leaf, 1000)], file_bytes=1),
        dag.file([(dag.file([(leaf, 1000)]), 10**15)]),
    ]
    folder = put(dag, dag.folder((str(number), liar) for number, liar in enumerate(liars)))
    with bounded(gateway, mb_max=READ_MB_MAX, what="lies about sizes"):
        for number, liar in enumerate(liars):
            for target in (f"/ipfs/{liar}", f"/ipfs/{folder}/{number}"):
                answer = begin(network.port, target)
                assert LEAF not in answer or b"content-length: 1000\r\n" in answer
                assert int(answer[9:12]) < 500
            all_forms(network.port, liar)


def test_a_chain_a_thousand_deep_is_refused_or_walked_once(
    network: LocalNetwork, gateway: Process, truth: Truth, put
) -> None:
    dag = Dag()
    file, folder = dag.raw(LEAF), dag.raw(LEAF)
    for _ in range(1000):
        file, folder = dag.file([(file, 1000)]), dag.folder([("a", folder)])
    root = put(dag, dag.folder([("file", file), ("folder", folder)]))
    with Neighbour(truth), bounded(gateway, mb_max=READ_MB_MAX, what="chains of 1,000 blocks"):
        assert ask(network.port, f"/ipfs/{file}").status in {400, 404}
        assert ask(network.port, f"/ipfs/{folder}" + "/a" * 255).status in {200, 301}
        assert ask(network.port, f"/ipfs/{folder}" + "/a" * 300).status in {400, 404}
        all_forms(network.port, root)


def test_a_hamt_that_repeats_itself_is_no_endless_listing(
    network: LocalNetwork, gateway: Process, truth: Truth, put
) -> None:
    dag = Dag()
    everywhere = dag.raw(LEAF)
    for _ in range(8):
        everywhere = dag.shard([(f"{slot:02X}", everywhere) for slot in range(256)])
    same = dag.raw(LEAF)
    for _ in range(8):
        same = dag.shard([("00", same)] * 256)
    wide = dag.shard(
        [(f"{number % 1024:03X}{number}", everywhere) for number in range(10_000)], fanout=1024
    )
    root = put(dag, dag.folder([("everywhere", everywhere), ("same", same), ("wide", wide)]))
    with Neighbour(truth), bounded(gateway, mb_max=READ_MB_MAX, what="endless HAMTs"):
        for shard, name in ((everywhere, "everywhere"), (same, "same"), (wide, "wide")):
            all_forms(network.port, shard)
            assert ask(network.port, f"/ipfs/{root}/{name}/none").status in {400, 404}


NAMES = (
    "..",
    "../x",
    "/etc/passwd",
    "a/b",
    "",
    ".",
    "a",
    "a",
    "\0",
    "x" * 3000,
    "\n",
    "<script>",
    "-rf",
    "C:\\x",
)


def test_names_that_escape_or_stand_twice_lead_nowhere_else(
    network: LocalNetwork, gateway: Process, put
) -> None:
    dag = Dag()
    first, second = dag.raw(b"first"), dag.raw(b"second")
    entries = [(name, second if name == "a" else first) for name in NAMES]
    entries[6] = ("a", first)
    root = put(
        dag,
        dag.folder([*entries, ("loop", dag.symlink("loop")), ("out", dag.symlink("../../etc"))]),
    )
    with bounded(gateway, mb_max=READ_MB_MAX, what="odd names"):
        assert ask(network.port, f"/ipfs/{root}/a").body == b"first"
        page = ask(network.port, f"/ipfs/{root}/").body
        assert b"<script>" not in page
        listed = json.loads(ask(network.port, f"/ipfs/{root}/", accept="application/json").body)
        assert isinstance(listed, dict)
        for path in ("/..", "/../x", "/%2e%2e/x", "/loop", "/loop/loop", "/out/passwd"):
            answer = ask(network.port, f"/ipfs/{root}{path}")
            if path == "/loop":  # a link is shown, never followed
                assert (answer.status, answer.body) == (200, b"loop")
            else:
                assert answer.status in {400, 404, 501}, (path, answer)
        all_forms(network.port, root)
        _check_tar(ask(network.port, f"/ipfs/{root}?format=tar"))


def _check_tar(answer: Answer) -> None:
    """Either none at all, or one that stays in its folder."""
    if answer.status != 200:
        assert 400 <= answer.status <= 501
        return
    with tarfile.open(fileobj=io.BytesIO(answer.body)) as archive:
        for entry in archive:
            assert not entry.name.startswith("/")
            assert ".." not in entry.name.split("/")


def test_a_folder_of_4_mib_does_not_stop_the_others(
    network: LocalNetwork, gateway: Process, truth: Truth, put
) -> None:
    """Its 65,536 names are looked through again and again, for names that are not there."""
    dag = Dag()
    leaf = dag.raw(b"x")
    root = put(dag, dag.folder((f"{number:06d}", leaf) for number in range(60_000)))
    with Neighbour(truth) as neighbour, bounded(gateway, mb_max=128, what="a folder of 4 MiB"):
        for number in range(10):
            assert ask(network.port, f"/ipfs/{root}/none-{number}").status == 404
        assert ask(network.port, f"/ipfs/{root}/059999").body == b"x"
        neighbour.wait_for_visits(1)


def test_a_dag_with_a_block_that_nobody_has_breaks_off_and_looks_it(
    network: LocalNetwork, gateway: Process, put
) -> None:
    dag = Dag()
    leaf, gone = dag.raw(LEAF * 300), Dag().raw(b"gone" * 100_000)
    root = put(dag, dag.file([(leaf, len(LEAF) * 300), (gone, 400_000)]))
    with bounded(gateway, mb_max=READ_MB_MAX, what="a missing block"):
        answer = begin(network.port, f"/ipfs/{root}", 10**6)
        assert len(answer) < 700_000  # fewer bytes than the length that was announced
