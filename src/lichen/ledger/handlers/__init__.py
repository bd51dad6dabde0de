"""One handler for each kind of transaction, all with the same skeleton.

A handler first requires what has to hold (raising a `LedgerError` that says what does not), then
writes to the draft. It knows the draft, who asks and the body, and nothing else: no clock, no
order of dictionaries, no randomness. The machine charges the fee and moves the nonce.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lichen.ledger import transactions as t
from lichen.ledger.handlers import accounts, apps, channels, grants, nodes, settlement

if TYPE_CHECKING:
    from collections.abc import Callable

    from lichen.ledger.handlers.call import Call
    from lichen.ledger.state import Draft

HANDLERS: dict[type, Callable[[Draft, Call, Any], None]] = {
    t.Transfer: accounts.transfer,
    t.RegisterNode: nodes.register,
    t.UpdateNode: nodes.update,
    t.ExitNode: nodes.leave,
    t.WithdrawStake: nodes.withdraw,
    t.CreateApp: apps.create,
    t.PublishRelease: apps.publish,
    t.ActivateRelease: apps.activate,
    t.GrantSpending: grants.grant,
    t.RevokeSpending: grants.revoke,
    t.OpenChannel: channels.open_channel,
    t.TopUpChannel: channels.top_up,
    t.CloseChannel: channels.close,
    t.FinalizeChannel: channels.finalize,
    t.RedeemVouchers: settlement.redeem,
    t.SettleEpoch: settlement.settle,
}
