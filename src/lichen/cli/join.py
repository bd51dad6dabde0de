"""Making the folder of a node that joins a network somewhere else."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from lichen.cli import keys
from lichen.cli import profile as profiles
from lichen.cli.network.folder import CONFIG_FILE, listen_of, write_config
from lichen.encoding import from_json
from lichen.errors import PeerUnavailableError, UserError
from lichen.identity.vault import Vault
from lichen.ledger.types import Genesis, check_genesis, network_id

if TYPE_CHECKING:
    from lichen.identity import Address

FETCH_S_MAX = 10.0
GENESIS_BYTES_MAX = 32 * 2**20


def make_home(home: Path, name: str, *, ledger: str, endpoint: str, listen: str) -> Address:
    """Make a node's key and configuration; return its address. Nothing is overwritten."""
    if (home / CONFIG_FILE).exists():
        raise UserError(f"{home / CONFIG_FILE} exists", hint="choose another folder with --home")
    listen_of({"listen": listen}, home / CONFIG_FILE)
    for url in (ledger, endpoint):
        if urlsplit(url).scheme not in {"http", "https"} or not urlsplit(url).hostname:
            raise UserError(f"{url!r} is not a URL", hint="write, say, http://192.0.2.7:8770")
    network = network_id(fetch_genesis(ledger)).hex()
    password = keys.new_password(profiles.Profile(), f"new password for {name}")
    key = Vault(home / "keys").create(name, password)
    config = {
        "network": network,
        "ledger": ledger,
        "listen": listen,
        "endpoint": endpoint,
        "key": name,
    }
    write_config(home, config)
    return key.address


def fetch_genesis(ledger: str) -> Genesis:
    """Ask a ledger for its genesis."""
    import httpx

    try:
        answer = httpx.get(f"{ledger.rstrip('/')}/v1/genesis", timeout=FETCH_S_MAX)
        answer.raise_for_status()
    except httpx.HTTPError as error:
        raise PeerUnavailableError(
            f"no ledger answers at {ledger}: {error}", hint="check --ledger"
        ) from error
    if len(answer.content) > GENESIS_BYTES_MAX:
        raise UserError("the genesis is over 32 MiB", hint="this is not a ledger")
    genesis = from_json(answer.content, Genesis)
    check_genesis(genesis)
    return genesis
