"""Making a network folder: keys, a genesis that funds them, ports, and one config per process."""

from __future__ import annotations

import errno
import secrets
import shutil
import tempfile
import time
from pathlib import Path

import msgspec

from lichen.cli.network.folder import (
    DEVELOPER,
    GATEWAY,
    HOST,
    LEDGER,
    NODES_MAX,
    VALIDATORS_MAX,
    NetworkFolder,
    write_config,
    write_private,
    write_toml,
)
from lichen.cli.network.ports import choose_free
from lichen.cli.profile import PROFILE_FILE
from lichen.encoding import to_pretty_json
from lichen.errors import UserError
from lichen.identity import Address, KeyKind, PublicKey
from lichen.identity.vault import Vault
from lichen.ledger.comet import files as comet
from lichen.ledger.engine import create as create_ledger
from lichen.ledger.types import (
    Genesis,
    GenesisAccount,
    Params,
    Validator,
    check_genesis,
    network_id,
)
from lichen.units import Amount, format_flk, parse_flk

DEVELOPER_FLK = "1000000"
NODE_FLK = "1000"
GATEWAY_FLK = "1000"
TRANSACTION_FEE_FLK = "0.00000001"  # well below a run, so that settling one pays
SETTLEMENT_FEE_BPS = 200
STAKE_MIN_FLK = "10"
CHALLENGE_MS = 60_000
UNBOND_MS = 600_000
EPOCH_MS = 5_000
PASSWORD_BYTES = 24
VALIDATOR_POWER = 10


class Faults(msgspec.Struct, frozen=True):
    """How many nodes behave badly, by kind: `--fault liar=1,slow=1`."""

    counts: tuple[tuple[str, int], ...] = ()

    def of_nodes(self, names: list[str]) -> dict[str, str | None]:
        """Return each node's fault; the last nodes get them, so that node-1 stays honest."""
        faults = [kind for kind, count in self.counts for _ in range(count)]
        if len(faults) > len(names):
            raise UserError(
                f"{len(faults)} faults for {len(names)} nodes", hint="start more: --nodes N"
            )
        plain: list[str | None] = [None] * (len(names) - len(faults))
        return dict(zip(names, [*plain, *faults], strict=True))


FAULT_KINDS = ("slow", "lazy", "liar")


def parse_faults(text: str) -> Faults:
    """Read `kind=count,...`; raise UserError for an unknown kind."""
    counts = []
    for part in filter(None, text.split(",")):
        kind, _, number = part.strip().partition("=")
        if kind not in FAULT_KINDS or not (number or "1").isdecimal():
            raise UserError(
                f"{part.strip()!r} is not a fault",
                hint=f"write KIND=COUNT with one of {', '.join(FAULT_KINDS)}",
            )
        counts.append((kind, int(number or "1")))
    return Faults(tuple(counts))


def create(
    root: Path, *, nodes: int, port: int, faults: Faults, validators: int = 0
) -> NetworkFolder:
    """Make the folder of a new network, whole or not at all.

    With `validators`, so many ledgers agree by CometBFT; without, one orders alone.
    """
    if not 1 <= nodes <= NODES_MAX:
        raise UserError(f"--nodes {nodes} is out of range", hint=f"from 1 to {NODES_MAX}")
    if not 0 <= validators <= VALIDATORS_MAX:
        raise UserError(
            f"--validators {validators} is out of range",
            hint=f"from 1 to {VALIDATORS_MAX}; 4 bear the loss of one, 7 of two",
        )
    root.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f"{root.name}.new-", dir=root.parent))
    try:
        names = [f"node-{number + 1}" for number in range(nodes)]
        _fill(NetworkFolder(fresh), names, port, faults, validators)
        fresh.rename(root)  # refuses to replace a folder that has something in it
    except OSError as error:
        if error.errno not in {errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR}:
            raise
        raise UserError(
            f"{root} exists and is not a network folder",
            hint="choose another one with --dir, or remove it",
        ) from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return NetworkFolder(root)


