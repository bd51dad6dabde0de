"""What is generated for workerd, bubblewrap and the code socket."""

import json
import os

import msgspec
import pytest

from lichen.errors import LimitError, UserError
from lichen.runtime import bwrap, config, exits, sandbox, tenant
from lichen.runtime.codeserver import pack_code


def test_a_process_has_no_network_and_asks_only_its_own_socket_for_code():
    text = config.config_text(code_socket="/job/code.sock", heap_mb=96)
    assert "network = (allow = [])" in text
    assert 'address = "unix:/job/code.sock"' in text
    assert '"--max-old-space-size=96"' in text


@pytest.mark.parametrize("path", ["relative", '/a"b', "/a\nb", "/a\\b"])
def test_a_path_that_could_break_out_of_the_configuration_is_refused(path):
    with pytest.raises(ValueError, match="workerd configuration"):
        config.config_text(code_socket=path, heap_mb=96)


def test_tenant_code_gets_no_way_out():
    assert "globalOutbound: null" in config.module_text("router.js")


def test_packed_code_is_a_length_a_description_and_the_code():
    head, code = pack_code(b"export default {}", {"A": 1}, node_compat=True)
    http, _, body = head.partition(b"\r\n\r\n")
    size = int.from_bytes(body[:4], "big")
    spec = json.loads(body[4:])
    assert len(body) == 4 + size
    assert spec["env"] == {"A": 1}
    assert spec["compatibilityFlags"] == ["nodejs_compat"]
    assert f"Content-Length: {len(body) + len(code)}".encode() in http


def build(monkeypatch, euid):
    monkeypatch.setattr(os, "geteuid", lambda: euid)
    job = sandbox.Job(
        program="/e/workerd", arguments=("serve",), directory="/d/job", number=5, pids_max=9
    )
    command = bwrap.Bubblewrap("/usr/bin/bwrap").command(job)
    for descriptor in (*command.close_after, command.info):
        os.close(descriptor)
    return json.loads(command.argv[-1])


def test_the_sandbox_cuts_the_network_and_drops_every_capability(monkeypatch):
    argv = build(monkeypatch, 1000)["argv"]
    for option in ("--unshare-net", "--unshare-pid", "--disable-userns", "--die-with-parent"):
        assert option in argv
    assert argv[argv.index("--cap-drop") + 1] == "ALL"
    assert argv[argv.index("--remount-ro") + 1] == "/"
    assert argv[-2:] == ["/engine/workerd", "serve"]


def test_nothing_but_libraries_the_engine_and_the_job_is_shown(monkeypatch):
    argv = build(monkeypatch, 1000)["argv"]
    shown = {argv[i + 2] for i, a in enumerate(argv) if a in {"--ro-bind", "--ro-bind-try"}}
    assert shown == {"/usr/lib", "/usr/lib64", "/lib", "/lib64", "/engine", "/job"}
    assert "--bind" not in argv


def test_under_root_each_job_has_a_uid_of_its_own(monkeypatch):
    plan = build(monkeypatch, 0)
    assert plan["uid"] > 0x70000000
    assert plan["limits"]["NPROC"] == 9
    assert plan["mounts"] == {"engine": "/e", "job": "/d/job"}
    assert build(monkeypatch, 1000)["uid"] is None


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"code": b"x" * (tenant.CODE_BYTES_MAX + 1)}, LimitError),
        ({"env": {"A": "x" * tenant.ENV_BYTES_MAX}}, LimitError),
        ({"memory_mb": 1}, UserError),
        ({"memory_mb": 10**6}, UserError),
    ],
)
def test_a_tenant_out_of_bounds_is_refused(changes, error):
    spec = tenant.TenantSpec(name="a", owner="o", code=b"")
    spec.check()
    with pytest.raises(error):
        msgspec.structs.replace(spec, **changes).check()


@pytest.mark.parametrize(
    ("requested", "words", "oom", "pids", "kind"),
    [
        ("unresponsive", "", True, True, "unresponsive"),
        (None, "", True, False, "memory"),
        (
            None,
            "FATAL ERROR: Reached heap limit: JavaScript heap out of memory",
            False,
            False,
            "memory",
        ),
        (None, "", False, True, "pids"),
        (None, "Segmentation fault", False, False, "crash"),
    ],
)
def test_the_reason_of_an_exit_is_inferred_from_what_is_known(requested, words, oom, pids, kind):
    reason = exits.explain(
        requested, exit_code=-9, last_words=words, oom_killed=oom, pids_refused=pids
    )
    assert reason.kind == kind
    assert reason.detail


def test_a_hog_is_judged_over_whole_windows_and_forgiven_when_it_calms():
    hog, ms = tenant.Hog(), 10**6
    assert not hog.judge(0, 200 * ms)
    assert not hog.judge(50 * ms, 250 * ms)  # too early to tell
    assert hog.judge(90 * ms, 300 * ms)
    assert hog.busy
    assert not hog.judge(190 * ms, 400 * ms)  # as before
    assert hog.judge(200 * ms, 500 * ms)
    assert not hog.busy
