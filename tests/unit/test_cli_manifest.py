"""`lichen.toml`: what is read, and what is said about each kind of mistake."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lichen.cli.project import manifest
from lichen.cli.project.reader import ManifestError
from lichen.errors import NotFoundError, UserError
from lichen.units import FLK

HEAD = 'manifest_version = 1\nname = "hello"\n\n'
FUNCTION = '[[functions]]\nname = "api"\nmain = "src/index.ts"\n'
REPOSITORY = Path(__file__).parents[2]


def fault_of(text: str) -> ManifestError:
    with pytest.raises(ManifestError) as caught:
        manifest.parse(text, "lichen.toml")
    return caught.value


def test_every_example_is_a_valid_manifest():
    found = sorted((REPOSITORY / "examples").glob("*/lichen.toml"))
    assert {path.parent.name for path in found} >= {"exact", "hello", "site", "ssr"}
    for path in found:
        assert manifest.load(path.parent).manifest.name == path.parent.name


def test_the_file_of_the_contract_is_read_whole():
    text = """
manifest_version = 1
name = "hello"

[site]
dir = "public"

[[functions]]
name = "api"
main = "src/index.ts"
runtime = "js"
routes = ["/api/*"]
memory_mb = 128
timeout_ms = 10000
verify = "none"
max_price = "0.002"
min_tier = "process"
schedule = ["*/5 * * * *"]
input_schema = "schemas/in.json"
output_schema = "schemas/out.json"
storage_duration = "365d"

[[bindings]]
type = "kv"
name = "NOTES"
"""
    read = manifest.parse(text)
    (function,) = read.functions
    assert function.max_price_amount == FLK // 500
    assert function.storage_ms == 365 * 86_400_000
    assert read.bindings[0].name == "NOTES"


def test_an_unknown_key_names_file_line_and_the_nearest_known_key():
    fault = fault_of(HEAD + FUNCTION + "timout_ms = 5\n")
    assert fault.what == "lichen.toml:7: functions[0].timout_ms: unknown key"
    assert fault.hint.startswith("did you mean 'timeout_ms'?")


def test_an_unknown_table_is_found_at_its_header():
    fault = fault_of(HEAD + '[sites]\ndir = "public"\n')
    assert fault.what == "lichen.toml:4: sites: unknown key"
    assert "did you mean 'site'?" in fault.hint


@pytest.mark.parametrize(
    ("line", "path", "says"),
    [
        ('memory_mb = "128"', "functions[0].memory_mb", "32 to 4096"),
        ("memory_mb = 16", "functions[0].memory_mb", "32 to 4096"),
        ("timeout_ms = 300001", "functions[0].timeout_ms", "1 to 300000"),
        ('runtime = "python"', "functions[0].runtime", "'js', 'exact', 'wasm'"),
        ("routes = ['/a b']", "functions[0].routes[0]", "a path"),
        ('routes = ["api"]', "functions[0].routes[0]", "a path"),
        ("max_price = 0.002", "functions[0].max_price", "a string"),
        ('max_price = "much"', "functions[0].max_price", "a decimal number"),
        ('max_price = "0"', "functions[0].max_price", "0.002"),
        ('verify = "maybe"', "functions[0].verify", "how results are checked"),
        ('verify = "4-of-3"', "functions[0].verify", "3-of-3"),
        ('schedule = ["* * *"]', "functions[0].schedule[0]", "five cron fields"),
        ('storage_duration = "3y"', "functions[0].storage_duration", "ms, s, m, h, d or w"),
        ('storage_duration = "4000d"', "functions[0].storage_duration", "3650d"),
        ('input_schema = "../in.json"', "functions[0].input_schema", "inside"),
    ],
)
def test_a_wrong_value_names_its_line_its_path_and_what_is_expected(line, path, says):
    fault = fault_of(f"{HEAD}{FUNCTION}{line}\n")
    assert fault.what.startswith(f"lichen.toml:7: {path}: ")
    assert says in fault.hint


def test_a_fault_in_the_second_function_points_at_the_second_function():
    second = '\n[[functions]]\nname = "b"\nmain = "b.ts"\nroutes = ["/b"]\nmemory_mb = 1\n'
    assert fault_of(HEAD + FUNCTION + second).what.startswith("lichen.toml:12: functions[1]")


@pytest.mark.parametrize("path", ["../x.ts", "/etc/passwd", "a/../../b.ts", "a\\\\b.ts"])
def test_no_path_leads_out_of_the_project(path):
    text = f'{HEAD}[[functions]]\nname = "a"\nmain = "{path}"\n'
    assert "leads out of the project" in fault_of(text).what


def test_two_functions_cannot_share_a_name_or_a_route():
    assert "'api' is there twice" in fault_of(HEAD + FUNCTION + FUNCTION).what
    other = FUNCTION.replace('"api"', '"other"')
    assert "the route /* belongs to 'api' already" in fault_of(HEAD + FUNCTION + other).what


def test_a_manifest_without_anything_to_serve_says_so():
    assert "neither a [site] nor [[functions]]" in fault_of(HEAD).what


def test_text_that_is_no_toml_names_its_line():
    fault = fault_of(HEAD + "x = \n")
    assert fault.what.startswith("lichen.toml:4: ")


@pytest.mark.parametrize("name", ["Hello", "-a", "a-", "a" * 41, "a_b", ""])
def test_names_that_are_no_host_name_are_refused(name):
    text = f'manifest_version = 1\nname = "{name}"\n{FUNCTION}'
    assert fault_of(text).what.startswith("lichen.toml:2: name: ")


def test_a_folder_without_a_manifest_says_how_to_make_one(tmp_path):
    with pytest.raises(NotFoundError) as caught:
        manifest.load(tmp_path)
    assert "lichen init" in caught.value.hint


@given(st.text(max_size=300))
def test_any_text_is_read_or_refused_as_a_users_error(text):
    with contextlib.suppress(UserError):
        assert manifest.parse(text).name


@given(st.integers(1, 10**6), st.sampled_from(["ms", "s", "m", "h", "d", "w"]))
def test_durations_scale_with_their_unit(number, unit):
    one = manifest.parse_duration_ms(f"1{unit}")
    assert manifest.parse_duration_ms(f"{number}{unit}") == number * one


def test_the_published_schema_is_the_one_of_the_code():
    published = (REPOSITORY / "docs" / "lichen.schema.json").read_bytes()
    assert published == manifest.json_schema(), "run: make docs"
