"""What comes out of an exact run."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from lichen.encoding import sha256


class Kind(StrEnum):
    """How a run ended. All but the last are agreed results; `indeterminate` is the lack of one."""

    OK = "ok"
    EXCEPTION = "exception"
    OUT_OF_FUEL = "out_of_fuel"
    OUT_OF_MEMORY = "out_of_memory"
    INDETERMINATE = "indeterminate"


class Outcome(msgspec.Struct, frozen=True):
    """One run's result: `output` and `fuel` are agreed, `logs` are for the function's owner.

    `output` is the packed response (see envelope.py) when `kind` is `ok`, a UTF-8 message when it
    is `exception`, else empty. `fuel` counts instructions, and prices of host functions.
    """

    kind: Kind
    output: bytes
    fuel: int
    logs: bytes = b""

    @property
    def output_hash(self) -> bytes:
        """What nodes compare: SHA-256 over kind and output."""
        return sha256(self.kind.encode() + b"\0" + self.output)
