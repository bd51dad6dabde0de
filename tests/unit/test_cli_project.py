"""Templates, packing of files into CARs, and what deploying compares."""

from __future__ import annotations

import io
import json
import re
import tomllib
from pathlib import Path

import pytest

from lichen.cli import main, options
from lichen.cli.project import build, manifest, release, sitefiles, templates
from lichen.cli.project.pack import Pack
from lichen.content import reader
from lichen.content.car import CarReader
from lichen.content.cid import CID
from lichen.content.importer import import_bytes
from lichen.content.profile import V1_2025
from lichen.errors import NotFoundError, UserError
from lichen.identity import Address
from lichen.ledger.types import FunctionSpec, Grant, Release, Runtime
from lichen.units import FLK, Amount

REPOSITORY = Path(__file__).parents[2]


class Memory:
    def __init__(self) -> None:
        self.blocks: dict[CID, bytes] = {}

    def get_block(self, cid: CID) -> bytes | None:
        return self.blocks.get(cid)


def unpack(pack: Pack, *roots: CID) -> Memory:
    memory = Memory()
    car = CarReader(io.BytesIO(b"".join(pack.parts(*roots))))
    assert car.roots == roots
    memory.blocks = dict(car)
    return memory


@pytest.mark.parametrize("template", templates.names())
def test_a_template_becomes_a_valid_project_under_its_new_name(tmp_path, template):
    templates.create(template, tmp_path / "my-app", "my-app")
    project = manifest.load(tmp_path / "my-app")
    assert project.manifest.name == "my-app"
    old = templates.TEMPLATES[template]
    package = json.loads((tmp_path / "my-app" / "package.json").read_text())
    assert package["name"] == "my-app"
    readme = (tmp_path / "my-app" / "README.md").read_text()
    assert f"http://{old}.app." not in readme
    assert "node_modules" not in {path.name for path in (tmp_path / "my-app").iterdir()}


@pytest.mark.parametrize("example", templates.TEMPLATES.values())
def test_a_wheel_carries_every_file_of_the_template(example):
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    carried = project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    folder = REPOSITORY / "examples" / example
    found = {path.name for path in folder.iterdir() if path.name not in templates.IGNORED}
    assert {name for name in found if f"examples/{example}/{name}" in carried} == found
    for name in found:
        target = carried[f"examples/{example}/{name}"]
        assert target == f"lichen/cli/project/templates/{example}/{name}"


def test_init_never_overwrites_and_then_writes_nothing_at_all(tmp_path):
    (tmp_path / "package.json").write_text("mine")
    with pytest.raises(UserError, match="nothing is overwritten"):
        templates.create("hono", tmp_path, "app")
    assert [path.name for path in tmp_path.iterdir()] == ["package.json"]
    assert (tmp_path / "package.json").read_text() == "mine"


def test_init_refuses_names_that_no_app_can_have(tmp_path):
    with pytest.raises(UserError, match="cannot be an app's name"):
        templates.create("hono", tmp_path, "My App")


def test_an_unknown_template_names_the_known_ones(tmp_path):
    with pytest.raises(UserError) as caught:
        templates.create("wasm", tmp_path, "app")
    assert caught.value.hint == "templates: hono, ssr, static, exact"


