"""The bounds of every field: what can be said about a transaction without looking at the state."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from lichen.identity import KeyKind
from lichen.ledger.errors import BadTransactionError
from lichen.ledger.voucher import CHANNEL_BYTES, SIGNATURE_BYTES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lichen.content.cid import CID
    from lichen.ledger.transactions import PublishRelease, RegisterNode, UpdateNode
    from lichen.ledger.types import FunctionSpec
    from lichen.ledger.voucher import Voucher

DESCRIPTION_BYTES_MAX = 1024
ENDPOINT_BYTES_MAX = 256
FUNCTIONS_MAX = 64
ROUTES_MAX = 64
ROUTE_BYTES_MAX = 256
SCHEDULES_MAX = 16
SCHEDULE_BYTES_MAX = 64
MEMORY_MB_MAX = 32_768
TIMEOUT_MS_MAX = 900_000
CONTENT_BYTES_MAX = 1 << 40
CID_BYTES_MAX = 64
SLOTS_MAX = 100_000
NODE_MEMORY_MB_MAX = 1 << 26
STORAGE_BYTES_MAX = 1 << 60
VOUCHERS_MAX = 256
RECEIPTS_MAX = 1 << 40
TIME_MS_MAX = 1 << 50
NONCE_MAX = 1 << 62
VERIFIERS_MAX = 99
TIERS = ("none", "wasm", "process", "gvisor", "microvm")

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?")
_ROUTE = re.compile(r"/[A-Za-z0-9._~!$&'()+,;=:@%/-]*\*?")
_VERIFY = re.compile(
    r"none|tee|mpc|zk|spot:(?:0\.\d{0,5}[1-9]|1)|([1-9]\d?)-of-([1-9]\d?)", re.ASCII
)
_CRON = re.compile(r"[0-9A-Z*/,-]+(?: [0-9A-Z*/,-]+){4}")


def check_name(name: str, what: str = "app") -> None:
    """Require a DNS label of at most 40 letters; raise BadTransactionError otherwise."""
    _require(
        _NAME.fullmatch(name) is not None,
        f"{name[:64]!r} is not {what} name",
        "use up to 40 of a-z, 0-9 and -, with no - at either end",
    )


def check_description(description: str) -> None:
    """Require a description within its bound."""
    _require(
        len(description.encode()) <= DESCRIPTION_BYTES_MAX,
        "the description is too long",
        f"shorten it to {DESCRIPTION_BYTES_MAX} bytes",
    )


def check_offer(body: RegisterNode | UpdateNode) -> None:
    """Require a node's offer to be well-formed."""
    check_endpoint(body.endpoint)
    capacity = body.capacity
    _range(capacity.slots, 0, SLOTS_MAX, "slots")
    _range(capacity.memory_mb, 0, NODE_MEMORY_MB_MAX, "memory_mb")
    _range(capacity.storage_bytes, 0, STORAGE_BYTES_MAX, "storage_bytes")
    known = all(tier in TIERS for tier in body.tiers)
    _require(
        known and len(set(body.tiers)) == len(body.tiers),
        "the tiers are not valid",
        f"name each at most once of {', '.join(TIERS)}",
    )


def check_endpoint(endpoint: str) -> None:
    """Require an http or https URL of a host, without path, query or user."""
    fits = endpoint.isascii() and endpoint.isprintable() and len(endpoint) <= ENDPOINT_BYTES_MAX
    try:
        parts = urlsplit(endpoint) if fits else urlsplit("")
        valid = (
            parts.scheme in ("http", "https")
            and bool(parts.hostname)
            and parts.port != 0
            and endpoint == f"{parts.scheme}://{parts.netloc}"
            and "@" not in parts.netloc
            and " " not in endpoint
        )
    except ValueError:
        valid = False
    _require(valid, f"{endpoint[:80]!r} is not an endpoint", "write http(s)://host:port")


