"""The client library: a gateway's whole public API as typed, synchronous calls.

    with Client("http://127.0.0.1:8080", key) as client:
        client.transfer(address, parse_flk("1.5"))
        print(client.call("hello/api/time").body)

Expected failures are the errors of `lichen.errors` and `lichen.ledger.errors`: what the gateway
answers as a problem is raised here as the same type. A gateway that does not answer is a
PeerUnavailableError. Calls that can be repeated without harm are, a bounded number of times: reads,
content (named by its hash) and signed transactions (which count once); calls of functions are not,
unless their method is safe.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

import libipld
import msgspec

from lichen.content.car import CarReader
from lichen.content.ipns import RECORD_BYTES_MAX
from lichen.errors import NotAllowedError, UserError, VerificationError
from lichen.gateway.api import views
from lichen.ledger.results import ProofAnswer
from lichen.ledger.transactions import (
    Transaction,
    Transfer,
    encode_transaction,
    sign_transaction,
)
from lichen.ledger.types import App, Genesis, Grant, Release, network_id
from lichen.market.receipt import RECEIPT_BYTES_MAX, Receipt, read_receipt
from lichen.sdk.connection import Connection, Progress, quote_path
from lichen.sdk.target import locate
from lichen.sdk.upload import Spool
from lichen.units import Amount

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    import httpx

    from lichen.content.cid import CID
    from lichen.content.ipns import Name
    from lichen.identity import Address, PrivateKey
    from lichen.ledger.results import Result

TIMEOUT_S = 30.0
PAGE_MAX = 500
HISTORY_MAX = 100
TRANSACTIONS_PER_SUBMIT_MAX = 256
RESPONSE_BYTES_MAX = 64 * 2**20
IPNS_RECORD = "application/vnd.ipfs.ipns-record"
CAR = "application/vnd.ipld.car"


class CallResult(msgspec.Struct, frozen=True):
    """What a function or site answered. `run` and `node` are empty for static content."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes
    run: str
    node: str

    def header(self, name: str) -> str:
        """Return the first header of this name (lower case), or an empty string."""
        return next((value for key, value in self.headers if key == name), "")


