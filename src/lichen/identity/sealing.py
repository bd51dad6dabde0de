"""A secret under a password: Argon2id (RFC 9106) makes the key, XChaCha20-Poly1305 seals.

Pure: salt and nonce come in. Parameters are stored with what they sealed and are bounded when they
are read, so that a crafted file cannot eat the memory of whoever opens it.
"""

from __future__ import annotations

import unicodedata
from typing import Literal

import msgspec
import nacl.bindings
import nacl.exceptions
from argon2.low_level import Type, hash_secret_raw

from lichen.errors import LimitError, UserError

SALT_BYTES = 16
NONCE_BYTES = nacl.bindings.crypto_aead_xchacha20poly1305_ietf_NPUBBYTES
KEY_BYTES = nacl.bindings.crypto_aead_xchacha20poly1305_ietf_KEYBYTES
MEMORY_KIB_MAX = 256 * 1024
PASSES_MAX = 16
LANES_MAX = 8
PASSWORD_CHARS_MIN = 8
PASSWORD_BYTES_MAX = 1024


class WrongPasswordError(UserError):
    """The password does not open this."""

    code = "wrong-password"
    status = 403


class Cost(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one guess costs: the defaults are the second recommendation of RFC 9106, section 4."""

    memory_kib: int = 64 * 1024
    passes: int = 3
    lanes: int = 4

    def check(self) -> None:
        """Raise LimitError when this is outside of what is ever written here."""
        if not (
            8 * self.lanes <= self.memory_kib <= MEMORY_KIB_MAX
            and 1 <= self.passes <= PASSES_MAX
            and 1 <= self.lanes <= LANES_MAX
        ):
            raise LimitError(
                f"refused to open: it asks for {self.memory_kib} KiB, {self.passes} passes and "
                f"{self.lanes} lanes of Argon2id",
                hint=f"the bounds are {MEMORY_KIB_MAX} KiB, {PASSES_MAX} passes, {LANES_MAX} lanes",
            )


class Sealed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A sealed secret with all that its password opens it by; bytes are base64 in JSON."""

    cost: Cost
    salt: bytes
    nonce: bytes
    ciphertext: bytes
    kdf: Literal["argon2id"] = "argon2id"
    cipher: Literal["xchacha20-poly1305"] = "xchacha20-poly1305"


def check_new_password(password: str) -> None:
    """Raise UserError when a password is too short to be chosen, or too long to be used."""
    if len(password) < PASSWORD_CHARS_MIN:
        raise UserError(
            f"a password of {len(password)} characters is too short",
            hint=f"choose at least {PASSWORD_CHARS_MIN}; several words are easy to remember",
        )
    _password_bytes(password)


def seal(
    secret: bytes, password: str, *, salt: bytes, nonce: bytes, associated: bytes, cost: Cost
) -> Sealed:
    """Encrypt `secret`; `associated` is authenticated with it, but stored elsewhere."""
    key = _derive(password, salt, cost)
    ciphertext = nacl.bindings.crypto_aead_xchacha20poly1305_ietf_encrypt(
        secret, associated, nonce, key
    )
    return Sealed(cost, salt, nonce, ciphertext)


def unseal(sealed: Sealed, password: str, *, associated: bytes) -> bytes:
    """Decrypt; raise WrongPasswordError when password or associated data are not the sealed ones.

    Raises LimitError for parameters out of bounds, before any memory is taken.
    """
    sealed.cost.check()
    if len(sealed.salt) != SALT_BYTES or len(sealed.nonce) != NONCE_BYTES:
        raise UserError("the sealed secret has a salt or nonce of a wrong length")
    key = _derive(password, sealed.salt, sealed.cost)
    try:
        secret = nacl.bindings.crypto_aead_xchacha20poly1305_ietf_decrypt(
            sealed.ciphertext, associated, sealed.nonce, key
        )
    except nacl.exceptions.CryptoError as error:
        raise WrongPasswordError(
            "the password is wrong", hint="try again; a lost password cannot be recovered"
        ) from error
    return bytes(secret)


def _derive(password: str, salt: bytes, cost: Cost) -> bytes:
    return hash_secret_raw(
        _password_bytes(password),
        salt,
        time_cost=cost.passes,
        memory_cost=cost.memory_kib,
        parallelism=cost.lanes,
        hash_len=KEY_BYTES,
        type=Type.ID,
    )


def _password_bytes(password: str) -> bytes:
    """Spell the same password the same way whatever keyboard it came from (NFKC)."""
    spelled = unicodedata.normalize("NFKC", password).encode()
    if len(spelled) > PASSWORD_BYTES_MAX:
        raise LimitError(f"a password of over {PASSWORD_BYTES_MAX} bytes is not accepted")
    return spelled
