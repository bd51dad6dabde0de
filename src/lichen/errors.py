"""The one tree of expected failures.

Whose fault it is decides the type: the user's, the peer's, the ledger's verdict, or this machine's.
Every error says what happened and what to do next. The command line prints both lines and turns
the type into its exit code; the HTTP faces turn it into `application/problem+json`.
"""

from __future__ import annotations

from typing import ClassVar


class LichenError(Exception):
    """Root of every failure that Lichen expects.

    `what` is one line on what happened, `hint` one line on what to do about it. `code` is a stable
    machine-readable name (the last part of the problem `type`), `status` the HTTP status it maps
    to, `exit_code` the process exit code.
    """

    code: ClassVar[str] = "error"
    status: ClassVar[int] = 500
    exit_code: ClassVar[int] = 1

    def __init__(self, what: str, *, hint: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint


class UserError(LichenError):
    """The caller asked for something that cannot be done as asked."""

    code = "bad-request"
    status = 400


class NotFoundError(UserError):
    """The named thing does not exist."""

    code = "not-found"
    status = 404


class NotAllowedError(UserError):
    """The caller is known, or unknown, but has no right to this."""

    code = "not-allowed"
    status = 403


class LimitError(UserError):
    """A named bound was exceeded."""

    code = "limit-exceeded"
    status = 413


class PaymentRequiredError(UserError):
    """The work is not covered by a channel or voucher."""

    code = "payment-required"
    status = 402


class PeerError(LichenError):
    """Another party (node, gateway, ledger, provider) failed or misbehaved."""

    code = "peer-failed"
    status = 502
    exit_code = 3


class PeerUnavailableError(PeerError):
    """Another party cannot be reached or is overloaded; trying later may help."""

    code = "peer-unavailable"
    status = 503


class VerificationError(LichenError):
    """A signature, hash, proof or receipt does not hold."""

    code = "verification-failed"
    status = 422
    exit_code = 4


class LedgerError(LichenError):
    """The ledger's rules refused a transaction; the state is untouched."""

    code = "transaction-refused"
    status = 409


class MachineError(LichenError):
    """This machine lacks something: a port, disk space, a runtime, a right."""

    code = "machine"
    status = 500


class CorruptionError(MachineError):
    """Stored data is not what was written."""

    code = "corruption"
