"""The messages of ABCI 2.0, as far as we use them (types.proto of CometBFT 0.40).

On the socket each message is a protobuf `Request` or `Response` behind its length as a varint. Go
leaves out fields that are zero, and so do we. What CometBFT sends is believed to be well-meant but
read as bytes of a stranger: transactions in it come from anybody.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import msgspec

from lichen.content.protobuf import BYTES, bytes_field, fields, read_uvarint, uvarint, varint_field
from lichen.errors import LimitError, UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

FRAME_BYTES_MAX = 24 << 20
_LENGTH_BYTES_MAX = 10
_INT64_MAX = 2**63 - 1

T = TypeVar("T")


class Echo(msgspec.Struct, frozen=True):
    """Say the same back."""

    message: bytes


class Flush(msgspec.Struct, frozen=True):
    """Send every answer that is ready."""


class Info(msgspec.Struct, frozen=True):
    """Say where the application stands."""


class InitChain(msgspec.Struct, frozen=True):
    """Begin a new chain. `validators` are raw `ValidatorUpdate` messages."""

    chain_id: str
    app_state: bytes
    initial_height: int
    validators: tuple[bytes, ...]


class Query(msgspec.Struct, frozen=True):
    """Read something; answers nothing agreed on."""

    data: bytes
    path: str
    prove: bool


class CheckTx(msgspec.Struct, frozen=True):
    """Ask whether this may wait for a block; `again`: it does, and a block has come."""

    tx: bytes
    again: bool


class PrepareProposal(msgspec.Struct, frozen=True):
    """Choose what to propose as the next block."""

    max_bytes: int
    txs: tuple[bytes, ...]
    height: int
    time_ms: int


class ProcessProposal(msgspec.Struct, frozen=True):
    """Ask whether this proposal may become a block."""

    txs: tuple[bytes, ...]
    height: int
    time_ms: int


class FinalizeBlock(msgspec.Struct, frozen=True):
    """Work out a block that has been decided."""

    txs: tuple[bytes, ...]
    height: int
    time_ms: int


class Commit(msgspec.Struct, frozen=True):
    """Make the block that was worked out last durable."""


class ListSnapshots(msgspec.Struct, frozen=True):
    """Name the snapshots that others may fetch."""


class Snapshot(msgspec.Struct, frozen=True):
    """A snapshot of the state after a CometBFT height; `metadata` are the hashes of its chunks."""

    height: int
    format: int
    chunks: int
    hash: bytes
    metadata: bytes


class OfferSnapshot(msgspec.Struct, frozen=True):
    """Offer a snapshot to restore; the light client vouches for `app_hash`, for nothing else."""

    snapshot: Snapshot
    app_hash: bytes


class LoadSnapshotChunk(msgspec.Struct, frozen=True):
    """Give a chunk of a snapshot."""

    height: int
    format: int
    chunk: int


class ApplySnapshotChunk(msgspec.Struct, frozen=True):
    """Take a chunk of the snapshot that was offered."""

    index: int
    chunk: bytes
    sender: str


class ExtendVote(msgspec.Struct, frozen=True):
    """Add to a vote; not in use."""


class VerifyVoteExtension(msgspec.Struct, frozen=True):
    """Look at what somebody added to a vote; nobody may."""

    extension: bytes


Request = (
    Echo
    | Flush
    | Info
    | InitChain
    | Query
    | CheckTx
    | Commit
    | ListSnapshots
    | OfferSnapshot
    | LoadSnapshotChunk
    | ApplySnapshotChunk
    | PrepareProposal
    | ProcessProposal
    | ExtendVote
    | VerifyVoteExtension
    | FinalizeBlock
)


class Frames:
    """Cuts what comes in into messages. Sans-I/O."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """Take bytes, return the messages that are complete; raise LimitError for a huge one."""
        self._buffer += data
        frames: list[bytes] = []
        offset = 0
        while (head := _frame_head(self._buffer, offset)) is not None:
            size, start = head
            if len(self._buffer) < start + size:
                break
            frames.append(bytes(self._buffer[start : start + size]))
            offset = start + size
        del self._buffer[:offset]
        return frames


def frame(message: bytes) -> bytes:
    """Return a message as it travels."""
    return uvarint(len(message)) + message


def decode_request(data: bytes) -> Request:
    """Read a `Request`; raise UserError for malformed bytes or a call that is not ABCI 2.0's."""
    call = body = None
    for number, kind, value in fields(data):
        if kind == BYTES:
            call, body = number, value
    if call not in _READERS or not isinstance(body, memoryview):
        raise UserError(f"request {call} is not known", hint="run a CometBFT that speaks ABCI 2.0")
    return _READERS[call](Message(body))


