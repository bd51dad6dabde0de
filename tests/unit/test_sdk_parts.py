"""The client library's pure parts: targets, problems, spools, bounds."""

import hashlib

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lichen.encoding import to_json
from lichen.errors import (
    CorruptionError,
    LichenError,
    LimitError,
    MachineError,
    NotAllowedError,
    NotFoundError,
    PeerError,
    PeerUnavailableError,
    UserError,
)
from lichen.gateway.api import views
from lichen.identity import KeyKind, PrivateKey
from lichen.identity.http_signature import ClockSkewError
from lichen.ledger.errors import BadNonceError
from lichen.sdk import connection
from lichen.sdk.client import Client
from lichen.sdk.problems import error_of
from lichen.sdk.target import locate
from lichen.sdk.upload import Spool
from lichen.wire.errors import BodyTooLargeError
from lichen.wire.problem import problem_of

BASE = "http://127.0.0.1:8080"
KEY = PrivateKey(KeyKind.ED25519, b"\x01" * 32)


@pytest.mark.parametrize(
    ("target", "url", "host"),
    [
        ("hello", f"{BASE}/app/hello/", None),
        ("hello/", f"{BASE}/app/hello/", None),
        ("hello/api/x?a=1", f"{BASE}/app/hello/api/x?a=1", None),
        ("hello?a=1", f"{BASE}/app/hello/?a=1", None),
        ("/ipfs/bafy", f"{BASE}/ipfs/bafy", None),
        ("https://example.com/x", "https://example.com/x", None),
        (
            "http://hello.app.localhost:8080/a?b",
            "http://127.0.0.1:8080/a?b",
            "hello.app.localhost:8080",
        ),
        ("http://hello.app.localhost/", "http://127.0.0.1/", "hello.app.localhost"),
    ],
)
def test_targets_are_apps_paths_or_urls(target, url, host):
    found, headers = locate(BASE, target)
    assert found == url
    assert headers.get("host") == host


@pytest.mark.parametrize("target", ["", "/", "//"])
def test_an_empty_target_says_what_to_write(target):
    with pytest.raises(UserError, match="nothing to call") as caught:
        locate(BASE, target)
    assert "hello" in caught.value.hint


@pytest.mark.parametrize(
    "error",
    [
        BadNonceError("n", hint="h"),
        ClockSkewError("c", hint="h"),
        NotFoundError("f", hint="h"),
        BodyTooLargeError("b", hint="h"),
        PeerUnavailableError("p", hint="h"),
    ],
)
def test_a_problem_is_raised_as_the_error_that_it_was(error):
    found = error_of(error.status, to_json(problem_of(error)))
    assert type(found) is type(error)
    assert (found.what, found.hint) == (error.what, error.hint)


def test_a_fault_of_the_gateways_machine_is_not_one_of_this_machine():
    for error in (MachineError("m"), CorruptionError("c")):
        found = error_of(500, to_json(problem_of(error)))
        assert isinstance(found, PeerError)
        assert found.exit_code == 3


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, UserError),
        (404, UserError),
        (429, PeerUnavailableError),
        (500, PeerError),
        (503, PeerUnavailableError),
    ],
)
def test_answers_that_are_no_problem_documents_go_by_their_status(status, kind):
    assert isinstance(error_of(status, b"<html>oops"), kind)


@given(st.integers(400, 599), st.binary(max_size=60))
def test_any_answer_becomes_an_error_of_ours(status, body):
    assert isinstance(error_of(status, body), LichenError)


@given(st.lists(st.binary(max_size=50), max_size=10))
def test_a_spool_gives_back_what_it_took_as_often_as_asked(parts):
    whole = b"".join(parts)
    with Spool(iter(parts)) as spool:
        assert (spool.size, spool.sha256) == (len(whole), hashlib.sha256(whole).digest())
        assert b"".join(spool.read()) == b"".join(spool.read()) == whole


def test_a_spool_tells_progress_and_keeps_its_bound():
    seen = []
    with Spool([b"x" * 600_000]) as spool:
        for _ in spool.read(lambda done, total: seen.append((done, total))):
            pass
    assert seen[-1] == (600_000, 600_000)
    assert len(seen) == 3
    with pytest.raises(LimitError, match="over 5 bytes"):
        Spool([b"123", b"456"], 5)


