"""What a light proof costs, and how that grows with the state.

    python bench/ledger_proofs.py [--accounts 10000,100000,1000000]

For each number of accounts: the siblings of a proof (median and most of the sample), the bytes of
the answer as JSON, and the CPU time to make an answer, to check the Merkle proof alone, and to
check the whole answer (signature, header, proof, record). A million accounts take 1.5 GB and half a
minute.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time

import msgspec

from lichen.encoding import canonical, to_json
from lichen.ledger.light import Verifier, record_of
from lichen.ledger.proofs import Prover
from lichen.ledger.state import State
from lichen.ledger.store import MemoryStore
from lichen.ledger.tables import ACCOUNTS
from lichen.ledger.transactions import Transfer
from lichen.ledger.tree import verify_proof
from lichen.ledger.types import Account
from lichen.testing.ledger import MemoryLedger, genesis_of, key_of
from lichen.units import FLK, Amount

SAMPLE = 500


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--accounts", default="10000,100000")
    for text in parser.parse_args().accounts.split(","):
        print(figures(int(text)))


def figures(accounts):
    """Measure one size of state."""
    ledger, keys = crowded(accounts)
    prover, verifier = Prover(), Verifier(ledger.genesis)
    sample = random.Random(1).sample(keys, SAMPLE)
    prover.prove(ledger.state, sample[0])  # reads the block's header, once per block
    make_us, answers = timed(lambda key: prover.prove(ledger.state, key), sample)
    pairs = list(zip(sample, answers, strict=True))
    ready = [
        (bytes.fromhex(a.state_root), key, bytes.fromhex(a.value), a.proof()) for key, a in pairs
    ]
    merkle_us, holds = timed(lambda one: verify_proof(*one), ready)
    check_us, _ = timed(lambda pair: record_of(verifier.check(*pair), Account), pairs)
    if not all(holds):
        raise SystemExit("a proof does not hold")
    lengths = [len(answer.siblings) for answer in answers]
    size = statistics.median(len(to_json(answer)) for answer in answers)
    return (
        f"{accounts:>9,} accounts: {statistics.median(lengths):.0f} siblings (at most"
        f" {max(lengths)}), answer {size:,.0f} bytes; made in {make_us:.0f} us, Merkle proof checked"
        f" in {merkle_us:.0f} us, the whole answer in {check_us:.0f} us"
    )


class Entries(MemoryStore):
    """A store without order, which proofs do not need and which takes long to keep in memory."""

    def write(self, entries):
        """Put (None: remove) all entries."""
        self._values.update(entries)


def crowded(accounts):
    """Return a ledger with so many accounts, whose last block a sequencer signed, and their keys."""
    sequencer, alice = key_of("sequencer"), key_of("alice")
    genesis = msgspec.structs.replace(genesis_of("alice"), sequencer=sequencer.public)
    ledger = MemoryLedger(genesis, sequencer)
    ledger.state = State(Entries(), genesis)
    dice = random.Random(accounts)
    value = canonical(Account(3, Amount(5 * FLK)))
    keys = [ACCOUNTS.prefix + dice.randbytes(20) for _ in range(accounts)]
    draft = ledger.state.draft(ledger.time_ms)
    record = Account(3, Amount(5 * FLK))
    for key in keys:
        draft.write(ACCOUNTS, key[len(ACCOUNTS.prefix) :], record)
    draft.accept()
    changes = draft.finish()
    head = msgspec.structs.replace(changes.head, height=0, hash=ledger.network)
    ledger.state.store.write(changes.entries)
    ledger.state.adopt(msgspec.structs.replace(changes, head=head))
    ledger.submit(alice, Transfer(key_of("bob").address, Amount(1)))
    if ledger.state.prove(keys[0])[0] != value:
        raise SystemExit("the accounts are not in the state")
    return ledger, keys


def timed(work, items):
    """Return the CPU time per item in us, and what came out."""
    started = time.process_time()
    results = [work(item) for item in items]
    return (time.process_time() - started) / len(items) * 1e6, results


if __name__ == "__main__":
    main()
