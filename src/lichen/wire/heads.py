"""Request and response heads: one strict grammar, checked by one regular expression each.

A head is taken whole (up to its empty line) and matched against RFC 9112 in its strict reading:
CRLF only, no folded lines, no space before the colon, no control characters, one Host, one
Content-Length of digits, never Content-Length together with Transfer-Encoding, and no transfer
coding but `chunked`. What two parsers could read differently is refused, so nothing can be smuggled
past one of them.
"""

from __future__ import annotations

import re
import string
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from lichen.wire.errors import HeadTooLargeError, MalformedError

if TYPE_CHECKING:
    from collections.abc import Iterable

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
_SINGLE: Final = frozenset(
    {b"host", b"content-length", b"transfer-encoding", b"expect", b"upgrade"}
)
_DIGITS_MAX: Final = 18

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]"
_FIELDS = rb"(?:" + _TOKEN + rb"++:[\t\x20-\x7e\x80-\xff]*+\r\n)*+\r\n"
_REQUEST = re.compile(
    rb"([A-Z][A-Z\-]{0,23}+) ([\x21\x22\x24-\x7e]++) HTTP/1\.([01])\r\n" + _FIELDS
)
_RESPONSE = re.compile(
    rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: [\t\x20-\x7e\x80-\xff]*+)?\r\n" + _FIELDS
)
_HOPS = rb"|".join(sorted(HOP_BY_HOP))
_VALUE = rb"[\t\x20-\x7e\x80-\xff]*+\r\n"
# A field that decides neither framing nor hops, most often one that begins like none of those; and
# the two usual heads made of them, which need no further look: a request without body whose first
# field is Host, a response with Content-Length.
_INITIALS = {name[:1].decode() for name in (b"host", b"content-length", *HOP_BY_HOP)}
_OTHERS = "".join(sorted(set(string.ascii_lowercase) - _INITIALS))
_OTHER = rb"[!#$%&'*+\-.^_`|~0-9" + (_OTHERS + _OTHERS.upper()).encode() + rb"]" + _TOKEN + rb"*+"
_ANY_BUT = rb"(?!(?i:host|content-length|" + _HOPS + rb"):)" + _TOKEN + rb"++"
_PLAIN = rb"(?:" + _OTHER + rb"|" + _ANY_BUT + rb"):" + _VALUE
_USUAL_REQUEST = re.compile(
    rb"(?!CONNECT )([A-Z][A-Z\-]{0,23}+)"
    rb" ((/[\x21\x22\x24-\x3e\x40-\x7e]*+)(?:\?[\x21\x22\x24-\x7e]*+)?)"
    rb" HTTP/1\.1()\r\n(?i:host):[ \t]*+([A-Za-z0-9.\-_]++(?::[0-9]{0,5})?)\r\n"
    rb"(?:" + _PLAIN + rb"|(?i:connection:[ \t]*+keep-alive)\r\n)*+\r\n"
)
_USUAL_RESPONSE = re.compile(
    rb"HTTP/1\.1 (20[0-35-9]|30[0-35-9]|[45][0-9][0-9])(?: [\t\x20-\x7e\x80-\xff]*+)?\r\n()"
    rb"(?:" + _PLAIN + rb")*+(?i:content-length):[ \t]*+([0-9]{1,18})\r\n"
    rb"(?:" + _PLAIN + rb")*+\r\n"
)
_PAIR = re.compile(rb"([^:\r\n]+):[ \t]*([^\r\n]*)\r\n")
_ABSOLUTE = re.compile(rb"(?i:https?)://([^/?@]++)((?:[/?].*)?)")
_AUTHORITY = re.compile(rb"(?:[A-Za-z0-9.\-_]++|\[[0-9A-Fa-f:.]{2,45}\]):[0-9]{1,5}")
_HOST = re.compile(rb"[A-Za-z0-9.\-_]*+(?::[0-9]{0,5})?|\[[0-9A-Fa-f:.]{2,45}\](?::[0-9]{0,5})?")


