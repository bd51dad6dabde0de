"""HTTP Message Signatures (RFC 9421): who sent this request, and that nobody changed it on the way.

A signed request covers its method, its target, every `lichen-*` header and, through
`content-digest` (RFC 9530, sha-256), its body. The key id is the signer's public key itself, so
that a verifier looks nothing up; whether that key may do what it asks is for the caller to decide.
Algorithms are `ed25519` and `ecdsa-p256-sha256` of the RFC's registry and, as an extension of
ours, `ecdsa-secp256k1-sha256`: the 65-byte recoverable low-s signature over the base's SHA-256.

Pure functions: time and nonce come in, and `identity.nonces` remembers what was seen.
"""

from __future__ import annotations

import hmac
import re
from typing import TYPE_CHECKING

import msgspec

from lichen.encoding import sha256
from lichen.errors import NotAllowedError, UserError, VerificationError
from lichen.identity.keys import KeyKind, PrivateKey, PublicKey
from lichen.identity.structured_fields import (
    InnerList,
    parse_byte_sequences,
    parse_lists,
    serialise_bytes,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

LABEL = "lichen"
SKEW_S_MAX = 60
LIFETIME_S_MAX = 300
NONCE_CHARS_MIN = 16
NONCE_CHARS_MAX = 64
ALGORITHMS = {
    KeyKind.ED25519: "ed25519",
    KeyKind.P256: "ecdsa-p256-sha256",
    KeyKind.SECP256K1: "ecdsa-secp256k1-sha256",
}
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}
_DIGEST = re.compile(r"sha-256=:([A-Za-z0-9+/]{43}=):")
_PORT = re.compile(r":[0-9]*$")
_COVERED_PREFIX = "lichen-"
_TARGET = ("@authority", "@path", "@query")


class SignatureMissingError(NotAllowedError):
    """The request needs a signature and has none."""

    code = "signature-missing"
    status = 401


class SignatureInvalidError(VerificationError):
    """The request's signature is malformed, covers too little or does not hold."""

    code = "signature-invalid"
    status = 401


class ClockSkewError(SignatureInvalidError):
    """The request was signed too long ago, or in the future: the clocks differ."""

    code = "clock-skew"


class RequestHead(msgspec.Struct, frozen=True):
    """The parts of a request that a signature may cover.

    `path` and `query` are as sent on the wire, the query without its question mark; `headers` are
    (name, value) pairs in any case and in their order.
    """

    method: str
    scheme: str
    authority: str
    path: str
    query: str = ""
    headers: tuple[tuple[str, str], ...] = ()

    def header(self, name: str) -> str | None:
        """Return the combined value of a header field (RFC 9421, 2.1), or None."""
        values = [value.strip() for key, value in self.headers if key.lower() == name]
        return ", ".join(values) if values else None

    def component(self, name: str) -> str:
        """Return the value that a component stands for; raise SignatureInvalidError if it has none.

        Derived components are those of a request (RFC 9421, 2.2).
        """
        if name.startswith("@"):
            return self._derived(name)
        value = self.header(name)
        if value is None:
            raise SignatureInvalidError(f"the signature covers {name}, which the request lacks")
        return value

    def _derived(self, name: str) -> str:
        authority = self.authority.lower().removesuffix(_DEFAULT_PORTS.get(self.scheme, ""))
        path = self.path or "/"
        if name == "@method":
            return self.method
        if name == "@authority":
            return authority
        if name == "@path":
            return path
        if name == "@query":
            return f"?{self.query}"
        if name == "@target-uri":
            query = f"?{self.query}" if self.query else ""
            return f"{self.scheme}://{authority}{path}{query}"
        raise SignatureInvalidError(f"{name} is not a component that is understood here")


class VerifiedSignature(msgspec.Struct, frozen=True):
    """Who signed a request, and what has still to be checked: the body and the nonce."""

    key: PublicKey
    nonce: str
    created_s: int
    content_sha256: bytes | None

    def check_body(self, body_sha256: bytes) -> None:
        """Compare the digest of the body that came with the one that was signed."""
        if self.content_sha256 is None or not hmac.compare_digest(self.content_sha256, body_sha256):
            raise SignatureInvalidError(
                "the body is not the one that was signed",
                hint="cover content-digest with the SHA-256 of the body, then sign again",
            )


