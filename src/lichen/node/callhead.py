"""The head of an invocation: what the payer added, and the request that is left for the function.

A gateway of ours writes its fields last and in one order, which one look takes apart; any other
order or spelling is read field by field, to the same result.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import msgspec

from lichen.wire import HeadRewrite

if TYPE_CHECKING:
    from lichen.wire import RequestHead

SESSION: Final = b"lichen-session"
FUNCTION: Final = b"lichen-function"
RUN: Final = b"lichen-run"
CEILING: Final = b"lichen-ceiling"
NODE: Final = b"lichen-node"
TENANT_ERROR: Final = b"lichen-error"
EXACT: Final = b"lichen-exact"  # what a worker of exact functions reports of a run
PRIVATE_FIELDS: Final = (SESSION, FUNCTION, CEILING, NODE, TENANT_ERROR, b"lichen-ping")
CALL_FIELDS: Final = (SESSION, FUNCTION, CEILING, RUN)  # the order in which a gateway writes them

_LAST: Final = re.compile(
    b"\r\n%b: ([!-~]+)\r\n%b: ([!-~]+)\r\n%b: ([0-9]+)(\r\n%b: ([!-~]+)\r\n\r\n)" % CALL_FIELDS
)
_FIRST: Final = b"\r\n%b: " % SESSION
_REWRITE: Final = HeadRewrite(remove=PRIVATE_FIELDS)


class CallHead(msgspec.Struct, frozen=True, gc=False):
    """The values of the call's fields, unchecked, and the head to send to the function."""

    session: bytes
    function: bytes
    ceiling: bytes
    run: bytes
    request: bytes


def read_call(head: RequestHead) -> CallHead | None:
    """Take an invocation's head apart; None when it has no session: it is no invocation."""
    block = head.block
    if head.usual:
        at = block.find(_FIRST)
        found = _LAST.fullmatch(block, at) if at > 0 else None
        if found is not None:
            before = block[:at]
            find = before.lower().find
            if find(b"\r\nlichen-") < 0 and find(b"\r\nconnection:") < 0:
                session, function, ceiling, end, run = found.groups()
                return CallHead(session, function, ceiling, run, before + end)
    if SESSION not in head:
        return None
    session, function, ceiling, run = (head.get(name) for name in CALL_FIELDS)
    return CallHead(session, function, ceiling, run, _REWRITE(head))
