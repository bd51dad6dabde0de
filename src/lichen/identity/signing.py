"""What a signature covers: one digest rule for every agreed structure, separated by domain."""

from __future__ import annotations

import hashlib

from lichen.encoding import canonical

NETWORK_ID_BYTES = 32


def signing_digest(domain: str, network: bytes, body: object) -> bytes:
    """Return `sha256(domain || 0x00 || network || canonical(body))`.

    `domain` is an ASCII name such as `lichen/tx/1`, so that a signature over one kind of structure
    can never pass for one over another; `network` is the 32-byte network id, so that it cannot be
    replayed on another network. Raises ValueError for a malformed domain or network: those are
    mistakes of the calling code.
    """
    if len(network) != NETWORK_ID_BYTES:
        raise ValueError(f"a network id has {NETWORK_ID_BYTES} bytes, not {len(network)}")
    if not domain or "\0" in domain:
        raise ValueError("a signing domain is a non-empty name without zero bytes")
    return hashlib.sha256(domain.encode("ascii") + b"\0" + network + canonical(body)).digest()
