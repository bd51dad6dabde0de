"""One gateway over HTTP: requests, bounded repeats, signatures, and problems turned into errors."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import quote

import httpx

from lichen.encoding import from_json
from lichen.errors import LichenError, LimitError, PeerError, PeerUnavailableError, UserError
from lichen.gateway.api import views
from lichen.identity.http_signature import RequestHead, sign_request

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from lichen.identity import PrivateKey
    from lichen.sdk.upload import Spool

T = TypeVar("T")
Progress = Callable[[int, int], None]

ATTEMPTS_MAX = 3
PAUSE_S = 0.2
JSON_BYTES_MAX = 16 * 2**20
LINE_BYTES_MAX = 64 * 1024
SILENCE_S_MAX = 60.0  # streams carry a sign of life every 15 s
STORED_S_MAX = 300.0  # from an upload's last byte until all of it is on disk
NONCE_BYTES = 16
DOWNLOAD_PART_BYTES = 256 * 1024
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


def quote_path(text: str) -> str:
    """Escape user text for one or more path segments."""
    return quote(text, safe="/:@!$&'()*+,;=-._~")


class Download:
    """A body that is read as it comes."""

    def __init__(self, parts: Iterator[bytes]) -> None:
        self._parts = parts
        self._left = b""

    def read(self, size: int, /) -> bytes:
        """Return at most `size` bytes; none only at the end."""
        while not self._left:
            part = next(self._parts, None)
            if part is None:
                return b""
            self._left = part
        part, self._left = self._left[:size], self._left[size:]
        return part


class Connection:
    """A pool of connections to a gateway; `base` is its URL without a final slash."""

    def __init__(
        self,
        gateway_url: str,
        key: PrivateKey | None,
        timeout_s: float,
        transport: httpx.BaseTransport | None,
    ) -> None:
        self.base = gateway_url.rstrip("/")
        if not self.base.startswith(("http://", "https://")):
            raise UserError(
                f"{gateway_url!r} is not the URL of a gateway",
                hint="it looks like http://127.0.0.1:8080",
            )
        self._key = key
        self._client = httpx.Client(timeout=timeout_s, transport=transport, trust_env=False)

    def close(self) -> None:
        """Close all connections."""
        self._client.close()

    def get(self, path: str, kind: type[T], **query: str) -> T:
        """Fetch JSON; empty parameters are left out."""
        return _decode(self.get_bytes(path, JSON_BYTES_MAX, **query), kind)

    def get_bytes(self, path: str, bytes_max: int, **query: str) -> bytes:
        """Fetch a body of at most `bytes_max`; raise the error that a problem stands for."""
        url = httpx.URL(self.base + path, params={k: v for k, v in query.items() if v})
        answer = self.exchange("GET", str(url), bytes_max=bytes_max)
        return _successful(answer).content

    def post(self, path: str, body: bytes, media_type: str, kind: type[T]) -> T:
        """Post bytes that may come twice without harm, such as signed transactions."""

        def send() -> httpx.Response:
            request = self._client.build_request(
                "POST", self.base + path, content=body, headers={"content-type": media_type}
            )
            return self._send(request, JSON_BYTES_MAX)

        return _decode(_successful(_repeated(send)).content, kind)

    def post_file(
        self,
        path: str,
        spool: Spool,
        media_type: str,
        kind: type[T],
        progress: Progress | None = None,
    ) -> T:
        """Post a spooled body, signed. Content is named by its hash: a repeat does no harm."""

        def send() -> httpx.Response:
            request = self._client.build_request(
                "POST",
                self.base + path,
                content=spool.read(progress),
                headers={"content-type": media_type, "content-length": str(spool.size)},
                timeout=httpx.Timeout(self._client.timeout.connect, read=STORED_S_MAX),
            )
            self._sign(request, spool.sha256)
            return self._send(request, JSON_BYTES_MAX)

        return _decode(_successful(_repeated(send)).content, kind)

    def put(self, path: str, body: bytes, media_type: str) -> None:
        """Put bytes, which may come twice without harm."""

        def send() -> httpx.Response:
            request = self._client.build_request(
                "PUT", self.base + path, content=body, headers={"content-type": media_type}
            )
            return self._send(request, JSON_BYTES_MAX)

        _successful(_repeated(send))

    def signed(self, method: str, path: str, kind: type[T]) -> T:
        """Do something without a body, signed. A DELETE is sent once: it works once."""

        def send() -> httpx.Response:
            request = self._client.build_request(
                method,
                self.base + path,
                timeout=httpx.Timeout(self._client.timeout.connect, read=STORED_S_MAX),
            )
            self._sign(request, None)
            return self._send(request, JSON_BYTES_MAX)

        answer = send() if method == "DELETE" else _repeated(send)
        return _decode(_successful(answer).content, kind)

    def exchange(
        self,
        method: str,
        url: str,
        *,
        content: bytes = b"",
        headers: Mapping[str, str] | None = None,
        bytes_max: int,
    ) -> httpx.Response:
        """Send a request and read its answer whole; only safe methods are repeated."""

        def send() -> httpx.Response:
            request = self._client.build_request(
                method, url, content=content or None, headers=dict(headers or {})
            )
            return self._send(request, bytes_max)

        return _repeated(send) if method in SAFE_METHODS else send()

    def logs(self, path: str, query: Mapping[str, str]) -> Iterator[views.LogLine]:
        """Stream the lines of a signed GET; raise PeerUnavailableError when the stream breaks."""
        request = self._client.build_request(
            "GET",
            httpx.URL(self.base + path, params=dict(query)),
            timeout=httpx.Timeout(self._client.timeout.connect, read=SILENCE_S_MAX),
        )
        self._sign(request, None)
        for line in self._stream(request):
            yield _decode(line, views.LogLine)

    def events(self, path: str) -> Iterator[views.Event]:
        """Stream server-sent events; heartbeats are left out."""
        request = self._client.build_request(
            "GET", self.base + path, timeout=httpx.Timeout(30.0, read=SILENCE_S_MAX)
        )
        for line in self._stream(request):
            if line.startswith(b"data:"):
                yield _decode(line[len(b"data:") :], views.Event)

    @contextlib.contextmanager
    def download(self, path: str, media_type: str) -> Iterator[Download]:
        """Open a body of any length, to be read as it comes; raise what a problem stands for."""
        request = self._client.build_request(
            "GET", self.base + path, headers={"accept": media_type, "accept-encoding": "identity"}
        )
        with self._opened(request) as response:
            yield Download(response.iter_raw(DOWNLOAD_PART_BYTES))

    def _stream(self, request: httpx.Request) -> Iterator[bytes]:
        with self._opened(request) as response:
            yield from _split_lines(response.iter_raw())

    @contextlib.contextmanager
    def _opened(self, request: httpx.Request) -> Iterator[httpx.Response]:
        with _translated(self.base):
            response = self._client.send(request, stream=True)
        try:
            if response.status_code != httpx.codes.OK:
                response = _read(response, JSON_BYTES_MAX)
                raise _error_of(response)
            with _translated(self.base):
                yield response
        finally:
            response.close()

    def _send(self, request: httpx.Request, bytes_max: int) -> httpx.Response:
        with _translated(self.base, maybe_done=request.method not in SAFE_METHODS):
            return _read(self._client.send(request, stream=True), bytes_max)

    def _sign(self, request: httpx.Request, body_sha256: bytes | None) -> None:
        if self._key is None:
            return
        head = RequestHead(
            method=request.method,
            scheme=request.url.scheme,
            authority=request.headers["host"],
            path=request.url.raw_path.split(b"?", 1)[0].decode("ascii"),
            query=request.url.query.decode("ascii"),
        )
        request.headers.update(
            sign_request(
                self._key,
                head,
                created_s=int(time.time()),
                nonce=secrets.token_hex(NONCE_BYTES),
                body_sha256=body_sha256,
            )
        )


@contextlib.contextmanager
def _translated(base: str, *, maybe_done: bool = False) -> Iterator[None]:
    """Turn httpx's failures into errors of ours."""
    try:
        yield
    except (httpx.ConnectError, httpx.ConnectTimeout) as error:
        raise PeerUnavailableError(
            f"no gateway answers at {base}",
            hint="start a network on this machine with `lichen up`, or name another gateway",
        ) from error
    except (httpx.HTTPError, httpx.StreamError) as error:
        hint = "run `lichen doctor`, then try again"
        if maybe_done:
            hint = "it may have had its effect: look before you repeat it"
        raise PeerUnavailableError(
            f"the gateway at {base} broke off: {error or type(error).__name__}", hint=hint
        ) from error
    except httpx.InvalidURL as error:
        raise UserError(f"not a URL: {error}", hint="check the target") from error


