"""What targets share: their table, choices read from bytes, and sources of blocks that count."""

from __future__ import annotations

import atexit
import contextlib
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from lichen.content.cid import CID
from lichen.errors import LichenError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SEEDS = Path(__file__).parent / "seeds"


class Target(msgspec.Struct, frozen=True):
    """A function that takes any bytes of at most `bytes_max`, and raises where a promise fails.

    `begin` are inputs to start from, beside the seeds of what was found.
    """

    name: str
    run: Callable[[bytes], None]
    bytes_max: int
    begin: tuple[bytes, ...]

    def seeds(self) -> list[Path]:
        return sorted((SEEDS / self.name).glob("*"))


TARGETS: dict[str, Target] = {}


def target(name: str, *begin: bytes, bytes_max: int = 2048):
    def add(run):
        TARGETS[name] = Target(name, run, bytes_max, begin)
        return run

    return add


class BrokenPromiseError(AssertionError):
    """A promise does not hold. Not `assert`, so that it also fails under -O."""


def require(holds: object, what: object = "") -> None:
    if not holds:
        raise BrokenPromiseError(what)


@contextlib.contextmanager
def refusals(status_max: int = 499) -> Iterator[None]:
    """Pass over expected refusals: ours, typed, and the sender's fault."""
    try:
        yield
    except LichenError as error:
        require(error.status <= status_max, repr(error))
        require(len(error.what) < 2000, "an error repeats its input")


def scratch() -> Path:
    """Make a folder for this process; the runner removes it, and so does the process's end."""
    folder = tempfile.mkdtemp(prefix="lichen-fuzz-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def outcome(work: Callable[[], object]) -> object:
    """Return what work returns, or the type of its refusal: for comparing two ways."""
    try:
        return work()
    except LichenError as error:
        return type(error)


class Dice:
    """Choices read from bytes; zeros when they are used up."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __bool__(self) -> bool:
        return self._at < len(self._data)

    def byte(self) -> int:
        self._at += 1
        return self._data[self._at - 1] if self._at <= len(self._data) else 0

    def below(self, end: int) -> int:
        number = self.byte()
        while end > 256:
            number = number << 8 | self.byte()
            end >>= 8
        return number % max(1, end) if end <= 256 else number

    def number(self) -> int:
        """Return a number of up to 64 bits, small ones and edges most often."""
        size = self.byte()
        if size < 128:
            return size
        if size < 192:
            return (1 << (size - 128)) - (self.byte() & 1)
        return int.from_bytes(self.bytes(size % 8 + 1), "big")

    def bytes(self, size: int) -> bytes:
        found = self._data[self._at : self._at + size]
        self._at += size
        return found

    def run(self) -> bytes:
        """Return a short run of bytes."""
        return self.bytes(self.byte() & 31)

    def rest(self) -> bytes:
        return self.bytes(len(self._data))

    def choose(self, options: Sequence):
        return options[self.byte() % len(options)]

    def text(self) -> str:
        return self.run().decode("utf-8", "replace")


class Counted:
    """Blocks in memory, the number of reads bounded: a reader that works on for ever is a finding."""

    def __init__(self, blocks: dict[bytes, bytes], reads_max: int = 100_000) -> None:
        self.blocks = blocks
        self.reads = 0
        self.reads_max = reads_max

    def get_block(self, cid: CID) -> bytes | None:
        self.reads += 1
        require(self.reads <= self.reads_max, f"over {self.reads_max} reads")
        return self.blocks.get(cid.multihash)

    def put(self, codec: int, block: bytes) -> CID:
        cid = CID.of(codec, block)
        self.blocks[cid.multihash] = block
        return cid
