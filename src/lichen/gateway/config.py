"""What a gateway's operator decides: `config.toml` in the gateway's home folder."""

from __future__ import annotations

import os

import msgspec

from lichen.encoding import convert
from lichen.node.config import read_toml
from lichen.units import FLK, Amount


class GatewayConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A gateway's settings.

    `hosts` are the domains it answers for: apps live at `{app}.app.{host}`. `key` names a key in
    the vault folder `keys`, unlocked by `password_file`; under owners' grants it opens payment
    channels with a deposit of `channel_deposit` each, with up to `replicas` nodes per app, and pays
    every `pay_ms`. With `private_nodes` it also dials nodes at loopback, private and link-local
    addresses: for networks on one machine or in one's own rooms, not for strangers' nodes.
    """

    network: str
    ledger: str
    listen: str
    hosts: tuple[str, ...] = ("localhost",)
    key: str = "gateway"
    keys: str = "keys"
    password_file: str | None = None
    channel_deposit: Amount = Amount(FLK)
    replicas: int = 3
    private_nodes: bool = False
    pay_ms: int = 250
    content_bytes_max: int = 50 * 2**30
    upload_bytes_max: int = 2 * 2**30
    request_bytes_max: int = 100 * 2**20


def load_gateway_config(home: str) -> GatewayConfig:
    """Read `config.toml` in `home`; raise UserError that names the file and field."""
    return convert(read_toml(os.path.join(home, "config.toml")), GatewayConfig)
