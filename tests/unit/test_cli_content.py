"""`lichen storage` and `lichen name`: what is refused before anything is read or sent."""

import pytest

from lichen.cli import console, storage
from lichen.cli.main import main
from lichen.errors import NotFoundError, PeerError, PeerUnavailableError
from lichen.sdk.problems import error_of


@pytest.mark.parametrize("arguments", [["--hiden", "folder"], ["--hiden"], ["folder", "--hiden"]])
def test_a_mistyped_option_is_never_taken_for_a_path(arguments, capsys):
    assert main(["storage", "add", *arguments]) == 2
    told = capsys.readouterr().err
    assert "--hiden" in told
    assert "nknown option" in told


@pytest.mark.parametrize("option", ["--lifetime", "--ttl"])
def test_a_name_is_published_only_with_durations_that_can_be_read(option, tmp_path, capsys):
    file = tmp_path / "file"
    file.write_bytes(b"x")
    assert main(["name", "publish", str(file), option, "soon"]) == 1
    told = capsys.readouterr().err
    assert "'soon' is not a duration" in told
    assert "store" not in told


def test_what_breaks_an_upload_off_says_how_to_go_on(capsys):
    with pytest.raises(PeerUnavailableError), storage._resumable():
        raise PeerUnavailableError("gone")
    with pytest.raises(KeyboardInterrupt), storage._resumable():
        raise KeyboardInterrupt
    assert capsys.readouterr().err.count("the same command sends the rest") == 2


def test_a_gateways_full_disk_is_not_taken_for_this_machines():
    full = b'{"type":"urn:lichen:problem:machine","title":"","status":500,"detail":"no room"}'
    error = error_of(500, full)
    assert (type(error), error.what) == (PeerError, "at the gateway: no room")


def test_what_a_gateway_does_not_have_is_not_found_whatever_it_calls_that():
    body = b'{"type":"urn:lichen:problem:no-dnslink","title":"","status":404,"detail":"none"}'
    assert isinstance(error_of(404, body), NotFoundError)


def test_a_table_of_any_length_shows_every_cell_aligned_and_harmless(capsys):
    rows = [(f"日本-{number}\x1b[2J", number) for number in range(console.FRAMED_ROWS_MAX + 1)]
    console.table(("name", ">bytes"), rows)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["name", "bytes"]
    assert [line.split() for line in lines[1:]] == [
        [f"日本-{number}�[2J", str(number)] for number, _ in enumerate(rows)
    ]
    assert len({len(line) for line in lines[1:]}) == 1
