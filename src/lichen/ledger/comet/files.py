"""CometBFT's own files, below the ledger's folder: its keys, its genesis, its configuration.

    comet/config/   genesis.json, config.toml (written at each start), validator and node key
    comet/data/     its blocks, and the last vote it signed

The keys stay as long as the folder; the vote file keeps a validator from signing twice, so neither
may ever be copied to a second machine that runs. The formats are CometBFT's, its keys ed25519.
"""

from __future__ import annotations

import base64
import datetime as dt
import json
import os
from typing import TYPE_CHECKING, Any

import msgspec

from lichen.encoding import sha256, to_json
from lichen.errors import CorruptionError, UserError
from lichen.identity import KeyKind, PrivateKey, PublicKey
from lichen.ledger.blocks import BLOCK_TRANSACTION_BYTES_MAX
from lichen.ledger.comet.app import chain_id
from lichen.ledger.transactions import TRANSACTION_BYTES_MAX
from lichen.ledger.types import network_id

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from lichen.ledger.types import Genesis

ADDRESS_BYTES = 20
EVIDENCE_BLOCKS = 100_000
EVIDENCE_NS = 48 * 3600 * 10**9
MEMPOOL_TRANSACTIONS_MAX = 20_000
MEMPOOL_BYTES_MAX = 64 << 20
RPC_BODY_BYTES_MAX = 32 << 20
RPC_BATCH_MAX = 2048
PEERS_MAX = 64
ANSWER_MS_MAX = 25_000


