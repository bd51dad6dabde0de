"""RFC 9421: the RFC's own vectors, round trips, and everything that must be refused."""

import base64
import hashlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lichen.errors import PeerUnavailableError, UserError
from lichen.identity import KeyKind, PrivateKey, PublicKey
from lichen.identity import http_signature as hs
from lichen.identity.nonces import NonceCache, ReplayedRequestError
from lichen.identity.structured_fields import InnerList, parse_byte_sequences, parse_lists

NOW_S = 1_700_000_000
NOW_MS = NOW_S * 1000
NONCE = "0123456789abcdef"
BODY = b'{"hello": "world"}'
KINDS = list(KeyKind)
# RFC 9421, B.2: the test request.
RFC_REQUEST = hs.RequestHead(
    "POST",
    "https",
    "example.com",
    "/foo",
    "param=Value&Pet=dog",
    (
        ("Host", "example.com"),
        ("Date", "Tue, 20 Apr 2021 02:07:55 GMT"),
        ("Content-Type", "application/json"),
        ("Content-Length", "18"),
    ),
)


def b64url(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def key_of(kind=KeyKind.ED25519, number=7):
    return PrivateKey(kind, number.to_bytes(32, "big"))


def request(**changes):
    head = hs.RequestHead(
        "POST", "http", "localhost:8080", "/api/v1/content", "a=1", (("Host", "localhost:8080"),)
    )
    return msgspec.structs.replace(head, **changes)


def with_headers(head, headers):
    return msgspec.structs.replace(head, headers=(*head.headers, *headers.items()))


def signed(head=None, key=None, body=BODY, **options):
    head = head or request()
    options = {"created_s": NOW_S, "nonce": NONCE} | options
    digest = hs.body_digest(body)
    return with_headers(head, hs.sign_request(key or key_of(), head, body_sha256=digest, **options))


def resigned(head, covered, key):
    """Sign exactly these components and parameters, as a sloppy or hostile client may."""
    parameters = covered.serialise()
    base = hs.signature_base([(n, head.component(n)) for n in covered.items], parameters)
    signature = base64.b64encode(key.sign_message(base)).decode()
    return with_headers(
        head, {"signature-input": f"x={parameters}", "signature": f"x=:{signature}:"}
    )


def parameters_of(key, **changes):
    values = {
        "created": NOW_S,
        "expires": NOW_S + 60,
        "nonce": NONCE,
        "keyid": key.public.to_wire(),
        "alg": hs.ALGORITHMS[key.kind],
    } | changes
    return tuple((name, value) for name, value in values.items() if value is not None)


def test_ed25519_reproduces_rfc_9421_b26():
    key = PrivateKey(KeyKind.ED25519, b64url("n4Ni-HpISpVObnQMW0wOhCKROaIKqKtW_2ZYb2p9KcU"))
    assert key.public.compressed == b64url("JrQLj5P_89iXES9-vFgrIy29clF9CC_oPPsw3c5D0bs")
    field = (
        'sig-b26=("date" "@method" "@path" "@authority" "content-type" "content-length")'
        ';created=1618884473;keyid="test-key-ed25519"'
    )
    covered = parse_lists(field)["sig-b26"]
    assert "sig-b26=" + covered.serialise() == field
    base = hs.signature_base(
        [(name, RFC_REQUEST.component(name)) for name in covered.items], covered.serialise()
    )
    assert base64.b64encode(key.sign_message(base)).decode() == (
        "wqcAqbmYJ2ji2glfAMaRy4gruYYnx2nEFN2HN6jrnDnQCK1u02Gb04v9EDgwUPiu4A0w6vuQv5lIp5WPpBKRCw=="
    )


def test_p256_verifies_rfc_9421_b24():
    x = b64url("qIVYZVLCrPZHGHjP17CTW0_-D9Lfw0EkjqF7xB4FivA")
    y = b64url("Mc4nN9LTDOBhfoUeg8Ye9WedFRhnZXZJA12Qp0zZ6F0")
    key = PublicKey(KeyKind.P256, bytes([2 + (y[-1] & 1)]) + x)
    covered = parse_lists(
        'sig-b24=("@status" "content-type" "content-digest" "content-length")'
        ';created=1618884473;keyid="test-key-ecc-p256"'
    )["sig-b24"]
    values = {
        "@status": "200",
        "content-type": "application/json",
        "content-digest": "sha-512=:mEWXIS7MaLRuGgxOBdODa3xqM1XdEvxoYhvlCFJ41QJgJc4GTsPp29l5oGX69wWd"
        "XymyU0rjJuahq4l5aGgfLQ==:",
        "content-length": "23",
    }
    base = hs.signature_base([(n, values[n]) for n in covered.items], covered.serialise())
    signature = base64.b64decode(
        "wNmSUAhwb5LxtOtOpNa6W5xj067m5hFrj0XQ4fvpaCLx0NKocgPquLgyahnzDnDAUy5eCdlYUEkLIj+32oiasw=="
    )
    assert key.verify_message(base, signature)
    assert not key.verify_message(base + b" ", signature)


@pytest.mark.parametrize(
    ("component", "value"),
    [
        ("@method", "POST"),
        ("@target-uri", "https://example.com/foo?param=Value&Pet=dog"),
        ("@authority", "example.com"),
        ("@path", "/foo"),
        ("@query", "?param=Value&Pet=dog"),
        ("content-type", "application/json"),
    ],
)
def test_components_have_the_values_of_rfc_9421_section_2_2(component, value):
    assert RFC_REQUEST.component(component) == value


def test_authority_is_lower_case_without_its_default_port_and_empty_parts_are_spelled_out():
    head = hs.RequestHead("GET", "https", "Example.COM:443", "")
    values = [head.component(n) for n in ("@authority", "@path", "@query", "@target-uri")]
    assert values == ["example.com", "/", "?", "https://example.com/"]
    assert hs.RequestHead("GET", "http", "a:443", "/").component("@authority") == "a:443"


def test_repeated_header_fields_are_joined_in_order():
    head = request(headers=(("X", " a "), ("y", "1"), ("x", "b")))
    assert head.component("x") == "a, b"


@pytest.mark.parametrize("kind", KINDS)
@given(
    body=st.binary(max_size=64),
    path=st.from_regex(r"/[a-z0-9%/]{0,20}", fullmatch=True),
    query=st.from_regex(r"[a-z=&]{0,20}", fullmatch=True),
)
def test_what_is_signed_verifies(kind, body, path, query):
    head = signed(request(path=path, query=query), key_of(kind), body)
    verified = hs.verify_request(head, now_ms=NOW_MS)
    assert verified.key == key_of(kind).public
    assert (verified.nonce, verified.created_s) == (NONCE, NOW_S)
    assert verified.content_sha256 == (hashlib.sha256(body).digest() if body else None)


@pytest.mark.parametrize(
    "changes",
    [
        {"method": "PUT"},
        {"authority": "localhost:8081"},
        {"path": "/api/v1/content/"},
        {"query": "a=2"},
    ],
)
def test_a_changed_request_is_refused(changes):
    with pytest.raises(hs.SignatureInvalidError, match="does not hold"):
        hs.verify_request(msgspec.structs.replace(signed(), **changes), now_ms=NOW_MS)


def test_lichen_headers_are_covered_and_cannot_be_added_later():
    head = signed(with_headers(request(), {"Lichen-Ceiling": "5"}))
    hs.verify_request(head, now_ms=NOW_MS)
    with pytest.raises(hs.SignatureInvalidError, match="does not cover lichen-x"):
        hs.verify_request(with_headers(head, {"lichen-x": "1"}), now_ms=NOW_MS)
    dearer = tuple((n, "6" if n == "Lichen-Ceiling" else v) for n, v in head.headers)
    with pytest.raises(hs.SignatureInvalidError, match="does not hold"):
        hs.verify_request(msgspec.structs.replace(head, headers=dearer), now_ms=NOW_MS)


def test_another_body_is_refused():
    verified = hs.verify_request(signed(), now_ms=NOW_MS)
    verified.check_body(hashlib.sha256(BODY).digest())
    with pytest.raises(hs.SignatureInvalidError, match="body"):
        verified.check_body(hashlib.sha256(b"other").digest())


def test_a_body_under_a_signature_without_digest_is_refused():
    bare = signed(body=b"")
    with pytest.raises(hs.SignatureInvalidError, match="body"):
        hs.verify_request(bare, now_ms=NOW_MS).check_body(hashlib.sha256(BODY).digest())
    for name, value in (("content-length", "18"), ("transfer-encoding", "chunked")):
        with pytest.raises(hs.SignatureInvalidError, match="content-digest"):
            hs.verify_request(with_headers(bare, {name: value}), now_ms=NOW_MS)


def test_an_unsigned_request_is_401_and_says_how_to_sign():
    with pytest.raises(hs.SignatureMissingError) as caught:
        hs.verify_request(request(), now_ms=NOW_MS)
    assert caught.value.status == 401
    assert "RFC 9421" in caught.value.hint


@pytest.mark.parametrize("skew_s", [-61, 61, 100_000])
def test_different_clocks_are_named_with_the_difference(skew_s):
    with pytest.raises(hs.ClockSkewError, match=rf"{abs(skew_s)} s (behind|ahead)") as caught:
        hs.verify_request(signed(lifetime_s=300), now_ms=NOW_MS + skew_s * 1000)
    assert "clocks differ" in caught.value.hint


@pytest.mark.parametrize("skew_s", [-60, 0, 59])
def test_small_differences_of_clocks_are_tolerated(skew_s):
    hs.verify_request(signed(), now_ms=NOW_MS + skew_s * 1000)


def test_an_expired_signature_is_refused():
    with pytest.raises(hs.ClockSkewError, match="expired 2 s ago"):
        hs.verify_request(signed(lifetime_s=5), now_ms=NOW_MS + 7000)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"created": None}, "created"),
        ({"expires": None}, "expires"),
        ({"created": str(NOW_S)}, "created"),
        ({"expires": NOW_S}, "lives"),
        ({"expires": NOW_S + 301}, "lives"),
        ({"nonce": None}, "nonce"),
        ({"nonce": "short"}, "nonce"),
        ({"nonce": "n" * 65}, "nonce"),
        ({"nonce": 5}, "nonce"),
        ({"keyid": "key-1"}, "keyid"),
        ({"keyid": None}, "keyid"),
        ({"keyid": 7}, "keyid"),
        ({"alg": "hmac-sha256"}, "alg"),
        ({"alg": "ecdsa-p256-sha256"}, "alg"),
    ],
)
def test_parameters_have_to_be_complete_and_right(changes, says):
    key, head = key_of(), request()
    covered = InnerList(("@method", "@authority", "@path", "@query"), parameters_of(key, **changes))
    with pytest.raises(hs.SignatureInvalidError, match=says):
        hs.verify_request(resigned(head, covered, key), now_ms=NOW_MS)


