"""Why the ledger refuses a transaction: one type, with one stable code, for each reason.

A refused transaction changes nothing: no fee, no nonce, no entry.
"""

from __future__ import annotations

from lichen.errors import LedgerError, NotFoundError, PeerUnavailableError


class BadTransactionError(LedgerError):
    """The bytes are no canonical signed transaction, or a field is out of its bounds."""

    code = "bad-transaction"
    status = 400


class BadSignatureError(LedgerError):
    """The signature is not the signer's over this transaction."""

    code = "bad-signature"


class WrongNetworkError(LedgerError):
    """The transaction was signed for another network."""

    code = "wrong-network"


class BadNonceError(LedgerError):
    """The nonce is not the account's next one."""

    code = "bad-nonce"


class OverdraftError(LedgerError):
    """The account does not hold what the transaction needs, its fee included."""

    code = "overdraft"


class NotOwnerError(LedgerError):
    """The signer has no right to change this entry."""

    code = "not-owner"


class NameTakenError(LedgerError):
    """An app of this name exists already."""

    code = "name-taken"


class UnknownAppError(LedgerError, NotFoundError):
    """No app has this name."""

    code = "unknown-app"
    status = 404


class UnknownReleaseError(LedgerError, NotFoundError):
    """The app has no release of this number."""

    code = "unknown-release"
    status = 404


class UnknownRouteError(LedgerError, NotFoundError):
    """No function of the release answers on this path."""

    code = "unknown-route"
    status = 404


class UnknownNodeError(LedgerError, NotFoundError):
    """No node is registered under this address."""

    code = "unknown-node"
    status = 404


class NodeExistsError(LedgerError):
    """The signer has registered its node already."""

    code = "node-exists"


class NodeExitingError(LedgerError):
    """The node is on its way out."""

    code = "node-exiting"


class StakeTooSmallError(LedgerError):
    """The stake is below the network's minimum."""

    code = "stake-too-small"


class StakeBoundError(LedgerError):
    """The stake may not leave yet."""

    code = "stake-bound"


class UnknownChannelError(LedgerError, NotFoundError):
    """No channel has this id; a finalized channel is gone."""

    code = "unknown-channel"
    status = 404


class ChannelClosingError(LedgerError):
    """The channel is closing already."""

    code = "channel-closing"


class ChallengeRunningError(LedgerError):
    """The channel is not closing, or its challenge period has not ended."""

    code = "challenge-running"


class BadVoucherError(LedgerError):
    """A voucher's signature does not hold, or it exceeds the channel's deposit."""

    code = "bad-voucher"


class UnknownGrantError(LedgerError, NotFoundError):
    """There is no such grant, or it has expired."""

    code = "unknown-grant"


class GrantExhaustedError(LedgerError):
    """The grant's limit does not cover this deposit."""

    code = "grant-exhausted"


class WrongEpochError(LedgerError):
    """Receipts are settled in the current epoch or the one before it, in order."""

    code = "wrong-epoch"


class OverloadError(PeerUnavailableError):
    """The ledger's queue is full; nothing was accepted."""

    code = "overloaded"


def _subclasses(kind: type[LedgerError]) -> dict[str, type[LedgerError]]:
    return {error.code: error for error in (kind, *kind.__subclasses__())}


BY_CODE: dict[str, type[LedgerError]] = _subclasses(LedgerError)
"""The refusals by their code, for clients that turn an answer into the exception again."""
