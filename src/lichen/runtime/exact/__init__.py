"""Exact execution: JavaScript whose result and fuel are the same bit for bit on every machine.

QuickJS runs inside wasmtime. A bundle is evaluated once and its memory is kept (`snapshot`); every
run starts from a fresh copy of that memory (`run`), so it is a pure function of snapshot, input,
seed and time. What could differ between machines is called `indeterminate`, and is no result.
"""

from lichen.runtime.exact.engine import Engine
from lichen.runtime.exact.outcome import Kind, Outcome
from lichen.runtime.exact.profile import Limits, Profile
from lichen.runtime.exact.run import run
from lichen.runtime.exact.snapshot import LoadError, Snapshot, take

__all__ = ["Engine", "Kind", "Limits", "LoadError", "Outcome", "Profile", "Snapshot", "run", "take"]
