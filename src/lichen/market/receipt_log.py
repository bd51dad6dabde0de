"""The log of receipts and vouchers: what was acknowledged is on disk, in batches, once each.

A finished run is encoded at once and joins the pending batch; the batch is signed and committed by
one fsync. `flush` is what group-commits; whoever needs a receipt to be durable awaits it. Receipts
are appended in sequence and never changed; the oldest paid ones go once `receipts_max` is passed.

The commit runs in a thread, and each LMDB call there gives the interpreter up and has to win it
back from the busy event loop. So a batch's bodies are one entry (`pages`), and so are the places of
256 runs with neighbouring ids (`places`): a commit takes a few calls, not two for every run. A log
of the first layout, with two entries for every receipt, is carried over when it is opened.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any

import libipld
import lmdb
import msgspec

from lichen.encoding import from_json, to_json
from lichen.errors import CorruptionError, MachineError, NotFoundError
from lichen.identity.digest import Digest
from lichen.market import merkle
from lichen.market.account import Line, PayeeBook
from lichen.market.receipt import BATCH_MAX, NO_BATCH, Receipt, assemble, sign_batch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lichen.identity import PrivateKey

PENDING_MAX = 65_536
RECEIPTS_MAX = 10_000_000
LOG_BYTES_MAX = 64 * 2**30  # address space, not disk: the file grows as it is used
_SEQUENCE_BYTES = 8
_TAIL_BYTES = 2  # of a run's id say where in its page of places it stands
_PLACE_BYTES = _TAIL_BYTES + _SEQUENCE_BYTES
_RUN_BYTES_MAX = 256
_FIRST_LAYOUT = (b"bodies", b"runs")
_CARRIED_AT_ONCE = 64  # batches of the first layout, in one transaction


class Batch(msgspec.Struct, frozen=True, array_like=True):
    """One signed batch as it is stored."""

    sequence: int
    previous: bytes
    first: int
    count: int
    root: bytes
    signature: bytes


class ChannelRecord(msgspec.Struct, frozen=True):
    """The durable part of a PayeeBook, with the latest voucher's signature."""

    owed: str
    paid: str
    acknowledged: int
    voucher: bytes = b""


class Pending(msgspec.Struct, frozen=True, gc=False):
    """A finished run on its way to disk."""

    run: str
    channel: bytes
    amount: int
    body: bytes


