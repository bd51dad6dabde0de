"""Content on its way in, as a signed CAR, and what is known about what is here."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import hashlib
from typing import TYPE_CHECKING

import anyio.from_thread
import anyio.to_thread

from lichen.content import cid as cids
from lichen.content.blocks import MissingBlockError
from lichen.gateway.api import parameters, signed
from lichen.gateway.api.errors import MediaTypeError
from lichen.gateway.api.views import ContentView, Uploaded
from lichen.wire.errors import BodyTooLargeError, BusyError, MalformedError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from starlette.requests import Request

    from lichen.content.store import BlockStore
    from lichen.gateway.api.context import ApiContext
    from lichen.identity import Address
    from lichen.identity.http_signature import VerifiedSignature

MEDIA_TYPE = "application/vnd.ipld.car"
UPLOADS_MAX = 16
UPLOADS_PER_ACCOUNT_MAX = 4
SILENCE_S_MAX = 30.0
CODECS = {
    cids.RAW: "raw",
    cids.DAG_PB: "dag-pb",
    cids.DAG_CBOR: "dag-cbor",
    cids.JSON: "json",
    cids.DAG_JSON: "dag-json",
}


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
        """Store the blocks of a CAR, signed by an account; answers when they are on disk."""
        if request.headers.get("content-type") != MEDIA_TYPE:
            raise MediaTypeError(f"content is sent as {MEDIA_TYPE}")
        signature = signed.verify(context, request)
        if parameters.announced_bytes(request) > context.upload_bytes_max:
            raise _too_large(context.upload_bytes_max)
        stream = _BodyStream(request.stream(), signature, context.upload_bytes_max)
        with self._slot(signature.key.address):
            return await anyio.to_thread.run_sync(_import, context.store, stream)

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


async def show(context: ApiContext, request: Request) -> ContentView:
    """Return what this gateway's store knows about a CID."""
    cid = parameters.cid(request)
    size = context.store.size(cid)
    if size is None:
        raise MissingBlockError(cid)
    return ContentView(cid, size, CODECS.get(cid.codec, f"0x{cid.codec:x}"))


def _import(store: BlockStore, stream: _BodyStream) -> Uploaded:
    roots = store.import_car(stream, pin=True)
    stream.drain()  # what an importer leaves, such as the index of a CAR version 2, is signed too
    return Uploaded(roots, stream.size)


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
