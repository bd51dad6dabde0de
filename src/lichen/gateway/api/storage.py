"""What an account keeps at this gateway: its pins, what they weigh, and what is here of a DAG."""

from __future__ import annotations

import asyncio
import hashlib
from typing import TYPE_CHECKING

import anyio.to_thread
import libipld

from lichen.content import cid as cids
from lichen.content.blocks import MissingBlockError
from lichen.content.cid import CID, IDENTITY
from lichen.content.pins import Pin, over_quota
from lichen.errors import NotFoundError, PeerUnavailableError, UserError
from lichen.gateway.api import parameters, signed
from lichen.gateway.api.errors import BadParameterError, MediaTypeError
from lichen.gateway.api.views import ContentView, Missing, PinPage, PinView
from lichen.wire.errors import BusyError

if TYPE_CHECKING:
    from starlette.requests import Request

    from lichen.content.store import BlockStore
    from lichen.content.weigh import Weight
    from lichen.gateway.api.context import ApiContext
    from lichen.identity import Address
    from lichen.identity.http_signature import VerifiedSignature

CIDS_MEDIA_TYPE = "application/vnd.ipld.dag-cbor"
CIDS_MAX = 16_384
CIDS_BYTES_MAX = CIDS_MAX * 160
WALKS_MAX = 2
PINS_WAITING_MAX = 64
FETCH_S_MAX = 240.0
CODECS = {
    cids.RAW: "raw",
    cids.DAG_PB: "dag-pb",
    cids.DAG_CBOR: "dag-cbor",
    cids.JSON: "json",
    cids.DAG_JSON: "dag-json",
}


class NeededError(UserError):
    """The content is part of an active release of the account's own apps."""

    code = "content-needed"
    status = 409


async def show(context: ApiContext, request: Request) -> ContentView:
    """Return what this gateway's store knows about a CID."""
    cid = parameters.cid(request)
    size = context.store.size(cid)
    if size is None:
        raise MissingBlockError(cid)
    codec = CODECS.get(cid.codec, f"0x{cid.codec:x}")
    return ContentView(cid, size, codec, context.store.is_pinned(cid))


async def missing(context: ApiContext, request: Request) -> Missing:
    """Return which of the blocks in a DAG-CBOR list of binary CIDs are not here.

    So that an upload can leave out the others. They are not kept by this: the pin that ends an
    upload tells whether they still are here.
    """
    if request.headers.get("content-type") != CIDS_MEDIA_TYPE:
        raise MediaTypeError(f"a list of CIDs is sent as {CIDS_MEDIA_TYPE}")
    signature = signed.verify(context, request)
    body = await parameters.body(request, CIDS_BYTES_MAX)
    signature.check_body(hashlib.sha256(body).digest())
    asked = _decode_cids(body)
    return Missing(await anyio.to_thread.run_sync(_missing, context.store, asked))


def _missing(store: BlockStore, asked: list[CID]) -> tuple[CID, ...]:
    return tuple(cid for cid in asked if not store.has(cid))


def _decode_cids(body: bytes) -> list[CID]:
    try:
        found = libipld.decode_dag_cbor(body)
    except (ValueError, RecursionError) as error:
        raise BadParameterError(f"the body is not DAG-CBOR: {error}") from error
    if not isinstance(found, list) or not all(isinstance(entry, bytes) for entry in found):
        raise BadParameterError("the body is not a list of byte strings")
    if len(found) > CIDS_MAX:
        raise BadParameterError(f"{len(found)} CIDs are over {CIDS_MAX}", hint="ask in parts")
    return [CID.decode(entry) for entry in found]


async def index(context: ApiContext, request: Request) -> PinPage:
    """Return the pins of the account that signed, and what they weigh together."""
    account = signed.verify(context, request).key.address
    limit, cursor = parameters.limit(request), parameters.cursor(request)
    after = CID.parse(cursor) if cursor else None
    pins = context.store.pins_of(account, after, limit + 1)
    return PinPage(
        tuple(map(view_of, pins[:limit])),
        str(pins[limit - 1].cid) if len(pins) > limit else None,
        context.store.pinned_bytes_of(account),
        context.account_bytes_max,
    )


def view_of(pin: Pin) -> PinView:
    """Return a pin as the API shows it."""
    return PinView(pin.cid, pin.bytes, pin.added_ms, pin.expires_ms or None)


