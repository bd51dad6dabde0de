"""`lichen ledger prove` and `lichen ledger check`: entries of the ledger, believed for their proof.

A proof's file is the ledger's answer as it came, so anybody can check it later, without a network.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

from lichen.cli import connect, console
from lichen.cli import profile as profiles
from lichen.errors import LimitError, NotFoundError, VerificationError

if TYPE_CHECKING:
    from lichen.cli.profile import Profile
    from lichen.ledger.keyspec import Key
    from lichen.ledger.light import Entry, Verifier
    from lichen.ledger.results import ProofAnswer

GATEWAY_API = "/api"  # a gateway answers there as a ledger does


def prove(
    key: str, /, *, ledger: str | None = None, genesis: Path | None = None, out: Path | None = None
) -> None:
    """Show an entry of the ledger, checked; exit code 4 when the proof does not hold.

    Whoever answers is trusted with nothing: the genesis alone is.

    Parameters
    ----------
    key
        account/0x..., node/0x..., app/NAME, release/NAME/3, channel/ID, settlements/0x...,
        grant/OWNER/APP/DELEGATE or epoch/NODE/EPOCH/SEQUENCE.
    ledger
        Who to ask: a ledger's or node's URL, or a gateway's with /api; without it the profile's
        ledger or gateway.
    genesis
        The network's genesis; by default the one of this folder.
    out
        A file for the proof, for `lichen ledger check`.
    """
    from lichen.encoding import to_pretty_json
    from lichen.ledger.keyspec import parse_key

    profile = profiles.current()
    verifier = _verifier(genesis or profile.genesis)
    wanted = parse_key(key)
    answer = asyncio.run(_ask(ledger or _source(profile), wanted))
    entry = verifier.check(wanted.encode(), answer)
    if out is not None:
        out.write_bytes(to_pretty_json(answer))
    _show(entry, wanted, verifier)


def check(file: Path, /, *, genesis: Path | None = None) -> None:
    """Check a proof's file, with no network at all; exit code 4 when it does not hold.

    Parameters
    ----------
    file
        What `lichen ledger prove --out` wrote, or any ledger's `GET /v1/proofs/{key}` answered.
    genesis
        The network it has to be of; by default the one of this folder.
    """
    from lichen.encoding import from_json
    from lichen.ledger.keyspec import decode_key
    from lichen.ledger.light import PROOF_BYTES_MAX
    from lichen.ledger.results import ProofAnswer

    verifier = _verifier(genesis or profiles.current().genesis)
    with file.open("rb") as stream:
        data = stream.read(PROOF_BYTES_MAX + 1)
    if len(data) > PROOF_BYTES_MAX:
        raise LimitError(f"{file} is over {PROOF_BYTES_MAX} bytes", hint="is it a proof?")
    answer = from_json(data, ProofAnswer)
    try:
        key = bytes.fromhex(answer.key)
    except ValueError:
        raise VerificationError(
            "the key is not hexadecimal", hint="fetch the proof again"
        ) from None
    _show(verifier.check(key, answer), decode_key(key), verifier)


def _source(profile: Profile) -> str:
    return profile.ledger or profiles.require_gateway(profile) + GATEWAY_API


async def _ask(url: str, key: Key) -> ProofAnswer:
    from lichen.ledger.client import LedgerClient

    async with LedgerClient(url) as client:
        return await client.prove(key.encode())


def _verifier(genesis: Path | None) -> Verifier:
    from lichen.cli.network.folder import read_genesis
    from lichen.ledger.light import Verifier

    if genesis is None:
        raise NotFoundError(
            "no genesis is known here, and it is all that a proof is checked against",
            hint="name the network's: --genesis FILE",
        )
    return Verifier(read_genesis(genesis))


def _show(entry: Entry, key: Key, verifier: Verifier) -> None:
    from lichen.ledger.keyspec import spell_key
    from lichen.ledger.light import record_of

    record, name = record_of(entry, key.table.kind), spell_key(key)
    found = "absent" if record is None else "there"
    anchor = (
        f"block {entry.height}, of {connect.when(entry.time_ms)}, is signed by the sequencer"
        if entry.height
        else "no block yet: the state is the genesis's own"
    )
    checks = (
        f"network {verifier.network.hex()}: the genesis known here",
        anchor,
        f"{name} is {found}: a proof of {entry.siblings} hashes leads to the block's state root",
    )
    data = {
        "valid": True,
        "key": name,
        "height": entry.height,
        "time_ms": entry.time_ms,
        "record": record,
        "checks": checks,
    }
    console.emit(data, lambda: _print(checks, record))


def _print(checks: tuple[str, ...], record: object) -> None:
    for line in checks:
        print(f"✓ {console.clean(line)}")
    if record is None:
        return
    names: tuple[str, ...] = getattr(record, "__struct_fields__", ())
    console.fields([(name, _spell(name, getattr(record, name))) for name in names])


def _spell(name: str, value: object) -> str:
    from lichen.encoding import to_json
    from lichen.units import Amount

    if isinstance(value, Amount):
        return connect.flk(value)
    if type(value) is bytes:
        return value.hex()
    if name.endswith("_ms") and isinstance(value, int) and value:
        return connect.when(value)
    if isinstance(value, (str, int)) or hasattr(value, "to_wire"):
        return str(value)
    return to_json(value).decode()
