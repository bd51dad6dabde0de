"""Content on its way in, as a signed CAR or several, and what of it is pinned."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import functools
import hashlib
from typing import TYPE_CHECKING

import anyio.from_thread
import anyio.to_thread

from lichen.content.car import HEADER_BYTES_MAX, CarReader
from lichen.content.cid import CID, IDENTITY
from lichen.content.pins import AccountPins, Pin, over_quota
from lichen.content.weigh import BLOCK_OVERHEAD_BYTES, BLOCKS_MAX, weigh
from lichen.gateway.api import parameters, signed, storage
from lichen.gateway.api.errors import MediaTypeError
from lichen.gateway.api.views import Uploaded
from lichen.wire.errors import BodyTooLargeError, BusyError, MalformedError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from starlette.requests import Request

    from lichen.content.disk import QuotaError
    from lichen.content.ingest import Ingest
    from lichen.gateway.api.context import ApiContext
    from lichen.identity import Address
    from lichen.identity.http_signature import VerifiedSignature

MEDIA_TYPE = "application/vnd.ipld.car"
UPLOADS_MAX = 16
UPLOADS_PER_ACCOUNT_MAX = 4
SILENCE_S_MAX = 30.0
HAND_OVER_BYTES = 1 << 20
LEASE_MS = 86_400_000  # how long what is not whole is kept
FRAMED_MAX = 2  # times the bytes of its blocks that a CAR may be announced to have


class Uploads:
    """Takes CARs in, each read by a worker thread; bounded in all and per account."""

    def __init__(
        self,
        uploads_max: int = UPLOADS_MAX,
        uploads_per_account_max: int = UPLOADS_PER_ACCOUNT_MAX,
    ) -> None:
        self._running: collections.Counter[Address] = collections.Counter()
        self._uploads_max = uploads_max
        self._uploads_per_account_max = uploads_per_account_max

    async def receive(self, context: ApiContext, request: Request) -> Uploaded:
        """Store and pin the blocks of a CAR, signed by an account; answers when they are on disk.

        With part=1 it is one of several: its roots are kept for a day, until they are pinned.
        """
        if request.headers.get("content-type") != MEDIA_TYPE:
            raise MediaTypeError(f"content is sent as {MEDIA_TYPE}")
        signature = signed.verify(context, request)
        if parameters.announced_bytes(request) > context.upload_bytes_max:
            raise _too_large(context.upload_bytes_max)
        is_part = parameters.flag(request, "part")
        stream = _BodyStream(request.stream(), signature, context.upload_bytes_max)
        account = signature.key.address
        room = _Room(context, account, parameters.announced_bytes(request))
        with self._slot(account):
            return await anyio.to_thread.run_sync(
                functools.partial(_import, context, account, stream, room, is_part=is_part)
            )

    @contextlib.contextmanager
    def _slot(self, account: Address) -> Iterator[None]:
        if (
            self._running.total() >= self._uploads_max
            or self._running[account] >= self._uploads_per_account_max
        ):
            raise BusyError(
                f"{self._running[account]} of your uploads, and {self._running.total()} in all, "
                "are running",
                hint="try again when they are done",
            )
        self._running[account] += 1
        try:
            yield
        finally:
            self._running[account] -= 1
            self._running += collections.Counter()  # drops the zeros


class _Room:
    """What an upload may still bring: nothing is read past an account's quota."""

    def __init__(self, context: ApiContext, account: Address, announced_bytes: int) -> None:
        self._context = context
        self._account = account
        self._announced_bytes = announced_bytes
        self._left = 0

    def open(self, roots: tuple[CID, ...]) -> None:
        """Begin with what is free, counting as free what these roots weigh now."""
        self._left = storage.quota_left(self._context, self._account, roots)
        if self._announced_bytes > FRAMED_MAX * self._left + HEADER_BYTES_MAX:
            raise self._refusal(self._announced_bytes)

    def take(self, size: int) -> None:
        """Count a block; raise QuotaError."""
        self._left -= size
        if self._left < 0:
            raise self._refusal(-self._left)

    def _refusal(self, more_bytes: int) -> QuotaError:
        kept = self._context.store.pinned_bytes_of(self._account)
        return over_quota(kept + more_bytes, self._context.account_bytes_max)


