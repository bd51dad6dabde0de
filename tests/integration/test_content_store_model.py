"""Any sequence of additions, pins, removals, collections and restarts agrees with a simple model."""

import io
import random
import shutil
import tempfile

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

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

    def teardown(self):
        self.store.close()
        shutil.rmtree(self.folder)

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

    @rule(root=roots)
    def remove(self, root):
        if root.as_v1() not in self.pinned:
            self.store.remove(root)

    @rule()
    def collect(self):
        self.store.collect()
        if not self.pinned:
            assert self.store.usage_bytes == 0

    @rule()
    def restart(self):
        self.store.close()
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
TestStoreMachine.settings = settings(max_examples=25, stateful_step_count=15, deadline=None)
