"""What can go wrong between a function and the machine that runs it."""

from __future__ import annotations

from lichen.errors import LimitError, MachineError, PeerUnavailableError, UserError


class EngineMissingError(MachineError):
    """A native engine (workerd, esbuild) is not installed and could not be."""

    code = "engine-missing"


class SandboxMissingError(MachineError):
    """This machine has no sandbox for other people's code."""

    code = "sandbox-missing"


class NoRoomError(PeerUnavailableError):
    """All tenants are busy: this node takes no further one now."""

    code = "no-room"


class BundleError(UserError):
    """The code does not compile. `file`, `line` (from 1) and `column` (from 1) say where."""

    code = "bundle-failed"

    def __init__(self, text: str, *, file: str, line: int, column: int, hint: str = "") -> None:
        place = f"{file}:{line}:{column}: " if file else ""
        super().__init__(f"{place}{text}", hint=hint or "correct the source and run it again")
        self.text, self.file, self.line, self.column = text, file, line, column


class BundleTooLargeError(LimitError):
    """The bundle exceeds `bundle_bytes_max`."""

    code = "bundle-too-large"


class DependenciesError(UserError):
    """The project's npm packages could not be installed."""

    code = "dependencies-failed"


class LoadError(UserError):
    """A bundle cannot be evaluated: it throws, never ends, or is too large. The text is its own."""

    code = "load-failed"
