"""Mutable names as their owner publishes them: the next record, and renewals in time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lichen.cdn.names.keeper import renewed
from lichen.content import CID
from lichen.content.ipns import (
    InvalidRecordError,
    Name,
    Record,
    check_value,
    create_record,
    verify_signature,
)
from lichen.content.ipns_time import NS_PER_S
from lichen.content.libp2p_key import public_key
from lichen.errors import PeerError, UserError

if TYPE_CHECKING:
    from lichen.identity import PrivateKey
    from lichen.sdk.client import Client


def path_of(target: str) -> str:
    """Return the content path of `CID[/path]`, `/ipfs/...`, `/ipns/...` or an `ipfs://` address.

    Raises UserError for anything else.
    """
    for scheme in ("ipfs", "ipns"):
        if target.startswith(f"{scheme}://"):
            target = f"/{scheme}/{target[len(scheme) + 3 :]}"
    if not target.startswith("/"):
        target = f"/ipfs/{target}"
    check_value(target)
    kind, name, *_ = target[1:].split("/")
    if kind == "ipfs":
        CID.parse(name)
    elif "." not in name:
        Name.parse(name)
    return target


def publish(
    client: Client,
    key: PrivateKey,
    target: str,
    *,
    now_ns: int,
    lifetime_s: int,
    ttl_s: int,
    last: Record | None = None,
) -> Record:
    """Let the key's name stand for a target from now on, for so long.

    `last` is the newest record known here; the gateway's counts, too. Raises UserError where
    somebody published a newer one meanwhile.
    """
    name = Name.of(public_key(key))
    known = _newest(last, _record_at(client, name))
    record = create_record(
        key,
        path_of(target),
        sequence=0 if known is None else known.sequence + 1,
        eol_ns=now_ns + lifetime_s * NS_PER_S,
        ttl_ns=ttl_s * NS_PER_S,
    )
    if not client.publish_name(name, record.encoded):
        raise UserError(
            f"a newer record of {name} was published meanwhile", hint="run the command again"
        )
    return record


def keep(
    client: Client, key: PrivateKey, last: Record | None, *, now_ns: int, lifetime_s: int
) -> Record | None:
    """Give the gateway the newest record of a key's name, signed again where it ends soon.

    Returns what counts there now; None for a name that was never published.
    """
    name = Name.of(public_key(key))
    there = _record_at(client, name)
    newest = _newest(last, there)
    if newest is None:
        return None
    fresh = renewed(newest, key, now_ns, lifetime_s) or newest
    if there is None or fresh.is_newer_than(there):
        client.publish_name(name, fresh.encoded)
    return fresh


def _record_at(client: Client, name: Name) -> Record | None:
    encoded = client.name_record(name)
    if encoded is None:
        return None
    try:
        return verify_signature(name, encoded)
    except InvalidRecordError as error:
        raise PeerError(
            f"the gateway gave a wrong record: {error.what}", hint="use another gateway"
        ) from error


def _newest(one: Record | None, other: Record | None) -> Record | None:
    if one is None or other is None:
        return one or other
    return other if other.is_newer_than(one) else one
