"""The rules, kind by kind: what each transaction does, and the typed refusal when it may not."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from lichen.content.cid import CID, RAW
from lichen.errors import UserError
from lichen.identity import KeyKind
from lichen.ledger import (
    ActivateRelease,
    BadNonceError,
    BadSignatureError,
    BadTransactionError,
    BadVoucherError,
    Capacity,
    ChallengeRunningError,
    ChannelClosingError,
    ChannelStatus,
    CloseChannel,
    CreateApp,
    ExitNode,
    FinalizeChannel,
    FunctionSpec,
    GrantExhaustedError,
    GrantSpending,
    NameTakenError,
    NodeExistsError,
    NodeExitingError,
    NotOwnerError,
    OpenChannel,
    OverdraftError,
    Prices,
    PublishRelease,
    RedeemVouchers,
    RegisterNode,
    RevokeSpending,
    Runtime,
    SettleEpoch,
    StakeBoundError,
    StakeTooSmallError,
    TopUpChannel,
    Transfer,
    UnknownAppError,
    UnknownChannelError,
    UnknownGrantError,
    UnknownNodeError,
    UnknownReleaseError,
    UnknownRouteError,
    UpdateNode,
    WithdrawStake,
    WrongEpochError,
    WrongNetworkError,
    decode_transaction,
    encode_transaction,
    sign_transaction,
    sign_voucher,
)
from lichen.ledger.handlers.settlement import BATCHES_PER_EPOCH_MAX
from lichen.ledger.history import Place
from lichen.ledger.machine import apply_transaction
from lichen.ledger.views import match_route
from lichen.testing.ledger import MemoryLedger, genesis_of, key_of
from lichen.units import FLK, Amount

ALICE, BOB, NODE, GATEWAY = (key_of(name) for name in ("alice", "bob", "node", "gateway"))
FEE = 10**14
START = 1000 * FLK
CODE = CID.of(RAW, b"code")
PRICES = Prices(Amount(1), Amount(2), Amount(3), Amount(4), Amount(5))
REGISTER = RegisterNode(
    NODE.public,
    "http://127.0.0.1:9000",
    Capacity(4, 512, 1 << 30),
    PRICES,
    ("process",),
    Amount(10 * FLK),
)
UPDATE = UpdateNode("https://n.example", Capacity(8, 512, 0), PRICES, (), Amount(FLK))
FUNCTION = FunctionSpec(
    "api", CODE, Runtime.JS, ("/api/*",), 128, 10_000, "none", Amount(FLK), "process", False, (), 4
)
RELEASE = PublishRelease("hello", None, (FUNCTION,), None)


@pytest.fixture
def ledger():
    return MemoryLedger(genesis_of("alice", "bob", "node", "gateway"))


def refused(ledger, error, key, body):
    """Expect a typed refusal with a hint, and that it left no trace."""
    received = decode_transaction(encode_transaction(ledger.sign(key, body)))
    draft = ledger.state.draft(ledger.time_ms)
    outcome = apply_transaction(draft, received, signature_holds=received.signature_holds())
    assert type(outcome.error) is error
    assert outcome.error.hint
    assert draft.accept() == ()
    changes = draft.finish()
    assert changes.records == {}
    assert changes.head.state_root == ledger.state.head.state_root


def balance(ledger, key):
    return ledger.view.account(key.address).balance


def opened(ledger, key=ALICE, *, deposit=100 * FLK, signer=ALICE, app="", owner=None):
    ledger.submit(key, OpenChannel(NODE.address, signer.address, app, Amount(deposit), owner))
    return ledger.view.channels_of(payee=NODE.address)[-1].id


def voucher(ledger, channel, amount, key=ALICE):
    return sign_voucher(ledger.network, key, channel, amount)


class TestAccounts:
    def test_a_transfer_moves_the_amount_and_pays_the_fee(self, ledger):
        ledger.submit(ALICE, Transfer(BOB.address, Amount(5 * FLK)))
        assert balance(ledger, ALICE) == START - 5 * FLK - FEE
        assert balance(ledger, BOB) == START + 5 * FLK
        assert balance(ledger, key_of("treasury")) == FEE
        assert ledger.view.account(ALICE.address).nonce == 1

    def test_a_transfer_to_oneself_costs_the_fee_alone(self, ledger):
        ledger.submit(ALICE, Transfer(ALICE.address, Amount(START - FEE)))
        assert balance(ledger, ALICE) == START - FEE

    def test_every_unit_can_be_spent_and_not_one_more(self, ledger):
        refused(ledger, OverdraftError, ALICE, Transfer(BOB.address, Amount(START - FEE + 1)))
        refused(ledger, OverdraftError, ALICE, Transfer(BOB.address, Amount(START + 1)))
        ledger.submit(ALICE, Transfer(BOB.address, Amount(START - FEE)))
        assert balance(ledger, ALICE) == 0

    def test_nothing_can_be_sent_from_an_account_that_never_was(self, ledger):
        refused(ledger, OverdraftError, key_of("stranger"), Transfer(BOB.address, Amount(1)))

    def test_a_transfer_of_nothing_is_refused(self, ledger):
        refused(ledger, BadTransactionError, ALICE, Transfer(BOB.address, Amount(0)))

    def test_a_transaction_counts_once(self, ledger):
        raw = encode_transaction(ledger.sign(ALICE, Transfer(BOB.address, Amount(1))))
        ledger.apply(raw)
        with pytest.raises(BadNonceError):
            ledger.apply(raw)

    def test_a_nonce_from_the_future_is_refused(self, ledger):
        signed = sign_transaction(ledger.network, ALICE, 1, Transfer(BOB.address, Amount(1)))
        with pytest.raises(BadNonceError):
            ledger.apply(encode_transaction(signed))

    def test_a_signature_of_another_key_is_refused(self, ledger):
        signed = ledger.sign(ALICE, Transfer(BOB.address, Amount(1)))
        with pytest.raises(BadSignatureError):
            ledger.apply(encode_transaction(replace(signed, signer=BOB.public)))

    def test_a_transaction_of_another_network_is_refused(self, ledger):
        signed = sign_transaction(bytes(32), ALICE, 0, Transfer(BOB.address, Amount(1)))
        with pytest.raises(WrongNetworkError):
            ledger.apply(encode_transaction(signed))

    @pytest.mark.parametrize("kind", list(KeyKind))
    def test_keys_of_every_kind_hold_accounts(self, ledger, kind):
        key = key_of("other", kind)
        ledger.submit(ALICE, Transfer(key.address, Amount(FLK)))
        ledger.submit(key, Transfer(ALICE.address, Amount(FLK - FEE)))
        assert balance(ledger, key) == 0


class TestNodes:
    def test_a_node_registers_updates_exits_and_gets_its_stake_back(self, ledger):
        ledger.submit(NODE, REGISTER)
        assert ledger.view.node(NODE.address).stake == 10 * FLK
        ledger.submit(NODE, UPDATE)
        assert ledger.view.nodes(active_only=True)[0].endpoint == "https://n.example"
        assert balance(ledger, NODE) == START - 11 * FLK - 2 * FEE
        refused(ledger, StakeBoundError, NODE, WithdrawStake())
        ledger.submit(NODE, ExitNode())
        assert ledger.view.nodes(active_only=True) == []
        refused(ledger, NodeExitingError, NODE, UPDATE)
        refused(ledger, NodeExitingError, NODE, ExitNode())
        ledger.advance(599_999)
        refused(ledger, StakeBoundError, NODE, WithdrawStake())
        ledger.advance(1)
        ledger.submit(NODE, WithdrawStake())
        assert ledger.view.node(NODE.address) is None
        assert balance(ledger, NODE) == START - 4 * FEE
        ledger.submit(NODE, REGISTER)

    def test_the_stake_has_a_minimum_and_must_be_there(self, ledger):
        refused(ledger, StakeTooSmallError, NODE, replace(REGISTER, stake=Amount(10 * FLK - 1)))
        refused(ledger, OverdraftError, NODE, replace(REGISTER, stake=Amount(START + 1)))

    def test_a_node_registers_its_own_key_once(self, ledger):
        refused(ledger, NotOwnerError, ALICE, REGISTER)
        ledger.submit(NODE, REGISTER)
        refused(ledger, NodeExistsError, NODE, REGISTER)

    def test_a_nodes_key_is_one_that_contracts_can_check(self, ledger):
        key = key_of("ed", KeyKind.ED25519)
        ledger.submit(ALICE, Transfer(key.address, Amount(20 * FLK)))
        refused(ledger, BadTransactionError, key, replace(REGISTER, key=key.public))

    @pytest.mark.parametrize(
        "body", [UPDATE, ExitNode(), WithdrawStake(), SettleEpoch(0, bytes(32), 0, ())]
    )
    def test_only_a_registered_node_acts_as_one(self, ledger, body):
        refused(ledger, UnknownNodeError, ALICE, body)

    @pytest.mark.parametrize(
        "endpoint",
        [
            "",
            "ftp://a",
            "http://",
            "http://a/path",
            "http://u@a",
            "http://a b",
            "http://a:99999",
            "http://é",
            "x" * 300,
            "http://a?q",
            "http://[",
            "http://a\n",
        ],
    )
    def test_an_endpoint_is_a_plain_http_url(self, ledger, endpoint):
        refused(ledger, BadTransactionError, NODE, replace(REGISTER, endpoint=endpoint))

    @pytest.mark.parametrize(
        "change",
        [
            {"tiers": ("process", "process")},
            {"tiers": ("cloud",)},
            {"capacity": Capacity(-1, 0, 0)},
            {"capacity": Capacity(0, 0, 1 << 61)},
        ],
    )
    def test_an_offer_is_within_bounds(self, ledger, change):
        refused(ledger, BadTransactionError, NODE, replace(REGISTER, **change))


class TestApps:
    def test_releases_are_numbered_and_can_be_rolled_back_and_forward(self, ledger):
        ledger.submit(ALICE, CreateApp("hello", "says hello"))
        assert ledger.view.active_release("hello") is None
        ledger.submit(ALICE, RELEASE)
        ledger.submit(ALICE, replace(RELEASE, site=CODE))
        assert ledger.view.active_release("hello").number == 2
        ledger.submit(ALICE, ActivateRelease("hello", 1))
        assert ledger.view.active_release("hello").site is None
        assert [release.number for release in ledger.view.releases("hello")] == [1, 2]
        assert [app.name for app in ledger.view.apps_of(ALICE.address)] == ["hello"]
        for number in (0, 3, -1, 1 << 40):
            refused(ledger, UnknownReleaseError, ALICE, ActivateRelease("hello", number))

    def test_a_name_is_taken_once_and_only_its_owner_publishes(self, ledger):
        ledger.submit(ALICE, CreateApp("hello", ""))
        refused(ledger, NameTakenError, BOB, CreateApp("hello", ""))
        refused(ledger, NotOwnerError, BOB, RELEASE)
        refused(ledger, NotOwnerError, BOB, ActivateRelease("hello", 1))
        refused(ledger, UnknownAppError, BOB, replace(RELEASE, app="other"))

    @pytest.mark.parametrize("name", ["", "-a", "a-", "A", "a.b", "a" * 41, "ü", "a\n", "a/b"])
    def test_a_name_is_a_dns_label(self, ledger, name):
        refused(ledger, BadTransactionError, ALICE, CreateApp(name, ""))

    def test_a_description_is_bounded(self, ledger):
        refused(ledger, BadTransactionError, ALICE, CreateApp("hello", "é" * 513))

    @pytest.mark.parametrize(
        "change",
        [
            {"name": "Bad Name"}, {"memory_mb": 0}, {"memory_mb": 1 << 40}, {"timeout_ms": 0},
            {"timeout_ms": 900_001}, {"routes": ("api",)}, {"routes": ("/a*b",)}, {"routes": ("/a", "/a")},
            {"routes": ("/" + "a" * 256,)}, {"routes": ("/a b",)}, {"verify": "maybe"}, {"verify": "3-of-2"},
            {"verify": "spot:2"}, {"verify": "spot:0"}, {"verify": "0-of-3"}, {"min_tier": "cloud"},
            {"schedule": ("* * * *",)}, {"schedule": ("* * * * *",) * 17}, {"content_bytes": -1},
            {"code": CID(RAW, bytes(100))},
        ],
    )  # fmt: skip
    def test_a_function_is_within_bounds(self, ledger, change):
        ledger.submit(ALICE, CreateApp("hello", ""))
        body = replace(RELEASE, functions=(replace(FUNCTION, **change),))
        refused(ledger, BadTransactionError, ALICE, body)

    @pytest.mark.parametrize(
        "verify", ["none", "tee", "mpc", "zk", "spot:0.05", "spot:1", "2-of-3", "3-of-3"]
    )
    def test_every_way_to_verify_can_be_asked_for(self, ledger, verify):
        ledger.submit(ALICE, CreateApp("hello", ""))
        ledger.submit(ALICE, replace(RELEASE, functions=(replace(FUNCTION, verify=verify),)))
        assert ledger.view.active_release("hello").functions[0].verify == verify

    def test_a_release_serves_something_and_names_each_thing_once(self, ledger):
        ledger.submit(ALICE, CreateApp("hello", ""))
        refused(ledger, BadTransactionError, ALICE, replace(RELEASE, functions=()))
        refused(
            ledger, BadTransactionError, ALICE, replace(RELEASE, functions=(FUNCTION, FUNCTION))
        )
        many = tuple(replace(FUNCTION, name=f"f{i}", routes=()) for i in range(65))
        refused(ledger, BadTransactionError, ALICE, replace(RELEASE, functions=many))

    def test_the_most_exact_route_answers(self, ledger):
        functions = (
            replace(FUNCTION, name="all", routes=("/*",)),
            replace(FUNCTION, name="api", routes=("/api/*",)),
            replace(FUNCTION, name="one", routes=("/api/one",)),
        )
        ledger.submit(ALICE, CreateApp("hello", ""))
        ledger.submit(ALICE, replace(RELEASE, functions=functions))
        release = ledger.view.active_release("hello")
        found = {
            path: match_route(release, path).name
            for path in ("/", "/x", "/api", "/api/", "/apix", "/api/one", "/api/one/two")
        }
        assert found == {
            "/": "all",
            "/x": "all",
            "/api": "api",
            "/api/": "api",
            "/apix": "all",
            "/api/one": "one",
            "/api/one/two": "api",
        }

    def test_an_unknown_route_is_typed(self, ledger):
        ledger.submit(ALICE, CreateApp("hello", ""))
        ledger.submit(ALICE, RELEASE)
        with pytest.raises(UnknownRouteError):
            match_route(ledger.view.active_release("hello"), "/nothing")


class TestChannels:
    def test_the_highest_voucher_is_paid_and_the_rest_goes_back(self, ledger):
        channel = opened(ledger)
        assert balance(ledger, ALICE) == START - 100 * FLK - FEE
        vouchers = tuple(voucher(ledger, channel, amount * FLK) for amount in (30, 70, 50))
        ledger.submit(BOB, RedeemVouchers(vouchers))
        ledger.submit(BOB, RedeemVouchers(vouchers[:1]))
        assert balance(ledger, NODE) == START + 70 * FLK * 98 // 100
        ledger.submit(NODE, CloseChannel(channel))
        assert ledger.view.channel(channel) is None
        assert balance(ledger, ALICE) == START - 70 * FLK - FEE
        assert balance(ledger, key_of("treasury")) == 70 * FLK * 2 // 100 + 4 * FEE
        refused(ledger, UnknownChannelError, NODE, RedeemVouchers(vouchers))

    def test_a_payer_closes_only_after_the_challenge_period(self, ledger):
        channel = opened(ledger)
        refused(ledger, ChallengeRunningError, ALICE, FinalizeChannel(channel))
        ledger.submit(ALICE, CloseChannel(channel))
        assert ledger.view.channel(channel).status is ChannelStatus.CLOSING
        refused(ledger, ChannelClosingError, ALICE, CloseChannel(channel))
        refused(ledger, ChannelClosingError, ALICE, TopUpChannel(channel, Amount(1)))
        ledger.advance(59_999)
        refused(ledger, ChallengeRunningError, BOB, FinalizeChannel(channel))
        ledger.submit(NODE, RedeemVouchers((voucher(ledger, channel, 40 * FLK),)))
        ledger.advance(1)
        ledger.submit(BOB, FinalizeChannel(channel))
        assert balance(ledger, ALICE) == START - 40 * FLK - 2 * FEE
        refused(ledger, UnknownChannelError, BOB, FinalizeChannel(channel))

    def test_a_payee_ends_a_closing_channel_at_once(self, ledger):
        channel = opened(ledger)
        ledger.submit(ALICE, CloseChannel(channel))
        ledger.submit(NODE, CloseChannel(channel))
        assert ledger.view.channel(channel) is None

    def test_a_top_up_raises_what_vouchers_may_promise(self, ledger):
        channel = opened(ledger)
        over = RedeemVouchers((voucher(ledger, channel, 101 * FLK),))
        refused(ledger, BadVoucherError, NODE, over)
        just = RedeemVouchers((voucher(ledger, channel, 100 * FLK + 1),))
        refused(ledger, BadVoucherError, NODE, just)
        refused(ledger, NotOwnerError, BOB, TopUpChannel(channel, Amount(FLK)))
        refused(ledger, OverdraftError, ALICE, TopUpChannel(channel, Amount(START)))
        ledger.submit(ALICE, TopUpChannel(channel, Amount(FLK)))
        ledger.submit(NODE, over)

    def test_one_bad_voucher_refuses_the_whole_batch(self, ledger):
        channel = opened(ledger)
        good, forged = voucher(ledger, channel, FLK), voucher(ledger, channel, 2 * FLK, BOB)
        refused(ledger, BadVoucherError, NODE, RedeemVouchers((good, forged)))
        unknown = voucher(ledger, bytes(32), FLK)
        refused(ledger, UnknownChannelError, NODE, RedeemVouchers((good, unknown)))
        refused(ledger, BadTransactionError, NODE, RedeemVouchers((good,) * 257))
        refused(ledger, BadTransactionError, NODE, RedeemVouchers((replace(good, channel=b""),)))

    def test_strangers_close_nothing(self, ledger):
        refused(ledger, NotOwnerError, BOB, CloseChannel(opened(ledger)))

    def test_opening_takes_money_and_a_known_app(self, ledger):
        body = OpenChannel(NODE.address, ALICE.address, "", Amount(START), None)
        refused(ledger, OverdraftError, ALICE, body)
        refused(ledger, BadTransactionError, ALICE, replace(body, deposit=Amount(0)))
        refused(ledger, UnknownAppError, ALICE, replace(body, app="nothing"))

    def test_channels_are_found_by_each_party(self, ledger):
        channel = opened(ledger, signer=GATEWAY)
        view = ledger.view
        for party in (
            {"payee": NODE.address},
            {"signer": GATEWAY.address},
            {"payer": ALICE.address},
        ):
            assert [found.id for found in view.channels_of(**party)] == [channel]
        assert view.channels_of(payee=NODE.address, payer=BOB.address) == []
        ledger.submit(NODE, CloseChannel(channel))
        assert view.channels_of(signer=GATEWAY.address) == []
        assert list(ledger.state.store.scan(b"x/")) == []  # no index entry is left behind
        with pytest.raises(ValueError, match="needs a payee"):
            view.channels_of()


class TestGrants:
    @pytest.fixture
    def granted(self, ledger):
        ledger.submit(ALICE, CreateApp("hello", ""))
        self.expires_ms = ledger.time_ms + 1000
        ledger.submit(
            ALICE, GrantSpending("hello", GATEWAY.address, Amount(50 * FLK), self.expires_ms)
        )
        return ledger

    def open_by_gateway(self, ledger, deposit):
        return opened(
            ledger, GATEWAY, deposit=deposit, signer=GATEWAY, app="hello", owner=ALICE.address
        )

    def body(self, deposit):
        return OpenChannel(NODE.address, GATEWAY.address, "hello", Amount(deposit), ALICE.address)

    def spent(self, ledger):
        return ledger.view.grant(ALICE.address, "hello", GATEWAY.address).spent

    def test_the_owner_pays_and_gets_the_rest_and_the_grant_breathes(self, granted):
        channel = self.open_by_gateway(granted, 30 * FLK)
        assert balance(granted, ALICE) == START - 30 * FLK - 2 * FEE
        assert balance(granted, GATEWAY) == START - FEE
        refused(granted, GrantExhaustedError, GATEWAY, self.body(21 * FLK))
        refused(granted, GrantExhaustedError, GATEWAY, TopUpChannel(channel, Amount(21 * FLK)))
        refused(granted, NotOwnerError, ALICE, TopUpChannel(channel, Amount(1)))
        granted.submit(GATEWAY, TopUpChannel(channel, Amount(20 * FLK)))
        granted.submit(NODE, RedeemVouchers((voucher(granted, channel, 5 * FLK, GATEWAY),)))
        granted.submit(NODE, CloseChannel(channel))
        assert self.spent(granted) == 5 * FLK
        assert balance(granted, ALICE) == START - 5 * FLK - 2 * FEE

    def test_granting_again_does_not_forget_what_is_out(self, granted):
        self.open_by_gateway(granted, 30 * FLK)
        granted.submit(ALICE, RevokeSpending("hello", GATEWAY.address))
        refused(granted, UnknownGrantError, GATEWAY, self.body(1))
        granted.submit(
            ALICE, GrantSpending("hello", GATEWAY.address, Amount(31 * FLK), self.expires_ms)
        )
        refused(granted, GrantExhaustedError, GATEWAY, self.body(FLK + 1))
        self.open_by_gateway(granted, FLK)

    def test_a_grant_ends_on_time_and_is_for_one_delegate_and_app(self, granted):
        refused(granted, UnknownGrantError, BOB, self.body(1))
        refused(granted, UnknownAppError, GATEWAY, replace(self.body(1), app="other"))
        granted.advance(1000)
        refused(granted, UnknownGrantError, GATEWAY, self.body(1))

    def test_only_the_owner_grants_and_only_grants_are_revoked(self, granted):
        body = GrantSpending("hello", BOB.address, Amount(1), self.expires_ms)
        refused(granted, NotOwnerError, BOB, body)
        refused(granted, BadTransactionError, ALICE, replace(body, expires_ms=-1))
        refused(granted, UnknownGrantError, BOB, RevokeSpending("hello", GATEWAY.address))

    def test_grants_are_found_from_both_sides(self, granted):
        (grant,) = granted.view.grants_of(ALICE.address)
        assert granted.view.grants_to(GATEWAY.address) == [grant]

    def test_a_grant_does_not_overdraw_its_owner(self, granted):
        granted.submit(ALICE, Transfer(BOB.address, Amount(START - 20 * FLK)))
        refused(granted, OverdraftError, GATEWAY, self.body(30 * FLK))
        assert self.spent(granted) == 0


class TestEpochs:
    @pytest.fixture
    def staked(self, ledger):
        ledger.submit(NODE, REGISTER)
        return ledger

    def settle(self, epoch, receipts=5, vouchers=()):
        return SettleEpoch(epoch, bytes([epoch]) * 32, receipts, vouchers)

    def test_batches_are_added_in_sequence_and_never_replaced(self, staked):
        staked.submit(NODE, self.settle(0, 5))
        staked.submit(NODE, self.settle(0, 7))
        staked.advance(10_000)
        staked.submit(NODE, self.settle(0, 1))
        staked.submit(NODE, self.settle(1, 2))
        records = staked.view.epoch_records(NODE.address)
        assert [(r.epoch, r.sequence, r.first, r.receipts) for r in records] == [
            (0, 0, 0, 5), (0, 1, 5, 7), (0, 2, 12, 1), (1, 0, 13, 2),
        ]  # fmt: skip
        assert staked.view.epoch_records(NODE.address, 1) == records[3:]
        refused(staked, WrongEpochError, NODE, self.settle(0))

    def test_the_epoch_is_the_current_one_or_the_last(self, staked):
        refused(staked, WrongEpochError, NODE, self.settle(1))
        staked.advance(25_000)
        refused(staked, WrongEpochError, NODE, self.settle(0))
        staked.submit(NODE, self.settle(1))

    def test_settling_pays_the_vouchers_with_it(self, staked):
        channel = opened(staked)
        before = balance(staked, NODE)
        staked.submit(NODE, self.settle(0, 5, (voucher(staked, channel, FLK),)))
        assert balance(staked, NODE) == before + FLK * 98 // 100 - FEE

    def test_a_node_without_money_settles_from_what_it_redeems(self, staked):
        channel = opened(staked)
        staked.submit(NODE, Transfer(BOB.address, Amount(balance(staked, NODE) - FEE)))
        refused(staked, OverdraftError, NODE, self.settle(0))
        staked.submit(NODE, self.settle(0, 1, (voucher(staked, channel, FLK),)))
        assert balance(staked, NODE) == FLK * 98 // 100 - FEE

    def test_an_epoch_has_a_bounded_number_of_batches(self, staked, monkeypatch):
        assert BATCHES_PER_EPOCH_MAX == 1024
        monkeypatch.setattr("lichen.ledger.handlers.settlement.BATCHES_PER_EPOCH_MAX", 2)
        staked.submit(NODE, self.settle(0))
        staked.submit(NODE, self.settle(0))
        refused(staked, WrongEpochError, NODE, self.settle(0))

    @pytest.mark.parametrize("change", [{"receipts_root": b""}, {"receipts": -1}, {"epoch": -1}])
    def test_a_batch_is_well_formed(self, staked, change):
        refused(staked, BadTransactionError, NODE, replace(self.settle(0), **change))

    def test_a_node_that_comes_back_does_not_overwrite_what_it_settled(self, ledger):
        quick = MemoryLedger(genesis_of("node", unbond_ms=0))
        quick.submit(NODE, REGISTER)
        quick.submit(NODE, self.settle(0, 5))
        for body in (ExitNode(), WithdrawStake(), REGISTER, self.settle(0, 6)):
            quick.submit(NODE, body)
        assert [r.receipts for r in quick.view.epoch_records(NODE.address)] == [5, 6]


def test_history_pages_backwards_with_changes_and_balances(ledger):
    for _ in range(5):
        ledger.submit(ALICE, Transfer(BOB.address, Amount(FLK)))
    first = ledger.view.transactions_of(BOB.address, 2)
    rest = ledger.view.transactions_of(BOB.address, 10, before=first[-1].place)
    assert [entry.place.height for entry in (*first, *rest)] == [5, 4, 3, 2, 1]
    assert first[0].change == FLK
    assert first[0].balance == START + 5 * FLK
    assert ledger.view.transactions_of(ALICE.address, 1)[0].change == -FLK - FEE
    assert ledger.view.transaction_at(first[0].place).id == first[0].id
    with pytest.raises(UserError):
        ledger.view.transactions_of(BOB.address, 1, before=Place(-1, 0))
    assert ledger.view.transaction_at(Place(99, 0)) is None
    assert ledger.view.transaction_at(Place(1, 1)) is None
    assert ledger.view.transactions_of(key_of("treasury").address, 10) == []
    ledger.submit(ALICE, Transfer(key_of("treasury").address, Amount(FLK)))
    assert ledger.view.transactions_of(key_of("treasury").address, 10)[0].change == FLK + FEE
    assert ledger.view.transactions_of(key_of("nobody").address, 10) == []