def test_the_command_prints_the_files_as_json(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    try:
        assert main.main(["init", "shop", "--template", "static", "--json"]) == 0
    finally:
        options.use(options.Options())
    printed = json.loads(capsys.readouterr().out)
    assert printed["name"] == "shop"
    assert "shop/lichen.toml" in printed["files"]


@pytest.mark.parametrize("lock", sorted((REPOSITORY / "examples").glob("*/package-lock.json")))
def test_lock_files_name_no_registry_and_keep_their_hashes(lock):
    text = lock.read_text()
    assert '"resolved"' not in text
    packages = {k: v for k, v in json.loads(text)["packages"].items() if k}
    assert all("integrity" in package for package in packages.values())


def test_a_folder_packs_into_a_car_that_reads_back(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "index.html").write_bytes(b"<h1>hi</h1>")
    (tmp_path / "sub" / "big.bin").write_bytes(bytes(range(256)) * 10_000)
    with Pack() as pack:
        root = pack.add(tmp_path)
        assert (pack.files, pack.size) == (2, 11 + 2_560_000)
        memory = unpack(pack, root.cid)
    entry = reader.resolve(memory, root.cid, "sub/big.bin")
    content = b"".join(bytes(part) for part in reader.read_file(memory, entry.cid))
    assert content == bytes(range(256)) * 10_000


@pytest.mark.parametrize("size", [0, 1, 1 << 20, (1 << 20) + 1, 3 << 20])
def test_a_stream_gets_the_cid_of_its_bytes_however_it_is_cut(size):
    data = bytes(size)

    class Dribble(io.BytesIO):
        def read(self, size=-1):
            return super().read(min(size, 70_001))

    with Pack() as pack:
        assert pack.add_stream(Dribble(data)).cid == import_bytes(data, V1_2025, _ignore).cid


def _ignore(cid: CID, block: bytes) -> None:
    del cid, block


def test_equal_files_are_packed_once(tmp_path):
    for name in "abc":
        (tmp_path / name).write_bytes(b"the same")
    with Pack() as pack:
        memory = unpack(pack, pack.add(tmp_path).cid)
    assert len(memory.blocks) == 2


def test_hidden_files_stay_at_home_unless_they_are_asked_for(tmp_path):
    for name in (".env", "index.html"):
        (tmp_path / name).write_text("x")
    (tmp_path / ".well-known").mkdir()
    (tmp_path / ".well-known" / "security.txt").write_text("y")
    with Pack() as pack:
        root = pack.add(tmp_path)
        names = [e.name for e in reader.list_directory(unpack(pack, root.cid), root.cid)]
    assert names == [".well-known", "index.html"]
    with Pack(with_hidden=True) as pack:
        pack.add(tmp_path)
        assert pack.files == 3


def test_a_link_out_of_the_site_is_refused(tmp_path):
    (tmp_path / "secret").symlink_to("/etc/passwd")
    with Pack() as pack, pytest.raises(UserError, match="neither a file nor a folder"):
        pack.add(tmp_path)


def test_a_missing_path_is_named(tmp_path):
    with Pack() as pack, pytest.raises(NotFoundError, match="nothing-here"):
        pack.add(tmp_path / "nothing-here")


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ('runtime = "wasm"', "runtime = 'wasm'"),
        ('runtime = "exact"\nmin_tier = "process"', "min_tier = 'process' with runtime = 'exact'"),
        ('verify = "2-of-3"', "verify = '2-of-3'"),
        ('schedule = ["* * * * *"]', "schedule"),
        ('min_tier = "microvm"', "min_tier = 'microvm'"),
        ("node_compat = true", "node_compat"),
    ],
)
def test_what_the_network_cannot_do_yet_is_refused_by_name(line, name):
    text = f'manifest_version = 1\nname = "a"\n[[functions]]\nname = "f"\nmain = "m.ts"\n{line}\n'
    with pytest.raises(build.UnsupportedError, match=re.escape(name)):
        build.require_supported(manifest.parse(text))


def spec(**changes: object) -> FunctionSpec:
    values = {
        "name": "api",
        "code": CID.of(0x55, b"code"),
        "runtime": Runtime.JS,
        "routes": ("/*",),
        "memory_mb": 128,
        "timeout_ms": 1000,
        "verify": "none",
        "max_price": Amount(5),
        "min_tier": "process",
        "run_first": False,
        "schedule": (),
        "content_bytes": 4,
    }
    return FunctionSpec(**(values | changes))


@pytest.mark.parametrize(
    "change", [{"code": CID.of(0x55, b"other")}, {"memory_mb": 256}, {"max_price": Amount(6)}]
)
def test_another_cid_or_another_setting_makes_another_release(change):
    built = build.Built(None, (spec(),), CID.of(0x55, b"m"))
    active = Release("a", 1, None, (spec(),), CID.of(0x55, b"m"), 0)
    assert release.is_same(active, built)
    other = build.Built(None, (spec(**change),), CID.of(0x55, b"m"))
    assert not release.is_same(active, other)


NOW_MS = 1_000_000_000_000


def held(limit: int, spent: int, lasts_ms: int = release.GRANT_MS) -> Grant:
    owner = Address(bytes(20))
    return Grant(owner, "a", owner, Amount(limit), Amount(spent), NOW_MS + lasts_ms)


@pytest.mark.parametrize(
    ("grant", "budget", "limit"),
    [
        (None, None, 100),
        (None, 5, 5),
        (held(100 * FLK, 3 * FLK), None, None),
        (held(100 * FLK, 90 * FLK), None, 190),
        (held(100 * FLK, 3 * FLK), 5, 8),
        (held(5 * FLK, 5 * FLK), None, None),
        (held(5 * FLK, 2 * FLK, lasts_ms=1000), None, 5),
        (held(0, 2 * FLK), None, None),
    ],
)
def test_a_small_budget_is_never_widened_by_itself(grant, budget, limit):
    wanted = None if budget is None else Amount(budget * FLK)
    found = release.next_limit(grant, NOW_MS, wanted)
    assert found == (None if limit is None else limit * FLK)


def test_wrong_lines_of_a_sites_files_are_named_before_anything_is_sent(tmp_path):
    (tmp_path / "_redirects").write_text("/a /b 301\n/c\n")
    (tmp_path / "_headers").write_text("/*\n  nonsense\n")
    with pytest.raises(UserError) as caught:
        sitefiles.check_site_files(tmp_path)
    assert f"{tmp_path}/_redirects:2: " in caught.value.what
    assert f"{tmp_path}/_headers:2: " in caught.value.what
    assert caught.value.hint
    (tmp_path / "_redirects").write_text("/x\n" * 50)
    with pytest.raises(UserError, match="and 41 more"):
        sitefiles.check_site_files(tmp_path)


def test_good_site_files_and_none_pass(tmp_path):
    sitefiles.check_site_files(tmp_path)
    (tmp_path / "_redirects").write_text("/old/* /new/:splat 302\n")
    (tmp_path / "_headers").write_text("/*\n  X-Frame-Options: DENY\n")
    sitefiles.check_site_files(tmp_path)
