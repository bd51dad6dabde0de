"""What can go wrong with a function, as its caller sees it."""

from __future__ import annotations

from lichen.errors import LimitError, NotFoundError, PeerError, PeerUnavailableError


class FunctionFailedError(PeerError):
    """The function threw; its owner's log has the stack."""

    code = "function-failed"
    status = 500


class FunctionCrashedError(PeerError):
    """The function's process ended while it answered: over a limit, or by itself."""

    code = "function-crashed"
    status = 502


class FunctionRestingError(PeerUnavailableError):
    """The function's process was ended several times lately; it is not started again yet."""

    code = "function-resting"


class FunctionTimeoutError(LimitError):
    """The function did not answer within its `timeout_ms`."""

    code = "function-timeout"
    status = 504


class UnknownFunctionError(NotFoundError):
    """No such function of a release is on the ledger as this node has it."""

    code = "unknown-function"


class BusyNodeError(PeerUnavailableError):
    """The node cannot take more work now."""

    code = "node-busy"


class UnofferedRuntimeError(PeerUnavailableError):
    """This node has no runtime of the function's kind."""

    code = "runtime-not-offered"


class FunctionOutOfFuelError(LimitError):
    """An exact function used all the fuel that its `timeout_ms` allows."""

    code = "function-out-of-fuel"
    status = 500


class FunctionOutOfMemoryError(LimitError):
    """An exact function used all the memory that its `memory_mb` allows."""

    code = "function-out-of-memory"
    status = 500


class FunctionIndeterminateError(PeerUnavailableError):
    """An exact function's run has no result that other nodes could agree with."""

    code = "function-indeterminate"