def check_release(body: PublishRelease) -> None:
    """Require a release to have something to serve, every function of it within bounds."""
    _require(
        body.site is not None or bool(body.functions),
        "the release is empty",
        "give it a site or a function",
    )
    _check_cid(body.site)
    _check_cid(body.manifest)
    _require(len(body.functions) <= FUNCTIONS_MAX, "too many functions", f"max {FUNCTIONS_MAX}")
    _unique([function.name for function in body.functions], "function name")
    _unique([route for function in body.functions for route in function.routes], "route")
    for function in body.functions:
        _check_function(function)


def check_vouchers(vouchers: Sequence[Voucher]) -> None:
    """Require a bounded number of vouchers of the right shape."""
    _require(len(vouchers) <= VOUCHERS_MAX, "too many vouchers", f"at most {VOUCHERS_MAX} at once")
    for voucher in vouchers:
        check_channel_id(voucher.channel)
        _require(
            len(voucher.signature) == SIGNATURE_BYTES,
            "a voucher's signature has 65 bytes",
            "sign_voucher() gives them",
        )


def check_channel_id(channel: bytes) -> None:
    """Require 32 bytes."""
    _require(len(channel) == CHANNEL_BYTES, "a channel id has 32 bytes", "see channel_id()")


def check_positive(amount: int, what: str) -> None:
    """Require an amount above zero."""
    _require(amount > 0, f"the {what} is zero", "give an amount above zero")


def check_time(time_ms: int) -> None:
    """Require a time that a calendar knows."""
    _range(time_ms, 0, TIME_MS_MAX, "time_ms")


def check_batch(epoch: int, receipts: int, root: bytes) -> None:
    """Require the shape of a settled batch of receipts."""
    _range(epoch, 0, TIME_MS_MAX, "epoch")
    _range(receipts, 0, RECEIPTS_MAX, "receipts")
    _require(len(root) == 32, "a receipts root has 32 bytes", "give a SHA-256 Merkle root")


def _check_function(function: FunctionSpec) -> None:
    check_name(function.name, "a function")
    _check_cid(function.code)
    _range(function.memory_mb, 1, MEMORY_MB_MAX, "memory_mb")
    _range(function.timeout_ms, 1, TIMEOUT_MS_MAX, "timeout_ms")
    _range(function.content_bytes, 0, CONTENT_BYTES_MAX, "content_bytes")
    _range(len(function.routes), 0, ROUTES_MAX, "routes")
    for route in function.routes:
        _require(
            len(route) <= ROUTE_BYTES_MAX and _ROUTE.fullmatch(route) is not None,
            f"{route[:80]!r} is not a route",
            "a route is a path such as /api/users, or /api/* for all below it",
        )
    _check_verify(function.verify)
    _require(function.min_tier in TIERS, "min_tier is not known", f"one of {', '.join(TIERS)}")
    _range(len(function.schedule), 0, SCHEDULES_MAX, "schedules")
    for schedule in function.schedule:
        fits = len(schedule) <= SCHEDULE_BYTES_MAX and _CRON.fullmatch(schedule) is not None
        _require(fits, f"{schedule[:80]!r} is not a schedule", "write five cron fields")


def _check_verify(verify: str) -> None:
    match = _VERIFY.fullmatch(verify)
    valid = match is not None
    if match is not None and match.group(1):
        valid = int(match.group(1)) <= int(match.group(2)) <= VERIFIERS_MAX
    _require(
        valid, f"{verify[:40]!r} is not a way to verify", "none, spot:p, k-of-n, tee, mpc or zk"
    )


def _check_cid(cid: CID | None) -> None:
    fits = cid is None or len(cid.encode()) <= CID_BYTES_MAX
    _require(fits, "a CID is too long", "use a sha2-256 CID")


def check_node_key(kind: KeyKind) -> None:
    """Require the kind of key that contracts can check."""
    _require(kind is KeyKind.SECP256K1, "a node's key is secp256k1", "make a key of that kind")


def _unique(values: list[str], what: str) -> None:
    _require(len(set(values)) == len(values), f"a {what} stands twice", "name each once")


def _range(value: int, low: int, high: int, what: str) -> None:
    _require(low <= value <= high, f"{what} is {value}", f"it has to be {low} .. {high}")


def _require(holds: bool, what: str, hint: str) -> None:
    if not holds:
        raise BadTransactionError(what, hint=hint)
