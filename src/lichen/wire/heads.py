"""Request and response heads: one strict grammar, checked by one regular expression each.

A head is taken whole (up to its empty line) and matched against RFC 9112 in its strict reading:
CRLF only, no folded lines, no space before the colon, no control characters, one Host, one
Content-Length of digits, never Content-Length together with Transfer-Encoding, and no transfer
coding but `chunked`. What two parsers could read differently is refused, so nothing can be smuggled
past one of them.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from lichen.wire.errors import HeadTooLargeError, MalformedError, NotImplementedMethodError

Address = tuple[str, int] | None
Fields = list[tuple[bytes, bytes]]

CHUNKED: Final = -1
UNTIL_CLOSE: Final = -2
IDEMPOTENT: Final = frozenset({b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE", b"TRACE"})
HOP_BY_HOP: Final = frozenset(
    {
        b"connection",
        b"expect",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
_FRAMING: Final = HOP_BY_HOP | {b"content-length"}
_SINGLE: Final = frozenset(
    {b"host", b"content-length", b"transfer-encoding", b"expect", b"upgrade"}
)
_DIGITS_MAX: Final = 18

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]"
_FIELDS = rb"((?:" + _TOKEN + rb"++:[\t\x20-\x7e\x80-\xff]*+\r\n)*+)\r\n"
_REQUEST = re.compile(
    rb"([A-Z][A-Z\-]{0,23}+) ([\x21\x22\x24-\x7e]++) HTTP/1\.([01])\r\n" + _FIELDS
)
_RESPONSE = re.compile(
    rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: [\t\x20-\x7e\x80-\xff]*+)?\r\n" + _FIELDS
)
_PAIR = re.compile(rb"([^:\r\n]+):[ \t]*([^\r\n]*)\r\n")
_ABSOLUTE = re.compile(rb"(?i:https?)://([^/?@]*)(.*)")
_HOST = re.compile(rb"[A-Za-z0-9.\-_]*+(?::[0-9]{0,5})?|\[[0-9A-Fa-f:.]{2,45}\](?::[0-9]{0,5})?")


class RequestHead:
    """The head of one request, checked and ready to route.

    `target` is as sent; `path` is the target without query, still percent-encoded; `host` is
    lower-case and may carry a port; `headers` are (lower-case name, value) in order.
    `content_length` is `CHUNKED` for a chunked body and 0 for none; `upgrade` is b"websocket" or
    empty: no other protocol is switched to. `client` is the peer's (host, port), None on a unix
    socket. `block` is the head as received, up to and with its empty line.
    """

    __slots__ = (
        "_index",
        "block",
        "client",
        "content_length",
        "expects_continue",
        "fields_at",
        "headers",
        "host",
        "keep_alive",
        "method",
        "minor",
        "path",
        "target",
        "upgrade",
    )

    method: bytes
    target: bytes
    path: bytes
    host: bytes
    headers: Fields
    keep_alive: bool
    content_length: int
    upgrade: bytes
    expects_continue: bool
    client: Address
    block: bytes
    minor: int
    fields_at: int
    _index: dict[bytes, bytes]

    @property
    def has_body(self) -> bool:
        """Whether the request carries a body of at least one byte, or a chunked one."""
        return self.content_length != 0

    @property
    def idempotent(self) -> bool:
        """Whether repeating the request has the effect of sending it once (RFC 9110, 9.2.2)."""
        return self.method in IDEMPOTENT

    @property
    def names(self) -> dict[bytes, bytes]:
        """All fields by lower-case name, as `get` reads them."""
        return self._index

    @property
    def query(self) -> bytes:
        """The part of the target after the first question mark."""
        return self.target.partition(b"?")[2]

    def get(self, name: bytes, default: bytes = b"") -> bytes:
        """Return a field's value by lower-case name; repeated fields are joined by a comma."""
        return self._index.get(name, default)

    def __contains__(self, name: bytes) -> bool:
        return name in self._index


class ResponseHead:
    """The head of one upstream response.

    `length` is the body's bytes, `CHUNKED`, or `UNTIL_CLOSE`. An observer may `remove` fields
    before the head is passed on.
    """

    __slots__ = ("_index", "block", "headers", "keep_alive", "length", "minor", "removed", "status")

    status: int
    headers: Fields
    keep_alive: bool
    length: int
    block: bytes
    minor: int
    removed: frozenset[bytes]
    _index: dict[bytes, bytes]

    def get(self, name: bytes, default: bytes = b"") -> bytes:
        """Return a field's value by lower-case name; repeated fields are joined by a comma."""
        return self._index.get(name, default)

    def remove(self, *names: bytes) -> None:
        """Keep these fields (lower-case names) from being passed on."""
        self.removed = self.removed.union(names)


