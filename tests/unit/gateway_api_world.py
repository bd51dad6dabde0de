"""A gateway for API tests: the real state machine in memory, a real run log and block store."""

import asyncio

import msgspec

from lichen.cdn.names.resolver import Names
from lichen.cdn.names.store import NameStore
from lichen.content import V0_2015, V1_2025
from lichen.content.cid import CID, RAW
from lichen.content.store import BlockStore
from lichen.gateway.api.app import create_api
from lichen.gateway.api.events import EventHub, block_events
from lichen.gateway.placement import Health
from lichen.gateway.runs import Attempt, RunLog, RunRecord
from lichen.identity import Address, KeyKind, PrivateKey
from lichen.identity.nonces import NonceCache
from lichen.ledger.machine import apply_transaction, seal
from lichen.ledger.results import Refusal, Result
from lichen.ledger.state import State
from lichen.ledger.store import MemoryStore
from lichen.ledger.transactions import (
    CreateApp,
    GrantSpending,
    OpenChannel,
    PublishRelease,
    RegisterNode,
    SettleEpoch,
    Transfer,
    decode_transaction,
    encode_transaction,
    sign_transaction,
)
from lichen.ledger.types import (
    Capacity,
    FunctionSpec,
    Genesis,
    GenesisAccount,
    Params,
    Prices,
    Runtime,
    network_id,
)
from lichen.ledger.views import View
from lichen.units import FLK, Amount

NOW_MS = 1_700_000_000_000
CODE = CID.of(RAW, b"code")
OWNER, NODE, GATEWAY, POOR = (
    PrivateKey(KeyKind.SECP256K1, bytes([0x10 + i]) * 32) for i in range(4)
)
TREASURY = Address(b"\x77" * 20)
PRICES = Prices(Amount(10), Amount(20), Amount(30), Amount(40), Amount(50))
CAPACITY = Capacity(4, 1024, 2**30)
SMALL_CHUNKS = msgspec.structs.replace(V1_2025, chunk_bytes=1 << 17)
SMALL_WRAPPED_CHUNKS = msgspec.structs.replace(V0_2015, chunk_bytes=1 << 17)
RECEIPT = b'{"receipt": "exactly these bytes"}'


def function(name="api", routes=("/api/*",), max_price=10**15):
    return FunctionSpec(
        name=name,
        code=CODE,
        runtime=Runtime.JS,
        routes=routes,
        memory_mb=128,
        timeout_ms=1000,
        verify="none",
        max_price=Amount(max_price),
        min_tier="process",
        run_first=False,
        schedule=(),
        content_bytes=4,
    )


class Replica:
    """Implements `Replica` over a state in this process."""

    def __init__(self, state):
        self.genesis = state.genesis
        self.state = View(state)
        self.network = state.network
        self._state = state

    height = property(lambda self: self._state.head.height)
    time_ms = property(lambda self: self._state.head.time_ms)
    state_root = property(lambda self: self._state.head.state_root)