def test_a_client_needs_the_url_of_a_gateway():
    with pytest.raises(UserError, match="not the URL"):
        Client("localhost:8080")


def test_a_client_without_key_says_how_to_get_one():
    with Client(BASE) as client:
        for call in (
            client.account,
            lambda: client.upload_car([b""]),
            lambda: next(client.logs("a")),
        ):
            with pytest.raises(NotAllowedError) as caught:
                call()
            assert "lichen account new" in caught.value.hint


@pytest.fixture
def no_pauses(monkeypatch):
    pauses = []
    monkeypatch.setattr(connection.time, "sleep", pauses.append)
    return pauses


def scripted(*answers):
    """A transport that gives each answer once, and counts; an exception is raised."""
    waiting = list(answers)
    seen = []

    def handle(request):
        seen.append(request)
        answer = waiting.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    return Client(BASE, KEY, transport=httpx.MockTransport(handle)), seen


def nonce_answer():
    return httpx.Response(200, content=to_json(views.Nonce(5)))


def test_reads_are_repeated_while_the_gateway_is_away(no_pauses):
    client, seen = scripted(httpx.ReadError("cut"), httpx.Response(503), nonce_answer())
    assert client.nonce(KEY.address) == 5
    assert len(seen) == 3
    assert len(no_pauses) == 2


def test_repeats_are_bounded(no_pauses):
    client, seen = scripted(*[httpx.ReadTimeout("slow")] * 9)
    with pytest.raises(PeerUnavailableError, match="broke off"):
        client.nonce(KEY.address)
    assert len(seen) == connection.ATTEMPTS_MAX


def test_a_gateway_that_is_not_there_is_named_at_once_with_what_to_do(no_pauses):
    client, seen = scripted(*[httpx.ConnectError("refused")] * 9)
    with pytest.raises(PeerUnavailableError, match="no gateway answers") as caught:
        client.nonce(KEY.address)
    assert "lichen up" in caught.value.hint
    assert len(seen) == 1
    assert not no_pauses


def test_calls_of_functions_are_repeated_only_when_their_method_is_safe(no_pauses):
    client, seen = scripted(httpx.ReadError("cut"), httpx.Response(200, content=b"ok"))
    assert client.call("hello").body == b"ok"
    client, seen = scripted(httpx.ReadError("cut"))
    with pytest.raises(PeerUnavailableError) as caught:
        client.call("hello", "POST", b"x")
    assert len(seen) == 1
    assert "may have had its effect" in caught.value.hint


def test_an_answer_of_any_status_is_a_result_with_its_run():
    headers = {"Lichen-Run": "r1", "Lichen-Node": "0x1", "X-A": "b"}
    client, seen = scripted(httpx.Response(418, headers=headers, content=b"tea"))
    result = client.call("hello/x", "PUT", b"data", {"x-mine": "1"})
    assert (result.status, result.body, result.run, result.node) == (418, b"tea", "r1", "0x1")
    assert result.header("x-a") == "b"
    assert seen[0].headers["x-mine"] == "1"
    assert seen[0].read() == b"data"


def test_endless_answers_are_cut_off(monkeypatch):
    monkeypatch.setattr("lichen.sdk.client.RESPONSE_BYTES_MAX", 10)
    client, _ = scripted(httpx.Response(200, content=b"x" * 11))
    with pytest.raises(LimitError, match="over 10 bytes"):
        client.call("hello")


def test_a_genesis_of_another_network_is_not_believed():
    from lichen.ledger.types import Genesis, Params
    from lichen.units import Amount

    params = Params(Amount(1), 1, Amount(1), 1, 1, 1, KEY.address)
    network = views.Network(views.Digest(bytes(32)), Genesis("x", 0, params, ()))
    client, _ = scripted(httpx.Response(200, content=to_json(network)))
    with pytest.raises(LichenError, match="network id") as caught:
        client.genesis()
    assert "do not trust" in caught.value.hint


@pytest.mark.parametrize("content", [b"", b"{}", b"<html>", b"[]"])
def test_an_answer_that_is_not_a_gateways_is_the_peers_fault(content):
    client, _ = scripted(httpx.Response(200, content=content))
    with pytest.raises(PeerError, match="not understood") as caught:
        client.status()
    assert "Lichen gateway" in caught.value.hint
