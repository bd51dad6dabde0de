"""Links: for one app and one node, the channel that pays and the session that speaks for it.

A link opens itself when a release or grant appears, so that the first request finds it ready: it
finds or opens the channel on the ledger (under the owner's grant), proves to the node that it is
the signer, and from then on pays every `pay_ms` for exactly the runs that were placed.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import msgspec
import structlog

from lichen.encoding import from_json, sha256, to_json
from lichen.errors import LichenError, NotAllowedError, PaymentRequiredError, PeerError
from lichen.identity import Address
from lichen.identity.http_signature import RequestHead, sign_request
from lichen.ledger.transactions import OpenChannel, TopUpChannel
from lichen.ledger.voucher import Voucher, sign_voucher, verify_voucher
from lichen.market.account import PayerBook
from lichen.node.api import PayRequest, SessionAnswer
from lichen.node.callhead import CALL_FIELDS
from lichen.node.till import Statement
from lichen.units import Amount
from lichen.wire import MuxDialler, Pool, PoolLimits
from lichen.wire.client import request
from lichen.wire.dialling import public_dial

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lichen.gateway.config import GatewayConfig
    from lichen.gateway.placement import Health
    from lichen.gateway.routes import FunctionRoute
    from lichen.gateway.runs import RunLog
    from lichen.identity import PrivateKey
    from lichen.ledger.follower import Follower
    from lichen.ledger.submitter import Submitter
    from lichen.ledger.types import Channel, Node
    from lichen.market.account import Line

CONTROL_S_MAX = 5.0
CONTROL_BYTES_MAX = 2 * 2**20
OPEN_AGAIN_S = 0.5
OPEN_AGAIN_S_MAX = 5.0
PAY_AGAIN_S = 1.0
LOOK_AGAIN_S = 5.0  # for the bill of runs that a node had not finished when it was last paid
PROBE_S_MAX = 2.0
SESSION = re.compile(r"[A-Za-z0-9_-]{16,64}")
POOL = PoolLimits(connections_max=1024, idle_max=256)  # to one node, as streams of one connection
RECALL_PART = 100  # of a deposit may be paid for runs whose records a crash took
_FIELDS = b"%b: %%b\r\n%b: %%b\r\n%b: %%b\r\n" % CALL_FIELDS[:-1]  # all but the run
TOP_UP_BELOW = 4  # a channel is topped up when less than a quarter of its deposit is left

log = structlog.get_logger()


class NodePeer:
    """One node as this gateway reaches it: a connection pool for its endpoint."""

    __slots__ = ("address", "endpoint", "field", "host", "name", "pool", "probing", "silent_at")

    def __init__(self, address: bytes, endpoint: str, *, private: bool) -> None:
        self.address = address
        self.name = "0x" + address.hex()
        self.field = b"lichen-node: %b\r\n" % str(Address(address)).encode()
        self.endpoint = endpoint
        parts = urlsplit(endpoint)
        port = parts.port or 80
        self.host = parts.netloc
        name = parts.hostname or ""
        host = f"[{name}]" if ":" in name else name
        address_text = f"{host}:{port}"
        plain = None if private else public_dial(name, port)
        mux = MuxDialler(address_text, plain=plain, host=self.host.encode())
        self.pool = Pool(address_text, limits=POOL, dial=mux.dial)
        self.probing: asyncio.Task[None] | None = None
        self.silent_at = 0.0

    def is_silent(self, since: float) -> bool:
        """Tell whether a probe sent after `since` (monotonic) got no answer; send one if not.

        For callers that wait longer than usual: a process that hangs still accepts connections.
        """
        if self.silent_at > since:
            return True
        if self.probing is None:
            self.probing = asyncio.ensure_future(self._probe())
        return False

    async def answers(self) -> bool:
        """Tell whether the node answers a probe now."""
        asked = time.monotonic()
        if self.probing is None:
            self.probing = asyncio.ensure_future(self._probe())
        await asyncio.shield(self.probing)
        return self.silent_at < asked

    async def _probe(self) -> None:
        sent = time.monotonic()
        try:
            await request(
                self.pool,
                b"GET",
                b"/healthz",
                headers=[(b"host", self.host.encode())],
                timeout_s=PROBE_S_MAX,
            )
        except LichenError:
            self.silent_at = sent
        finally:
            self.probing = None


class Link:
    """One app's business with one node."""

    __slots__ = (
        "_fields", "_fields_for", "app", "book", "channel", "due", "healing", "health", "in_flight",
        "opening", "owner", "pay_at", "peer", "problem", "retry_at", "retry_s", "session",
        "settling", "trusted", "unconfirmed",
    )  # fmt: skip

    def __init__(self, app: str, owner: Address, peer: NodePeer) -> None:
        self.app = app
        self.owner = owner
        self.peer = peer
        self.channel = b""
        self.session = b""
        self.book = PayerBook(0)
        self.opening: asyncio.Task[None] | None = None
        self.settling = asyncio.Lock()
        self.problem = "not opened yet"
        self.trusted = True
        self.retry_at = 0.0
        self.retry_s = OPEN_AGAIN_S
        self.health: Health | None = None
        self.in_flight = 0
        self.due = False
        self.pay_at = 0.0
        self.healing = True  # what keeps the link from opening may pass by itself
        self.unconfirmed: tuple[Line, ...] = ()
        self._fields = b""
        self._fields_for: tuple[FunctionRoute | None, bytes] = (None, b"")

    def fields(self, function: FunctionRoute) -> bytes:
        """Return the lines that tell the node who pays up to what for which function."""
        made_for, session = self._fields_for
        if made_for is not function or session is not self.session:
            self._fields_for = (function, self.session)
            self._fields = _FIELDS % (self.session, function.field, function.ceiling_field)
        return self._fields

    @property
    def may_cost(self) -> int:
        """What the runs in flight may cost together, each counted like the latest one."""
        placed = self.book.placed
        return self.in_flight * next(reversed(placed.values())) if placed else 0

    def place(self, run: str, ceiling: int) -> None:
        """Count a run that is sent to the node now."""
        self.book.place(run, ceiling)
        self.in_flight += 1

    def withdraw(self, run: str) -> None:
        """Forget a run that the node refused or never got: it may not bill it."""
        self.book.placed.pop(run, None)

    def left(self) -> None:
        """Count a run that is over, or went elsewhere; the next payment covers it."""
        self.in_flight -= 1
        if not self.due:
            self.due, self.pay_at = True, 0.0
        if self.health is not None:
            self.health.in_flight -= 1


