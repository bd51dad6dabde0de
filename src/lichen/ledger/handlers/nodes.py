"""Nodes: registered with a stake, updated, leaving, gone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from lichen.ledger.checks import check_node_key, check_offer
from lichen.ledger.errors import (
    NodeExistsError,
    NodeExitingError,
    NotOwnerError,
    StakeBoundError,
    StakeTooSmallError,
    UnknownNodeError,
)
from lichen.ledger.handlers.call import credit, debit
from lichen.ledger.tables import NODES
from lichen.ledger.types import Node, NodeStatus
from lichen.units import Amount, format_flk

if TYPE_CHECKING:
    from lichen.ledger.handlers.call import Call
    from lichen.ledger.state import Draft
    from lichen.ledger.transactions import ExitNode, RegisterNode, UpdateNode, WithdrawStake


def register(draft: Draft, call: Call, body: RegisterNode) -> None:
    """Add the signer's node; its stake leaves the balance."""
    check_offer(body)
    check_node_key(body.key.kind)
    if body.key != call.key:
        raise NotOwnerError("a node registers its own key", hint="sign with the node's key")
    if draft.read(NODES, call.address) is not None:
        raise NodeExistsError(f"node {call.address} is registered", hint="update it instead")
    if body.stake < draft.params.stake_min:
        raise StakeTooSmallError(
            f"the stake of {format_flk(body.stake)} FLK is too small",
            hint=f"stake at least {format_flk(draft.params.stake_min)} FLK",
        )

    debit(draft, call.address, body.stake, "stake")
    node = Node(
        address=call.address,
        key=body.key,
        endpoint=body.endpoint,
        capacity=body.capacity,
        prices=body.prices,
        tiers=body.tiers,
        stake=body.stake,
        status=NodeStatus.ACTIVE,
        registered_ms=draft.time_ms,
        withdraw_ms=0,
    )
    draft.write(NODES, call.address, node)


def update(draft: Draft, call: Call, body: UpdateNode) -> None:
    """Replace the offer of the signer's node."""
    check_offer(body)
    node = _active_node(draft, call)

    debit(draft, call.address, body.stake_added, "added stake")
    changed = replace(
        node,
        endpoint=body.endpoint,
        capacity=body.capacity,
        prices=body.prices,
        tiers=body.tiers,
        stake=Amount(node.stake + body.stake_added),
    )
    draft.write(NODES, call.address, changed)


def leave(draft: Draft, call: Call, _body: ExitNode) -> None:
    """Start the time for which the stake of a leaving node stays bound."""
    node = _active_node(draft, call)

    withdraw_ms = draft.time_ms + draft.params.unbond_ms
    leaving = replace(node, status=NodeStatus.EXITING, withdraw_ms=withdraw_ms)
    draft.write(NODES, call.address, leaving)


def withdraw(draft: Draft, call: Call, _body: WithdrawStake) -> None:
    """Give the stake back and forget the node."""
    node = _node(draft, call)
    if node.status is NodeStatus.ACTIVE:
        raise StakeBoundError("the node is active", hint="let it exit first")
    if draft.time_ms < node.withdraw_ms:
        raise StakeBoundError(
            f"the stake is bound for {node.withdraw_ms - draft.time_ms} ms more",
            hint="withdraw it after that",
        )

    draft.write(NODES, call.address, None)
    credit(draft, call.address, node.stake)


def _node(draft: Draft, call: Call) -> Node:
    node = draft.read(NODES, call.address)
    if node is None:
        raise UnknownNodeError(f"no node {call.address} is registered", hint="register it first")
    return node


def _active_node(draft: Draft, call: Call) -> Node:
    node = _node(draft, call)
    if node.status is not NodeStatus.ACTIVE:
        raise NodeExitingError(
            "the node is on its way out", hint="withdraw the stake, then register again"
        )
    return node