class World:
    """Implements `ApiContext`."""

    def __init__(self, folder):
        self.genesis = Genesis(
            "test",
            NOW_MS,
            Params(Amount(1), 100, Amount(FLK), 1000, 1000, 60_000, TREASURY),
            (
                GenesisAccount(OWNER.address, Amount(1000 * FLK)),
                GenesisAccount(NODE.address, Amount(1000 * FLK)),
                GenesisAccount(GATEWAY.address, Amount(1000 * FLK)),
            ),
        )
        self.network = network_id(self.genesis)
        self.events = EventHub()
        self._entries = MemoryStore()
        self.state = State(self._entries, self.genesis)
        self.replica = Replica(self.state)
        self.ledger = self.replica.state
        tell = block_events(self.events)
        self.on_block = lambda applied: tell(applied.block, applied.changes.keys)
        self.gateway = GATEWAY.address
        self.hosts = frozenset({"gateway.test", "127.0.0.1", "g"})
        self.upload_bytes_max = 100_000
        self.account_bytes_max = 1 << 20
        self.network_blocks = {}
        self.clock_ms = NOW_MS
        self.nonces = NonceCache(started_ms=NOW_MS)
        self.health = {}
        self.store = BlockStore.open(folder / "store", capacity_bytes=2**24)
        self.records = NameStore(str(folder / "names"))
        self.names = Names(self.records, static={"docs.example": f"/ipfs/{CODE}/docs"})
        self.runs = RunLog(str(folder / "runs"), GATEWAY.address)
        self.log_lines = [
            b'{"time_ms":1,"node":"n","function":"api","run":"r","level":"log","text":"hi"}'
        ]
        self.submitted = []
        self.follow_forever = self.log_ended = False
        self.api = create_api(self)

    @property
    def head(self):
        return self.state.head

    def now_ms(self):
        return self.clock_ms

    async def submit(self, transactions):
        self.submitted.append(list(transactions))
        return [self.apply(raw) for raw in transactions]

    def apply(self, raw):
        received = decode_transaction(raw)
        draft = self.state.draft(self.clock_ms)
        outcome = apply_transaction(draft, received, signature_holds=received.signature_holds())
        if outcome.error is not None:
            return Result(outcome.id.hex(), error=Refusal.of(outcome.error))
        applied = seal(self.state, draft, [raw], [outcome])
        self._entries.write(applied.changes.entries)
        self.state.adopt(applied.changes)
        self.on_block(applied)
        return Result(outcome.id.hex(), self.head.height)

    def do(self, key, body):
        nonce = self.ledger.account(key.address).nonce
        return self.apply(
            encode_transaction(sign_transaction(self.network, key, nonce, body))
        ).accepted()

    async def resolve_name(self, name):
        return await self.names.resolve(name)

    async def fetch(self, cid, bytes_max):
        await asyncio.to_thread(self.store.put_blocks, list(self.network_blocks.items()))

    def run_record(self, run):
        return self.runs.get(run)

    async def receipt(self, run):
        self.runs.get(run)
        return RECEIPT

    async def logs(self, app, *, follow):
        try:
            for line in self.log_lines:
                yield line
            if self.follow_forever:
                await asyncio.Event().wait()
        finally:
            self.log_ended = True

    def close(self):
        self.runs.close()
        self.records.close()
        self.store.close()

    def populate(self):
        """One of everything."""
        self.do(
            NODE,
            RegisterNode(
                NODE.public, "http://127.0.0.1:9", CAPACITY, PRICES, ("process",), Amount(FLK)
            ),
        )
        self.do(OWNER, CreateApp("shop", "sells things"))
        self.do(OWNER, PublishRelease("shop", CODE, (function(),), None))
        self.do(OWNER, PublishRelease("shop", None, (function(), function("ssr", ("/*",))), None))
        self.do(OWNER, CreateApp("empty", ""))
        self.do(OWNER, GrantSpending("shop", GATEWAY.address, Amount(10 * FLK), NOW_MS + 10**9))
        self.do(
            GATEWAY, OpenChannel(NODE.address, GATEWAY.address, "shop", Amount(FLK), OWNER.address)
        )
        self.do(OWNER, Transfer(GATEWAY.address, Amount(5)))
        self.do(NODE, SettleEpoch(0, bytes(32), 3, ()))
        self.health[bytes(NODE.address)] = Health()
        self.health[bytes(NODE.address)].succeeded(20.0)
        self.run = self.runs.next_run()
        self.runs.add(
            RunRecord(
                self.run,
                "shop/2/api",
                "GET",
                "/api/time",
                NOW_MS,
                10**15,
                node=str(NODE.address),
                status=200,
                wall_us=1500,
                attempts=(Attempt(str(NODE.address), "answered", 1400),),
                refusals="1 too dear",
                amount=12,
            )
        )
        self.store.put_block(CODE, b"code")
        return self