def _fill(
    folder: NetworkFolder, nodes: list[str], port: int, faults: Faults, validators: int
) -> None:
    write_private(folder.password, secrets.token_urlsafe(PASSWORD_BYTES) + "\n")
    names = [DEVELOPER, GATEWAY, *nodes]
    keys = _make_keys(folder, names if validators else [*names, LEDGER])
    sequencer = keys.pop(LEDGER, None)
    addresses = {name: key.address for name, key in keys.items()}
    ledgers = _ledger_names(validators)
    genesis = _genesis(addresses, sequencer, _voters(folder, ledgers) if validators else ())
    folder.genesis.write_bytes(to_pretty_json(genesis))
    ports = choose_free(2 * len(ledgers) + len(nodes), HOST)
    node_ports = [ports.pop() for _ in nodes]
    urls = [f"http://{HOST}:{ledger_port}" for ledger_port in ports[: len(ledgers)]]
    ledger = urls[0]
    shared = {
        "network": network_id(genesis).hex(),
        "ledger": ledger,
        "keys": "../keys",
        "password_file": "../password",
    }
    for name in ledgers:
        create_ledger(folder.home(name), genesis)
    if validators:
        _write_validators(folder, ledgers, ports)
    else:
        signing = {"key": LEDGER, "keys": shared["keys"], "password_file": shared["password_file"]}
        write_config(folder.home(LEDGER), {"listen": f"{HOST}:{ports[0]}", **signing})
    bad = faults.of_nodes(nodes)
    for index, (name, node_port) in enumerate(zip(nodes, node_ports, strict=True)):
        own = {
            "ledger": urls[index % len(urls)],
            "key": name,
            "listen": f"{HOST}:{node_port}",
            "endpoint": f"http://{HOST}:{node_port}",
            "content_peers": [f"http://{HOST}:{port}"],
            "operators": [str(addresses[DEVELOPER])],
            "fault": bad[name],
        }
        write_config(folder.home(name), {**shared, **own})
    front = {
        "key": GATEWAY,
        "listen": f"{HOST}:{port}",
        "private_nodes": True,
        "trusted_proxies": [HOST],  # whoever is on this machine may put a server in front
    }
    write_config(folder.home(GATEWAY), {**shared, **front})
    write_profile(folder, port, ledger)


def _ledger_names(validators: int) -> list[str]:
    return [LEDGER, *(f"{LEDGER}-{number}" for number in range(2, validators + 1))]


def _voters(folder: NetworkFolder, ledgers: list[str]) -> tuple[Validator, ...]:
    """Make each ledger's keys; return the validators that they are."""
    keys = [comet.ensure_keys(folder.home(name)).validator for name in ledgers]
    return tuple(Validator(key, VALIDATOR_POWER) for key in keys)


def _write_validators(folder: NetworkFolder, ledgers: list[str], ports: list[int]) -> None:
    """Write the configurations of ledgers that connect to each other; `ports` are two for each."""
    p2p = [f"{HOST}:{port}" for port in ports[len(ledgers) :]]
    ids = [comet.ensure_keys(folder.home(name)).peer_id for name in ledgers]
    peers = [f"{identity}@{address}" for identity, address in zip(ids, p2p, strict=True)]
    for index, name in enumerate(ledgers):
        others = [peer for peer in peers if peer is not peers[index]]
        config = {
            "listen": f"{HOST}:{ports[index]}",
            "engine": "cometbft",
            "cometbft": {"p2p": p2p[index], "peers": others},
        }
        write_config(folder.home(name), config)


def write_profile(folder: NetworkFolder, port: int, ledger: str) -> None:
    """Write how the command line reaches the network."""
    write_toml(
        folder.root / PROFILE_FILE,
        {
            "gateway": f"http://localhost:{port}",
            "ledger": ledger,
            "genesis": "genesis.json",
            "keys": "keys",
            "account": DEVELOPER,
            "password_file": "password",
        },
    )


def _make_keys(folder: NetworkFolder, names: list[str]) -> dict[str, PublicKey]:
    vault = Vault(folder.keys)
    password = folder.password.read_text(encoding="utf-8").strip()
    return {name: vault.create(name, password, KeyKind.SECP256K1).public for name in names}


def _genesis(
    addresses: dict[str, Address], sequencer: PublicKey | None, validators: tuple[Validator, ...]
) -> Genesis:
    funds = {DEVELOPER: DEVELOPER_FLK, GATEWAY: GATEWAY_FLK}
    accounts = [
        GenesisAccount(address, parse_flk(funds.get(name, NODE_FLK)))
        for name, address in addresses.items()
    ]
    genesis = Genesis(
        name="local",
        time_ms=time.time_ns() // 1_000_000,
        params=_params(),
        accounts=tuple(accounts),
        sequencer=sequencer,
        validators=validators,
    )
    check_genesis(genesis)
    return genesis


def _params() -> Params:
    """Return rules for a network on one desk: short epochs, small stakes."""
    return Params(
        transaction_fee=parse_flk(TRANSACTION_FEE_FLK),
        settlement_fee_bps=SETTLEMENT_FEE_BPS,
        stake_min=parse_flk(STAKE_MIN_FLK),
        challenge_ms=CHALLENGE_MS,
        unbond_ms=UNBOND_MS,
        epoch_ms=EPOCH_MS,
        treasury=Address(b"lichen treasury".rjust(20, b"\0")),
    )


def describe_funds() -> str:
    """Return what a new network gives its developer, for people."""
    return f"{format_flk(Amount(parse_flk(DEVELOPER_FLK)))} FLK"
