"""Input that is made to break its reader is refused like any other wrong input."""

import libipld
import msgspec
import pytest

from lichen.encoding import from_canonical, from_json
from lichen.errors import LichenError, UserError
from lichen.gateway.api.transactions import _decode
from lichen.gateway.links import _refusal
from lichen.identity import KeyKind, PrivateKey
from lichen.identity import http_signature as hs
from lichen.identity.nonces import NonceCache, TooManySignedError
from lichen.ledger.server import _read_transactions
from lichen.node.till import Statement

DEPTH = 100_000
NOW_MS = 1_700_000_000_000
NESTED_JSON = b'{"x":' + b"[" * DEPTH + b"]" * DEPTH + b"}"
NESTED_CBOR = b"\x81" * DEPTH + b"\x00"


class Anything(msgspec.Struct):
    """A document of a peer."""

    owed: str = ""


@pytest.mark.parametrize("kind", [Anything, Statement])
def test_json_nested_without_end_is_refused(kind: type) -> None:
    with pytest.raises(UserError):
        from_json(NESTED_JSON, kind)


def test_cbor_nested_without_end_is_refused() -> None:
    with pytest.raises(RecursionError):
        libipld.decode_dag_cbor(NESTED_CBOR)
    for read in (_decode, _read_transactions):
        with pytest.raises(LichenError, match="DAG-CBOR"):
            read(NESTED_CBOR)
    with pytest.raises(UserError):
        from_canonical(NESTED_CBOR, Anything)


@pytest.mark.parametrize(
    "body", [NESTED_JSON, b"[]", b"1", b"\xff", b'{"detail": {"a": []}}', b'{"detail": "\xff"}']
)
def test_a_refusal_of_any_form_is_an_error_of_ours(body: bytes) -> None:
    assert _refusal(500, body).what.startswith("the node answered 500")


def test_one_signer_cannot_use_up_the_nonces_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lichen.identity.nonces.NONCES_PER_KEY_MAX", 3)
    cache = NonceCache(started_ms=NOW_MS)
    keys = [PrivateKey(KeyKind.SECP256K1, bytes([number]) * 32).public for number in (1, 2)]

    def use(key: int, nonce: int, now_ms: int = NOW_MS) -> None:
        signature = hs.VerifiedSignature(keys[key], f"{nonce:016d}", now_ms // 1000, None)
        cache.use(signature, now_ms=now_ms)

    for number in range(3):
        use(0, number)
    with pytest.raises(TooManySignedError):
        use(0, 9)
    use(1, 0)
    use(0, 10, NOW_MS + 300_000)
