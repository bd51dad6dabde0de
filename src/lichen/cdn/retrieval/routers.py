"""Delegated routers: servers that know who has content, or what a name stands for.

https://specs.ipfs.tech/routing/http-routing-v1/. What they say is a hint by strangers: it is
bounded in time, bytes and records, and only ever leads to bytes or records that are verified.
"""

from __future__ import annotations

import asyncio
import collections
import time
from typing import TYPE_CHECKING

import msgspec
import structlog

from lichen.cdn.retrieval.health import HealthBook, retry_after_s
from lichen.cdn.retrieval.origins import is_private
from lichen.cdn.retrieval.sources import Source
from lichen.cdn.routing.multiaddr import HttpAddress, parse_http, parse_origin
from lichen.cdn.routing.records import HTTP_GATEWAY, JSON, NDJSON, PeerRecord
from lichen.content.ipns import RECORD_BYTES_MAX, Name, Record, verify_record
from lichen.errors import LichenError, PeerError, UserError, VerificationError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable

    from lichen.cdn.retrieval.origins import Origins
    from lichen.content import CID
    from lichen.wire.client import StreamedResponse

ROUTERS_MAX = 8
LOOKUP_S_MAX = 5.0
ANSWER_BYTES_MAX = 1 << 20
LINE_BYTES_MAX = 64 * 1024
RECORDS_MAX = 100
ADDRESSES_MAX = 8  # of one record
SOURCES_MAX = 20  # of one lookup
KEPT_MAX = 10_000
KEPT_S = 300.0
KEPT_EMPTY_S = 15.0
IPNS_TYPE = "application/vnd.ipfs.ipns-record"
_FILTER = f"?filter-addrs=http,https&filter-protocols={HTTP_GATEWAY},unknown"
_ACCEPT = (b"accept", f"{NDJSON}, {JSON};q=0.5".encode())
_ACCEPT_RECORD = (b"accept", IPNS_TYPE.encode())

log = structlog.get_logger()


class Routers:
    """Asks all configured routers at once; what was found is remembered for a while."""

    def __init__(
        self,
        urls: Iterable[str],
        origins: Origins,
        health: HealthBook,
        *,
        private_providers: bool = False,
    ) -> None:
        """`urls` are the routers' origins, which may be private: the operator wrote them.

        Providers at private addresses are passed over unless `private_providers`. Raises UserError
        for a URL that is none.
        """
        self._routers = [parse_origin(_base(url)) for url in urls]
        if len(self._routers) > ROUTERS_MAX:
            raise UserError(f"over {ROUTERS_MAX} routers", hint="every one is asked: name fewer")
        self._origins = origins
        self._health = health
        self._private = private_providers
        self._kept: collections.OrderedDict[CID, tuple[float, list[Source]]] = (
            collections.OrderedDict()
        )
        self.lookups = 0

    def __bool__(self) -> bool:
        return bool(self._routers)

    async def find(self, cid: CID, offer: Callable[[Source], None]) -> None:
        """Call `offer` for each HTTP provider of a CID, as answers come in; raise nothing."""
        now = time.monotonic()
        until, kept = self._kept.get(cid, (0.0, []))
        if until > now:
            for source in kept:
                offer(source)
            return
        found: dict[Source, None] = {}

        def note(source: Source) -> None:
            if source not in found and len(found) < SOURCES_MAX:
                found[source] = None
                offer(source)

        asked = [
            router for router in self._routers if not self._health.is_shut(_known_as(router), now)
        ]
        self.lookups += len(asked)
        heard = await asyncio.gather(*(self._ask(router, cid, note) for router in asked))
        if any(heard):
            self._keep(cid, list(found))

    async def find_record(self, name: Name) -> bytes | None:
        """Return the newest valid IPNS record that the routers have for a name, or None.

        This is what `Names` takes as `fetch`. All routers are asked, within LOOKUP_S_MAX; every
        record is verified (signature and end) before it counts.
        """
        asked = asyncio.gather(*(self._ask_name(router, name) for router in self._routers))
        newest: Record | None = None
        for record in await asked:
            if record is not None and (newest is None or record.is_newer_than(newest)):
                newest = record
        return None if newest is None else newest.encoded

    async def publish_record(self, name: Name, encoded: bytes) -> bool:
        """Give all routers a record; tell whether any took it."""
        asked = (self._put_name(router, name, encoded) for router in self._routers)
        return any(await asyncio.gather(*asked))

    def _keep(self, cid: CID, found: list[Source]) -> None:
        lifetime_s = KEPT_S if found else KEPT_EMPTY_S
        self._kept[cid] = (time.monotonic() + lifetime_s, found)
        self._kept.move_to_end(cid)
        while len(self._kept) > KEPT_MAX:
            self._kept.popitem(last=False)

    async def _ask(self, router: HttpAddress, cid: CID, note: Callable[[Source], None]) -> bool:
        """Ask one router; tell whether it answered."""
        health, started, count = self._health.of(_known_as(router)), time.monotonic(), 0
        target = f"/routing/v1/providers/{cid.as_v1()}{_FILTER}"
        try:
            async with (
                asyncio.timeout(LOOKUP_S_MAX),
                self._origins.stream(
                    router, target, [_ACCEPT], is_trusted=True, timeout_s=LOOKUP_S_MAX
                ) as response,
            ):
                if response.status != 200:
                    return self._refused(router, response)
                async for record in _records(response):
                    for source in self._sources(record):
                        note(source)
                    count += 1
                    if count >= RECORDS_MAX:
                        break
        except (LichenError, TimeoutError) as error:
            health.failed(time.monotonic())
            log.info("router failed", router=router.url, error=str(error) or "too slow")
            return count > 0
        health.answered(time.monotonic() - started)
        return True

    def _refused(self, router: HttpAddress, response: StreamedResponse) -> bool:
        """Take note of an answer that is no list; 404 is an empty one (IPIP-513)."""
        if response.status in {429, 503}:
            wait = next((value for name, value in response.headers if name == b"retry-after"), b"")
            self._health.of(_known_as(router)).asked_for_rest(time.monotonic(), retry_after_s(wait))
        return response.status in {404, 410}

    def _sources(self, record: PeerRecord) -> list[Source]:
        if record.protocols and HTTP_GATEWAY not in record.protocols:
            return []
        found = []
        for text in record.addrs[:ADDRESSES_MAX]:
            try:
                address = parse_http(text)
            except UserError:
                continue
            if self._private or not is_private(address.host):
                found.append(Source("provider", address, self._private))
        return found

    async def _ask_name(self, router: HttpAddress, name: Name) -> Record | None:
        try:
            response = await self._origins.get(
                router,
                f"/routing/v1/ipns/{name}",
                [_ACCEPT_RECORD],
                is_trusted=True,
                timeout_s=LOOKUP_S_MAX,
                body_bytes_max=RECORD_BYTES_MAX,
            )
            kind = response.get(b"content-type").partition(b";")[0].strip()
            if response.status != 200 or kind.decode("latin-1").lower() != IPNS_TYPE:
                return None
            return verify_record(name, response.body, time.time_ns())
        except (PeerError, UserError, VerificationError) as error:
            log.info("router has no record", router=router.url, name=str(name), error=error.what)
            return None

    async def _put_name(self, router: HttpAddress, name: Name, encoded: bytes) -> bool:
        target, fields = f"/routing/v1/ipns/{name}", [(b"content-type", IPNS_TYPE.encode())]
        try:
            status = await self._origins.put(
                router, target, fields, encoded, timeout_s=LOOKUP_S_MAX
            )
        except (PeerError, UserError) as error:
            log.info("router took no record", router=router.url, name=str(name), error=error.what)
            return False
        if status != 200:
            log.info("router took no record", router=router.url, name=str(name), status=status)
        return status == 200