@pytest.mark.parametrize("missing", ["@method", "@authority", "@path", "@query"])
def test_method_and_target_have_to_be_covered(missing):
    key = key_of()
    names = tuple(n for n in ("@method", "@authority", "@path", "@query") if n != missing)
    head = resigned(request(), InnerList(names, parameters_of(key)), key)
    with pytest.raises(hs.SignatureInvalidError, match=missing):
        hs.verify_request(head, now_ms=NOW_MS)


def test_the_target_uri_covers_the_whole_target():
    key = key_of()
    head = resigned(request(), InnerList(("@method", "@target-uri"), parameters_of(key)), key)
    assert hs.verify_request(head, now_ms=NOW_MS).key == key.public


@pytest.mark.parametrize("component", ["@status", "@query-param", "x-absent"])
def test_components_that_a_request_lacks_are_refused(component):
    key = key_of()
    covered = InnerList(("@method", "@target-uri", component), parameters_of(key))
    head = with_headers(
        request(),
        {"signature-input": f"x={covered.serialise()}", "signature": "x=:AAAA:"},
    )
    with pytest.raises(hs.SignatureInvalidError, match=component):
        hs.verify_request(head, now_ms=NOW_MS)


def test_a_line_break_cannot_smuggle_a_component_in():
    with pytest.raises(hs.SignatureInvalidError, match="line break"):
        hs.signature_base([("x", 'a\n"@method": GET')], "()")


