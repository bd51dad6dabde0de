"""Merkle trees over an ordered list of leaves, as in RFC 6962: split by size, domains apart.

A leaf hashes as sha256(0x00 || data), a node as sha256(0x01 || left || right). A node without a
sibling moves up unchanged, so no leaf counts twice and (index, count) fixes the shape of a path.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

EMPTY_ROOT = hashlib.sha256(b"").digest()
PATH_MAX = 32


def leaf_hash(data: bytes) -> bytes:
    """Hash one leaf."""
    return hashlib.sha256(b"\x00" + data).digest()


def root(leaves: Sequence[bytes]) -> bytes:
    """Return the root over leaf hashes."""
    if not leaves:
        return EMPTY_ROOT
    level = list(leaves)
    while len(level) > 1:
        level = _parents(level)
    return level[0]


def path(leaves: Sequence[bytes], index: int) -> tuple[bytes, ...]:
    """Return the siblings from leaf `index` up to the root."""
    if not 0 <= index < len(leaves):
        raise IndexError(f"no leaf {index} among {len(leaves)}")
    siblings = []
    level = list(leaves)
    while len(level) > 1:
        sibling = index ^ 1
        if sibling < len(level):
            siblings.append(level[sibling])
        level = _parents(level)
        index >>= 1
    return tuple(siblings)


def root_from_path(leaf: bytes, index: int, count: int, siblings: Sequence[bytes]) -> bytes | None:
    """Return the root that a leaf hash and its path lead to; None for a path of wrong form."""
    if not 0 <= index < count or len(siblings) > PATH_MAX:
        return None
    digest, used = leaf, 0
    while count > 1:
        if index ^ 1 < count:
            if used == len(siblings):
                return None
            pair = (siblings[used], digest) if index & 1 else (digest, siblings[used])
            digest = hashlib.sha256(b"\x01" + pair[0] + pair[1]).digest()
            used += 1
        index >>= 1
        count = (count + 1) // 2
    return digest if used == len(siblings) else None


def _parents(level: list[bytes]) -> list[bytes]:
    sha256 = hashlib.sha256
    parents = [
        sha256(b"\x01" + level[i] + level[i + 1]).digest() for i in range(0, len(level) - 1, 2)
    ]
    if len(level) % 2:
        parents.append(level[-1])
    return parents