class _Line(msgspec.Struct, frozen=True, rename="pascal"):
    """A record as strangers write it: only what is needed, all of it optional."""

    schema: str = ""
    id: str = msgspec.field(name="ID", default="")
    protocols: tuple[str, ...] | None = None
    protocol: str = ""
    addrs: tuple[str, ...] | None = None


class _Document(msgspec.Struct, frozen=True, rename="pascal"):
    providers: tuple[msgspec.Raw, ...] | None = None
    peers: tuple[msgspec.Raw, ...] | None = None


_MALFORMED = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_read_line = msgspec.json.Decoder(_Line).decode
_read_document = msgspec.json.Decoder(_Document).decode


async def _records(response: StreamedResponse) -> AsyncIterator[PeerRecord]:
    """Read an answer of either form, record by record; what is malformed is passed over."""
    kind = next((value for name, value in response.headers if name == b"content-type"), b"")
    if kind.partition(b";")[0].strip().lower() == NDJSON.encode():
        async for line in _lines(response):
            record = read_record(line)
            if record is not None:
                yield record
        return
    for record in read_document(b"".join([part async for part in _bounded(response)])):
        yield record


async def _lines(response: StreamedResponse) -> AsyncIterator[bytes]:
    rest = b""
    async for part in _bounded(response):
        *lines, rest = (rest + part).split(b"\n")
        for line in lines:
            yield line
        if len(rest) > LINE_BYTES_MAX:
            raise PeerError(f"a router sent a line of over {LINE_BYTES_MAX} bytes")
    yield rest


async def _bounded(response: StreamedResponse) -> AsyncIterator[bytes]:
    size = 0
    async for part in response.chunks():
        size += len(part)
        if size > ANSWER_BYTES_MAX:
            return
        yield part


def read_document(body: bytes) -> list[PeerRecord]:
    """Read the records of a JSON answer, of providers or peers; raise PeerError for no such one."""
    try:
        found = _read_document(body)
    except _MALFORMED as error:
        raise PeerError(f"a router's answer is not JSON: {error}") from error
    raws = [*(found.providers or ()), *(found.peers or ())][:RECORDS_MAX]
    records = (read_record(bytes(raw)) for raw in raws)
    return [record for record in records if record is not None]


def read_record(line: bytes) -> PeerRecord | None:
    """Read one record of a stranger's; None for what is none, or of a schema not known here."""
    if not line.strip() or len(line) > LINE_BYTES_MAX:
        return None
    try:
        read = _read_line(line)
    except _MALFORMED:
        return None
    if read.schema == "peer":
        return PeerRecord(read.id, read.addrs or (), read.protocols or ())
    if read.schema and read.protocol:  # the schemas before `peer` name one protocol
        return PeerRecord(read.id, read.addrs or (), (read.protocol,))
    return None


def _known_as(router: HttpAddress) -> str:
    """Return under what a router's health is known: it may be a provider too, and a bad one."""
    return f"router {router.url}"


def _base(url: str) -> str:
    """Return a router's origin; people also write the path of the API."""
    return url.rstrip("/").removesuffix("/routing/v1")