class Message:
    """The fields of a message, by number: the last value where one is asked for, or all."""

    def __init__(self, data: bytes | memoryview) -> None:
        self._values: dict[int, list[int | memoryview]] = {}
        for number, _, value in fields(data):
            self._values.setdefault(number, []).append(value)

    def number(self, field: int) -> int:
        """Return an integer, 0 where it is left out; int64 may be negative."""
        value = self._values.get(field, [0])[-1]
        if not isinstance(value, int):
            raise UserError(f"field {field} is not a number")
        return value if value <= _INT64_MAX else value - (1 << 64)

    def data(self, field: int) -> bytes:
        """Return bytes, empty where they are left out."""
        return (self.all(field) or (b"",))[-1]

    def text(self, field: int) -> str:
        """Return text."""
        return self.data(field).decode("utf-8", "replace")

    def all(self, field: int) -> tuple[bytes, ...]:
        """Return every occurrence of a bytes field."""
        values = self._values.get(field, ())
        if any(isinstance(value, int) for value in values):
            raise UserError(f"field {field} is a number")
        return tuple(bytes(value) for value in values if not isinstance(value, int))

    def time_ms(self, field: int) -> int:
        """Return a google.protobuf.Timestamp in milliseconds since 1970, rounded down."""
        stamp = Message(self.data(field))
        return stamp.number(1) * 1000 + stamp.number(2) // 1_000_000


def read_snapshot(message: Message) -> Snapshot:
    """Read a `Snapshot` message."""
    return Snapshot(
        message.number(1), message.number(2), message.number(3), message.data(4), message.data(5)
    )


_READERS: Mapping[int | None, Callable[[Message], Request]] = {
    1: lambda m: Echo(m.data(1)),
    2: lambda _: Flush(),
    3: lambda _: Info(),
    5: lambda m: InitChain(m.text(2), m.data(5), m.number(6), m.all(4)),
    6: lambda m: Query(m.data(1), m.text(2), bool(m.number(4))),
    8: lambda m: CheckTx(m.data(1), bool(m.number(2))),
    11: lambda _: Commit(),
    12: lambda _: ListSnapshots(),
    13: lambda m: OfferSnapshot(read_snapshot(Message(m.data(1))), m.data(2)),
    14: lambda m: LoadSnapshotChunk(m.number(1), m.number(2), m.number(3)),
    15: lambda m: ApplySnapshotChunk(m.number(1), m.data(2), m.text(3)),
    16: lambda m: PrepareProposal(m.number(1), m.all(2), m.number(5), m.time_ms(6)),
    17: lambda m: ProcessProposal(m.all(1), m.number(5), m.time_ms(6)),
    18: lambda _: ExtendVote(),
    19: lambda m: VerifyVoteExtension(m.data(4)),
    20: lambda m: FinalizeBlock(m.all(1), m.number(5), m.time_ms(6)),
}


def _frame_head(buffer: bytearray, offset: int) -> tuple[int, int] | None:
    """Return the size of the next message and where it begins, or None while that is not there."""
    end = min(len(buffer), offset + _LENGTH_BYTES_MAX)
    if not any(byte < 0x80 for byte in buffer[offset:end]):
        if end - offset == _LENGTH_BYTES_MAX:
            raise UserError("the ABCI stream is not framed", hint="is it CometBFT that connects?")
        return None
    size, used = read_uvarint(bytes(buffer[offset:end]), 0)
    if size > FRAME_BYTES_MAX:
        raise LimitError(f"an ABCI message of {size} bytes is over {FRAME_BYTES_MAX}")
    return size, offset + used


def _number(field: int, value: int) -> bytes:
    return varint_field(field, value) if value else b""


def _data(field: int, value: bytes) -> bytes:
    return bytes_field(field, value) if value else b""


def exception(why: str) -> bytes:
    """Say that the application failed: CometBFT stops."""
    return bytes_field(1, _data(1, why.encode()))