class _Head:
    """What both kinds of head share: fields that are split only when somebody looks at them."""

    block: bytes
    fields_at: int
    _fields: Fields | None = None
    _index: dict[bytes, bytes]

    @property
    def headers(self) -> Fields:
        """All fields in order, as (lower-case name, value)."""
        return self._fields if self._fields is not None else self._split()

    @property
    def names(self) -> dict[bytes, bytes]:
        """All fields by lower-case name; repeated ones are joined as RFC 9110, 5.3 says."""
        if self._fields is None:
            self._split()
        return self._index

    def get(self, name: bytes, default: bytes = b"") -> bytes:
        """Return a field's value by lower-case name; repeated fields are joined by a comma."""
        if self._fields is None:
            if name not in self.block.lower():
                return default
            self._split()
        return self._index.get(name, default)

    def __contains__(self, name: bytes) -> bool:
        # Exact on a checked head: a value holds no line end, and no space precedes a colon.
        lowered = self.block.lower()
        return name in lowered and b"\r\n%b:" % name in lowered

    def forget_fields(self) -> None:
        """Have the fields read anew: the block is another one."""
        self._fields = None

    def _split(self) -> Fields:
        block = self.block
        fields = [(name.lower(), value) for name, value in _PAIR.findall(block, self.fields_at)]
        if b" \r\n" in block or b"\t\r\n" in block:
            fields = [(name, value.rstrip(b" \t")) for name, value in fields]
        index = dict(fields)
        if len(index) != len(fields):
            index = _combine(fields)
        self._index = index
        self._fields = fields
        return fields


class RequestHead(_Head):
    """The head of one request, checked and ready to route.

    `target` is as sent, `path` the target without query, still percent-encoded; `host` is
    lower-case and may carry a port; `headers` are (lower-case name, value) in order. `is_proxied`
    tells that the client takes this server for its proxy: it named the host in the target, which
    then decides, and the head reads as if it had come in the usual form (RFC 9112, 3.2.2). CONNECT
    has its host and port as target, and an empty path.
    `content_length` is `CHUNKED` for a chunked body and 0 for none; `upgrade` is b"websocket" or
    empty: no other protocol is switched to. `client` is the peer's (host, port), None on a unix
    socket. `block` is the head as received, up to and with its empty line.
    """

    method: bytes
    target: bytes
    path: bytes
    host: bytes
    client: Address
    # The values of a usual head; another one sets its own.
    keep_alive: bool = True
    content_length: int = 0
    upgrade: bytes = b""
    expects_continue: bool = False
    minor: int = 1
    usual: bool = False
    kept_by: HeadRewrite | None = None  # what found nothing to take out of it: heads come again
    is_proxied: bool = False

    @property
    def has_body(self) -> bool:
        """Whether the request carries a body of at least one byte, or a chunked one."""
        return self.content_length != 0

    @property
    def idempotent(self) -> bool:
        """Whether repeating the request has the effect of sending it once (RFC 9110, 9.2.2)."""
        return self.method in IDEMPOTENT

    @property
    def query(self) -> bytes:
        """The part of the target after the first question mark."""
        return self.target.partition(b"?")[2]


class ResponseHead(_Head):
    """The head of one upstream response.

    `length` is the body's bytes, `CHUNKED`, or `UNTIL_CLOSE`. An observer may `remove` fields
    before the head is passed on. `plain` tells that it holds no hop-by-hop fields.
    """

    status: int
    length: int
    keep_alive: bool = True
    minor: int = 1
    plain: bool = True
    removed: frozenset[bytes] = frozenset()

    def remove(self, *names: bytes) -> None:
        """Keep these fields (lower-case names) from being passed on."""
        self.removed = self.removed.union(names)


def usual_request(data: bytes, client: Address, headers_max: int) -> RequestHead | None:
    """Read data that is exactly one usual request head, in one step; None for anything else.

    Usual is: HTTP/1.1, a path as target, Host first, no body, and no hop-by-hop field but
    `Connection: keep-alive`. Whatever this accepts, `parse_request` reads alike.
    """
    match = _USUAL_REQUEST.fullmatch(data)
    if match is None or data.count(b"\n") > headers_max + 2:
        return None
    head = RequestHead()
    head.method, head.target, head.path, _, host = match.groups()
    head.host = host.lower()
    head.block = data
    head.fields_at = match.end(4) + 2
    head.client = client
    head.usual = True
    return head