class ReceiptLog:
    """Receipts, their batches and the channels' books of one node, in one LMDB environment."""

    def __init__(
        self, path: str, key: PrivateKey, network: bytes, *, receipts_max: int = RECEIPTS_MAX
    ) -> None:
        """Open or create the log; raise CorruptionError when it is another node's or network's."""
        os.makedirs(path, exist_ok=True)
        self._key = key
        self._network = network
        self._receipts_max = receipts_max
        self._env = lmdb.open(path, map_size=LOG_BYTES_MAX, max_dbs=7)
        self._pages, self._places, self._batches, self._channels, self._meta = (
            self._env.open_db(name.encode())
            for name in ("pages", "places", "batches", "channels", "meta")
        )
        self._pending: list[Pending] = []
        self._flushing = asyncio.Lock()
        self._check_owner()
        self._carry_over()
        self._next, self._last = self._read_end()

    def _check_owner(self) -> None:
        owner = self._network + self._key.public.encode()
        with self._env.begin(write=True, db=self._meta) as txn:
            known = txn.get(b"owner")
            if known is None:
                txn.put(b"owner", owner)
            elif known != owner:
                raise CorruptionError(
                    "this receipt log belongs to another node or network",
                    hint="give each node a home folder of its own",
                )

    def _read_end(self) -> tuple[int, Batch | None]:
        with self._env.begin(db=self._batches) as txn:
            cursor = txn.cursor()
            if not cursor.last():
                return 0, None
            batch = msgspec.msgpack.decode(cursor.value(), type=Batch)
            if txn.get(cursor.key(), db=self._pages) is None:
                raise CorruptionError(
                    "the receipt log lacks its last batch", hint="restore the node's home"
                )
        return batch.first + batch.count, batch

    # --- the first layout ----------------------------------------------------------------------

    def _carry_over(self) -> None:
        """Bring a log of the first layout into this one; a kill between two steps costs nothing."""
        try:
            bodies, runs = (self._env.open_db(name, create=False) for name in _FIRST_LAYOUT)
        except lmdb.NotFoundError:
            return
        while self._carry_some(bodies):
            pass
        with self._env.begin(write=True) as txn:
            txn.drop(bodies)
            txn.drop(runs)

    def _carry_some(self, bodies: Any) -> bool:
        """Write the pages of the next batches that have none; tell whether there were any."""
        with self._env.begin(write=True) as txn:
            last = txn.cursor(self._pages)
            start = _number(last.key()) + 1 if last.last() else 0
            batches = txn.cursor(self._batches)
            more = batches.set_range(_key(start))
            for _ in range(_CARRIED_AT_ONCE):
                if not more:
                    return False
                batch = msgspec.msgpack.decode(batches.value(), type=Batch)
                numbers = range(batch.first, batch.first + batch.count)
                page = [bytes(txn.get(_key(number), b"", db=bodies)) for number in numbers]
                names = [libipld.decode_dag_cbor(body)["run"] for body in page]
                self._put_page(txn, _key(batch.first), page)
                self._put_places(txn, _places(batch.first, names))
                more = batches.next()
        return True

    # --- appending -----------------------------------------------------------------------------

    def append(self, run: str, channel: bytes, amount: int, body: dict[str, Any]) -> None:
        """Add a finished run to the pending batch; durable once `flush` returns."""
        self._pending.append(Pending(run, channel, amount, libipld.encode_dag_cbor(body)))

    @property
    def pending(self) -> int:
        """How many runs wait for their fsync; callers refuse work above PENDING_MAX."""
        return len(self._pending)

    async def flush(self, books: dict[bytes, PayeeBook]) -> None:
        """Sign and fsync everything appended before the call, in batches of at most BATCH_MAX."""
        async with self._flushing:
            while self._pending:
                runs, self._pending = self._pending[:BATCH_MAX], self._pending[BATCH_MAX:]
                try:
                    await asyncio.to_thread(self._commit, runs, books)
                except BaseException:
                    self._pending = runs + self._pending
                    raise
                for offset, entry in enumerate(runs):
                    line = Line(self._next + offset, entry.run, entry.amount)
                    if (book := books.get(entry.channel)) is not None:
                        book.record(line)
                self._next += len(runs)

    def _commit(self, runs: list[Pending], books: dict[bytes, PayeeBook]) -> None:
        leaves = [merkle.leaf_hash(entry.body) for entry in runs]
        sequence = 0 if self._last is None else self._last.sequence + 1
        previous = NO_BATCH if self._last is None else self._last.root
        root, signature = sign_batch(self._key, self._network, sequence, previous, leaves)
        batch = Batch(sequence, previous, self._next, len(runs), root, signature)
        owed: dict[bytes, int] = {}
        for entry in runs:
            owed[entry.channel] = owed.get(entry.channel, 0) + entry.amount
        self._write(lambda txn: self._put_batch(txn, batch, runs, owed, books))
        self._last = batch

    def _put_batch(
        self, txn: lmdb.Transaction, batch: Batch, runs: list[Pending],
        owed: dict[bytes, int], books: dict[bytes, PayeeBook],
    ) -> None:  # fmt: skip
        first = _key(batch.first)
        self._put_page(txn, first, [entry.body for entry in runs])
        self._put_places(txn, _places(batch.first, [entry.run for entry in runs]))
        txn.put(first, msgspec.msgpack.encode(batch), db=self._batches, append=True)
        for channel, amount in owed.items():
            record = self._channel(txn, channel)
            changed = msgspec.structs.replace(record, owed=str(int(record.owed) + amount))
            txn.put(channel, to_json(changed), db=self._channels)
        self._prune(txn, batch, books)

    def _put_page(self, txn: lmdb.Transaction, first: bytes, bodies: list[bytes]) -> None:
        txn.put(first, msgspec.msgpack.encode(bodies), db=self._pages, append=True)

    def _put_places(self, txn: lmdb.Transaction, pages: dict[bytes, dict[bytes, bytes]]) -> None:
        for name, places in pages.items():
            known = bytes(txn.get(name, b"", db=self._places))
            for at in range(0, len(known), _PLACE_BYTES):  # of a repeated run the first one stays
                places.pop(known[at : at + _TAIL_BYTES], None)
            added = (tail + number for tail, number in places.items())
            txn.put(name, b"".join((known, *added)), db=self._places)

    def _prune(self, txn: lmdb.Transaction, newest: Batch, books: dict[bytes, PayeeBook]) -> None:
        """Drop the oldest batch once the bound is passed and no statement still needs it."""
        end = newest.first + newest.count
        known = list(books.values())  # at once: channels come and go while this thread works
        unpaid = min((b.lines[0].sequence for b in known if b.lines), default=newest.first)
        cursor = txn.cursor(db=self._batches)
        if not cursor.first():
            return
        batch = msgspec.msgpack.decode(cursor.value(), type=Batch)
        if end - batch.first <= self._receipts_max or batch.first + batch.count > unpaid:
            return
        self._drop_places(txn, batch)
        txn.delete(_key(batch.first), db=self._pages)
        cursor.delete()

    def _drop_places(self, txn: lmdb.Transaction, batch: Batch) -> None:
        names = {libipld.decode_dag_cbor(body)["run"].encode() for body in self._page(txn, batch)}
        first, end = batch.first, batch.first + batch.count
        for name in {run[:-_TAIL_BYTES] for run in names}:
            known = bytes(txn.get(name, b"", db=self._places))
            kept = b"".join(
                known[at : at + _PLACE_BYTES]
                for at in range(0, len(known), _PLACE_BYTES)
                if not first <= _number(known[at + _TAIL_BYTES : at + _PLACE_BYTES]) < end
            )
            if kept:
                txn.put(name, kept, db=self._places)
            else:
                txn.delete(name, db=self._places)

    def save_voucher(self, channel: bytes, book: PayeeBook, signature: bytes) -> None:
        """Fsync a voucher that `book` accepted; only then may it be acknowledged."""

        def put(txn: lmdb.Transaction) -> None:
            record = msgspec.structs.replace(
                self._channel(txn, channel),
                paid=str(book.paid),
                acknowledged=book.acknowledged,
                voucher=signature,
            )
            txn.put(channel, to_json(record), db=self._channels)

        self._write(put)

    def _write(self, work: Any) -> None:
        """Run `work(txn)` in one durable transaction."""
        try:
            with self._env.begin(write=True) as txn:
                work(txn)
        except lmdb.Error as error:
            raise MachineError(
                f"receipts cannot be written: {error}",
                hint="free disk space; the node takes no paid work until it can write",
            ) from error

    # --- reading -------------------------------------------------------------------------------

    def _channel(self, txn: lmdb.Transaction, channel: bytes) -> ChannelRecord:
        data = txn.get(channel, db=self._channels)
        return from_json(bytes(data), ChannelRecord) if data else ChannelRecord("0", "0", -1)

    def open_book(self, channel: bytes, deposit: int) -> tuple[PayeeBook, bytes]:
        """Return a channel's book as of the last fsync, and its latest voucher's signature."""
        with self._env.begin() as txn:
            record = self._channel(txn, channel)
        book = PayeeBook(
            deposit,
            owed=int(record.owed),
            paid=int(record.paid),
            acknowledged=record.acknowledged,
        )
        book.lines.extend(self._unpaid_lines(channel, record))
        return book, record.voucher

    def _unpaid_lines(self, channel: bytes, record: ChannelRecord) -> Iterator[Line]:
        text, unpaid = channel.hex(), int(record.owed) - int(record.paid)
        start = record.acknowledged + 1
        with self._env.begin() as txn:
            for batch in self._batches_from(txn, start) if unpaid > 0 else ():
                for sequence, data in enumerate(self._page(txn, batch), batch.first):
                    body = libipld.decode_dag_cbor(data)
                    if sequence >= start and body["price"]["channel"] == text:
                        yield Line(sequence, body["run"], int(body["price"]["amount"]))

    def _batches_from(self, txn: lmdb.Transaction, number: int) -> Iterator[Batch]:
        """Yield the batch that holds receipt `number`, and all after it."""
        cursor = txn.cursor(self._batches)
        key = _key(number)
        found = (cursor.set_range(key) and cursor.key() == key) or cursor.prev() or cursor.first()
        while found:
            yield msgspec.msgpack.decode(cursor.value(), type=Batch)
            found = cursor.next()

    def _page(self, txn: lmdb.Transaction, batch: Batch) -> list[bytes]:
        """Return the bodies of a batch."""
        data = txn.get(_key(batch.first), db=self._pages)
        if data is None:
            raise CorruptionError("a batch lacks its receipts", hint="restore the node's home")
        return msgspec.msgpack.decode(data, type=list[bytes])

    def _place(self, txn: lmdb.Transaction, run: str) -> int | None:
        """Return the number of a run's receipt."""
        name = run.encode()[:_RUN_BYTES_MAX]
        tail = name[-_TAIL_BYTES:]
        known = bytes(txn.get(name[:-_TAIL_BYTES] or tail, b"", db=self._places))
        for at in range(0, len(known), _PLACE_BYTES):
            if known[at : at + _TAIL_BYTES] == tail:
                return _number(known[at + _TAIL_BYTES : at + _PLACE_BYTES])
        return None

    def receipt(self, run: str) -> Receipt:
        """Return the signed receipt of a durable run; raise NotFoundError."""
        with self._env.begin() as txn:
            number = self._place(txn, run)
            if number is None:
                raise NotFoundError(
                    f"no receipt of run {run[:80]!r} here",
                    hint="receipts are kept by the node that ran it, for a bounded time",
                )
            batch = next(self._batches_from(txn, number))
            bodies = self._page(txn, batch)
        index = number - batch.first
        leaves = [merkle.leaf_hash(body) for body in bodies]
        return assemble(
            bodies[index], self._key.public, batch.sequence, batch.previous,
            leaves, index, batch.signature,
        )  # fmt: skip

    def is_durable(self, run: str) -> bool:
        """Tell whether the receipt of `run` is on disk."""
        with self._env.begin() as txn:
            return self._place(txn, run) is not None

    def vouchers(self) -> list[tuple[bytes, int, bytes]]:
        """Return (channel, cumulative, signature) of every channel's latest voucher."""
        with self._env.begin(db=self._channels) as txn:
            records = [(bytes(key), from_json(data, ChannelRecord)) for key, data in txn.cursor()]
        return [(key, int(rec.paid), rec.voucher) for key, rec in records if rec.voucher]

    def root_since(self, first: int) -> tuple[Digest, int]:
        """Return the root over the batches from receipt `first` on, and their receipts' number.

        It is the Merkle root over the batches' own roots, and what a node settles an epoch with.
        """
        with self._env.begin(db=self._batches) as txn:
            cursor = txn.cursor()
            batches = []
            if cursor.set_range(first.to_bytes(_SEQUENCE_BYTES, "big")):
                batches = [
                    msgspec.msgpack.decode(value, type=Batch)
                    for value in cursor.iternext(keys=False, values=True)
                ]
        root = merkle.root([merkle.leaf_hash(batch.root) for batch in batches])
        return Digest(root), sum(batch.count for batch in batches)

    @property
    def count(self) -> int:
        """How many receipts were ever made durable here."""
        return self._next

    def close(self) -> None:
        """Close the environment; pending runs must have been flushed."""
        self._env.close()


def _key(number: int) -> bytes:
    return number.to_bytes(_SEQUENCE_BYTES, "big")


def _number(key: bytes) -> int:
    return int.from_bytes(key, "big")


def _places(first: int, runs: list[str]) -> dict[bytes, dict[bytes, bytes]]:
    """Return each run's number by the two parts of its id: the name of its page, and its tail."""
    pages: dict[bytes, dict[bytes, bytes]] = {}
    for number, name_of_run in enumerate(runs, first):
        run = name_of_run.encode()
        name, tail = run[:-_TAIL_BYTES], run[-_TAIL_BYTES:]
        page = pages.get(name)
        if page is None:
            page = pages[name] = {}
        page.setdefault(tail, number.to_bytes(_SEQUENCE_BYTES, "big"))
    return pages