class Links:
    """All links of this gateway."""

    def __init__(
        self,
        key: PrivateKey,
        network: bytes,
        config: GatewayConfig,
        follower: Follower,
        submitter: Submitter,
        runs: RunLog,
    ) -> None:
        self._key = key
        self._network = network
        self._config = config
        self._follower = follower
        self._submitter = submitter
        self._runs = runs
        self.peers: dict[bytes, NodePeer] = {}
        self._links: dict[tuple[str, bytes], Link] = {}

    def peer(self, node: Node) -> NodePeer:
        """Return how to reach a node, as its latest registration says."""
        key = bytes(node.address)
        peer = self.peers.get(key)
        if peer is None or peer.endpoint != node.endpoint:
            if peer is not None:
                peer.pool.close()
            private = self._config.private_nodes
            peer = self.peers[key] = NodePeer(key, node.endpoint, private=private)
        return peer

    def get(self, function: FunctionRoute, node: Node) -> Link:
        """Return the link for a function's app and a node; it may not be open yet."""
        key = (function.app, bytes(node.address))
        link = self._links.get(key)
        peer = self.peer(node)
        if link is None:
            link = self._links[key] = Link(function.app, function.owner, peer)
        elif link.peer is not peer:
            link.peer = peer
            link.session = b""
        return link

    def of_app(self, app: str) -> list[Link]:
        """Return an app's links."""
        return [link for (name, _), link in self._links.items() if name == app]

    def ready(self, link: Link) -> bool:
        """Tell whether a link can carry a run; start to open it when it cannot."""
        if link.session:
            return True
        if link.trusted and link.opening is None and time.monotonic() >= link.retry_at:
            self._begin_opening(link)
        return False

    async def opened(self, link: Link) -> bool:
        """Wait until a link is open, or its opening failed; return which."""
        if not self.ready(link) and link.opening is not None:
            await asyncio.shield(link.opening)
        return bool(link.session)

    def retry_now(self, peer: NodePeer) -> None:
        """Let links to a node that answers again be opened without a further pause."""
        for link in self._links.values():
            if link.peer is peer:
                link.retry_at = 0.0

    def lost_session(self, link: Link, session: bytes) -> None:
        """Note that the node does not know `session` any more (it restarted)."""
        if link.session == session:
            link.session = b""
            link.retry_at = 0.0

    def _begin_opening(self, link: Link) -> None:
        link.opening = asyncio.ensure_future(self._open(link))

    async def _open(self, link: Link) -> None:
        try:
            channel = await self._channel(link)
            await self._open_session(link, channel)
            link.problem, link.retry_s = "", OPEN_AGAIN_S
            link.due = True  # it may have runs to bill from before a restart of either side
        except (LichenError, TimeoutError) as error:
            link.problem = error.what if isinstance(error, LichenError) else "no answer in time"
            link.healing = isinstance(error, (PeerError, TimeoutError))
            link.retry_at = time.monotonic() + link.retry_s
            link.retry_s = min(2 * link.retry_s, OPEN_AGAIN_S_MAX)
            log.info("link not open", app=link.app, node=link.peer.endpoint, why=link.problem)
        finally:
            link.opening = None

    async def _channel(self, link: Link) -> Channel:
        """Find the open channel of this link on the ledger, or open it under the owner's grant."""
        found = self._find_channel(link)
        if found is None:  # an earlier attempt may have opened it and not heard so
            async with asyncio.timeout(CONTROL_S_MAX):
                await self._follower.sync()
            found = self._find_channel(link)
        return found or await self._open_channel(link)

    def _find_channel(self, link: Link) -> Channel | None:
        view = self._follower.state
        for channel in view.channels_of(signer=self._key.address, open_only=True):
            if channel.app == link.app and channel.payee == link.peer.address:
                return channel
        return None

    async def _open_channel(self, link: Link) -> Channel:
        deposit = self._allowed(link)
        body = OpenChannel(
            payee=type(self._key.address)(link.peer.address),
            signer=self._key.address,
            app=link.app,
            deposit=Amount(deposit),
            owner=link.owner,
        )
        await self._submitter.submit(body)
        opened = self._find_channel(link)
        if opened is None:
            raise PeerError("the ledger took the channel but does not show it", hint="try again")
        return opened

    def _allowed(self, link: Link) -> int:
        """Return how much a new channel may hold under the grant; raise when nothing is left."""
        grant = self._follower.state.grant(link.owner, link.app, self._key.address)
        if grant is None or grant.expires_ms <= time.time_ns() // 1_000_000:
            raise PaymentRequiredError(
                f"the owner of {link.app} has not granted this gateway any spending",
                hint="`lichen deploy` grants it",
            )
        left = grant.limit - grant.spent
        deposit = min(int(self._config.channel_deposit), left // 2 or left)
        if deposit <= 0:
            raise PaymentRequiredError(
                f"the grant for {link.app} is used up", hint="`lichen deploy` grants more"
            )
        return deposit

    async def _open_session(self, link: Link, channel: Channel) -> None:
        body = to_json({"channel": channel.id.hex()})
        answer = from_json(
            await self._post(link.peer, "/v1/sessions", body, signed=True), SessionAnswer
        )
        if not SESSION.fullmatch(answer.session):  # it becomes a header field of every request
            raise PeerError("the node's session is not a token of 16 to 64 letters and digits")
        if link.channel != channel.id:
            link.channel = channel.id
            signed = self._signed(channel, answer.voucher)
            link.book = PayerBook(channel.deposit, signed=signed, redeemed=channel.redeemed)
            self._confirm(link)  # paid by the channel before, whether its node said so or not
        link.book.deposit = channel.deposit
        link.session = answer.session.encode()

    def _signed(self, channel: Channel, voucher: Voucher | None) -> int:
        """Return what this gateway promised before it restarted: its own signature proves it."""
        if voucher is None:
            return 0
        ours = voucher.channel == channel.id
        if not ours or not verify_voucher(self._network, voucher, self._key.address):
            raise PeerError("the node shows a voucher that this gateway never signed")
        return int(voucher.cumulative)

    async def _post(
        self, peer: NodePeer, path: str, body: bytes, *, signed: bool = False, bearer: bytes = b""
    ) -> bytes:
        fields = [("content-type", "application/json")]
        if bearer:
            fields.append(("authorization", f"Bearer {bearer.decode()}"))
        if signed:
            head = RequestHead("POST", "http", peer.host, path, "", tuple(fields))
            fields += sign_request(
                self._key,
                head,
                created_s=int(time.time()),
                nonce=secrets.token_urlsafe(16),
                body_sha256=sha256(body),
            ).items()
        headers = [(b"host", peer.host.encode())]
        headers += [(name.encode(), value.encode()) for name, value in fields]
        response = await request(
            peer.pool,
            b"POST",
            path.encode(),
            headers=headers,
            body=body,
            timeout_s=CONTROL_S_MAX,
            body_bytes_max=CONTROL_BYTES_MAX,
        )
        if response.status != 200:
            raise _refusal(response.status, response.body)
        return response.body

    # --- paying --------------------------------------------------------------------------------

    def active(self) -> Iterable[Link]:
        """Return the links that have runs to pay for, or may have some."""
        now = time.monotonic()
        links = [link for link in self._links.values() if link.due or link.book.placed]
        return [link for link in links if now >= link.pay_at and self.ready(link)]

    async def settle(self, link: Link) -> None:
        """Fetch a link's statement, check it, and pay it; raise PeerError when it is not right."""
        async with link.settling:
            if not link.session:
                return
            link.due = False
            statement = await self._exchange(link, PayRequest())
            if statement.paid < link.book.signed:  # the last voucher never arrived
                statement = await self._promise(link)
            if statement.owed > link.book.signed:
                statement = await self._pay(link, statement)
            if statement.runs:
                link.due = True
            elif not link.due:
                link.pay_at = time.monotonic() + LOOK_AGAIN_S
            await self._top_up(link)

    async def _pay(self, link: Link, statement: Statement) -> Statement:
        node = "0x" + link.peer.address.hex()
        signed_for = {line.run for line in link.unconfirmed}  # not billed in the log before that

        def earlier(run: str) -> int | None:
            return None if run in signed_for else self._runs.ceiling(run, node)

        recall = int(self._config.channel_deposit) // RECALL_PART
        try:
            link.book.approve(statement.owed, statement.runs, recall, earlier)
        except PeerError as error:
            link.trusted, link.session, link.problem = False, b"", error.what
            link.healing = False
            raise
        link.unconfirmed += statement.runs
        return await self._promise(link)

    async def _promise(self, link: Link) -> Statement:
        """Send the voucher for all that was approved; return the next statement."""
        voucher = sign_voucher(self._network, self._key, link.channel, link.book.signed)
        statement = await self._exchange(link, PayRequest(voucher))
        self._confirm(link)
        return statement

    def _confirm(self, link: Link) -> None:
        """Note in the runs' records what was paid for them."""
        for line in link.unconfirmed:
            self._runs.bill(line.run, line.amount)
        link.unconfirmed = ()

    async def _exchange(self, link: Link, body: PayRequest) -> Statement:
        path = f"/v1/channels/{link.channel.hex()}/pay"
        session = link.session
        try:
            data = await self._post(link.peer, path, to_json(body), bearer=session)
        except NotAllowedError:
            self.lost_session(link, session)
            raise
        return from_json(data, Statement)

    async def _top_up(self, link: Link) -> None:
        channel = self._follower.state.channel(link.channel)
        if channel is None:
            link.session, link.channel = b"", b""
            return
        link.book.deposit = channel.deposit
        left = channel.deposit - link.book.signed - link.may_cost
        if left > int(self._config.channel_deposit) // TOP_UP_BELOW:
            return
        amount = self._allowed(link)
        await self._submitter.submit(TopUpChannel(link.channel, Amount(amount)))
        topped_up = self._follower.state.channel(link.channel)
        if topped_up is not None:
            link.book.deposit = topped_up.deposit

    async def settle_all(self) -> None:
        """Pay every link that has something to pay; one that fails does not hold up the others."""
        links = list(self.active())
        results = await asyncio.gather(*map(self.settle, links), return_exceptions=True)
        for link, result in zip(links, results, strict=True):
            if isinstance(result, (LichenError, TimeoutError)):
                log.warning("not paid", app=link.app, node=link.peer.endpoint, error=str(result))
                link.due, link.pay_at = True, time.monotonic() + PAY_AGAIN_S
            elif isinstance(result, Exception):  # a defect, met by one node's answer, stays there
                log.error("not paid", app=link.app, node=link.peer.endpoint, exc_info=result)
                link.due, link.pay_at = True, time.monotonic() + PAY_AGAIN_S
            elif isinstance(result, BaseException):
                raise result


def _refusal(status: int, body: bytes) -> LichenError:
    """Turn a node's problem document into an error of ours."""
    try:
        problem = msgspec.json.decode(body)
        text = str(problem.get("detail", ""))[:300]
    except (ValueError, AttributeError, RecursionError):
        text = ""
    kind = NotAllowedError if status == 401 else PeerError
    return kind(f"the node answered {status}: {text or 'no reason given'}")