def usual_response(data: bytes) -> tuple[bytes, int, int, int] | None:
    """Read the usual head that data begins with: (status, length, end, where fields begin).

    Usual is: HTTP/1.1 with one Content-Length, no hop-by-hop field, and a status that has a body.
    """
    match = _USUAL_RESPONSE.match(data)
    if match is None:
        return None
    status, _, length = match.groups()
    return status, int(length), match.end(), match.end(2)


def parse_request(block: bytes, client: Address = None, *, headers_max: int = 128) -> RequestHead:
    """Check a whole head, empty line included; raise MalformedError or HeadTooLargeError."""
    match = _REQUEST.fullmatch(block)
    if match is None:
        raise MalformedError(
            "the request head is not valid HTTP/1.1",
            hint="send CRLF line ends, no folded lines and no space before a colon",
        )
    if block.count(b"\n") > headers_max + 2:
        raise HeadTooLargeError("too many header fields", hint=f"send at most {headers_max}")
    head = RequestHead()
    head.block = block
    head.client = client
    head.method, head.target, minor = match.groups()
    head.minor = 1 if minor == b"1" else 0
    head.fields_at = match.end(3) + 2
    _place(head)
    _frame_request(head)
    return head


def parse_response(block: bytes, method: bytes) -> ResponseHead:
    """Check a whole response head; `method` is the request's. Raise MalformedError."""
    match = _RESPONSE.fullmatch(block)
    if match is None:
        raise MalformedError("the upstream's response head is not valid HTTP/1.1")
    head = ResponseHead()
    head.block = block
    minor, status = match.groups()
    head.status = int(status)
    head.fields_at = block.find(b"\r\n") + 2
    head.minor = 1 if minor == b"1" else 0
    index = head.names
    head.plain = HOP_BY_HOP.isdisjoint(index)
    head.keep_alive = head.minor == 1 and b"close" not in index.get(b"connection", b"").lower()
    head.length = _response_length(head, index, method)
    return head


_NOTHING: Final[frozenset[bytes]] = frozenset()
_HOST_ONLY: Final = frozenset({b"host"})


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
    host = head.names.get(b"host")
    if host is None:
        if head.minor:
            raise MalformedError("the Host field is missing", hint="HTTP/1.1 wants exactly one")
        host = b""
    path = target
    if target[0] != 0x2F or head.method == b"CONNECT":  # "/"
        host, path = _place_other_form(head, host)
    if not _HOST.fullmatch(host):
        raise MalformedError("the Host field is not a host", hint="send host or host:port")
    cut = path.find(b"?")
    head.path = path if cut < 0 else path[:cut]
    head.host = host.lower()


def _place_other_form(head: RequestHead, host: bytes) -> tuple[bytes, bytes]:
    if head.target == b"*" and head.method == b"OPTIONS":
        return host, head.target
    if head.method == b"CONNECT" and _AUTHORITY.fullmatch(head.target):
        head.is_proxied = True
        return head.target, b""
    absolute = _ABSOLUTE.fullmatch(head.target)
    if absolute is None or head.method == b"CONNECT":
        raise MalformedError("the request target is not a path", hint="begin it with a slash")
    host, path = absolute.groups()
    if not path.startswith(b"/"):
        path = b"/" + path
    _rewrite_target(head, host, path)
    return host, path


def _rewrite_target(head: RequestHead, host: bytes, path: bytes) -> None:
    """Make the head one in origin-form, so that whatever reads it sees the same host and path."""
    line = b"%b %b HTTP/1.%d\r\n" % (head.method, path, head.minor)
    fields = without_fields(head.block[head.fields_at :], _HOST_ONLY)
    head.block = b"%bhost: %b\r\n%b" % (line, host, fields)
    head.fields_at = len(line)
    head.target = path
    head.is_proxied = True
    head.forget_fields()


def _frame_request(head: RequestHead) -> None:
    index = head.names
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


def without_named(block: bytes, names: frozenset[bytes]) -> bytes:
    """Cut out fields that a peer named: for names of its choice no expression is compiled."""
    lines = block.split(b"\r\n")
    return b"\r\n".join([line for line in lines if line.partition(b":")[0].lower() not in names])


