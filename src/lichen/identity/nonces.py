"""What was already seen: signed requests work once, in constant memory.

A shell around two dictionaries that take turns: a signature is fresh for at most twice the allowed
skew, so whatever is older than one whole turn may be forgotten. When a turn is full, further
signed requests are refused instead of forgetting one that could be replayed; so let callers spend
a nonce only after the signer proved to have an account.
"""

from __future__ import annotations

import collections

from lichen.encoding import sha256
from lichen.errors import LimitError, PeerUnavailableError
from lichen.identity.http_signature import SKEW_S_MAX, SignatureInvalidError, VerifiedSignature

NONCES_MAX = 65536
NONCES_PER_KEY_MAX = 4096  # so that one signer cannot use up what all share
_NAME_BYTES = 16


class ReplayedRequestError(SignatureInvalidError):
    """The same signed request came before."""

    code = "request-replayed"


class TooManySignedError(LimitError):
    """One key signs more requests than anybody may."""

    code = "too-many-signed"
    status = 429


class NonceCache:
    """Remembers the nonces of signatures for as long as they are fresh.

    What was signed before this cache started is refused, because an earlier process may have
    served it. `nonces_max` bounds each of the two turns.
    """

    def __init__(
        self, *, started_ms: int, skew_s_max: int = SKEW_S_MAX, nonces_max: int = NONCES_MAX
    ) -> None:
        self._started_s = started_ms // 1000
        self._turn_s = 2 * skew_s_max + 1
        self._nonces_max = nonces_max
        self._turn_began_s = self._started_s
        self._current: set[bytes] = set()
        self._previous: set[bytes] = set()
        self._by_key: collections.Counter[bytes] = collections.Counter()

    def use(self, signature: VerifiedSignature, *, now_ms: int) -> None:
        """Spend the signature's nonce; raise ReplayedRequestError when it was spent already.

        Raises PeerUnavailableError when too many were spent lately.
        """
        self._turn(now_ms // 1000)
        if signature.created_s < self._started_s:
            raise ReplayedRequestError(
                "the request was signed before this server started",
                hint="sign it again; if that does not help, the clocks differ: set them by NTP",
            )
        name = sha256(signature.key.encode() + signature.nonce.encode())[:_NAME_BYTES]
        if name in self._current or name in self._previous:
            raise ReplayedRequestError(
                "this signed request was already served", hint="sign each request with a new nonce"
            )
        key = signature.key.encode()
        if self._by_key[key] >= NONCES_PER_KEY_MAX:
            raise TooManySignedError(
                f"over {NONCES_PER_KEY_MAX} requests signed by one key within {self._turn_s} s",
                hint="wait two minutes and try again",
            )
        if len(self._current) >= self._nonces_max:
            raise PeerUnavailableError(
                f"over {self._nonces_max} signed requests within {self._turn_s} s",
                hint="wait two minutes and try again",
            )
        self._by_key[key] += 1
        self._current.add(name)

    def _turn(self, now_s: int) -> None:
        turns = (now_s - self._turn_began_s) // self._turn_s
        if turns <= 0:
            return
        self._previous = self._current if turns == 1 else set()
        self._current = set()
        self._by_key.clear()
        self._turn_began_s += turns * self._turn_s
