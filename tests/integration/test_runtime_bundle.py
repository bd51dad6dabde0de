"""Bundling with real esbuild, and running what comes out."""

import json
import os

import pytest

from lichen.errors import NotFoundError
from lichen.runtime import npm
from lichen.runtime.bundle import bundle
from lichen.runtime.dependencies import install_dependencies
from lichen.runtime.errors import BundleError, BundleTooLargeError, DependenciesError
from lichen.runtime.pool import TenantSpec
from tests.integration.runtime_world import ask, installed_engines, pool_at


def write(project, **files):
    for name, text in files.items():
        path = project / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return project


def make(project, entry="src/index.ts", **options):
    return bundle(project, entry, engines=installed_engines(), **options)


def add_library(project, name, text):
    return write(
        project,
        **{
            f"node_modules__{name}__package_dot_json": json.dumps({"name": name, "module": "m.js"}),
            f"node_modules__{name}__m_dot_js": text,
        },
    )


async def test_typescript_jsx_and_a_library_become_one_module_that_runs(tmp_path):
    project = add_library(tmp_path / "p", "shout", "export const shout = s => s.toUpperCase()")
    write(
        project,
        src__index_dot_ts="import { page } from './page'; import { shout } from 'shout'; "
        "enum E { A = 1 } const x: number = E.A; "
        "export default { fetch: (): Response => new Response(shout(page()) + x) }",
        src__page_dot_tsx="/** @jsxImportSource tiny */\nexport const page = () => <b>hi</b>",
    )
    write(
        project,
        **{
            "node_modules__tiny__package_dot_json": '{"name":"tiny"}',
            "node_modules__tiny__jsx-runtime.js": "export const jsx = (t, p) => `<${t}>${p.children}</${t}>`",
        },
    )
    made = make(project)
    async with pool_at(tmp_path / "home") as pool:
        answer = await ask(await pool.claim(TenantSpec(name="t", owner="o", code=made.code)))
    assert answer.body == b"<B>HI</B>1"


def test_the_same_project_gives_the_same_bytes_wherever_it_lies(tmp_path):
    made = []
    for place in ("a", "b/deep/er"):
        project = add_library(tmp_path / place, "lib", "export default () => 1")
        write(project, src__index_dot_ts="import f from 'lib'; export default { fetch: f }")
        made.append(make(project))
    assert made[0].code == made[1].code
    assert made[0].source_map == made[1].source_map
    assert str(tmp_path).encode() not in made[0].code + made[0].source_map
    assert "src/index.ts" in json.loads(made[0].source_map)["sources"]
    assert {i.path for i in made[0].inputs} == {"src/index.ts", "node_modules/lib/m.js"}


def test_minifying_makes_it_smaller(tmp_path):
    write(
        tmp_path,
        src__index_dot_ts="export default { fetch() { const longName = 1; return longName } }",
    )
    assert len(make(tmp_path, minify=True).code) < len(make(tmp_path).code)
    assert make(tmp_path, sourcemap=False).source_map == b""


def test_code_that_does_not_compile_is_shown_with_file_line_and_column(tmp_path):
    write(tmp_path, src__index_dot_ts="export default {}\n\nconst x: = 5\n")
    with pytest.raises(BundleError) as caught:
        make(tmp_path)
    error = caught.value
    assert (error.file, error.line, error.column) == ("src/index.ts", 3, 10)
    assert str(error).startswith("src/index.ts:3:10: ")
    assert error.hint


def test_a_missing_library_is_named_with_what_to_do(tmp_path):
    write(tmp_path, src__index_dot_ts="import x from 'not-there'; export default x")
    with pytest.raises(BundleError) as caught:
        make(tmp_path)
    assert 'src/index.ts:1:15: Could not resolve "not-there"' in str(caught.value)
    assert "add not-there to package.json" in caught.value.hint


def test_node_built_ins_stay_imports_unless_a_library_stands_in(tmp_path):
    add_library(tmp_path, "events", "export const EventEmitter = 'from the library'")
    write(
        tmp_path,
        src__index_dot_ts="import fs from 'fs'; import os from 'node:path'; "
        "import { EventEmitter } from 'events'; export default [fs, os, EventEmitter]",
    )
    code = make(tmp_path).code
    assert b'from "fs"' in code
    assert b'from "node:path"' in code
    assert b"from the library" in code


def test_a_bundle_over_the_bound_names_its_largest_inputs(tmp_path):
    add_library(tmp_path, "big", f"export default {'x' * 5000!r}")
    write(tmp_path, src__index_dot_ts="import x from 'big'; export default x")
    with pytest.raises(BundleTooLargeError) as caught:
        make(tmp_path, bundle_bytes_max=1000)
    assert "bundle_bytes_max is 1000" in caught.value.what
    assert "node_modules/big/m.js (5" in caught.value.hint


def test_an_entry_that_is_missing_is_not_found(tmp_path):
    with pytest.raises(NotFoundError, match=r"src/index\.ts"):
        make(tmp_path)


def local_library(project):
    """A package that needs no network: npm installs it from the folder next door."""
    write(project, lib__package_dot_json='{"name": "lib", "version": "1.0.0"}')
    manifest = {
        "name": "p",
        "dependencies": {"lib": "file:lib"},
        "scripts": {"preinstall": "touch ran", "postinstall": "touch ran"},
    }
    return write(project, package_dot_json=json.dumps(manifest))


def test_dependencies_are_installed_once_and_again_when_the_manifest_is_newer(tmp_path):
    project = local_library(tmp_path)
    assert install_dependencies(project)
    assert (project / "node_modules" / "lib").exists()
    assert (project / "package-lock.json").exists()
    assert not install_dependencies(project)
    later = (project / "node_modules").stat().st_mtime + 5
    os.utime(project / "package-lock.json", (later, later))
    assert install_dependencies(project)


def test_no_package_script_runs(tmp_path):
    install_dependencies(local_library(tmp_path))
    assert not (tmp_path / "ran").exists()


def test_a_project_without_dependencies_needs_no_npm(tmp_path):
    assert not install_dependencies(tmp_path)
    write(tmp_path, package_dot_json='{"name": "p"}')
    assert not install_dependencies(tmp_path)


def test_a_broken_package_json_is_reported(tmp_path):
    write(tmp_path, package_dot_json="{")
    with pytest.raises(DependenciesError, match=r"package\.json cannot be read"):
        install_dependencies(tmp_path)


def test_a_package_that_cannot_be_had_is_reported(tmp_path):
    write(tmp_path, package_dot_json='{"dependencies": {"x": "file:nowhere.tgz"}}')
    with pytest.raises(DependenciesError) as caught:
        install_dependencies(tmp_path)
    assert caught.value.what.startswith("npm: ")


def test_a_registry_that_cannot_be_reached_is_told_from_other_failures(tmp_path, monkeypatch):
    monkeypatch.setenv("npm_config_registry", "http://127.0.0.1:9/")
    monkeypatch.setenv("npm_config_fetch_retries", "0")
    monkeypatch.setenv("npm_config_cache", str(tmp_path / "cache"))
    write(tmp_path, package_dot_json='{"dependencies": {"left-pad": "1.3.0"}}')
    with pytest.raises(DependenciesError, match="cannot be reached"):
        install_dependencies(tmp_path)


def test_npm_is_stopped_when_it_takes_too_long(tmp_path):
    with pytest.raises(npm.NpmError) as caught:
        npm.run_npm(("--version",), str(tmp_path), timeout_s=0.001)
    assert caught.value.is_network
