"""The till: receipts to disk, vouchers in, and every few seconds the ledger told.

`record` schedules one flush for all runs that finish within FLUSH_S. `pay` is one exchange with a
payer: its voucher for the last statement in, the next statement out. `settle` redeems the latest
vouchers and anchors the receipts' root on the ledger.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import msgspec
import structlog

from lichen.errors import LichenError, NotFoundError, UserError
from lichen.ledger.transactions import SettleEpoch
from lichen.ledger.types import epoch_at
from lichen.ledger.voucher import Voucher, verify_voucher
from lichen.market.account import Line
from lichen.units import Amount

if TYPE_CHECKING:
    from lichen.ledger.submitter import Submitter
    from lichen.ledger.views import View
    from lichen.market.receipt import Receipt
    from lichen.market.receipt_log import ReceiptLog
    from lichen.node.sessions import ChannelAccount, Sessions

FLUSH_S = 0.25  # at the latest; whoever asks for a receipt or a statement need not wait for it
VOUCHERS_PER_SETTLEMENT_MAX = 200

log = structlog.get_logger()


class Statement(msgspec.Struct, frozen=True):
    """The runs that no voucher covers yet, and what the channel owes in all up to the last."""

    owed: Amount
    paid: Amount
    runs: tuple[Line, ...]


class Till:
    """Money in and out of one node."""

    def __init__(self, receipts: ReceiptLog, sessions: Sessions, network: bytes) -> None:
        self.receipts = receipts
        self._sessions = sessions
        self._network = network
        self._scheduled = False
        self._flushing: set[asyncio.Task[Any]] = set()

    def record(self) -> None:
        """Note that a run was appended; its receipt is durable within moments."""
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_later(FLUSH_S, self._flush_soon)

    def _flush_soon(self) -> None:
        self._scheduled = False
        task = asyncio.ensure_future(self._flush_reporting())
        self._flushing.add(task)
        task.add_done_callback(self._flushing.discard)

    async def _flush_reporting(self) -> None:
        try:
            await self.flush()
        except LichenError as error:
            log.warning("receipts are not on disk yet", error=error.what, hint=error.hint)
            self.record()

    async def flush(self) -> None:
        """Make everything that finished so far durable."""
        await self.receipts.flush(self._sessions.books)

    async def receipt(self, run: str) -> Receipt:
        """Return the receipt of a finished run, once it is on disk."""
        if not self.receipts.is_durable(run):
            await self.flush()
        return self.receipts.receipt(run)

    async def pay(self, account: ChannelAccount, voucher: Voucher | None) -> Statement:
        """Take a voucher (fsynced before this returns) and answer with the next statement."""
        if voucher is not None:
            await self._take(account, voucher)
        await self.flush()
        owed, runs = account.book.statement()
        return Statement(Amount(owed), Amount(account.book.paid), runs)

    async def _take(self, account: ChannelAccount, voucher: Voucher) -> None:
        if voucher.channel != account.channel.id:
            raise UserError("the voucher is for another channel")
        if not verify_voucher(self._network, voucher, account.channel.signer):
            raise UserError(
                "the voucher's signature does not hold",
                hint="sign its EIP-712 digest with the channel's signer key",
            )
        book = account.book
        again = voucher.cumulative == book.paid and voucher.signature == account.voucher
        if not again:  # else the answer to it was lost, or the disk was full: it is written again
            book.accept(voucher.cumulative)
            account.voucher = voucher.signature
        await asyncio.to_thread(
            self.receipts.save_voucher, account.channel.id, book, voucher.signature
        )

    async def settle(self, view: View, submitter: Submitter) -> bool:
        """Redeem and anchor what is new; return whether there was anything."""
        await self.flush()
        settled = view.settlements(submitter.address)
        root, receipts = self.receipts.root_since(0 if settled is None else settled.receipts)
        vouchers = self._redeemable(view)
        if not receipts and not vouchers:
            return False
        epoch = epoch_at(submitter.genesis, submitter.now_ms())
        await submitter.submit(SettleEpoch(epoch, bytes(root), receipts, vouchers))
        log.info("epoch settled", epoch=epoch, receipts=receipts, vouchers=len(vouchers))
        return True

    def _redeemable(self, view: View) -> tuple[Voucher, ...]:
        found = []
        for channel_id, cumulative, signature in self.receipts.vouchers():
            channel = view.channel(channel_id)
            if channel is not None and cumulative > channel.redeemed:
                found.append(Voucher(channel_id, Amount(cumulative), signature))
        return tuple(found[:VOUCHERS_PER_SETTLEMENT_MAX])

    async def close(self) -> None:
        """Make the rest durable and close the log."""
        while self._flushing:
            await asyncio.gather(*self._flushing, return_exceptions=True)
        with contextlib.suppress(NotFoundError):
            await self.flush()
        self.receipts.close()
