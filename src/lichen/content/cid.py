"""Content identifiers (https://github.com/multiformats/cid): what something is called by its hash.

SHA-256 is what Lichen writes. Other hash functions are carried, but content is verified only where
the function is known (see `CID.matches`).
"""

from __future__ import annotations

import base64
import hashlib
import re
from typing import Self

import libipld
from blake3 import blake3

from lichen.content import varint
from lichen.errors import UserError
from lichen.identity import base58

CBOR = 0x51
RAW = 0x55
DAG_PB = 0x70
DAG_CBOR = 0x71
JSON = 0x0200
DAG_JSON = 0x0129
LIBP2P_KEY = 0x72

IDENTITY = 0x00
SHA2_256 = 0x12
SHA2_256_BYTES = 32
SHA2_512 = 0x13
BLAKE3 = 0x1E

DIGEST_BYTES_MIN = 20  # shorter digests of a real hash function name nothing safely
DIGEST_BYTES_MAX = 128
TEXT_MAX = 512
_BASE36 = "0123456789abcdefghijklmnopqrstuvwxyz"
_BASE16_TEXT = re.compile(r"[0-9a-fA-F]*", re.ASCII)
_BASE36_TEXT = re.compile(r"[1-9a-z][0-9a-z]*", re.ASCII)  # a CID starts with no zero byte

_USUAL = frozenset(bytes((1, codec, SHA2_256, 32)) for codec in (RAW, DAG_PB, DAG_CBOR))