def named_by_connection(value: bytes) -> frozenset[bytes]:
    """Return the fields that a Connection field declares hop-by-hop, itself not among them."""
    tokens = (token.strip() for token in value.lower().split(b","))
    return frozenset(token for token in tokens if _NAME.fullmatch(token)) - _KEPT


_NAME = re.compile(_TOKEN + rb"+")
# Fields an attacker must not be able to have removed by naming them in Connection.
_KEPT: Final = frozenset({b"host", b"content-length", b"close", b"keep-alive", b"authorization"})


class HeadRewrite:
    """Writes request heads for the next hop; made once, called per request.

    `set_names` (lower-case) are fields to set, their values given at each call in the same order; a
    client's own of these names are dropped, and so are those in `remove` and all hop-by-hop fields.
    The framing is normalised. Values must hold no line ends.
    """

    __slots__ = ("_drop", "_marks", "_tail")

    def __init__(self, *, set_names: tuple[bytes, ...] = (), remove: Iterable[bytes] = ()) -> None:
        self._drop = HOP_BY_HOP.union(set_names, remove)
        names = b"|".join(re.escape(name) for name in sorted(self._drop))
        self._marks = re.compile(rb"\r\n(?:" + names + rb"):")
        self._tail = b"".join(b"%b: %%b\r\n" % name.replace(b"%", b"%%") for name in set_names)

    def __call__(self, head: RequestHead, *values: bytes, target: bytes | None = None) -> bytes:
        """Return the whole head to send."""
        return self.write(head, self._tail % values if values else b"", target)

    def write(self, head: RequestHead, tail: bytes, target: bytes | None = None) -> bytes:
        """Return the whole head to send, `tail` being the lines of the fields to set."""
        block = head.block
        if head.kept_by is self and target is None:
            return b"%b%b\r\n" % (block[:-2], tail)
        lowered = block.lower()
        mark = self._marks.search(lowered, head.fields_at - 2)
        if mark is None and head.usual and target is None:
            head.kept_by = self
            return b"%b%b\r\n" % (block[:-2], tail)
        fields = block[head.fields_at : -2] if mark is None else self._prune(head, lowered, mark)
        if not head.minor and b"host" not in self._drop and b"host" not in head:
            fields += b"host:\r\n"  # HTTP/1.0 may leave it out, HTTP/1.1 must not
        if head.content_length == CHUNKED:
            tail += b"transfer-encoding: chunked\r\n"
        if head.upgrade:
            tail += b"connection: upgrade\r\nupgrade: websocket\r\n"
        return b"%b %b HTTP/1.1\r\n%b%b\r\n" % (head.method, target or head.target, fields, tail)

    def _prune(self, head: RequestHead, lowered: bytes, mark: re.Match[bytes] | None) -> bytes:
        """Cut the dropped fields out, by their places in the lower-case head."""
        block = head.block
        pieces = []
        named: frozenset[bytes] = _NOTHING
        start = head.fields_at - 2
        while mark is not None:
            pieces.append(block[start : mark.start()])
            start = lowered.find(b"\r\n", mark.end())
            if mark.group() == b"\r\nconnection:":
                value = lowered[mark.end() : start]
                named |= _NOTHING if value == b" keep-alive" else named_by_connection(value)
            mark = self._marks.search(lowered, start)
        pieces.append(block[start:-2])
        fields = b"".join(pieces)[2:]
        return without_named(fields, named) if named else fields


@lru_cache(maxsize=256)
def _rewrite(set_names: tuple[bytes, ...], remove: frozenset[bytes]) -> HeadRewrite:
    return HeadRewrite(set_names=set_names, remove=remove)


def forward_head(
    head: RequestHead,
    *,
    add: tuple[tuple[bytes, bytes], ...] = (),
    remove: frozenset[bytes] = _NOTHING,
    target: bytes | None = None,
) -> bytes:
    """Write the head for the next hop as `HeadRewrite` does, in one call."""
    rewrite = _rewrite(tuple([name for name, _ in add]), remove)
    return rewrite(head, *[value for _, value in add], target=target)