class StateSync(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Begin from a snapshot: two or more RPC servers, and a block that the operator trusts."""

    servers: tuple[str, ...]
    height: int
    hash: str


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What an operator decides. Times are in milliseconds.

    `p2p` is where other validators connect to, `peers` are theirs as `ID@HOST:PORT`. `rpc` opens
    CometBFT's own API, which others need to begin from a snapshot; without it there is none but a
    socket for this process. `answer_ms` is how long a transaction may wait for a block before its
    sender is told that there is no quorum.
    """

    p2p: str
    peers: tuple[str, ...] = ()
    rpc: str = ""
    propose_ms: int = 2000
    commit_ms: int = 50
    answer_ms: int = 12_000
    snapshot_blocks: int = 5000
    state_sync: StateSync | None = None


class Keys(msgspec.Struct, frozen=True):
    """Who a CometBFT node is: the key it votes with, and the id that peers name it by."""

    validator: PublicKey
    peer_id: str


def ensure_keys(home: Path) -> Keys:
    """Return the keys of a ledger's folder, made on first use."""
    config, data = home / "comet" / "config", home / "comet" / "data"
    validator = _key(config / "priv_validator_key.json", _validator_document)
    node = _key(config / "node_key.json", lambda key: {"priv_key": _private(key)})
    state = data / "priv_validator_state.json"
    if not state.exists():
        _write(state, {"height": "0", "round": 0, "step": 0})
    return Keys(validator.public, address_of(node.public).hex())


def address_of(key: PublicKey) -> bytes:
    """Return what CometBFT calls the address of a key."""
    return sha256(key.compressed)[:ADDRESS_BYTES]


def genesis_document(genesis: Genesis) -> dict[str, Any]:
    """Return CometBFT's genesis: ours inside, the network id in the chain's name."""
    if not genesis.validators:
        raise UserError(
            "the genesis names no validators", hint="add them: see `lichen ledger validator`"
        )
    time = dt.datetime.fromtimestamp(genesis.time_ms // 1000, dt.UTC)
    return {
        "genesis_time": f"{time:%Y-%m-%dT%H:%M:%S}.{genesis.time_ms % 1000:03d}Z",
        "chain_id": chain_id(network_id(genesis)),
        "initial_height": "1",
        "consensus_params": {
            "block": {"max_bytes": str(BLOCK_TRANSACTION_BYTES_MAX), "max_gas": "-1"},
            "evidence": {
                "max_age_num_blocks": str(EVIDENCE_BLOCKS),
                "max_age_duration": str(EVIDENCE_NS),
                "max_bytes": str(1 << 20),
            },
            "validator": {"pub_key_types": ["ed25519"]},
            "version": {"app": "1"},
            "abci": {"vote_extensions_enable_height": "0"},
        },
        "validators": [
            {
                "address": address_of(one.key).hex().upper(),
                "pub_key": _public(one.key),
                "power": str(one.power),
                "name": "",
            }
            for one in genesis.validators
        ],
        "app_hash": "",
        "app_state": json.loads(to_json(genesis)),
    }


def write_run_files(home: Path, genesis: Genesis, settings: Settings, app: str, rpc: str) -> Path:
    """Write what CometBFT reads at its start; return its home. `app` and `rpc` are sockets."""
    folder = home / "comet"
    ensure_keys(home)
    _write(folder / "config" / "genesis.json", genesis_document(genesis))
    text = _toml(_configuration(settings, app, rpc))
    _write_text(folder / "config" / "config.toml", text)
    return folder


def check_settings(settings: Settings) -> None:
    """Raise UserError for addresses that CometBFT would not take."""
    for listen in filter(None, (settings.p2p, settings.rpc)):
        _check_address(listen, "HOST:PORT")
    if len(settings.peers) > PEERS_MAX:
        raise UserError(f"more than {PEERS_MAX} peers", hint="a few are enough: they name others")
    for peer in settings.peers:
        identity, at, address = peer.partition("@")
        known = len(identity) == 2 * ADDRESS_BYTES and set(identity) <= set("0123456789abcdef")
        if not at or not known:
            raise UserError(f"{peer[:80]!r} is not a peer", hint="write ID@HOST:PORT")
        _check_address(address, "ID@HOST:PORT")
    if settings.propose_ms < 1 or settings.commit_ms < 0 or settings.snapshot_blocks < 0:
        raise UserError("a time of CometBFT is out of range", hint="use positive numbers")
    if not 1 <= settings.answer_ms <= ANSWER_MS_MAX:
        raise UserError("answer_ms is out of range", hint=f"1 to {ANSWER_MS_MAX}: clients give up")


def _check_address(text: str, form: str) -> None:
    host, _, port = text.rpartition(":")
    plain = text.isascii() and text.isprintable() and not set(text) & set(" ,\"'\\@/")
    if not host or not plain or not port.isdecimal() or not 0 < int(port) < 1 << 16:
        raise UserError(f"{text[:80]!r} is not an address", hint=f"write {form}")


def _configuration(settings: Settings, app: str, rpc: str) -> dict[str, Any]:
    sync = settings.state_sync
    return {
        "": {
            "proxy_app": f"unix://{app}",
            "abci": "socket",
            "moniker": "lichen",
            "log_level": "error",
        },
        "rpc": {
            "laddr": f"tcp://{settings.rpc}" if settings.rpc else f"unix://{rpc}",
            "max_body_bytes": RPC_BODY_BYTES_MAX,
            "max_request_batch_size": RPC_BATCH_MAX,
        },
        "p2p": {
            "laddr": f"tcp://{settings.p2p}",
            "persistent_peers": ",".join(settings.peers),
            "persistent_peers_max_dial_period": "2s",
            "addr_book_strict": False,
            "allow_duplicate_ip": True,
            "flush_throttle_timeout": "10ms",
            "send_rate": 20 << 20,
            "recv_rate": 20 << 20,
        },
        "mempool": {
            "size": MEMPOOL_TRANSACTIONS_MAX,
            "max_txs_bytes": MEMPOOL_BYTES_MAX,
            "cache_size": 2 * MEMPOOL_TRANSACTIONS_MAX,
            "max_tx_bytes": TRANSACTION_BYTES_MAX,
        },
        "statesync": {
            "enable": sync is not None,
            "rpc_servers": ",".join(sync.servers) if sync else "",
            "trust_height": sync.height if sync else 0,
            "trust_hash": sync.hash if sync else "",
            "trust_period": "48h0m0s",
            "discovery_time": "5s",
        },
        "consensus": {
            "timeout_propose": f"{settings.propose_ms}ms",
            "timeout_propose_delta": "500ms",
            "timeout_prevote": "300ms",
            "timeout_prevote_delta": "300ms",
            "timeout_precommit": "300ms",
            "timeout_precommit_delta": "300ms",
            "timeout_commit": f"{settings.commit_ms}ms",
            "skip_timeout_commit": True,
            "create_empty_blocks": False,
            "peer_gossip_sleep_duration": "20ms",
        },
        "storage": {"discard_abci_responses": True},
        "tx_index": {"indexer": "null"},
    }


def _toml(tables: Mapping[str, Mapping[str, object]]) -> str:
    lines: list[str] = []
    for name, values in tables.items():
        lines += [f"[{name}]"] if name else []
        lines += [f"{key} = {json.dumps(value)}" for key, value in values.items()]
    return "\n".join(lines) + "\n"


def _key(path: Path, document: Any) -> PrivateKey:
    """Read the private key of a key file, or make the file with a new one."""
    if not path.exists():
        _write(path, document(PrivateKey.generate(KeyKind.ED25519)))
    try:
        value = json.loads(path.read_bytes())["priv_key"]["value"]
        return PrivateKey(KeyKind.ED25519, base64.b64decode(value)[:32])
    except (ValueError, KeyError, TypeError, UserError) as error:
        raise CorruptionError(f"{path} holds no key", hint="restore it from a copy") from error


def _validator_document(key: PrivateKey) -> dict[str, Any]:
    address = address_of(key.public).hex().upper()
    return {"address": address, "pub_key": _public(key.public), "priv_key": _private(key)}


def _public(key: PublicKey) -> dict[str, str]:
    value = base64.b64encode(key.compressed).decode()
    return {"type": "tendermint/PubKeyEd25519", "value": value}


def _private(key: PrivateKey) -> dict[str, str]:
    value = base64.b64encode(key.secret_bytes() + key.public.compressed).decode()
    return {"type": "tendermint/PrivKeyEd25519", "value": value}


def _write(path: Path, document: Mapping[str, Any]) -> None:
    _write_text(path, json.dumps(document, indent=2) + "\n")


def _write_text(path: Path, text: str) -> None:
    """Replace a file of the owner's alone; whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    fresh = path.with_name(f".{path.name}.new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(descriptor)
    fresh.replace(path)