class CID:
    """A version, a codec and a multihash; immutable, hashable, equal by content."""

    __slots__ = ("_bytes", "_digest_at", "codec", "hash_code", "multihash", "version")

    def __init__(
        self, codec: int, digest: bytes, hash_code: int = SHA2_256, version: int = 1
    ) -> None:
        if len(digest) > DIGEST_BYTES_MAX:
            raise UserError(f"a digest of {len(digest)} bytes is over {DIGEST_BYTES_MAX}")
        if hash_code != IDENTITY and len(digest) < DIGEST_BYTES_MIN:
            raise UserError(f"a digest of {len(digest)} bytes is under {DIGEST_BYTES_MIN}")
        if version == 0 and (codec, hash_code, len(digest)) != (DAG_PB, SHA2_256, 32):
            raise UserError("a CIDv0 is always dag-pb and sha2-256")
        self.version = version
        self.codec = codec
        self.hash_code = hash_code
        head = varint.encode(hash_code) + varint.encode(len(digest))
        self._digest_at = len(head)
        self.multihash = head + digest
        prefix = b"" if version == 0 else b"\x01" + varint.encode(codec)
        self._bytes = prefix + self.multihash

    @classmethod
    def of(cls, codec: int, data: bytes | memoryview) -> Self:
        """Name a block: CIDv1, sha2-256."""
        return cls(codec, hashlib.sha256(data).digest())

    @classmethod
    def decode(cls, data: bytes | memoryview) -> Self:
        """Read a binary CID that fills `data`; raise UserError otherwise."""
        cid, end = cls.read(data, 0)
        if end != len(data):
            raise UserError("bytes follow the CID")
        return cid

    @classmethod
    def read(cls, data: bytes | memoryview, offset: int) -> tuple[Self, int]:
        """Read a binary CID at `offset`: the CID and the offset behind it."""
        whole = bytes(data[offset : offset + 36])
        if whole[:4] in _USUAL and len(whole) == 36:
            return cls._usual(whole), offset + 36
        if bytes(data[offset : offset + 2]) == b"\x12\x20":
            digest = bytes(data[offset + 2 : offset + 34])
            if len(digest) != 32:
                raise UserError("a CID is cut off")
            return cls(DAG_PB, digest, version=0), offset + 34
        version, offset = varint.decode(data, offset)
        if version != 1:
            raise UserError(f"CID version {version} is not known", hint="versions 0 and 1 are")
        codec, offset = varint.decode(data, offset)
        hash_code, offset = varint.decode(data, offset)
        size, offset = varint.decode(data, offset)
        if size > DIGEST_BYTES_MAX or offset + size > len(data):
            raise UserError("a CID is cut off or its digest is too long")
        return cls(codec, bytes(data[offset : offset + size]), hash_code), offset + size

    @classmethod
    def _usual(cls, whole: bytes) -> Self:
        """Build what nearly all CIDs are, without looking at each part: DAGs have very many."""
        cid = cls.__new__(cls)
        cid.version = 1
        cid.codec = whole[1]
        cid.hash_code = SHA2_256
        cid.multihash = whole[2:]
        cid._digest_at = 2  # noqa: SLF001 - of this very class
        cid._bytes = whole  # noqa: SLF001 - of this very class
        return cid

    @property
    def digest(self) -> bytes:
        """Return the hash alone; kept once, because walks and additions hold very many CIDs."""
        return self.multihash[self._digest_at :]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read text: CIDv0 (`Qm...`) or multibase base32, base36, base58btc or base16."""
        try:
            return cls.decode(_decode_multibase(text))
        except (UserError, ValueError) as error:
            raise UserError(
                f"{text[:80]!r} is not a CID: {error}", hint="a CID looks like bafkrei... or Qm..."
            ) from error

    @classmethod
    def from_wire(cls, value: object) -> Self:
        """Read the wire form: the canonical text only."""
        if not isinstance(value, str):
            raise ValueError("a CID is a string")  # noqa: TRY004 - msgspec reports ValueErrors
        cid = cls.parse(value)
        if str(cid) != value:
            raise ValueError(f"write this CID as {cid}")
        return cid

    def to_wire(self) -> str:
        """Return the canonical text: base58btc for version 0, base32 for version 1."""
        if self.hash_code == SHA2_256 and len(self.digest) == SHA2_256_BYTES:  # quicker by far
            return str(libipld.encode_cid(self._bytes))
        if self.version == 0:
            return base58.encode(self._bytes)
        return "b" + base64.b32encode(self._bytes).decode().rstrip("=").lower()

    def to_base36(self) -> str:
        """Return version 1 as base36 text: the shortest that is safe in host names."""
        number, letters = int.from_bytes(self.as_v1().encode(), "big"), []
        while number:
            number, digit = divmod(number, 36)
            letters.append(_BASE36[digit])
        return "k" + "".join(reversed(letters))

    def encode(self) -> bytes:
        """Return the binary form."""
        return self._bytes

    def as_v1(self) -> CID:
        """Return the same content's CIDv1."""
        return self if self.version == 1 else CID(self.codec, self.digest, self.hash_code)

    def as_version(self, version: int) -> CID:
        """Return the same content's CID of a version; version 0 exists for dag-pb only."""
        if version == self.version:
            return self
        return CID(self.codec, self.digest, self.hash_code, version)

    def matches(self, data: bytes | memoryview) -> bool:
        """Tell whether `data` has this hash; an unknown hash function is a UserError."""
        if self.hash_code == SHA2_256:
            return hashlib.sha256(data).digest() == self.digest
        if self.hash_code == IDENTITY:
            return bytes(data) == self.digest
        if self.hash_code == SHA2_512:
            return hashlib.sha512(data).digest() == self.digest
        if self.hash_code == BLAKE3:
            return blake3(data).digest(len(self.digest)) == self.digest
        raise UserError(f"hash function 0x{self.hash_code:x} cannot be checked here")

    __str__ = to_wire

    def __repr__(self) -> str:
        return f"CID({self})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CID) and self._bytes == other._bytes

    def __hash__(self) -> int:
        return hash(self._bytes)


def _decode_multibase(text: str) -> bytes:
    if len(text) > TEXT_MAX:
        raise UserError(f"longer than {TEXT_MAX} letters")
    if len(text) == 46 and text.startswith("Qm"):
        return base58.decode(text)
    base, letters = text[:1], text[1:]
    if base in ("b", "B"):
        if letters != (letters.lower() if base == "b" else letters.upper()):
            raise UserError("mixed case")
        return base64.b32decode(letters.upper() + "=" * (-len(letters) % 8))
    if base == "z":
        return base58.decode(letters)
    if base in ("f", "F") and _BASE16_TEXT.fullmatch(letters):
        return bytes.fromhex(letters)
    if base in ("k", "K"):
        if not _BASE36_TEXT.fullmatch(letters if base == "k" else letters.lower()):
            raise UserError("not base36")
        number = int(letters, 36)
        return number.to_bytes((number.bit_length() + 7) // 8, "big")
    raise UserError("unknown multibase")
