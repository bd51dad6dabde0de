"""The state tree: one 32-byte root for everything the ledger keeps, and proofs against it.

A sparse binary Merkle tree over SHA-256. An entry sits on the path of its key's hash, most
significant bit first, as high as it is alone: a subtree with one entry is that entry's leaf, and a
subtree with none is 32 zero bytes. So a tree of n random keys is about log2 n deep.

    path  = sha256(key)
    leaf  = sha256(0x00 || path || sha256(value))
    inner = sha256(0x01 || left || right)

The shape depends on the set of entries alone, never on the order in which they came. Everything is
fixed in width, so that a contract can check a proof with the SHA-256 precompile.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from typing import TYPE_CHECKING

import msgspec

from lichen.errors import CorruptionError
from lichen.ledger.cache import Cache

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

HASH_BYTES = 32
DEPTH_MAX = 256
EMPTY = bytes(HASH_BYTES)
NODES_CACHED_MAX = 200_000
_TOP = 1 << DEPTH_MAX  # a path of d bits is the integer 1, then the bits: so its length shows
_LEAF_BYTES = 3 * HASH_BYTES  # a child is b"", an inner hash, or leaf hash || path || value hash
_hash = hashlib.sha256


class Proof(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Sibling hashes from the root down; for an absent key also the leaf met in its place.

    `other` is that leaf's path and value hash (64 bytes), empty when the place itself is empty.
    """

    siblings: tuple[bytes, ...]
    other: bytes = b""


class Tree:
    """The tree's inner nodes in a store, and the changes that are not written yet."""

    def __init__(self, load: Callable[[bytes], bytes | None]) -> None:
        """Take `load`, which reads a stored node (or the root, under the empty key)."""
        self._load = load
        self._nodes: Cache[int, bytes] = Cache(NODES_CACHED_MAX)
        self._top = load(b"") or b""

    @property
    def root(self) -> bytes:
        """The root hash of what is written."""
        return self._top[:HASH_BYTES] or EMPTY

    def update(self, values: Mapping[bytes, bytes | None]) -> Update:
        """Work out the tree with `values` put (None: removed), leaving this one as it is."""
        update = Update(self, values)
        update.top = update.descend(1, 0, self._top, 0, len(update.paths))
        return update

    def adopt(self, update: Update) -> None:
        """Take over an update that has been written to the store."""
        self._top = update.top
        for path, node in update.nodes.items():
            self._nodes.put(path, node)

    def prove(self, key: bytes) -> Proof:
        """Return the proof that `key` has the value it has, or none."""
        target = _hash(key).digest()
        bits = int.from_bytes(target, "big")
        path, child, siblings = 1, self._top, []
        for depth in range(DEPTH_MAX):
            if len(child) != HASH_BYTES:
                break
            left, right = _children(self.node(path))
            bit = bits >> (DEPTH_MAX - 1 - depth) & 1
            child, sibling = (right, left) if bit else (left, right)
            siblings.append(sibling[:HASH_BYTES] or EMPTY)
            path = path << 1 | bit
        leaf = child[HASH_BYTES:]
        return Proof(tuple(siblings), b"" if leaf[:HASH_BYTES] == target else leaf)

    def node(self, path: int) -> bytes:
        """Return an inner node; CorruptionError when the store lost it."""
        node = self._nodes.get(path)
        if node is None:
            node = self._load(path_key(path))
            if not node:
                raise CorruptionError(
                    "a node of the state tree is missing",
                    hint="restore the folder, or replay the ledger from its genesis",
                )
            self._nodes.put(path, node)
        return node


class Update:
    """The nodes that a set of changes makes new: `nodes` by path, b"" where one goes away."""

    def __init__(self, tree: Tree, values: Mapping[bytes, bytes | None]) -> None:
        self._tree = tree
        self._leaves = dict(sorted(_leaf(key, value) for key, value in values.items()))
        self.paths = list(self._leaves)
        self.nodes: dict[int, bytes] = {}
        self.top = b""

    @property
    def root(self) -> bytes:
        """The root hash with the changes in."""
        return self.top[:HASH_BYTES] or EMPTY

    def descend(self, path: int, depth: int, child: bytes, low: int, high: int) -> bytes:
        """Return what `child`, at `path`, becomes under the changes `paths[low:high]`."""
        if low == high:
            return child
        inner = len(child) == HASH_BYTES
        if inner:
            left, right = _children(self._tree.node(path))
        elif high - low == 1 and (not child or _position(child) == self.paths[low]):
            return self._leaves[self.paths[low]]
        elif _position(child) in self._leaves:  # replaced below, whatever it was
            left = right = b""
        else:  # a leaf that has to move down beside the new ones
            bit = child and _position(child) >> (DEPTH_MAX - 1 - depth) & 1
            left, right = (b"", child) if bit else (child, b"")
        middle = bisect_left(self.paths, (path << 1 | 1) << (DEPTH_MAX - 1 - depth), low, high)
        left = self.descend(path << 1, depth + 1, left, low, middle)
        right = self.descend(path << 1 | 1, depth + 1, right, middle, high)
        return self._join(path, left, right, inner=inner)

    def _join(self, path: int, left: bytes, right: bytes, *, inner: bool) -> bytes:
        if (not left and len(right) != HASH_BYTES) or (not right and len(left) != HASH_BYTES):
            if inner:
                self.nodes[path] = b""
            return left or right
        self.nodes[path] = bytes((len(left),)) + left + right
        pair = (left[:HASH_BYTES] or EMPTY) + (right[:HASH_BYTES] or EMPTY)
        return _hash(b"\x01" + pair).digest()


def path_key(path: int) -> bytes:
    """Spell a path as the key that its node is stored under."""
    return path.to_bytes((path.bit_length() + 7) // 8, "big")


def verify_proof(root: bytes, key: bytes, value: bytes | None, proof: Proof) -> bool:
    """Tell whether under `root` the `key` has `value` (None: is absent); never raises."""
    if len(proof.siblings) > DEPTH_MAX or any(len(s) != HASH_BYTES for s in proof.siblings):
        return False
    path = _hash(key).digest()
    bits = int.from_bytes(path, "big")
    if value is not None:
        node = _hash(b"\x00" + path + _hash(value).digest()).digest()
    elif not proof.other:
        node = EMPTY
    elif len(proof.other) == 2 * HASH_BYTES and proof.other[:HASH_BYTES] != path:
        node = _hash(b"\x00" + proof.other).digest()
    else:
        return False
    if value is not None and proof.other:
        return False
    for depth in reversed(range(len(proof.siblings))):
        sibling = proof.siblings[depth]
        bit = bits >> (DEPTH_MAX - 1 - depth) & 1
        node = _hash(b"\x01" + (sibling + node if bit else node + sibling)).digest()
    return node == root


def _leaf(key: bytes, value: bytes | None) -> tuple[int, bytes]:
    path = _hash(key).digest()
    position = _TOP | int.from_bytes(path, "big")
    if value is None:
        return position, b""
    value_hash = _hash(value).digest()
    return position, _hash(b"\x00" + path + value_hash).digest() + path + value_hash


def _position(leaf: bytes) -> int:
    return _TOP | int.from_bytes(leaf[HASH_BYTES : 2 * HASH_BYTES], "big")


def _children(node: bytes) -> tuple[bytes, bytes]:
    end = node[0] + 1
    return node[1:end], node[end:]