def request_head(
    method: str, scheme: str, raw_path: bytes, query: bytes, headers: Iterable[tuple[bytes, bytes]]
) -> RequestHead:
    """Build a head from the bytes that a server has (such as an ASGI scope's)."""
    pairs = tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in headers)
    hosts = [value for name, value in pairs if name.lower() == "host"]
    if len(hosts) != 1:
        raise SignatureInvalidError("a signed request has exactly one host header")
    path = raw_path.split(b"?", 1)[0]
    return RequestHead(
        method, scheme, hosts[0], path.decode("latin-1"), query.decode("latin-1"), pairs
    )


def content_digest(body_sha256: bytes) -> str:
    """Return the value of a `content-digest` header (RFC 9530)."""
    return f"sha-256={serialise_bytes(body_sha256)}"


def signature_base(values: Sequence[tuple[str, str]], parameters: str) -> bytes:
    """Return the bytes that are signed (RFC 9421, 2.5), from components and their values."""
    lines = [f'"{name}": {value}' for name, value in values]
    if any("\n" in line or "\r" in line for line in lines):
        raise SignatureInvalidError("a signed component contains a line break")
    lines.append(f'"@signature-params": {parameters}')
    try:
        return "\n".join(lines).encode("ascii")
    except UnicodeEncodeError as error:
        raise SignatureInvalidError("a signed component is not ASCII") from error


def sign_request(
    key: PrivateKey,
    request: RequestHead,
    *,
    created_s: int,
    nonce: str,
    body_sha256: bytes | None = None,
    lifetime_s: int = SKEW_S_MAX,
) -> dict[str, str]:
    """Return the headers to add: `signature-input`, `signature` and, with a body, `content-digest`.

    `nonce` is 16 to 64 characters that are never used twice; 128 random bits are right. Every
    `lichen-*` header of the request is covered.
    """
    added = {} if body_sha256 is None else {"content-digest": content_digest(body_sha256)}
    request = msgspec.structs.replace(request, headers=(*request.headers, *added.items()))
    covered = InnerList(
        _components_to_cover(request),
        (
            ("created", created_s),
            ("expires", created_s + lifetime_s),
            ("nonce", nonce),
            ("keyid", key.public.to_wire()),
            ("alg", ALGORITHMS[key.kind]),
        ),
    )
    parameters = covered.serialise()
    base = signature_base([(n, request.component(n)) for n in covered.items], parameters)
    signature = serialise_bytes(key.sign_message(base))
    return added | {
        "signature-input": f"{LABEL}={parameters}",
        "signature": f"{LABEL}={signature}",
    }


