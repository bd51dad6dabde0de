"""What a gateway's operator decides: `config.toml` in the gateway's home folder."""

from __future__ import annotations

import os

import msgspec

from lichen.encoding import convert
from lichen.node.config import read_toml
from lichen.units import FLK, Amount

_LOOPBACK = ("127.0.0.1", "[::1]", "localhost")


class GatewayConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A gateway's settings.

    `hosts` are the domains it answers for: apps live at `{app}.app.{host}`, content at
    `{cid}.ipfs.{host}` and `{name}.ipns.{host}`, to which paths redirect. `key` names a key in
    the vault folder `keys`, unlocked by `password_file`; under owners' grants it opens payment
    channels with a deposit of `channel_deposit` each, with up to `replicas` nodes per app, and pays
    every `pay_ms`. With `private_nodes` it also dials nodes at loopback, private and link-local
    addresses: for networks on one machine or in one's own rooms, not for strangers' nodes.

    `content_bytes_max` bounds the content store, what visitors had fetched included;
    `account_bytes_max` what the pins of one account may weigh, `upload_bytes_max` one request.

    `public_url` is where strangers reach this gateway, as it tells IPFS clients that ask who has
    content (see `reached_at`). `routers` are delegated routers (URLs) that are asked for content
    and names that nobody in the network has: they learn what visitors look for, so there are none
    unless the operator names some. `kubo` is the gateway of a Kubo of the operator's, asked last.

    `names` are keys of the vault whose IPNS records are signed again before they end. `dnslink`
    tells whether domains are looked up in DNS, at `dns_servers` (an address each, or address:port;
    the machine's own without any); `dnslinks` maps hosts to content paths and wins over DNS.

    `trusted_proxies` are addresses or networks of reverse proxies in front (`127.0.0.1`): what they
    say by X-Forwarded-Host and X-Forwarded-Proto decides where paths of content are redirected.
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
    account_bytes_max: int = 10 * 2**30
    request_bytes_max: int = 100 * 2**20
    public_url: str = ""
    routers: tuple[str, ...] = ()
    kubo: str = ""
    names: tuple[str, ...] = ()
    dnslink: bool = True
    dns_servers: tuple[str, ...] = ()
    dnslinks: dict[str, str] = {}
    trusted_proxies: tuple[str, ...] = ()

    @property
    def reached_at(self) -> str:
        """Where strangers reach this gateway; empty where nobody said.

        A gateway of a network on one machine is reached where it listens. Others may stand behind a
        front server, whose address only the operator knows.
        """
        host = self.listen.rpartition(":")[0]
        is_local = self.hosts == ("localhost",) and host in _LOOPBACK
        return self.public_url or (f"http://{self.listen}" if is_local else "")


def load_gateway_config(home: str) -> GatewayConfig:
    """Read `config.toml` in `home`; raise UserError that names the file and field."""
    return convert(read_toml(os.path.join(home, "config.toml")), GatewayConfig)
