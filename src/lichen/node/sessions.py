"""Sessions: who may ask this node to run something, and which channel pays for it.

A channel's signer proves itself once (a signed request) and gets a random 128-bit token; each
invocation then costs one dictionary look-up. A token is worth nothing without the channel's
deposit, is bound to the channel, and the newest `SESSIONS_PER_CHANNEL_MAX` per channel are valid.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from lichen.errors import NotAllowedError, NotFoundError
from lichen.ledger.types import ChannelStatus
from lichen.ledger.voucher import Voucher
from lichen.units import Amount

if TYPE_CHECKING:
    from lichen.identity import Address
    from lichen.ledger.types import Channel
    from lichen.market.account import PayeeBook
    from lichen.market.receipt_log import ReceiptLog

SESSIONS_PER_CHANNEL_MAX = 4
CHANNELS_MAX = 10_000
TOKEN_BYTES = 16
RUN_PREFIX_DIGITS = 8  # a payer's run ids begin with the first digits of its address


class UnknownSessionError(NotAllowedError):
    """The session token is not, or no longer, valid here; the payer opens a new one."""

    code = "unknown-session"
    status = 401


class ChannelAccount:
    """One channel as this node keeps it: the ledger's record, the book, the latest voucher."""

    __slots__ = ("book", "channel", "hex", "run_prefix", "tokens", "voucher")

    def __init__(self, channel: Channel, book: PayeeBook, voucher: bytes) -> None:
        self.channel = channel
        self.hex = channel.id.hex()
        self.run_prefix = channel.signer.hex()[:RUN_PREFIX_DIGITS].encode() + b"-"
        self.book = book
        self.voucher = voucher
        self.tokens: list[bytes] = []

    @property
    def rests(self) -> bool:
        """Whether nothing of it is under way: no run in flight, no receipt on its way to disk."""
        return not self.book.held and self.book.owed == self.book.durable

    def latest_voucher(self) -> Voucher | None:
        """Return what the payer last promised, or None before its first voucher."""
        if not self.voucher:
            return None
        return Voucher(self.channel.id, Amount(self.book.paid), self.voucher)


class Sessions:
    """The channels that pay this node, and the tokens that speak for them."""

    def __init__(self, node: Address, log: ReceiptLog, *, channels_max: int = CHANNELS_MAX) -> None:
        self._node = node
        self._channels_max = channels_max
        self._log = log
        self.accounts: dict[bytes, ChannelAccount] = {}
        self.books: dict[bytes, PayeeBook] = {}
        self._by_token: dict[bytes, ChannelAccount] = {}

    def get(self, token: bytes) -> ChannelAccount:
        """Return the account behind a token; raise UnknownSessionError."""
        account = self._by_token.get(token)
        if account is None:
            raise UnknownSessionError(
                "this session is not known", hint="open one by a signed POST to /v1/sessions"
            )
        return account

    def open(self, channel: Channel | None, signer: Address) -> tuple[str, ChannelAccount]:
        """Start a session on a channel of the ledger for its proven signer."""
        channel = self.require(channel, signer)
        account = self.account(channel)
        token = secrets.token_hex(TOKEN_BYTES).encode()
        account.tokens.append(token)
        self._by_token[token] = account
        while len(account.tokens) > SESSIONS_PER_CHANNEL_MAX:
            self._by_token.pop(account.tokens.pop(0), None)
        return token.decode(), account

    def require(self, channel: Channel | None, signer: Address) -> Channel:
        """Return the channel if `signer` may open a session on it; raise otherwise."""
        if channel is None or channel.payee != self._node:
            raise NotFoundError(
                "the ledger has no such channel for this node",
                hint="open the channel first; a fresh one may take a moment to arrive",
            )
        if channel.signer != signer:
            raise NotAllowedError(f"{signer} is not the signer of this channel")
        if channel.status is not ChannelStatus.OPEN:
            raise NotAllowedError("the channel is closing", hint="open a new one")
        return channel

    def account(self, channel: Channel) -> ChannelAccount:
        """Return a channel's account, loaded from the log when it is new here."""
        account = self.accounts.get(channel.id)
        if account is None:
            if len(self.accounts) >= self._channels_max and not self._make_room():
                raise NotAllowedError("this node serves as many channels as it can")
            book, voucher = self._log.open_book(channel.id, channel.deposit)
            account = ChannelAccount(channel, book, voucher)
            self.accounts[channel.id] = account
            self.books[channel.id] = book
        return account

    def _make_room(self) -> bool:
        """Let go of the channel that was opened here first and rests; the log has its book."""
        for account in self.accounts.values():
            if account.rests:
                self._forget(account)
                return True
        return False

    def _forget(self, account: ChannelAccount) -> None:
        self._void_tokens(account)
        del self.accounts[account.channel.id], self.books[account.channel.id]

    def _void_tokens(self, account: ChannelAccount) -> None:
        for token in account.tokens:
            self._by_token.pop(token, None)
        account.tokens.clear()

    def update(self, channel: Channel | None, identifier: bytes) -> None:
        """Follow the ledger: a top-up raises the deposit, a closing channel takes no more work."""
        account = self.accounts.get(identifier)
        if account is None:
            return
        if channel is not None:
            account.channel = channel
            account.book.deposit = channel.deposit
        if channel is None or channel.status is not ChannelStatus.OPEN:
            self._void_tokens(account)
            if account.rests:
                self._forget(account)