@pytest.mark.parametrize(
    "digest",
    ["sha-512=:AA==:", "sha-256=:AAAA:", "sha-256=AAAA", "sha-256=:" + "A" * 43 + "=:, a=:AA==:"],
)
def test_only_one_whole_sha256_digest_is_accepted(digest):
    key = key_of()
    head = with_headers(request(), {"content-digest": digest})
    covered = InnerList(("@method", "@target-uri", "content-digest"), parameters_of(key))
    with pytest.raises(hs.SignatureInvalidError, match="content-digest"):
        hs.verify_request(resigned(head, covered, key), now_ms=NOW_MS)


@pytest.mark.parametrize(
    "field",
    [
        "",
        "x",
        "x=",
        'x=("a"',
        'x=("a""b")',
        'x=("a"  "b")',
        'x=( "a")',
        "x=(a)",
        'x=("a";sf)',
        'x=("a";key="b")',
        'x=("a");b',
        'x=("a");b=?1',
        'x=("a"); b=1',
        'x=("a");b=01',
        'x=("a");b=1.5',
        'x=("a" "a")',
        'x=("a");b=1;b=2',
        'X=("a")',
        'x=("a"),y=("b")',
        'x=("a"), x=("b")',
        'x=("a"), ',
        'x=("a"), y=("a"), z=("a"), v=("a"), w=("a")',
        'x=("é")',
        'x=("\t")',
        "x=(" + " ".join(f'"{i}"' for i in range(33)) + ")",
        'x=("' + "a" * 4096 + '")',
    ],
)
def test_signature_input_outside_of_the_strict_subset_is_refused(field):
    with pytest.raises(UserError):
        parse_lists(field)


@pytest.mark.parametrize(
    "field", ["", "x=::x", "x=:A:", "x=:AA==", "x=:AA==:;a=1", "x=:A A=:", "x=AA"]
)
def test_signatures_outside_of_the_strict_subset_are_refused(field):
    with pytest.raises(UserError):
        parse_byte_sequences(field)