def parse_request(block: bytes, client: Address = None, *, headers_max: int = 128) -> RequestHead:
    """Check a whole head, empty line included; raise MalformedError or HeadTooLargeError."""
    match = _REQUEST.fullmatch(block)
    if match is None:
        raise MalformedError(
            "the request head is not valid HTTP/1.1",
            hint="send CRLF line ends, no folded lines and no space before a colon",
        )
    head = RequestHead()
    head.block = block
    head.client = client
    method, target, minor, _ = match.groups()
    head.method = method
    head.target = target
    head.minor = 1 if minor == b"1" else 0
    head.fields_at = match.start(4)
    head.headers, head._index = _parse_fields(block, head.fields_at, headers_max)  # noqa: SLF001 (own type)
    _place(head)
    if _FRAMING.isdisjoint(head._index):  # noqa: SLF001 (own type)
        head.keep_alive = head.minor == 1
        head.content_length = 0
        head.upgrade = b""
        head.expects_continue = False
    else:
        _frame_request(head)
    return head


def parse_response(block: bytes, method: bytes, *, headers_max: int = 256) -> ResponseHead:
    """Check a whole response head; `method` is the request's. Raise MalformedError."""
    match = _RESPONSE.fullmatch(block)
    if match is None:
        raise MalformedError("the upstream's response head is not valid HTTP/1.1")
    head = ResponseHead()
    head.block = block
    head.removed = _NOTHING
    minor, status, _ = match.groups()
    head.status = int(status)
    head.minor = 1 if minor == b"1" else 0
    head.headers, index = _parse_fields(block, match.start(3), headers_max)
    head._index = index  # noqa: SLF001 (own type)
    head.keep_alive = head.minor == 1 and b"close" not in index.get(b"connection", b"").lower()
    head.length = _response_length(head, index, method)
    return head


_NOTHING: Final[frozenset[bytes]] = frozenset()


def _parse_fields(block: bytes, start: int, headers_max: int) -> tuple[Fields, dict[bytes, bytes]]:
    fields = [(name.lower(), value) for name, value in _PAIR.findall(block, start)]
    if b" \r\n" in block or b"\t\r\n" in block:
        fields = [(name, value.rstrip(b" \t")) for name, value in fields]
    if len(fields) > headers_max:
        raise HeadTooLargeError(
            f"{len(fields)} header fields are too many", hint=f"send at most {headers_max}"
        )
    index = dict(fields)
    if len(index) != len(fields):
        index = _combine(fields)
    return fields, index


def _combine(fields: Fields) -> dict[bytes, bytes]:
    index: dict[bytes, bytes] = {}
    for name, value in fields:
        if name not in index:
            index[name] = value
        elif name in _SINGLE:
            raise MalformedError(f"{name.decode()} is given twice", hint="send it once")
        else:
            index[name] += (b"; " if name == b"cookie" else b", ") + value
    return index


def _place(head: RequestHead) -> None:
    """Find out host and path from the target and the Host field (RFC 9112, 3.2)."""
    target = head.target
    host = head._index.get(b"host")  # noqa: SLF001 (own type)
    if host is None:
        if head.minor:
            raise MalformedError("the Host field is missing", hint="HTTP/1.1 wants exactly one")
        host = b""
    path = target
    if target[0] != 0x2F:  # "/"
        host, path = _place_other_form(head, host)
    if not _HOST.fullmatch(host):
        raise MalformedError("the Host field is not a host", hint="send host or host:port")
    cut = path.find(b"?")
    head.path = path if cut < 0 else path[:cut]
    head.host = host.lower()


def _place_other_form(head: RequestHead, host: bytes) -> tuple[bytes, bytes]:
    if head.target == b"*" and head.method == b"OPTIONS":
        return host, head.target
    absolute = _ABSOLUTE.fullmatch(head.target)
    if absolute is None:
        if head.method == b"CONNECT":
            raise NotImplementedMethodError("CONNECT is not offered", hint="this is no open proxy")
        raise MalformedError("the request target is not a path", hint="begin it with a slash")
    host, path = absolute.groups()
    if not path.startswith(b"/"):
        path = b"/" + path
    head.target = path
    return host, path


