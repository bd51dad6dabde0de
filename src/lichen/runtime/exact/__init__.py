"""Exact execution: JavaScript whose result and fuel are the same bit for bit on every machine.

QuickJS runs inside wasmtime. A bundle is evaluated once and its memory is kept (`snapshot`); every
run starts from a fresh copy of that memory (`run`), so it is a pure function of snapshot, input,
seed and time. What could differ between machines is called `indeterminate`, and is no result.

`engine`, `snapshot` and `run` are what runs; a node starts `pool`, whose processes run `worker`.
"""