def echo(message: bytes) -> bytes:
    """Answer Echo."""
    return bytes_field(2, _data(1, message))


def flush() -> bytes:
    """Answer Flush."""
    return bytes_field(3, b"")


def info(version: str, height: int, app_hash: bytes) -> bytes:
    """Answer Info."""
    body = _data(1, b"lichen") + _data(2, version.encode()) + _number(3, 1)
    return bytes_field(4, body + _number(4, height) + _data(5, app_hash))


def init_chain(app_hash: bytes, validators: tuple[bytes, ...]) -> bytes:
    """Answer InitChain."""
    body = b"".join(bytes_field(2, validator) for validator in validators)
    return bytes_field(6, body + _data(3, app_hash))


def query(
    height: int, key: bytes, value: bytes, proof_ops: tuple[tuple[str, bytes, bytes], ...] = ()
) -> bytes:
    """Answer Query: a value, with proof operations (type, key, data)."""
    ops = b"".join(
        bytes_field(1, _data(1, kind.encode()) + _data(2, of) + _data(3, data))
        for kind, of, data in proof_ops
    )
    body = _data(6, key) + _data(7, value) + _data(8, ops) + _number(9, height)
    return bytes_field(7, body)


def query_failed(code: int, why: str) -> bytes:
    """Answer Query: no."""
    return bytes_field(7, _number(1, code) + _data(3, why.encode()))


def check_tx(code: int, log: str = "", codespace: str = "") -> bytes:
    """Answer CheckTx: code 0 takes the transaction."""
    return bytes_field(9, _number(1, code) + _data(3, log.encode()) + _data(8, codespace.encode()))


def commit(retain_height: int) -> bytes:
    """Answer Commit: blocks below the height may be forgotten."""
    return bytes_field(12, _number(3, retain_height))


def list_snapshots(snapshots: tuple[Snapshot, ...]) -> bytes:
    """Answer ListSnapshots."""
    return bytes_field(13, b"".join(bytes_field(1, encode_snapshot(one)) for one in snapshots))


def encode_snapshot(one: Snapshot) -> bytes:
    """Return a `Snapshot` message."""
    head = _number(1, one.height) + _number(2, one.format) + _number(3, one.chunks)
    return head + _data(4, one.hash) + _data(5, one.metadata)


OFFER_ACCEPT, OFFER_ABORT, OFFER_REJECT, OFFER_REJECT_FORMAT = 1, 2, 3, 4


def offer_snapshot(result: int) -> bytes:
    """Answer OfferSnapshot with one of OFFER_*."""
    return bytes_field(14, _number(1, result))


def load_snapshot_chunk(chunk: bytes) -> bytes:
    """Answer LoadSnapshotChunk; empty when there is none."""
    return bytes_field(15, _data(1, chunk))


CHUNK_ACCEPT, CHUNK_ABORT, CHUNK_RETRY, CHUNK_RETRY_SNAPSHOT, CHUNK_REJECT_SNAPSHOT = 1, 2, 3, 4, 5


def apply_snapshot_chunk(result: int, *, refetch: int | None = None, reject: str = "") -> bytes:
    """Answer ApplySnapshotChunk with one of CHUNK_*."""
    again = b"" if refetch is None else bytes_field(2, uvarint(refetch))
    return bytes_field(16, _number(1, result) + again + _data(3, reject.encode()))


def prepare_proposal(txs: list[bytes]) -> bytes:
    """Answer PrepareProposal."""
    return bytes_field(17, b"".join(bytes_field(1, tx) for tx in txs))


def process_proposal(*, accept: bool) -> bytes:
    """Answer ProcessProposal."""
    return bytes_field(18, _number(1, 1 if accept else 2))


def extend_vote() -> bytes:
    """Answer ExtendVote: with nothing."""
    return bytes_field(19, b"")


def verify_vote_extension(*, accept: bool) -> bytes:
    """Answer VerifyVoteExtension."""
    return bytes_field(20, _number(1, 1 if accept else 2))


def finalize_block(codes: list[tuple[int, str]], app_hash: bytes) -> bytes:
    """Answer FinalizeBlock: each transaction's code (0: accepted) and the name of its refusal."""
    results = b"".join(
        bytes_field(2, _number(1, code) + _data(8, name.encode())) for code, name in codes
    )
    return bytes_field(21, results + _data(5, app_hash))