def _frame_request(head: RequestHead) -> None:
    index = head._index  # noqa: SLF001 (own type)
    tokens = {token.strip() for token in index.get(b"connection", b"").lower().split(b",")}
    head.keep_alive = head.minor == 1 and b"close" not in tokens
    head.content_length = _body_length(index, 0)
    if head.content_length == CHUNKED and not head.minor:
        raise MalformedError("HTTP/1.0 has no chunked bodies", hint="send a Content-Length")
    switches = b"upgrade" in tokens and index.get(b"upgrade", b"").lower() == b"websocket"
    head.upgrade = b"websocket" if switches and head.method == b"GET" and head.minor else b""
    if head.upgrade and head.content_length:
        raise MalformedError("an upgrade carries no body", hint="send the body after the switch")
    head.expects_continue = head.minor == 1 and index.get(b"expect", b"").lower() == b"100-continue"


def _body_length(index: dict[bytes, bytes], default: int) -> int:
    coding = index.get(b"transfer-encoding")
    length = index.get(b"content-length")
    if coding is not None:
        if length is not None:
            raise MalformedError(
                "Content-Length and Transfer-Encoding exclude each other", hint="send one of them"
            )
        if coding.lower() != b"chunked":
            raise MalformedError(
                "the transfer coding is not chunked", hint="only chunked is spoken"
            )
        return CHUNKED
    if length is None:
        return default
    if not length.isdigit() or len(length) > _DIGITS_MAX:
        raise MalformedError("the Content-Length is not a length", hint="send decimal digits")
    return int(length)


def _response_length(head: ResponseHead, index: dict[bytes, bytes], method: bytes) -> int:
    length = _body_length(index, UNTIL_CLOSE)
    status = head.status
    if status < 200 or status in {204, 304} or method == b"HEAD":
        return 0
    if length == CHUNKED and not head.minor:
        raise MalformedError("the upstream sent a chunked HTTP/1.0 response")
    return length


@lru_cache(maxsize=256)
def _cutter(names: frozenset[bytes]) -> re.Pattern[bytes]:
    choice = b"|".join(re.escape(name) for name in sorted(names))
    return re.compile(rb"(?mi)^(?:" + choice + rb"):[^\r\n]*\r\n")


def without_fields(block: bytes, names: frozenset[bytes]) -> bytes:
    """Cut the named fields (lower-case) out of a checked head."""
    return _cutter(names).sub(b"", block)


def named_by_connection(value: bytes) -> frozenset[bytes]:
    """Return the fields that a Connection field declares hop-by-hop, itself not among them."""
    tokens = (token.strip() for token in value.lower().split(b","))
    return frozenset(token for token in tokens if _NAME.fullmatch(token)) - _KEPT


_NAME = re.compile(_TOKEN + rb"+")
# Fields an attacker must not be able to have removed by naming them in Connection.
_KEPT: Final = frozenset({b"host", b"content-length", b"close", b"keep-alive", b"authorization"})


def forward_head(
    head: RequestHead,
    *,
    add: tuple[tuple[bytes, bytes], ...] = (),
    remove: frozenset[bytes] = _NOTHING,
    target: bytes | None = None,
) -> bytes:
    """Write the head for the next hop: hop-by-hop fields dropped, framing normalised.

    `remove` names fields (lower-case) to drop; a field in `add` replaces the client's of that name.
    `target` replaces the request target. Values of `add` must hold no line ends.
    """
    index = head._index  # noqa: SLF001 (own type)
    drop = remove.union([name for name, _ in add]) if add else remove
    if not HOP_BY_HOP.isdisjoint(index):
        drop |= HOP_BY_HOP | named_by_connection(index.get(b"connection", b""))
    block = head.block
    fields = block[head.fields_at : -2]
    if not drop.isdisjoint(index):
        fields = without_fields(fields, drop)
    if (
        block[len(head.method) + 1] != 0x2F and b"host" not in drop
    ):  # absolute-form decides the host
        fields = b"host: %b\r\n%b" % (head.host, without_fields(fields, frozenset({b"host"})))
    parts = [head.method, b" ", target or head.target, b" HTTP/1.1\r\n", fields]
    parts += [b"%b: %b\r\n" % pair for pair in add]
    if head.content_length == CHUNKED:
        parts.append(b"transfer-encoding: chunked\r\n")
    if head.upgrade:
        parts.append(b"connection: upgrade\r\nupgrade: websocket\r\n")
    parts.append(b"\r\n")
    return b"".join(parts)