class Pinning:
    """Pins what is here, or what can be fetched; so many walks over DAGs at a time, others wait."""

    def __init__(self, walks_max: int = WALKS_MAX, waiting_max: int = PINS_WAITING_MAX) -> None:
        self._walks = asyncio.Semaphore(walks_max)
        self._waiting = 0
        self._waiting_max = waiting_max

    async def pin(self, context: ApiContext, request: Request) -> PinView:
        """Keep a whole DAG for the account that signed.

        What is missing is fetched from the network, with fetch=0 it is named in the answer.
        """
        account = (await _signed_without_body(context, request)).key.address
        cid = parameters.cid(request).as_v1()
        if cid.hash_code == IDENTITY:
            raise UserError("an identity CID is its content", hint="there is nothing to keep")
        fetches = parameters.flag(request, "fetch", default=True)
        if self._waiting >= self._waiting_max:
            raise BusyError("many pins are being made here", hint="try again shortly")
        self._waiting += 1
        try:
            with context.store.hold(cid):
                async with self._walks:
                    view = await _pin(context, account, cid)
                if not view.missing or not fetches:
                    return view
                await _fetch(context, cid, quota_left(context, account, (cid,)))
                async with self._walks:
                    return await _pin(context, account, cid)
        finally:
            self._waiting -= 1


async def _pin(context: ApiContext, account: Address, cid: CID) -> PinView:
    store = context.store
    own = store.pin_of(account, cid)
    left = quota_left(context, account, (cid,))
    weight = await anyio.to_thread.run_sync(_weigh, context, account, cid, left)
    now_ms = context.now_ms()
    if weight.missing:
        return PinView(cid, weight.bytes, now_ms, missing=weight.missing)
    await anyio.to_thread.run_sync(store.gather, weight)
    added_ms = own.added_ms if own is not None and not own.expires_ms else now_ms
    pin = Pin(cid, weight.bytes, added_ms)
    await anyio.to_thread.run_sync(store.pin_for, account, pin, context.account_bytes_max)
    return view_of(pin)


def _weigh(context: ApiContext, account: Address, cid: CID, left: int) -> Weight:
    weight = context.store.weigh(cid, left)
    if weight.bytes > left:
        kept = context.store.pinned_bytes_of(account)
        raise over_quota(kept + weight.bytes, context.account_bytes_max)
    return weight


async def _fetch(context: ApiContext, cid: CID, bytes_max: int) -> None:
    try:
        async with asyncio.timeout(FETCH_S_MAX):
            await context.fetch(cid, bytes_max)
    except TimeoutError as error:
        raise PeerUnavailableError(
            f"{cid} was not fetched whole within {FETCH_S_MAX:.0f} s",
            hint="run the command again: what came stays for a while",
        ) from error


async def unpin(context: ApiContext, request: Request) -> PinView:
    """Let go of a pin of the account that signed; other accounts' pins stay.

    Content that an active release of the account's own apps needs is not let go of.
    """
    account = (await _signed_without_body(context, request)).key.address
    cid = parameters.cid(request).as_v1()
    pin = context.store.pin_of(account, cid)
    if pin is None:
        raise NotFoundError(
            f"account {account} does not pin {cid} here", hint="see what it pins: lichen storage ls"
        )
    _require_unneeded(context, account, cid)
    await anyio.to_thread.run_sync(context.store.unpin_for, account, cid)
    return view_of(pin)


def _require_unneeded(context: ApiContext, account: Address, cid: CID) -> None:
    state = context.replica.state
    for app in state.apps_of(account):
        release = state.active_release(app.name)
        if release is None:
            continue
        roots = [release.site, release.manifest, *(f.code for f in release.functions)]
        if cid in {root.as_v1() for root in roots if root is not None}:
            raise NeededError(
                f"{cid} is part of {app.name} v{release.number}, which is being served",
                hint="deploy or roll back to another release first",
            )


def quota_left(context: ApiContext, account: Address, roots: tuple[CID, ...]) -> int:
    """Return what an account's pins of these roots may weigh; raise QuotaError when nothing."""
    kept = context.store.pinned_bytes_of(account)
    own = [context.store.pin_of(account, root) for root in set(roots)]
    left = context.account_bytes_max - kept + sum(pin.bytes for pin in own if pin is not None)
    if left <= 0:
        raise over_quota(kept, context.account_bytes_max)
    return left


async def _signed_without_body(context: ApiContext, request: Request) -> VerifiedSignature:
    signature = signed.verify(context, request)
    await parameters.body(request, 0)
    return signature