class Client:
    """One gateway, seen with one key. Not for use from several threads at once."""

    def __init__(
        self,
        gateway_url: str,
        key: PrivateKey | None = None,
        *,
        timeout_s: float = TIMEOUT_S,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """Connect lazily; `key` is needed for everything that is signed."""
        self.key = key
        self._connection = Connection(gateway_url, key, timeout_s, transport)
        self._network: bytes | None = None
        self._nonce = 0  # the gateway's follower may be a block behind what it took from us

    def close(self) -> None:
        """Close the connections."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # What the network knows

    def status(self) -> views.Status:
        """Return where the gateway stands."""
        return self._connection.get("/api/v1/status", views.Status)

    def genesis(self) -> Genesis:
        """Return the network's genesis, checked against the id that the gateway names."""
        network = self._connection.get("/api/v1/network", views.Network)
        if network_id(network.genesis) != network.id:
            raise VerificationError(
                "the gateway's genesis does not have the network id that it names",
                hint="do not trust this gateway; use another one",
            )
        return network.genesis

    def network(self) -> bytes:
        """Return the 32-byte network id, that transactions are signed for."""
        if self._network is None:
            self._network = network_id(self.genesis())
        return self._network

    def account(self, address: Address | None = None) -> views.AccountView:
        """Return an account, by default this client's own."""
        path = f"/api/v1/accounts/{address or self._signer().address}"
        return self._connection.get(path, views.AccountView)

    def nonce(self, address: Address | None = None) -> int:
        """Return the nonce of the account's next transaction."""
        path = f"/api/v1/accounts/{address or self._signer().address}/nonce"
        return self._connection.get(path, views.Nonce).nonce

    def history(
        self, address: Address | None = None, *, limit: int = HISTORY_MAX, cursor: str = ""
    ) -> views.Page[views.HistoryEntry]:
        """Return what moved the account's balance, the newest first."""
        path = f"/api/v1/accounts/{address or self._signer().address}/history"
        return self._page(path, views.HistoryEntry, limit=limit, cursor=cursor)

    def app(self, name: str) -> views.AppView:
        """Return an app and its active release; raise NotFoundError."""
        return self._connection.get(f"/api/v1/apps/{quote_path(name)}", views.AppView)

    def apps(self, owner: Address | None = None) -> Iterator[App]:
        """Yield the apps of an owner, or all of them, by name."""
        return self._pages("/api/v1/apps", App, owner="" if owner is None else str(owner))

    def releases(self, app: str) -> Iterator[Release]:
        """Yield an app's releases, the newest first."""
        return self._pages(f"/api/v1/apps/{quote_path(app)}/releases", Release)

    def release(self, app: str, number: int) -> Release:
        """Return one release; raise NotFoundError."""
        return self._connection.get(f"/api/v1/apps/{quote_path(app)}/releases/{number}", Release)

    def grants(self, app: str) -> Iterator[Grant]:
        """Yield who may spend how much for an app."""
        return self._pages(f"/api/v1/apps/{quote_path(app)}/grants", Grant)

    def channels(self, address: Address | None = None) -> Iterator[views.ChannelView]:
        """Yield the channels that an account pays into, signs for, or is paid by."""
        path = f"/api/v1/accounts/{address or self._signer().address}/channels"
        return self._pages(path, views.ChannelView)

    def functions(self, app: str) -> tuple[views.FunctionView, ...]:
        """Return the functions of the app's active release."""
        path = f"/api/v1/functions/{quote_path(app)}"
        return self._page(path, views.FunctionView, limit=PAGE_MAX, cursor="").items

    def nodes(self) -> Iterator[views.NodeView]:
        """Yield the registered nodes and how the gateway finds them."""
        return self._pages("/api/v1/nodes", views.NodeView)

    def node(self, address: Address) -> views.NodeView:
        """Return one node; raise NotFoundError."""
        return self._connection.get(f"/api/v1/nodes/{address}", views.NodeView)

    def market_nodes(self) -> Iterator[views.NodeOffer]:
        """Yield the offers of the active nodes."""
        return self._pages("/api/v1/market/nodes", views.NodeOffer)

    def market_prices(self) -> views.MarketPrices:
        """Return the market's price ranges."""
        return self._connection.get("/api/v1/market/prices", views.MarketPrices)

    def quote(self, function: str, verify: str = "") -> views.FunctionQuote:
        """Price a run of `app/function` (or `app` alone, when it has one) before it runs."""
        path = f"/api/v1/market/quote/{quote_path(function)}"
        return self._connection.get(path, views.FunctionQuote, verify=verify)

    def epochs(self, node: Address | None = None) -> Iterator[views.EpochView]:
        """Yield settled batches of receipts, of one node or of all."""
        return self._pages(
            "/api/v1/epochs", views.EpochView, node="" if node is None else str(node)
        )

    def blocks(self, start: int = 1, *, limit: int = 100) -> tuple[views.BlockView, ...]:
        """Return up to `limit` blocks from height `start` on."""
        path = "/api/v1/blocks"
        page = self._page(path, views.BlockView, limit=limit, cursor="", **{"from": str(start)})
        return page.items

    def prove(self, key: bytes) -> ProofAnswer:
        """Return what stands under a key of the ledger's state, with its proof, unchecked.

        `lichen.ledger.light.Verifier(genesis).check(key, answer)` believes the genesis alone.
        """
        return self._connection.get(f"/api/v1/proofs/{key.hex()}", ProofAnswer)

    def storage(self, cid: str) -> views.ContentView:
        """Return what the gateway's store knows about a CID; raise NotFoundError."""
        return self._connection.get(f"/api/v1/storage/{quote_path(cid)}", views.ContentView)

    def name(self, name: str) -> views.NameView:
        """Return what a mutable name, an IPNS key's or a domain, stands for at the gateway."""
        return self._connection.get(f"/api/v1/names/{quote_path(name)}", views.NameView)

    def name_record(self, name: Name) -> bytes | None:
        """Return the IPNS record that the gateway has of a name, not verified; None for none."""
        answer = self._connection.exchange(
            "GET",
            f"{self._connection.base}/routing/v1/ipns/{name}",
            headers={"accept": IPNS_RECORD},
            bytes_max=RECORD_BYTES_MAX,
        )
        kind = answer.headers.get("content-type", "").partition(";")[0]
        return answer.content if answer.is_success and kind == IPNS_RECORD else None

    def events(self) -> Iterator[views.Event]:
        """Yield what happens from now on, until the connection ends."""
        return self._connection.events("/api/v1/events")

    # Runs

    def run(self, run: str) -> views.RunView:
        """Return the gateway's record of a run; raise NotFoundError."""
        return self._connection.get(f"/api/v1/runs/{quote_path(run)}", views.RunView)

    def why(self, run: str) -> views.Why:
        """Return a run with its story: placement, refusals, retries, bill."""
        return self._connection.get(f"/api/v1/runs/{quote_path(run)}/why", views.Why)

    def receipt(self, run: str) -> Receipt:
        """Return a run's signed receipt; `market.receipt.write_receipt` gives the file's bytes."""
        path = f"/api/v1/runs/{quote_path(run)}/receipt"
        receipt = read_receipt(self._connection.get_bytes(path, RECEIPT_BYTES_MAX))
        if receipt.run != run:
            raise VerificationError(
                f"the gateway gave the receipt of run {receipt.run} for {run}",
                hint="do not trust this gateway; use another one",
            )
        return receipt

    def call(
        self,
        target: str,
        method: str = "GET",
        data: bytes = b"",
        headers: Mapping[str, str] | None = None,
    ) -> CallResult:
        """Invoke `app[/path]` at the gateway, or a URL; an answer of any status is a result.

        Raises PeerUnavailableError when nothing answers, LimitError for an answer of over
        RESPONSE_BYTES_MAX bytes.
        """
        url, extra = locate(self._connection.base, target)
        answer = self._connection.exchange(
            method, url, content=data, headers={**extra, **(headers or {})},
            bytes_max=RESPONSE_BYTES_MAX,
        )  # fmt: skip
        return CallResult(
            answer.status_code,
            tuple((key.lower(), value) for key, value in answer.headers.multi_items()),
            answer.content,
            answer.headers.get("lichen-run", ""),
            answer.headers.get("lichen-node", ""),
        )

    def car(self, cid: CID, scope: str = "all") -> Iterator[tuple[CID, bytes]]:
        """Yield the blocks of a DAG as they come, each checked against its hash.

        Of scope `entity`, only those of one file, or those that list a directory.

        Depth first, and as often as they are linked to, so in the order in which who reads the DAG
        needs them. Raises PeerError or CarError where it breaks off, VerificationError.
        """
        path = f"/ipfs/{cid}?format=car&dag-scope={scope}&car-order=dfs&car-dups=y"
        with self._connection.download(path, CAR) as stream:
            yield from CarReader(stream)

    def logs(self, app: str, *, follow: bool = False) -> Iterator[views.LogLine]:
        """Yield an app's log lines from all nodes; signed by the app's owner."""
        self._signer()
        query = {"follow": "1"} if follow else {}
        yield from self._connection.logs(f"/api/v1/apps/{quote_path(app)}/logs", query)

    # What is told to the network

    def submit(self, *bodies: Transaction) -> tuple[Result, ...]:
        """Sign transactions with the account's next nonces and post them together.

        Returns once they stand in blocks on disk. Raises the ledger's error for the first one that
        was refused; those before it hold.
        """
        if not 1 <= len(bodies) <= TRANSACTIONS_PER_SUBMIT_MAX:
            raise UserError(f"submit takes 1 to {TRANSACTIONS_PER_SUBMIT_MAX} transactions")
        key, network = self._signer(), self.network()
        nonce = self._nonce = max(self.nonce(), self._nonce)
        signed = [
            encode_transaction(sign_transaction(network, key, nonce + offset, body))
            for offset, body in enumerate(bodies)
        ]
        answer = self._connection.post(
            "/api/v1/transactions",
            bytes(libipld.encode_dag_cbor(signed)),
            "application/vnd.ipld.dag-cbor",
            views.TransactionResults,
        )
        for result in answer.results:
            result.accepted()
            self._nonce += 1
        return answer.results

    def transfer(self, to: Address, amount: int) -> Result:
        """Move FLK (10^-18) to another account."""
        return self.submit(Transfer(to, Amount(amount)))[0]

    def upload_car(
        self, parts: Iterable[bytes], total: int | None = None, progress: Progress | None = None
    ) -> views.Uploaded:
        """Store the blocks of a CAR file and return its roots, once they are on disk there.

        The signature covers a hash of the body, so that `parts` go through a temporary file first.
        `progress(done, total)` is called as bytes leave; `total` bounds what `parts` may give.
        """
        self._signer()
        with Spool(parts, total) as spool:
            return self._connection.post_file(
                "/api/v1/content", spool, "application/vnd.ipld.car", views.Uploaded, progress
            )

    def publish_name(self, name: Name, record: bytes) -> bool:
        """Give the gateway an IPNS record; tell whether it counts there now.

        It does not where a newer one is. Raises UserError for one that does not hold.
        """
        self._connection.put(f"/routing/v1/ipns/{name}", record, IPNS_RECORD)
        return self.name_record(name) == record

    def upload_part(self, spool: Spool, progress: Progress | None = None) -> views.Uploaded:
        """Store one of several CARs of the same roots; `pin` them when all are there."""
        self._signer()
        return self._connection.post_file(
            "/api/v1/content?part=1", spool, "application/vnd.ipld.car", views.Uploaded, progress
        )

    def missing(self, cids: Sequence[CID]) -> tuple[CID, ...]:
        """Return which of up to 16,384 blocks the gateway lacks."""
        self._signer()
        asked = bytes(libipld.encode_dag_cbor([cid.encode() for cid in cids]))
        with Spool([asked]) as spool:
            answer = self._connection.post_file(
                "/api/v1/content/missing", spool, "application/vnd.ipld.dag-cbor", views.Missing
            )
        return answer.cids

    # What the account keeps at the gateway

    def pin(self, cid: str, *, fetch: bool = True) -> views.PinView:
        """Keep a whole DAG; what the gateway lacks it fetches, or names without `fetch`.

        Raises NotFoundError, QuotaError.
        """
        self._signer()
        path = f"/api/v1/storage/{quote_path(cid)}/pin{'' if fetch else '?fetch=0'}"
        return self._connection.signed("POST", path, views.PinView)

    def unpin(self, cid: str) -> views.PinView:
        """Let go of the account's own pin; raise NotFoundError when it has none."""
        self._signer()
        path = f"/api/v1/storage/{quote_path(cid)}/pin"
        return self._connection.signed("DELETE", path, views.PinView)

    def pins(self, cursor: str = "") -> views.PinPage:
        """Return some of the account's pins, behind a cursor, and what all of them weigh."""
        self._signer()
        path = f"/api/v1/storage?limit={PAGE_MAX}{'&cursor=' + cursor if cursor else ''}"
        return self._connection.signed("GET", path, views.PinPage)

    def _signer(self) -> PrivateKey:
        if self.key is None:
            raise NotAllowedError(
                "this needs a key to sign with", hint="make an account: lichen account new"
            )
        return self.key

    def _page(
        self, path: str, kind: type[views.T], *, limit: int, cursor: str, **query: str
    ) -> views.Page[views.T]:
        page = views.Page[kind]  # type: ignore[valid-type]
        query |= {"limit": str(min(limit, PAGE_MAX)), "cursor": cursor}
        return self._connection.get(path, page, **query)

    def _pages(self, path: str, kind: type[views.T], **query: str) -> Iterator[views.T]:
        cursor: str | None = ""
        while cursor is not None:
            page = self._page(path, kind, limit=PAGE_MAX, cursor=cursor, **query)
            yield from page.items
            cursor = page.cursor
