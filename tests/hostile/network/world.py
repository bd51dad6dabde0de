"""Who attacks and who watches: raw requests, hostile DAGs, and a neighbour who must notice nothing."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import io
import os
import random
import re
import socket
import threading
import time
from typing import TYPE_CHECKING, Self

import msgspec

from lichen.content import CID, V0_2015, dag_pb, import_bytes, import_directory, unixfs, write_car
from lichen.content.cid import DAG_PB, RAW
from lichen.content.dag_pb import Link
from lichen.content.unixfs import HAMT_MURMUR3, Kind, UnixFS
from lichen.encoding import from_json
from lichen.wire.problem import Problem

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from lichen.testing.network import LocalNetwork

WAIT_S = 30.0
TRUTH_SIZES = {"small": 1000, "middle": 70_000, "large": 3_000_000}


class Answer(msgspec.Struct, frozen=True):
    """What came back, and whether the server keeps the connection."""

    status: int
    headers: dict[str, str]
    body: bytes

    def problem(self) -> Problem:
        """Read the problem document that every refusal is."""
        assert self.headers["content-type"] == "application/problem+json", self
        found = from_json(self.body, Problem)
        assert found.status == self.status
        assert found.type.startswith("urn:lichen:problem:")
        return found


@contextlib.contextmanager
def connected(port: int, source: str = "") -> Iterator[socket.socket]:
    """Open a connection to a port of this machine."""
    with socket.create_connection(
        ("127.0.0.1", port), WAIT_S, (source, 0) if source else None
    ) as wire:
        yield wire


def read_answer(wire: socket.socket, method: str = "GET") -> Answer:
    """Read one response; raises http.client.BadStatusLine when the server just closed."""
    response = http.client.HTTPResponse(wire, method=method)
    response.begin()
    fields = {name.lower(): value for name, value in response.getheaders()}
    return Answer(response.status, fields, response.read())


def ask(
    port: int, target: str | bytes, *, host: str = "localhost", method: str = "GET", **fields: str
) -> Answer:
    """Send one request on a connection of its own; the target goes as it is."""
    where = target if isinstance(target, bytes) else target.encode()
    lines = [f"{name.replace('_', '-')}: {value}".encode() for name, value in fields.items()]
    head = b"\r\n".join(
        [b"%b %b HTTP/1.1" % (method.encode(), where), b"Host: " + host.encode(), *lines]
    )
    with connected(port) as wire:
        wire.sendall(head + b"\r\n\r\n")
        return read_answer(wire, method)


class Process:
    """A process seen from outside: its memory and its descriptors."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def _status(self, name: str) -> int:
        with open(f"/proc/{self.pid}/status") as file:
            found = re.search(rf"^{name}:\s+(\d+) kB", file.read(), re.MULTILINE)
        assert found is not None
        return int(found[1]) * 1024

    @property
    def rss_bytes(self) -> int:
        """Return the memory it has now."""
        return self._status("VmRSS")

    @property
    def files(self) -> int:
        """Return how many descriptors it has open."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))


@contextlib.contextmanager
def bounded(process: Process, *, mb_max: float, what: str) -> Iterator[None]:
    """Hold a process to its memory and descriptors while it is attacked, and print what it took."""
    before, files = process.rss_bytes, process.files
    peak = _Peak(process)
    with peak:
        yield
    grown = (peak.bytes - before) / 2**20
    print(f"\n{what}: {before / 2**20:.0f} MB, at most {grown:.1f} MB more")
    assert grown <= mb_max, f"{what} took {grown:.1f} MB"
    wait(lambda: process.files <= files + 20, f"descriptors stay open after {what}")


class _Peak:
    """The most memory seen, looked at from a thread of its own."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self.bytes = process.rss_bytes

    def _look(self) -> None:
        while not self._stop.wait(0.02):
            self.bytes = max(self.bytes, self._process.rss_bytes)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self.bytes = max(self.bytes, self._process.rss_bytes)


def wait(holds, what: str) -> None:
    """Wait until something holds, for a bounded time."""
    deadline = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


