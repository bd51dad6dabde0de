"""Threads whose stack is larger than what WebAssembly may use of it.

wasmtime counts the stack that WebAssembly uses; the thread has to own more than that bound, or an
overflow hits the end of the real stack and kills the process instead of ending the run.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

STACK_BYTES: Final = 64 * 2**20

_large = threading.local()
_making = threading.Lock()  # threading.stack_size is one setting for the whole process
_T = TypeVar("_T")


def on_large_stack(work: Callable[[], _T]) -> _T:
    """Call `work` in a thread with STACK_BYTES of stack, and return or raise what it does."""
    results: list[_T] = []
    errors: list[BaseException] = []

    def body() -> None:
        _large.yes = True
        try:
            results.append(work())
        except BaseException as error:  # noqa: BLE001  # raised again below
            errors.append(error)

    with _making:
        before = threading.stack_size(STACK_BYTES)
        try:
            thread = threading.Thread(target=body, name="exact", daemon=True)
            thread.start()
        finally:
            threading.stack_size(before)
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


def require_large_stack() -> None:
    """Raise RuntimeError in a thread that `on_large_stack` did not make."""
    if not getattr(_large, "yes", False):
        raise RuntimeError("exact code runs only in a thread made by stack.on_large_stack")
