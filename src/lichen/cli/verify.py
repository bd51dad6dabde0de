"""`lichen verify`: check a receipt, with no network at all."""

from __future__ import annotations

from pathlib import Path

from lichen.cli import console
from lichen.cli import profile as profiles

RESPONSE_BYTES_MAX = 1 << 30


def verify(receipt: Path, /, *, genesis: Path | None = None, response: Path | None = None) -> None:
    """Check a receipt offline and say what was checked; exit code 4 when it does not hold.

    Parameters
    ----------
    receipt
        The file that `lichen call --receipt` wrote.
    genesis
        The network it has to be of; by default the one of this folder, if there is one.
    response
        A file with the response it has to attest.
    """
    from lichen.market.receipt import RECEIPT_BYTES_MAX
    from lichen.verify.receipt import verify_receipt

    with receipt.open("rb") as stream:
        data = stream.read(RECEIPT_BYTES_MAX + 1)
    network = _network(genesis or profiles.current().genesis)
    body = None if response is None else _read_response(response)
    report = verify_receipt(data, network=network, response=body)
    found = {"valid": True, "id": report.id, "run": report.receipt.run, "checks": report.checks}
    console.emit(found, lambda: _print(str(report.id), report.checks, has_network=bool(network)))


def _network(genesis: Path | None) -> bytes | None:
    if genesis is None:
        return None
    from lichen.cli.network.folder import read_genesis
    from lichen.ledger.types import network_id

    return network_id(read_genesis(genesis))


def _read_response(path: Path) -> bytes:
    from lichen.errors import LimitError

    if path.stat().st_size > RESPONSE_BYTES_MAX:
        raise LimitError(f"{path} is over 1 GiB", hint="check its hash by hand: response.hash")
    return path.read_bytes()


def _print(name: str, checks: tuple[str, ...], *, has_network: bool) -> None:
    for check in checks:
        print(f"✓ {console.clean(check)}")
    if not has_network:
        print("- network: not checked, no genesis is known here (--genesis FILE)")
    print(f"receipt {name} holds")