class Dag:
    """Blocks by hand: what they claim is the caller's choice."""

    def __init__(self) -> None:
        self.blocks: dict[CID, bytes] = {}

    def put(self, codec: int, block: bytes) -> CID:
        cid = CID.of(codec, block)
        self.blocks[cid] = block
        return cid

    def raw(self, data: bytes) -> CID:
        return self.put(RAW, data)

    def node(self, links: Iterable[Link], message: UnixFS) -> CID:
        return self.put(DAG_PB, dag_pb.encode(links, unixfs.encode(message)))

    def file(self, children: list[tuple[CID, int]], **claims: int) -> CID:
        """A file node over (cid, claimed bytes)."""
        sizes = tuple(size for _, size in children)
        message = UnixFS(
            Kind.FILE, file_bytes=claims.get("file_bytes", sum(sizes)), child_bytes=sizes
        )
        return self.node([Link(cid, "", size & (2**63 - 1)) for cid, size in children], message)

    def folder(self, entries: Iterable[tuple[str, CID]]) -> CID:
        """A directory with its names as they are: twice, empty, escaping."""
        return self.node([Link(cid, name, 1) for name, cid in entries], UnixFS(Kind.DIRECTORY))

    def shard(self, links: Iterable[tuple[str, CID]], fanout: int = 256) -> CID:
        message = UnixFS(Kind.HAMT_SHARD, b"\xff", hash_type=HAMT_MURMUR3, fanout=fanout)
        return self.node([Link(cid, name, 1) for name, cid in links], message)

    def symlink(self, target: str) -> CID:
        return self.node([], UnixFS(Kind.SYMLINK, target.encode()))

    def car(self, *roots: CID) -> bytes:
        return b"".join(write_car(roots, self.blocks.items()))


def version_2(inner: bytes, *, data_offset: int = 51, data_bytes: int | None = None) -> bytes:
    """Wrap a CAR as version 2, whose header may lie."""
    numbers = (data_offset, len(inner) if data_bytes is None else data_bytes, 0)
    header = bytes(16) + b"".join(number.to_bytes(8, "little") for number in numbers)
    return bytes.fromhex("0aa16776657273696f6e02") + header + inner


class Truth:
    """Content whose every byte is known, in each way that it is stored and sent."""

    def __init__(self, network: LocalNetwork) -> None:
        self.port = network.port
        self.files: dict[str, tuple[CID, bytes]] = {}
        blocks: dict[CID, bytes] = {}
        links = []
        for number, (name, size) in enumerate(TRUTH_SIZES.items()):
            data = random.Random(number).randbytes(size)
            root = import_bytes(data, V0_2015, blocks.__setitem__)
            self.files[name] = root.cid, data
            links.append(root.link(name))
        self.folder = import_directory(links, V0_2015, blocks.__setitem__).cid
        self.car = b"".join(write_car([self.folder], blocks.items()))
        with network.client(network.key("developer")) as client:
            client.upload_car([self.car])

    def check(self, name: str) -> None:
        """Fetch a file whole and in part, and compare."""
        cid, data = self.files[name]
        whole = self._get(f"/ipfs/{cid}")
        assert whole.status == 200, whole
        assert hashlib.sha256(whole.body).digest() == hashlib.sha256(data).digest()
        part = self._get(f"/ipfs/{self.folder}/{name}", range="bytes=100-899")
        assert (part.status, part.body) == (206, data[100:900])

    def _get(self, target: str, **fields: str) -> Answer:
        """Ask; and again, for a bounded time, where the gateway says that it is busy."""
        deadline = time.monotonic() + WAIT_S
        while (answer := ask(self.port, target, **fields)).status == 503:
            assert answer.problem().type == "urn:lichen:problem:busy"
            assert time.monotonic() < deadline, "busy all the time"
            time.sleep(0.1)
        return answer

    def check_all(self) -> None:
        for name in self.files:
            self.check(name)
        listing = self._get(f"/ipfs/{self.folder}/")
        assert listing.status == 200
        assert all(name.encode() in listing.body for name in self.files)


class Neighbour:
    """Somebody who fetches what is true all the while, and must get it, each time."""

    def __init__(self, truth: Truth) -> None:
        self._truth = truth
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._visit)
        self._error: BaseException | None = None
        self.visits = 0

    def _visit(self) -> None:
        try:
            while not self._stop.is_set():
                self._truth.check_all()
                self.visits += 1
        except BaseException as error:  # noqa: BLE001 - told where it is joined
            self._error = error

    def wait_for_visits(self, count: int = 2) -> None:
        """Wait until some more visits have gone well, during the attack."""
        wanted = self.visits + count
        wait(
            lambda: self.visits >= wanted or self._error is not None, "the neighbour is not served"
        )

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        if self._error is not None:
            raise self._error
        assert self.visits


def stream_of(data: bytes, piece: int = 65_536) -> Iterator[bytes]:
    stream = io.BytesIO(data)
    while part := stream.read(piece):
        yield part