def _import(
    context: ApiContext, account: Address, stream: _BodyStream, room: _Room, *, is_part: bool
) -> Uploaded:
    with context.store.ingest() as ingest:
        car = CarReader(stream)
        room.open(car.roots)
        for cid, block in car:
            room.take(len(block))
            ingest.put_verified(cid, block)
        stream.drain()  # what follows the blocks, such as an index of CAR version 2, is signed too
        if is_part:
            pins = _lease_part(context, account, ingest, car.roots)
        else:
            pins = _pin_roots(context, ingest, car.roots)
        ingest.commit(of_account=AccountPins(account, pins, context.account_bytes_max))
    return Uploaded(car.roots, stream.size, tuple(pin.cid for pin in pins if pin.expires_ms))


def _pin_roots(context: ApiContext, ingest: Ingest, roots: tuple[CID, ...]) -> tuple[Pin, ...]:
    """Make a pin of each whole DAG, and a lease of one that is here in part."""
    now_ms, folder = context.now_ms(), context.store.temporary_folder
    pins = []
    for root in dict.fromkeys(root for root in roots if root.hash_code != IDENTITY):
        weight = weigh(ingest, root, folder, context.account_bytes_max)
        expires_ms = now_ms + LEASE_MS if weight.missing else 0
        pins.append(Pin(root, weight.bytes, now_ms, expires_ms))
    return tuple(pins)


def _lease_part(
    context: ApiContext, account: Address, ingest: Ingest, roots: tuple[CID, ...]
) -> tuple[Pin, ...]:
    """Keep what came of an upload until a day after its first part. Pins stay as they are.

    The lease weighs what of the DAG was here with the first part, and what has come since. It is
    not prolonged, so that nobody keeps for small change what others brought.
    """
    now_ms, folder = context.now_ms(), context.store.temporary_folder
    more_bytes = ingest.new_bytes
    leases = []
    for root in dict.fromkeys(root for root in roots if root.hash_code != IDENTITY):
        own = context.store.pin_of(account, root)
        if own is None:
            size = weigh(
                ingest, root, folder, context.account_bytes_max, missing_max=BLOCKS_MAX
            ).bytes
            leases.append(Pin(root, size + BLOCK_OVERHEAD_BYTES, now_ms, now_ms + LEASE_MS))
        elif own.expires_ms:
            leases.append(Pin(root, own.bytes + more_bytes, own.added_ms, own.expires_ms))
            more_bytes = 0
    return tuple(leases)


class _BodyStream:
    """A request's body as a blocking stream for a worker thread, bounded and hashed.

    The last part is only handed out once the whole body's hash is the signed one, so that an
    importer that reads to the end cannot finish what was changed on the way. `size` counts bytes.
    """

    def __init__(
        self, parts: AsyncIterator[bytes], signature: VerifiedSignature, bytes_max: int
    ) -> None:
        self._parts = parts
        self._signature = signature
        self._bytes_max = bytes_max
        self.size = 0
        self._digest = hashlib.sha256()
        self._held = b""
        self._buffer = memoryview(b"")
        self._ended = False

    def read(self, size: int, /) -> bytes:
        """Return at most `size` bytes, nothing at the end."""
        while not self._buffer and not self._ended:
            self._buffer = memoryview(self._next())
        taken = bytes(self._buffer[:size])
        self._buffer = self._buffer[size:]
        return taken

    def drain(self) -> None:
        """Read what is left."""
        while not self._ended:
            self._next()

    def _next(self) -> bytes:
        """Hand out the part before the one that came."""
        part: bytes | None = anyio.from_thread.run(self._receive)
        if part is None:
            self._signature.check_body(self._digest.digest())
            self._ended = True
            part = b""
        self.size += len(part)
        if self.size > self._bytes_max:
            raise _too_large(self._bytes_max)
        self._digest.update(part)
        ready, self._held = self._held, part
        return ready

    async def _receive(self) -> bytes | None:
        """Gather what is worth a hand-over between threads; None at the end."""
        parts: list[bytes] = []
        size = 0
        while size < HAND_OVER_BYTES and (part := await self._receive_part()) is not None:
            parts.append(part)
            size += len(part)
        return b"".join(parts) if parts else None

    async def _receive_part(self) -> bytes | None:
        try:
            async with asyncio.timeout(SILENCE_S_MAX):
                return await anext(self._parts, None)
        except TimeoutError as error:
            raise MalformedError(
                f"the upload stood still for {SILENCE_S_MAX:.0f} s", hint="send it again"
            ) from error


def _too_large(bytes_max: int) -> BodyTooLargeError:
    return BodyTooLargeError(
        f"an upload here has at most {bytes_max} bytes", hint="upload it in smaller pieces"
    )
