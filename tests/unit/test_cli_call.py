"""What `lichen call` makes of its flags, and of text that comes from outside."""

from __future__ import annotations

import pytest

from lichen.cli import call, console
from lichen.cli.options import UsageError
from lichen.errors import PeerError, PeerUnavailableError, UserError
from lichen.sdk.client import CallResult


def answer(status: int, body: bytes = b"", kind: str = "text/plain") -> CallResult:
    return CallResult(status, (("content-type", kind),), body, "run-1", "0xnode")


def test_headers_are_read_as_curl_takes_them():
    assert call._parse_headers(["Accept: text/html", "X-A:b:c"]) == {
        "accept": "text/html",
        "x-a": "b:c",
    }
    with pytest.raises(UsageError):
        call._parse_headers(["no colon"])


def test_data_comes_from_the_flag_or_a_file(tmp_path):
    (tmp_path / "body").write_bytes(b"\x00\xff")
    assert call._read_data("text") == b"text"
    assert call._read_data(f"@{tmp_path / 'body'}") == b"\x00\xff"
    assert call._read_data(None) == b""


@pytest.mark.parametrize(("status", "kind"), [(404, UserError), (502, PeerError)])
def test_a_bad_answer_of_a_function_is_an_error_of_its_class(status, kind):
    call._require_success("app/", answer(200))
    with pytest.raises(kind) as caught:
        call._require_success("app/", answer(status))
    assert caught.value.hint


def test_a_problem_of_the_network_is_told_in_its_own_words():
    body = (
        b'{"type":"x","title":"t","status":503,"detail":"no suitable node: 2 busy","hint":"wait"}'
    )
    with pytest.raises(PeerUnavailableError, match="no suitable node: 2 busy") as caught:
        call._require_success("app/", answer(503, body, "application/problem+json"))
    assert caught.value.exit_code == 3


def test_control_letters_never_reach_the_terminal():
    assert console.clean("a\x1b[2Jb\nc\u202ed\te") == "a\ufffd[2Jb\ufffdc\ufffdd\te"
    assert len(console.clean("x" * 10_000)) == 4096
