"""An account that acts on the ledger by itself: a node's or a gateway's.

It numbers its transactions, sends one at a time, and returns when the local replica has applied it,
so that the next read sees what was written.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from lichen.ledger.errors import BadNonceError
from lichen.ledger.transactions import sign_transaction
from lichen.ledger.types import network_id

if TYPE_CHECKING:
    from lichen.identity import Address, PrivateKey
    from lichen.ledger.client import LedgerClient
    from lichen.ledger.follower import Follower
    from lichen.ledger.results import Result
    from lichen.ledger.transactions import Transaction
    from lichen.ledger.types import Genesis

APPLIED_S_MAX = 10.0


class Submitter:
    """Submits transactions for one key, in order."""

    def __init__(
        self, key: PrivateKey, genesis: Genesis, client: LedgerClient, follower: Follower
    ) -> None:
        self.genesis = genesis
        self.address: Address = key.address
        self._key = key
        self._network = network_id(genesis)
        self._client = client
        self._follower = follower
        self._turn = asyncio.Lock()

    def now_ms(self) -> int:
        """Return this machine's time, in milliseconds since 1970."""
        return time.time_ns() // 1_000_000

    async def submit(self, body: Transaction) -> Result:
        """Sign, send, and wait until the replica has it; raise the ledger's typed refusal.

        A nonce that is taken (an earlier answer was lost) is read again from the ledger, once.
        """
        async with self._turn:
            try:
                result = await self._send(body)
            except BadNonceError:
                status = await self._client.status()
                await self._follower.wait_for(status.height)
                result = await self._send(body)
            async with asyncio.timeout(APPLIED_S_MAX):
                await self._follower.wait_for(result.accepted())
            return result

    async def _send(self, body: Transaction) -> Result:
        nonce = self._follower.state.account(self.address).nonce
        signed = sign_transaction(self._network, self._key, nonce, body)
        return await self._client.submit_one(signed)