printable = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20)
names = st.from_regex(r"[a-z*][a-z0-9_.*-]{0,10}", fullmatch=True)


@given(
    items=st.lists(printable, max_size=8, unique=True),
    parameters=st.dictionaries(
        names, printable | st.integers(-(10**15) + 1, 10**15 - 1), max_size=6
    ),
)
def test_structured_fields_round_trip_exactly(items, parameters):
    covered = InnerList(tuple(items), tuple(parameters.items()))
    assert parse_lists(f"x={covered.serialise()}") == {"x": covered}


@given(st.text(max_size=80))
def test_whatever_parses_serialises_to_the_same_text(field):
    try:
        members = parse_lists(field)
    except UserError:
        return
    assert ", ".join(f"{k}={v.serialise()}" for k, v in members.items()) == field


def test_two_signatures_are_refused():
    head = signed(body=b"")
    twice = tuple(
        (n, f"{v}, {v.replace('lichen=', 'b=')}" if n.startswith("signature") else v)
        for n, v in head.headers
    )
    with pytest.raises(hs.SignatureInvalidError, match="exactly one"):
        hs.verify_request(msgspec.structs.replace(head, headers=twice), now_ms=NOW_MS)


@given(st.text(max_size=60), st.text(max_size=60))
def test_garbage_in_the_signature_headers_is_a_typed_error(field, signature):
    head = with_headers(request(), {"signature-input": field, "signature": signature})
    with pytest.raises(hs.SignatureInvalidError):
        hs.verify_request(head, now_ms=NOW_MS)


def test_a_head_is_read_from_the_bytes_of_a_server():
    head = hs.request_head("GET", "http", b"/a%20b?x", b"x", [(b"host", b"h:1"), (b"X-Y", b"\xe9")])
    assert (head.path, head.query, head.authority) == ("/a%20b", "x", "h:1")
    assert head.header("x-y") == "é"
    for hosts in ([], [(b"host", b"a"), (b"Host", b"b")]):
        with pytest.raises(hs.SignatureInvalidError, match="host"):
            hs.request_head("GET", "http", b"/", b"", hosts)


def verified(nonce=NONCE, created_s=NOW_S, key=None):
    return hs.VerifiedSignature((key or key_of()).public, nonce, created_s, None)


def test_a_nonce_works_once_per_key():
    cache = NonceCache(started_ms=NOW_MS)
    cache.use(verified(), now_ms=NOW_MS)
    with pytest.raises(ReplayedRequestError, match="already served"):
        cache.use(verified(), now_ms=NOW_MS + 119_000)
    cache.use(verified(key=key_of(number=8)), now_ms=NOW_MS)


@given(st.integers(0, 1000), st.integers(0, 60), st.integers(-60, 60), st.integers(1, 500))
def test_no_fresh_signature_is_ever_forgotten(offset_s, later_s, skew_s, first_nonces):
    cache = NonceCache(started_ms=0)
    seen_s = NOW_S + offset_s
    signature = verified(created_s=seen_s + skew_s)
    cache.use(signature, now_ms=seen_s * 1000)
    replay_s = signature.created_s + later_s
    if replay_s >= seen_s:
        with pytest.raises(ReplayedRequestError):
            cache.use(signature, now_ms=replay_s * 1000)


def test_a_restart_opens_no_gap_for_replays():
    cache = NonceCache(started_ms=NOW_MS)
    with pytest.raises(ReplayedRequestError, match="before this server started"):
        cache.use(verified(created_s=NOW_S - 1), now_ms=NOW_MS)


def test_a_full_cache_refuses_instead_of_forgetting_and_recovers_with_time():
    cache = NonceCache(started_ms=NOW_MS, nonces_max=10)
    for number in range(10):
        cache.use(verified(f"{number:016d}"), now_ms=NOW_MS)
    with pytest.raises(PeerUnavailableError, match="over 10"):
        cache.use(verified("x" * 16), now_ms=NOW_MS)
    later_s = NOW_S + 300
    cache.use(verified("x" * 16, later_s), now_ms=later_s * 1000)


@pytest.mark.parametrize(
    ("authority", "host"),
    [
        ("a.example", "a.example"),
        ("A.example:80", "a.example"),
        ("[::1]:8080", "[::1]"),
        ("1.2.3.4:5", "1.2.3.4"),
    ],
)
def test_a_request_for_another_server_is_refused(authority, host):
    head = signed(request(authority=authority))
    hs.verify_request(head, now_ms=NOW_MS, hosts={host})
    with pytest.raises(hs.SignatureInvalidError, match="not a name of this server") as caught:
        hs.verify_request(head, now_ms=NOW_MS, hosts={"b.example"})
    assert "config.toml" in caught.value.hint
