"""What a CAR is asked to hold: the query and `Accept`, and where a range of bytes lies in a file."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lichen.cdn.accept import RANGES_MAX, read_accept
from lichen.cdn.formats import NotAcceptableError
from lichen.cdn.wanted import Form, read_wanted
from lichen.cdn.wanted_car import EntityBytes, OutsideError, WantedCar, read_wanted_car
from lichen.errors import UserError

CAR = "application/vnd.ipld.car"
RAW = "application/vnd.ipld.raw"


def wanted(query="", accept="*/*"):
    return read_wanted(query, {"accept": accept})


@pytest.mark.parametrize(
    ("accept", "kinds"),
    [
        ("a/b, c/d;q=0.5, e/f;q=0.9", ["a/b", "e/f", "c/d"]),
        ("*/*, a/*, A/B", ["a/b", "*/*", "a/*"]),
        ("a/b;q=0, c/d;q=0.001", ["c/d"]),
        ("a/b;q=2, c/d;q=x", ["a/b", "c/d"]),
        (", ,;q=1", []),
        ("", []),
    ],
)
def test_the_types_that_a_client_takes_come_best_first(accept, kinds):
    assert [found.kind for found in read_accept(accept)] == kinds


def test_parameters_lose_quotes_and_case_and_the_weight_is_none_of_them():
    (found,) = read_accept('A/B; Version="1" ;dups=Y; q=0.25')
    assert found.parameters == {"version": "1", "dups": "y"}
    assert found.weight == 250


def test_a_field_of_very_many_types_is_read_in_part():
    assert len(read_accept("a/b," * 10 * RANGES_MAX)) == RANGES_MAX


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        (f"text/html;q=0.4, {CAR};q=0.5", Form.CAR),
        (f"text/html, {CAR};q=0.5", Form.PLAIN),
        (f"*/*, {RAW}", Form.RAW),
        (f"{CAR}; version=2, {RAW};q=0.5", Form.RAW),
        (f"{CAR};order=foo, {CAR};order=dfs;dups=y;q=0.5", Form.CAR),
        (f"{CAR};q=0, text/html", Form.PLAIN),
        ("application/vnd.ipld.unknown, */*;q=0.1", Form.PLAIN),
    ],
)
def test_the_form_that_a_client_likes_best_of_those_offered_is_sent(accept, form):
    assert wanted(accept=accept).form is form


@pytest.mark.parametrize(
    ("query", "accept", "car"),
    [
        ("format=car", "*/*", WantedCar()),
        ("format=car&dag-scope=block", "*/*", WantedCar("block")),
        ("format=car", f"{CAR}; dups=y", WantedCar(dups=True)),
        ("format=car&car-dups=y", f"{CAR}; dups=n", WantedCar(dups=True)),
        ("car-dups=n&car-order=unk&car-version=1", f"{CAR}; dups=y", WantedCar()),
        ("car-version=1", f"{CAR}; version=2; dups=y", WantedCar(dups=True)),
        ("", f"{CAR};order=foo;dups=n, {CAR};order=dfs;dups=y;q=0.5", WantedCar(dups=True)),
        ("format=car&entity-bytes=0:*", "*/*", WantedCar("entity", EntityBytes(0))),
        ("format=car&entity-bytes=0:5&dag-scope=block", "", WantedCar("block", EntityBytes(0, 5))),
    ],
)
def test_what_a_car_shall_hold_is_read_from_the_query_then_from_accept(query, accept, car):
    assert wanted(query, accept).car == car


@pytest.mark.parametrize(
    "query",
    ["dag-scope=x", "dag-scope=", "entity-bytes=", "entity-bytes=1", "entity-bytes=*:1",
     "entity-bytes=5:3", "entity-bytes=-3:-5", "entity-bytes=0:1:2", "entity-bytes=0:9" + "9" * 18,
     "entity-bytes=+1:2", "entity-bytes= 1:2", "entity-bytes=\u0663:*"],
)  # fmt: skip
def test_malformed_scopes_and_ranges_of_cars_are_the_clients_fault(query):
    with pytest.raises(UserError) as caught:
        wanted(f"format=car&{query}")
    assert caught.value.status == 400
    assert wanted(query).form is Form.PLAIN  # nothing but CARs has them


@pytest.mark.parametrize("query", ["car-version=2", "car-order=bfs", "car-dups=maybe"])
def test_cars_of_another_kind_are_not_acceptable(query):
    for accept in ("*/*", CAR):
        with pytest.raises(NotAcceptableError):
            wanted(f"format=car&{query}", accept)
    with pytest.raises(NotAcceptableError):
        read_wanted_car({}, [{query.removeprefix("car-").split("=")[0]: "other"}])


@pytest.mark.parametrize(
    ("text", "size", "place"),
    [
        ("0:*", 10, (0, 10)), ("0:0", 10, (0, 1)), ("9:20", 10, (9, 10)), ("2:-3", 10, (2, 8)),
        ("-3:*", 10, (7, 10)), ("-99:*", 10, (0, 10)), ("-99:-3", 10, (0, 8)),
        ("-1:-1", 10, (9, 10)), ("5:-8", 10, (5, 5)), ("0:*", 0, (0, 0)), ("3:4", 0, (3, 3)),
    ],
)  # fmt: skip
def test_a_range_of_bytes_lies_within_the_file(text, size, place):
    assert wanted(f"format=car&entity-bytes={text}").car.range.of(size) == place


@pytest.mark.parametrize("text", ["10:*", "10:20", "-99:-11", "0:-11"])
def test_a_range_without_a_byte_of_the_file_is_refused(text):
    with pytest.raises(OutsideError):
        wanted(f"format=car&entity-bytes={text}").car.range.of(10)


@given(st.integers(-30, 30), st.none() | st.integers(-30, 30), st.integers(0, 20))
def test_a_range_holds_just_the_bytes_between_its_ends(first, last, size):
    begin = first + size if first < 0 else first
    end = size - 1 if last is None else last + size if last < 0 else last
    inside = [place for place in range(size) if begin <= place <= end]
    try:
        start, stop = EntityBytes(first, last).of(size)
    except OutsideError:
        assert not inside
        return
    assert list(range(start, min(stop, size))) == inside