def _repeated(send: Callable[[], httpx.Response]) -> httpx.Response:
    """Try ATTEMPTS_MAX times while the gateway is unavailable, with growing pauses."""
    for attempt in range(1, ATTEMPTS_MAX):
        try:
            response = send()
        except PeerUnavailableError as error:
            if isinstance(error.__cause__, httpx.ConnectError):
                raise  # nobody listens: waiting a moment does not help, saying so does
        else:
            if response.status_code != httpx.codes.SERVICE_UNAVAILABLE:
                return response
        time.sleep(PAUSE_S * attempt)
    return send()


def _read(response: httpx.Response, bytes_max: int) -> httpx.Response:
    """Read a streamed response whole, within its bound."""
    parts, size = [], 0
    try:
        for part in response.iter_bytes():
            size += len(part)
            if size > bytes_max:
                raise LimitError(
                    f"the answer is over {bytes_max} bytes", hint="fetch it with another tool"
                )
            parts.append(part)
    finally:
        response.close()
    whole = httpx.Response(response.status_code, headers=response.headers, request=response.request)
    whole._content = b"".join(parts)  # noqa: SLF001 - decoded already; the constructor would decode again
    return whole


def _decode(data: bytes, kind: type[T]) -> T:
    try:
        return from_json(data, kind)
    except UserError as error:
        raise PeerError(
            f"the gateway's answer is not understood: {error.what}",
            hint="is it a Lichen gateway, and of this version?",
        ) from error


def _error_of(response: httpx.Response) -> LichenError:
    from lichen.sdk.problems import error_of  # knows every room's errors: slow to import

    return error_of(response.status_code, response.content)


def _successful(response: httpx.Response) -> httpx.Response:
    if response.is_success:
        return response
    raise _error_of(response)


def _split_lines(parts: Iterator[bytes]) -> Iterator[bytes]:
    rest = b""
    for part in parts:
        *lines, rest = (rest + part).split(b"\n")
        yield from (line for line in lines if line.strip())
        if len(rest) > LINE_BYTES_MAX:
            raise PeerError(f"the gateway sent a line of over {LINE_BYTES_MAX} bytes")