def verify_request(
    request: RequestHead,
    *,
    now_ms: int,
    skew_s_max: int = SKEW_S_MAX,
    hosts: Collection[str] | None = None,
) -> VerifiedSignature:
    """Check the one signature of a request and its freshness.

    `hosts` are the names (lower case, without ports) by which this server is reached: a request
    that was signed for another server, and passed on by it, is refused. None leaves that to the
    caller. Raises SignatureMissingError, ClockSkewError or SignatureInvalidError. The caller still
    has to check the body (`VerifiedSignature.check_body`), the signer's right, and then use up the
    nonce.
    """
    covered, signature = _read_signature(request)
    parameters = dict(covered.parameters)
    key = _read_key(parameters)
    _check_coverage(request, covered.items)
    base = signature_base([(n, request.component(n)) for n in covered.items], covered.serialise())
    if not key.verify_message(base, signature):
        raise SignatureInvalidError(
            "the request's signature does not hold",
            hint="the request changed after it was signed, or another key signed it",
        )
    _check_host(request, hosts)
    created_s = _check_freshness(parameters, now_ms // 1000, skew_s_max)
    return VerifiedSignature(key, _read_nonce(parameters), created_s, _read_digest(request))


def _components_to_cover(request: RequestHead) -> tuple[str, ...]:
    names = dict.fromkeys(name.lower() for name, _ in request.headers)
    named = [n for n in names if n.startswith(_COVERED_PREFIX) or n == "content-digest"]
    return ("@method", *_TARGET, *named)


def _read_signature(request: RequestHead) -> tuple[InnerList, bytes]:
    field, value = request.header("signature-input"), request.header("signature")
    if field is None or value is None:
        raise SignatureMissingError(
            "this request has to be signed",
            hint="sign it as RFC 9421 says, with the key of the account that may do this",
        )
    try:
        inputs, signatures = parse_lists(field), parse_byte_sequences(value)
    except UserError as error:
        raise SignatureInvalidError(f"the signature headers are malformed: {error}") from error
    if len(inputs) != 1 or inputs.keys() != signatures.keys():
        raise SignatureInvalidError("a request carries exactly one signature, under one label")
    label, covered = inputs.popitem()
    return covered, signatures[label]


def _read_key(parameters: dict[str, str | int]) -> PublicKey:
    try:
        key = PublicKey.from_wire(parameters.get("keyid"))
    except (UserError, ValueError) as error:
        raise SignatureInvalidError(
            f"the keyid is not a public key: {error}", hint="keyid is the key's z... text"
        ) from error
    if parameters.get("alg", ALGORITHMS[key.kind]) != ALGORITHMS[key.kind]:
        raise SignatureInvalidError(f"alg of this key is {ALGORITHMS[key.kind]}")
    return key


def _check_coverage(request: RequestHead, covered: tuple[str, ...]) -> None:
    needed = {name for name in _components_to_cover(request) if not name.startswith("@")}
    needed.add("@method")
    if "@target-uri" not in covered:
        needed.update(_TARGET)
    if request.header("transfer-encoding") or request.header("content-length") not in (None, "0"):
        needed.add("content-digest")
    missing = sorted(needed.difference(covered))
    if missing:
        raise SignatureInvalidError(
            f"the signature does not cover {', '.join(missing)}", hint="sign these components too"
        )


def _check_host(request: RequestHead, hosts: Collection[str] | None) -> None:
    host = _PORT.sub("", request.authority.lower())
    if hosts is not None and host not in hosts:
        raise SignatureInvalidError(
            f"the request was signed for {host[:80]}, which is not a name of this server",
            hint="its operator lists its names as `hosts` in config.toml",
        )


def _check_freshness(parameters: dict[str, str | int], now_s: int, skew_s_max: int) -> int:
    created_s, expires_s = parameters.get("created"), parameters.get("expires")
    if not isinstance(created_s, int) or not isinstance(expires_s, int):
        raise SignatureInvalidError("a signature has the times created and expires, in seconds")
    if not 0 < expires_s - created_s <= LIFETIME_S_MAX:
        raise SignatureInvalidError(f"a signature lives for 1 to {LIFETIME_S_MAX} seconds")
    behind_s = now_s - created_s
    if abs(behind_s) > skew_s_max:
        side = "behind" if behind_s > 0 else "ahead of"
        raise ClockSkewError(
            f"the request was signed by a clock {abs(behind_s)} s {side} this one, "
            f"which is over {skew_s_max} s",
            hint="the clocks differ (set them by NTP), or an old request was sent again",
        )
    if now_s >= expires_s:
        raise ClockSkewError(
            f"the signature expired {now_s - expires_s} s ago", hint="sign and send it again"
        )
    return created_s


def _read_nonce(parameters: dict[str, str | int]) -> str:
    nonce = parameters.get("nonce")
    if not isinstance(nonce, str) or not NONCE_CHARS_MIN <= len(nonce) <= NONCE_CHARS_MAX:
        raise SignatureInvalidError(
            f"a signature has a nonce of {NONCE_CHARS_MIN} to {NONCE_CHARS_MAX} characters"
        )
    return nonce


def _read_digest(request: RequestHead) -> bytes | None:
    field = request.header("content-digest")
    if field is None:
        return None
    if not _DIGEST.fullmatch(field):
        raise SignatureInvalidError("content-digest has to be one sha-256 byte sequence")
    return parse_byte_sequences(field)["sha-256"]


def body_digest(body: bytes) -> bytes | None:
    """Return what to pass as `body_sha256` for a body: None when it is empty."""
    return sha256(body) if body else None
