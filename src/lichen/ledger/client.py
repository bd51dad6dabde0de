"""An asynchronous client of the ledger's HTTP API."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self, TypeVar

import httpx
import libipld
import msgspec

from lichen.content import varint
from lichen.encoding import from_json
from lichen.errors import LimitError, PeerError, PeerUnavailableError, UserError
from lichen.ledger.blocks import BLOCK_BYTES_MAX, TRANSACTIONS_PER_REQUEST_MAX, Block, decode_block
from lichen.ledger.errors import BY_CODE, OverloadError
from lichen.ledger.results import ProofAnswer, Result, Status
from lichen.ledger.transactions import SignedTransaction, encode_transaction
from lichen.ledger.types import Genesis
from lichen.wire.problem import TYPE_PREFIX, Problem

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

T = TypeVar("T")

CONNECT_S = 5.0
ANSWER_S = 30.0
SILENCE_S = 15.0
ANSWER_BYTES_MAX = 64 << 20
CONNECTIONS_MAX = 8


class LedgerClient:
    """Talks to one ledger. Close it, or use it as a context manager."""

    def __init__(self, url: str) -> None:
        """Take the ledger's base URL, such as `http://127.0.0.1:8750`."""
        self.url = url.rstrip("/")
        self._http = httpx.AsyncClient(
            base_url=self.url,
            timeout=httpx.Timeout(ANSWER_S, connect=CONNECT_S),
            limits=httpx.Limits(max_connections=CONNECTIONS_MAX),
            trust_env=False,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def genesis(self) -> Genesis:
        """Fetch the genesis. Whoever trusts only a network id compares `network_id(genesis)`."""
        return await self._get("/v1/genesis", Genesis)

    async def status(self) -> Status:
        """Fetch where the ledger stands."""
        return await self._get("/v1/status", Status)

    async def prove(self, key: bytes) -> ProofAnswer:
        """Fetch the entry under a key of the state (see `tables`) and its proof, unchecked."""
        return await self._get(f"/v1/proofs/{key.hex()}", ProofAnswer)

    async def submit(self, transactions: Sequence[SignedTransaction | bytes]) -> list[Result]:
        """Submit transactions, signed or encoded; one result each, once they are on disk.

        A result's `accepted()` returns the height or raises the typed refusal. When this raises
        PeerUnavailableError the outcome is open: send the same again, which is safe.
        """
        results: list[Result] = []
        for first in range(0, len(transactions), TRANSACTIONS_PER_REQUEST_MAX):
            part = transactions[first : first + TRANSACTIONS_PER_REQUEST_MAX]
            raws = [raw if isinstance(raw, bytes) else encode_transaction(raw) for raw in part]
            results += await self._post(raws)
        return results

    async def submit_one(self, transaction: SignedTransaction | bytes) -> Result:
        """Submit one transaction; raise its typed refusal."""
        (result,) = await self.submit([transaction])
        result.accepted()
        return result

    async def blocks(self, first: int) -> AsyncGenerator[Block, None]:
        """Stream the blocks from height `first` on, and follow; ends when the ledger stops.

        Raises PeerUnavailableError when the connection breaks or is silent for `SILENCE_S`, and
        PeerError when what comes is no block.
        """
        timeout = httpx.Timeout(SILENCE_S, connect=CONNECT_S)
        try:
            async with self._http.stream(
                "GET", "/v1/blocks", params={"from": str(first)}, timeout=timeout
            ) as response:
                if response.status_code != 200:
                    raise _error_of(response.status_code, await _read_bounded(response))
                frames = Frames()
                async for chunk in response.aiter_raw():
                    for frame in frames.feed(chunk):
                        yield _decode(frame)
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error

    async def _post(self, raws: list[bytes]) -> list[Result]:
        body = bytes(libipld.encode_dag_cbor(raws))
        results = await self._ask("POST", "/v1/transactions", list[Result], body)
        if len(results) != len(raws):
            raise PeerError(
                "the ledger gave another number of results than transactions", hint="check its URL"
            )
        return results

    async def _get(self, path: str, kind: type[T]) -> T:
        return await self._ask("GET", path, kind)

    async def _ask(self, method: str, path: str, kind: type[T], body: bytes | None = None) -> T:
        try:
            async with self._http.stream(method, path, content=body) as response:
                answer = await _read_bounded(response)
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error
        if response.status_code != 200:
            raise _error_of(response.status_code, answer)
        try:
            return from_json(answer, kind)
        except UserError as error:
            raise PeerError(
                f"{self.url} does not answer as a ledger does: {error}", hint="check its URL"
            ) from error

    def _unreachable(self, error: httpx.HTTPError) -> PeerUnavailableError:
        why = str(error) or type(error).__name__
        return PeerUnavailableError(
            f"the ledger at {self.url} cannot be reached: {why}", hint="is it running?"
        )


class Frames:
    """Cuts a byte stream into frames: a varint length, then so many bytes. Sans-I/O."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """Take more bytes, return the frames that are complete; heartbeats are left out."""
        self._buffer += data
        frames: list[bytes] = []
        offset = 0
        while (head := _read_length(self._buffer, offset)) is not None:
            size, start = head
            if len(self._buffer) < start + size:
                break
            if size:
                frames.append(bytes(self._buffer[start : start + size]))
            offset = start + size
        del self._buffer[:offset]
        return frames


def _read_length(buffer: bytearray, offset: int) -> tuple[int, int] | None:
    end = min(len(buffer), offset + varint.VARINT_BYTES_MAX)
    if not any(byte < 0x80 for byte in buffer[offset:end]):
        if end - offset == varint.VARINT_BYTES_MAX:
            raise PeerError("the ledger's block stream is not framed", hint="check its URL")
        return None
    size, start = varint.decode(bytes(buffer[offset:end]))
    if size > BLOCK_BYTES_MAX:
        raise LimitError(f"a block of {size} bytes is over {BLOCK_BYTES_MAX}")
    return size, offset + start


def _decode(frame: bytes) -> Block:
    try:
        return decode_block(frame)
    except UserError as error:
        raise PeerError(f"the ledger sent no block: {error}", hint="check its URL") from error


async def _read_bounded(response: httpx.Response) -> bytes:
    body = bytearray()
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) > ANSWER_BYTES_MAX:
            raise PeerError(
                f"the ledger's answer is over {ANSWER_BYTES_MAX} bytes", hint="check its URL"
            )
    return bytes(body)


def _error_of(status: int, body: bytes) -> Exception:
    """Turn a problem document into the typed error it was."""
    try:
        problem = msgspec.json.decode(body, type=Problem)
    except (ValueError, RecursionError):
        return PeerError(f"the ledger answered {status}", hint="check its URL")
    code = problem.type.removeprefix(TYPE_PREFIX)
    if code == OverloadError.code:
        return OverloadError(problem.detail, hint=problem.hint)
    if code in BY_CODE:
        return BY_CODE[code](problem.detail, hint=problem.hint)
    if status == 503:
        return PeerUnavailableError(problem.detail, hint=problem.hint)
    if status < 500:
        return UserError(problem.detail, hint=problem.hint)
    return PeerError(problem.detail, hint=problem.hint)
