"""What a node's owner decides: `config.toml` in the node's home folder."""

from __future__ import annotations

import hmac
import os
import tomllib
from typing import TYPE_CHECKING, Literal

import msgspec

from lichen.encoding import convert
from lichen.errors import UserError
from lichen.identity import Address
from lichen.ledger.types import Capacity, Prices, network_id
from lichen.units import FLK, Amount

if TYPE_CHECKING:
    from lichen.ledger.types import Genesis

MICRO_FLK = FLK // 10**6


class NodeConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A node's settings.

    `endpoint` is what others dial (registered on the ledger), `listen` the address bound here.
    `key` names a key in the vault folder `keys`, unlocked by `password_file`. `content_peers` are
    gateways and nodes that code is fetched from. `operators` are owners whose code may run without
    a sandbox where this machine has none. `credit` is how much work per channel may be unpaid.
    `public_url` is where IPFS clients reach the node's content, by default the endpoint.
    `settle_s` is how often vouchers are redeemed and receipts anchored; `request_bytes_max` bounds
    what one run is sent.
    """

    network: str
    ledger: str
    listen: str
    endpoint: str
    key: str = "node"
    keys: str = "keys"
    password_file: str | None = None
    content_peers: tuple[str, ...] = ()
    operators: tuple[Address, ...] = ()
    capacity: Capacity = Capacity(slots=64, memory_mb=4096, storage_bytes=10 * 2**30)
    prices: Prices = Prices(
        request=Amount(MICRO_FLK // 10),
        cpu_s=Amount(100 * MICRO_FLK),
        memory_gib_s=Amount(10 * MICRO_FLK),
        egress_gib=Amount(1000 * MICRO_FLK),
        storage_gib_month=Amount(10_000 * MICRO_FLK),
    )
    stake: Amount = Amount(10 * FLK)
    credit: Amount = Amount(10_000 * MICRO_FLK)
    prewarm: int = 2
    idle_s: int = 300
    settle_s: int = 5
    request_bytes_max: int = 128 * 2**20
    content_bytes_max: int = 10 * 2**30
    public_url: str = ""
    fault: Literal["liar", "lazy", "slow"] | None = None


def load_node_config(home: str) -> NodeConfig:
    """Read `config.toml` in `home`; raise UserError that names the file and field."""
    return convert(read_toml(os.path.join(home, "config.toml")), NodeConfig)


def require_network(network: str, genesis: Genesis) -> None:
    """Raise UserError unless a ledger's genesis is of the network that the configuration names."""
    found = network_id(genesis).hex()
    if not hmac.compare_digest(found, network.lower()):
        raise UserError(
            f"the ledger is of network {found}, the configuration names {network[:80]}",
            hint="correct `ledger` or `network` in config.toml; do not trust that ledger otherwise",
        )


def read_toml(path: str) -> object:
    """Read a TOML file; raise UserError when it is missing or malformed."""
    try:
        with open(path, "rb") as file:
            return tomllib.load(file)
    except FileNotFoundError as error:
        raise UserError(
            f"{path} does not exist", hint="`lichen up` or `lichen node init` writes one"
        ) from error
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{path} is not TOML: {error}", hint="mend the line it names") from error
