"""Any sequence of additions, pins, removals, collections and restarts agrees with a simple model.

Collections are carried on in the smallest steps, with everything else in between.
"""

import contextlib
import io
import random
import shutil
import tempfile

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, precondition, rule

from lichen.content import (
    V0_2015,
    V1_2025,
    BlockStore,
    MissingBlockError,
    export_car,
    import_bytes,
    import_directory,
    read_file,
    resolve,
)
from lichen.content import collect as collecting

CAPACITY_BYTES = 1 << 30
PIECE_BYTES = 1 << 18


def piece(number):
    return random.Random(number).randbytes(PIECE_BYTES)


class StoreMachine(RuleBasedStateMachine):
    """Files are made of few distinct pieces, so that they share blocks."""

    roots = Bundle("roots")

    def __init__(self):
        super().__init__()
        self.folder = tempfile.mkdtemp()
        self.store = BlockStore.open(self.folder, capacity_bytes=CAPACITY_BYTES)
        self.files = {}
        self.pinned = set()
        self.collections = contextlib.ExitStack()
        self.collection = None
        self.addition = None
        self.steps = contextlib.ExitStack()
        patch = self.steps.enter_context(pytest.MonkeyPatch.context())
        for name in ("ROOTS_PER_STEP", "FILES_PER_STEP", "BLOCKS_UNTIL_LOOK", "BLOCKS_PER_STEP"):
            patch.setattr(collecting, name, 1)
        patch.setattr(collecting, "BLOCKS_SEEN_PER_STEP", 2)

    def teardown(self):
        self.close()
        self.steps.close()
        shutil.rmtree(self.folder)

    def close(self):
        if self.addition is not None:
            self.addition[0].__exit__(None, None, None)
            self.addition = None
        self.collections.close()
        self.collection = None
        self.store.close()

    @rule(
        target=roots,
        pieces=st.lists(st.integers(0, 2), max_size=3),
        tail=st.sampled_from([0, 4, 70_000]),
        profile=st.sampled_from([V0_2015, V1_2025]),
        by_car=st.booleans(),
        pin=st.booleans(),
    )
    def add(self, pieces, tail, profile, by_car, pin):
        data = b"".join(map(piece, pieces)) + b"t" * tail
        if by_car:
            root = self.import_in_a_folder(data, profile, pin)
        else:
            root, _ = self.store.add_file(io.BytesIO(data), profile, pin=pin)
        self.files[root] = data
        if pin:
            self.pinned.add(root.as_v1())
        return root

    def import_in_a_folder(self, data, profile, pin):
        blocks = {}
        file = import_bytes(data, profile, blocks.__setitem__)
        root = import_directory([file.link("f")], profile, blocks.__setitem__).cid

        class Memory:
            get_block = staticmethod(blocks.get)

        car = b"".join(export_car(Memory, root))
        assert self.store.import_car(io.BytesIO(car), pin=pin) == (root,)
        return root

    @rule(root=roots)
    def pin_what_is_whole(self, root):
        if self.is_whole(root):
            self.store.pin(root)
            self.pinned.add(root.as_v1())

    @rule(root=roots)
    def unpin(self, root):
        assert self.store.unpin(root) == (root.as_v1() in self.pinned)
        self.pinned.discard(root.as_v1())

    @precondition(lambda self: self.collection is None)
    @rule(root=roots)
    def remove(self, root):
        if root.as_v1() not in self.pinned:
            self.store.remove(root)

    @precondition(lambda self: self.collection is None)
    @rule()
    def collect(self):
        self.store.collect()
        if not self.pinned and self.addition is None:
            assert self.store.usage_bytes == 0

    @precondition(lambda self: self.collection is None)
    @rule(spare_recent=st.booleans(), bytes_min=st.sampled_from([None, 0, PIECE_BYTES]))
    def begin_to_collect(self, spare_recent, bytes_min):
        self.collection = self.collections.enter_context(
            self.store.collecting(spare_recent=spare_recent, bytes_min=bytes_min)
        )

    @precondition(lambda self: self.collection is not None)
    @rule(steps=st.integers(1, 60))
    def collect_a_little(self, steps):
        for _ in range(steps):
            if not self.store.collect_step(self.collection, 0):
                self.collections.close()
                self.collection = None
                break

    @precondition(lambda self: self.addition is None)
    @rule(pieces=st.lists(st.integers(0, 2), max_size=3), tail=st.sampled_from([0, 4, 70_000]))
    def begin_to_add(self, pieces, tail):
        data = b"".join(map(piece, pieces)) + b"t" * tail
        ingest = self.store.ingest().__enter__()
        self.addition = ingest, ingest.add_file(io.BytesIO(data), V1_2025).cid, data

    @precondition(lambda self: self.addition is not None)
    @rule(target=roots)
    def finish_to_add(self):
        ingest, root, data = self.addition
        ingest.commit([root])
        ingest.__exit__(None, None, None)
        self.addition = None
        self.files[root] = data
        self.pinned.add(root.as_v1())
        return root

    @rule()
    def restart(self):
        self.close()
        self.store = BlockStore.open(self.folder, capacity_bytes=CAPACITY_BYTES)

    def is_whole(self, root):
        try:
            return sum(1 for _ in export_car(self.store, root)) > 0
        except MissingBlockError:
            return False

    @invariant()
    def pinned_content_reads_back(self):
        assert {pin.as_v1() for pin in self.store.pins()} == self.pinned
        for root, data in self.files.items():
            if root.as_v1() not in self.pinned:
                continue
            file = root
            if resolve(self.store, root).is_directory:
                file = resolve(self.store, root, "f").cid
            if b"".join(map(bytes, read_file(self.store, file))) != data:
                raise AssertionError(f"{file} reads back otherwise")
            flat = self.store.flat_file(file)
            got = self.store.small_file(file) if flat is None else flat.pread(flat.size)
            if got != data:
                raise AssertionError(f"{file} reads back otherwise: {flat=}")


TestStoreMachine = StoreMachine.TestCase
TestStoreMachine.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
