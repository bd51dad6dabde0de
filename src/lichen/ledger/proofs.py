"""Answers that light clients and contracts can check: an entry, its proof, and the signed header.

Whoever has the state and its blocks can give them: the ledger, and every follower.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from lichen.encoding import canonical
from lichen.errors import UserError
from lichen.ledger.blocks import decode_block
from lichen.ledger.machine import block_key
from lichen.ledger.results import ProofAnswer

if TYPE_CHECKING:
    from lichen.ledger.state import State

KEY_BYTES_MAX = 256
_HEX = re.compile(r"(?:[0-9a-fA-F]{2})+")


class Prover:
    """Proves entries; keeps the last block's header, so that each block is read once."""

    def __init__(self) -> None:
        self._signed = b"", b"", b""  # the block's hash, its header, the signature

    def prove(self, state: State, key: bytes) -> ProofAnswer:
        """Return the entry under a key of the state, or its absence, with all that shows it.

        There is no header at height 0, and none in a replica that began from a snapshot of this
        very block.
        """
        head = state.head
        if self._signed[0] != head.hash:
            self._signed = head.hash, *_signed_header(state, head.height)
        value, proof = state.prove(key)
        _, header, signature = self._signed
        return ProofAnswer(
            network=state.network.hex(),
            key=key.hex(),
            height=head.height,
            state_root=head.state_root.hex(),
            value=None if value is None else value.hex(),
            siblings=tuple(sibling.hex() for sibling in proof.siblings),
            other=proof.other.hex(),
            header=header.hex(),
            signature=signature.hex(),
        )


def read_key(text: str) -> bytes:
    """Read a key of the state in hexadecimal, as in a path; raise UserError."""
    if len(text) > 2 * KEY_BYTES_MAX or not _HEX.fullmatch(text):
        raise UserError(
            f"a key is up to {KEY_BYTES_MAX} bytes in hexadecimal",
            hint="the keys are in docs/ledger.md: account/..., app/...",
        )
    return bytes.fromhex(text)


def _signed_header(state: State, height: int) -> tuple[bytes, bytes]:
    data = None if height == 0 else state.store.get(block_key(height))
    if data is None:
        return b"", b""
    block = decode_block(data)
    return canonical(block.header), block.signature
