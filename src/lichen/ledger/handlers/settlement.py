"""Vouchers paid out, and epochs settled.

A node settles its receipts in batches, each by one Merkle root. Nothing that was settled can be
replaced or taken back: a further settlement in the same epoch adds a batch with the next sequence
number, and its receipts count on from where the last batch ended. A batch goes to the current epoch
or the one before it, and never to an epoch earlier than the node's last.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from lichen.ledger.checks import check_batch, check_vouchers
from lichen.ledger.errors import BadVoucherError, UnknownNodeError, WrongEpochError
from lichen.ledger.handlers.call import credit
from lichen.ledger.handlers.channels import known_channel
from lichen.ledger.tables import CHANNELS, EPOCHS, NODES, SETTLEMENTS, epoch_id
from lichen.ledger.types import BASIS_POINTS, EpochRecord, Settlements, epoch_at
from lichen.ledger.voucher import verify_voucher
from lichen.units import Amount, format_flk

if TYPE_CHECKING:
    from lichen.ledger.handlers.call import Call
    from lichen.ledger.state import Draft
    from lichen.ledger.transactions import RedeemVouchers, SettleEpoch
    from lichen.ledger.voucher import Voucher

BATCHES_PER_EPOCH_MAX = 1024


def redeem(draft: Draft, _call: Call, body: RedeemVouchers) -> None:
    """Pay out vouchers to the payees of their channels."""
    check_vouchers(body.vouchers)
    for voucher in body.vouchers:
        _redeem_one(draft, voucher)


def settle(draft: Draft, call: Call, body: SettleEpoch) -> None:
    """Add a batch of receipts to a node's epoch, and pay out the vouchers that cover it."""
    check_batch(body.epoch, body.receipts, body.receipts_root)
    check_vouchers(body.vouchers)
    if draft.read(NODES, call.address) is None:
        raise UnknownNodeError(f"no node {call.address} is registered", hint="register it first")
    before = draft.read(SETTLEMENTS, call.address) or Settlements(0, 0, 0)
    sequence = before.batches if body.epoch == before.epoch else 0
    _require_epoch(draft, before, body.epoch, sequence)

    for voucher in body.vouchers:
        _redeem_one(draft, voucher)
    record = EpochRecord(
        node=call.address,
        epoch=body.epoch,
        sequence=sequence,
        first=before.receipts,
        receipts=body.receipts,
        receipts_root=body.receipts_root,
    )
    draft.write(EPOCHS, epoch_id(call.address, body.epoch, sequence), record)
    after = Settlements(body.epoch, sequence + 1, before.receipts + body.receipts)
    draft.write(SETTLEMENTS, call.address, after)


def _require_epoch(draft: Draft, before: Settlements, epoch: int, sequence: int) -> None:
    current = epoch_at(draft.genesis, draft.time_ms)
    if not current - 1 <= epoch <= current or epoch < before.epoch:
        raise WrongEpochError(
            f"receipts cannot be settled in epoch {epoch} now",
            hint=f"settle them in epoch {current}",
        )
    if sequence >= BATCHES_PER_EPOCH_MAX:
        raise WrongEpochError(
            f"epoch {epoch} has {BATCHES_PER_EPOCH_MAX} batches of this node",
            hint="settle larger batches, or wait for the next epoch",
        )


def _redeem_one(draft: Draft, voucher: Voucher) -> None:
    """Pay out what a voucher adds to the channel; the fee is rounded down, in the node's favour."""
    channel = known_channel(draft, voucher.channel)
    if voucher.cumulative > channel.deposit:
        raise BadVoucherError(
            f"a voucher of {format_flk(voucher.cumulative)} FLK exceeds "
            f"the deposit of {format_flk(channel.deposit)} of channel {channel.id.hex()}",
            hint="redeem an earlier voucher, or have the channel topped up",
        )
    if not verify_voucher(draft.network, voucher, channel.signer):
        raise BadVoucherError(
            f"a voucher for channel {channel.id.hex()} is not signed by {channel.signer}",
            hint="redeem the last voucher whose signature holds",
        )
    delta = voucher.cumulative - channel.redeemed
    if delta <= 0:
        return

    fee = delta * draft.params.settlement_fee_bps // BASIS_POINTS
    draft.write(CHANNELS, channel.id, replace(channel, redeemed=Amount(voucher.cumulative)))
    credit(draft, channel.payee, delta - fee)
    credit(draft, draft.params.treasury, fee)
