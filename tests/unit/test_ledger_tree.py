"""The state tree: its root follows from the entries alone, and proofs hold only for the truth."""

from __future__ import annotations

import hashlib
import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from lichen.errors import CorruptionError
from lichen.ledger.tree import EMPTY, Proof, Tree, path_key, verify_proof

KEYS = [b"key-%d" % number for number in range(24)]


def sha(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def reference_root(entries: list[tuple[bytes, bytes]], depth: int = 0) -> bytes:
    """The definition, written down directly."""
    if not entries:
        return bytes(32)
    if len(entries) == 1:
        path, value = entries[0]
        return sha(b"\x00" + path + sha(value))
    sides: tuple[list, list] = ([], [])
    for path, value in entries:
        sides[path[depth // 8] >> (7 - depth % 8) & 1].append((path, value))
    return sha(b"\x01" + reference_root(sides[0], depth + 1) + reference_root(sides[1], depth + 1))


class Database:
    """A tree and the store under it."""

    def __init__(self) -> None:
        self.nodes: dict[bytes, bytes] = {}
        self.tree = Tree(self.nodes.get)

    def put(self, values: dict[bytes, bytes | None]) -> None:
        update = self.tree.update(values)
        self.nodes[b""] = update.top
        for path, node in update.nodes.items():
            self.nodes[path_key(path)] = node
            if not node:
                del self.nodes[path_key(path)]
        self.tree.adopt(update)


class TreeMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.database = Database()
        self.model: dict[bytes, bytes] = {}

    @rule(
        changes=st.dictionaries(
            st.sampled_from(KEYS), st.none() | st.binary(max_size=3), max_size=8
        )
    )
    def put(self, changes):
        self.database.put(changes)
        for key, value in changes.items():
            if value is None:
                self.model.pop(key, None)
            else:
                self.model[key] = value

    @invariant()
    def root_is_that_of_the_definition(self):
        expected = reference_root([(sha(key), value) for key, value in self.model.items()])
        assert self.database.tree.root == expected
        assert Tree(self.database.nodes.get).root == expected

    @invariant()
    def stored_nodes_are_those_in_use(self):
        stored = len([key for key in self.database.nodes if key])
        inner = set()
        paths = sorted(sha(key) for key in self.model)
        for low, high in itertools.pairwise(paths):
            common = 256 - (int.from_bytes(low, "big") ^ int.from_bytes(high, "big")).bit_length()
            inner |= {(d, int.from_bytes(low, "big") >> (256 - d)) for d in range(common + 1)}
        assert stored == len(inner)

    @rule(key=st.sampled_from(KEYS), other=st.binary(max_size=3))
    def prove(self, key, other):
        root, value = self.database.tree.root, self.model.get(key)
        proof = self.database.tree.prove(key)
        assert verify_proof(root, key, value, proof)
        if other != value:
            assert not verify_proof(root, key, other, proof)
        if value is not None:
            assert not verify_proof(root, key, None, proof)


TestTree = TreeMachine.TestCase
TestTree.settings = settings(max_examples=30, stateful_step_count=15, deadline=None)


@given(st.data())
def test_a_tampered_proof_fails(data):
    database = Database()
    database.put({key: key for key in KEYS})
    key = data.draw(st.sampled_from([*KEYS, b"absent-1", b"absent-2"]))
    value = key if key in KEYS else None
    proof = database.tree.prove(key)
    siblings, other = bytearray(b"".join(proof.siblings)), bytearray(proof.other)
    target = data.draw(st.sampled_from([part for part in (siblings, other) if part]))
    position = data.draw(st.integers(0, len(target) - 1))
    target[position] ^= data.draw(st.integers(1, 255))
    parts = tuple(bytes(siblings[i : i + 32]) for i in range(0, len(siblings), 32))
    assert not verify_proof(database.tree.root, key, value, Proof(parts, bytes(other)))
    assert not verify_proof(database.tree.root, key, value, Proof(proof.siblings[:-1], proof.other))


def test_an_empty_tree_proves_that_nothing_is_there():
    tree = Tree({}.get)
    assert tree.root == EMPTY
    assert verify_proof(EMPTY, b"any", None, tree.prove(b"any"))
    assert not verify_proof(EMPTY, b"any", b"", tree.prove(b"any"))


def test_a_malformed_proof_is_false_and_no_error():
    assert not verify_proof(EMPTY, b"k", None, Proof((b"short",)))
    assert not verify_proof(EMPTY, b"k", None, Proof((EMPTY,) * 257))
    assert not verify_proof(EMPTY, b"k", None, Proof((), b"short"))
    assert not verify_proof(EMPTY, b"k", b"v", Proof((), b"x" * 64))


def test_a_leaf_cannot_pass_for_an_inner_node():
    database = Database()
    database.put({key: key for key in KEYS})
    proof = database.tree.prove(KEYS[0])
    longer = Proof((*proof.siblings, sha(b"x")), proof.other)
    assert not verify_proof(database.tree.root, KEYS[0], KEYS[0], longer)


def test_a_proof_of_presence_carries_nothing_else():
    database = Database()
    database.put({key: key for key in KEYS})
    proof = database.tree.prove(KEYS[0])
    assert verify_proof(database.tree.root, KEYS[0], KEYS[0], proof)
    padded = Proof(proof.siblings, sha(b"x") + sha(b"y"))
    assert not verify_proof(database.tree.root, KEYS[0], KEYS[0], padded)


def test_a_lost_node_is_corruption():
    database = Database()
    database.put({key: key for key in KEYS})
    lost = {b"": database.nodes[b""]}
    with pytest.raises(CorruptionError):
        Tree(lost.get).prove(KEYS[0])
