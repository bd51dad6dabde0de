"""The node's own API, everything that is not an invocation: `/v1/...`, health and metrics."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import msgspec
from starlette.applications import Starlette
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from lichen.cdn.routing.api import routing_routes
from lichen.encoding import from_json, sha256, to_json
from lichen.errors import LichenError, LimitError, NotAllowedError
from lichen.identity.digest import Digest
from lichen.identity.http_signature import request_head, verify_request
from lichen.ledger.proofs import read_key
from lichen.ledger.types import Prices
from lichen.ledger.voucher import Voucher
from lichen.market.receipt import write_receipt
from lichen.units import Amount
from lichen.wire import problem_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.requests import Request

    from lichen.ledger.types import Channel
    from lichen.node.process import NodeProcess
    from lichen.node.sessions import ChannelAccount

BODY_BYTES_MAX = 64 * 1024
CATCH_UP_S_MAX = 3.0

Handler = "Callable[[Request], Awaitable[Response]]"


class SessionRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which channel the session is for."""

    channel: Digest


class SessionAnswer(msgspec.Struct, frozen=True):
    """A session's secret, the node's terms, and where the channel stands.

    `voucher` is the payer's latest one, its own signature: a payer that forgot believes no less.
    """

    session: str
    credit: Amount
    prices: Prices
    owed: Amount
    paid: Amount
    tiers: tuple[str, ...]
    voucher: Voucher | None = None


class PayRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A voucher for the statement before, or nothing to ask for the first one."""

    voucher: Voucher | None = None


class NodeStatus(msgspec.Struct, frozen=True):
    """How the node is doing."""

    address: str
    version: str
    height: int
    registered: bool
    draining: bool
    tier: str
    in_flight: int
    completed: int
    receipts: int
    running: tuple[str, ...]
    channels: int
    uptime_s: int


def create_api(node: NodeProcess) -> Starlette:
    """Return the ASGI app of a node."""
    api = NodeApi(node)
    return Starlette(
        routes=[
            Route("/v1/sessions", api.open_session, methods=["POST"]),
            Route("/v1/channels/{channel}/pay", api.pay, methods=["POST"]),
            Route("/v1/runs/{run}/receipt", api.receipt),
            Route("/v1/logs", api.logs),
            Route("/v1/proofs/{key}", api.proof),
            Route("/v1/status", api.status),
            Route("/healthz", api.health),
            Route("/metrics", api.metrics),
            *routing_routes(node.directory),
        ],
        exception_handlers={LichenError: _problem, Exception: _problem},
    )


class NodeApi:
    """The handlers. What they take in is bounded and checked here."""

    def __init__(self, node: NodeProcess) -> None:
        self._node = node

    async def open_session(self, request: Request) -> Response:
        """Give a channel's signer a session, once it has proved to be the signer."""
        body = await _read(request)
        scope = request.scope
        head = request_head(
            request.method,
            scope["scheme"],
            scope["raw_path"],
            scope["query_string"],
            scope["headers"],
        )
        now_ms = time.time_ns() // 1_000_000
        signed = verify_request(head, now_ms=now_ms, hosts=self._node.hosts)
        signed.check_body(sha256(body))
        asked = from_json(body, SessionRequest)
        channel = await self._channel(asked.channel)
        self._node.sessions.require(channel, signed.key.address)
        self._node.nonces.use(signed, now_ms=now_ms)  # before a session pushes an older one out
        session, account = self._node.sessions.open(channel, signed.key.address)
        config = self._node.config
        return _json(
            SessionAnswer(
                session=session,
                credit=config.credit,
                prices=config.prices,
                owed=Amount(account.book.durable),
                paid=Amount(account.book.paid),
                tiers=self._node.tiers,
                voucher=account.latest_voucher(),
            )
        )

    async def _channel(self, identifier: bytes) -> Channel | None:
        """Look a channel up; one that was just opened may be a block ahead of this node."""
        follower = self._node.follower
        channel = follower.state.channel(identifier)
        if channel is None:
            async with asyncio.timeout(CATCH_UP_S_MAX):
                await follower.sync()
            channel = follower.state.channel(identifier)
        return channel

    async def pay(self, request: Request) -> Response:
        """Take a voucher and answer with the next statement."""
        account = self._account(request)
        if request.path_params["channel"] != account.hex:
            raise NotAllowedError("this session is for another channel")
        asked = from_json(await _read(request), PayRequest)
        return _json(await self._node.till.pay(account, asked.voucher))

    async def receipt(self, request: Request) -> Response:
        """Return a run's signed receipt, once it is on disk."""
        receipt = await self._node.till.receipt(request.path_params["run"])
        return Response(write_receipt(receipt), media_type="application/json")

    async def logs(self, request: Request) -> Response:
        """Stream an app's lines to a payer of that app: the kept ones, then on with `follow=1`."""
        account = self._account(request)
        app = account.channel.app
        if request.query_params.get("follow") == "1":
            return StreamingResponse(self._follow(app), media_type="application/x-ndjson")
        lines = b"".join(to_json(entry) + b"\n" for entry in self._node.logbook.lines(app))
        return Response(lines, media_type="application/x-ndjson")

    async def _follow(self, app: str) -> AsyncIterator[bytes]:
        async for entry in self._node.logbook.follow(app):
            yield to_json(entry) + b"\n"

    async def status(self, request: Request) -> Response:
        """Say how the node is doing."""
        del request
        return _json(self._node.status())

    async def proof(self, request: Request) -> Response:
        """Return an entry of the ledger with its proof, as the ledger does."""
        key = read_key(request.path_params["key"])
        return _json(self._node.follower.state.prove(key))

    async def health(self, request: Request) -> Response:
        """Answer 200 once the node can take work."""
        del request
        status = 200 if self._node.is_ready() else 503
        return Response(
            b"ok\n" if status == 200 else b"starting\n", status, media_type="text/plain"
        )

    async def metrics(self, request: Request) -> Response:
        """Return the counters in Prometheus' text format."""
        del request
        return Response(self._node.metrics(), media_type="text/plain; version=0.0.4")

    def _account(self, request: Request) -> ChannelAccount:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            raise NotAllowedError("this needs a session", hint="send it as `authorization: Bearer`")
        return self._node.sessions.get(token.encode())


async def _read(request: Request) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > BODY_BYTES_MAX:
            raise LimitError(f"a body has at most {BODY_BYTES_MAX} bytes")
    return bytes(body)


def _json(value: object, status: int = 200) -> Response:
    return Response(to_json(value), status, media_type="application/json")


async def _problem(request: Request, error: Exception) -> Response:
    del request
    if not isinstance(error, LichenError):
        error = LichenError("this node failed", hint="its log says why")
    return Response(
        msgspec.json.encode(problem_of(error)),
        error.status,
        media_type="application/problem+json",
    )


def as_text(counters: dict[str, Any]) -> bytes:
    """Write counters as Prometheus text, one gauge or counter a line."""
    return b"".join(f"{name} {value}\n".encode() for name, value in sorted(counters.items()))
