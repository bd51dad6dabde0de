"""Exact functions in worker processes: over HTTP, confined, bounded, and started again."""

import asyncio
import json
import re
import shutil
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from lichen.runtime.bundle import bundle
from lichen.runtime.dependencies import install_dependencies
from lichen.runtime.errors import LoadError
from lichen.runtime.exact.answers import read_report
from lichen.runtime.exact.outcome import Kind
from lichen.runtime.exact.pool import ExactPool
from lichen.runtime.sandbox import NoSandbox
from lichen.runtime.tenant import TenantSpec
from tests.exact.exact_programs import HELLO, handler
from tests.integration.runtime_world import OWNER, Answer, capabilities, installed_engines

EXAMPLES = Path(__file__).parents[2] / "examples"
WAIT_S_MAX = 30


def spec(code, **changes):
    data = code if isinstance(code, bytes) else code.encode()
    return TenantSpec(
        **{"name": "app/1/f", "owner": OWNER, "code": data, "memory_mb": 32} | changes
    )


@asynccontextmanager
async def exact_pool(home):
    found = capabilities()
    pool = ExactPool(installed_engines(), str(home), sandbox=found.sandbox, cgroups=found.cgroups)
    try:
        yield pool
    finally:
        await pool.close()


@pytest.fixture
async def pool(tmp_path):
    async with exact_pool(tmp_path) as made:
        yield made


async def ask(tenant, target="/", method="GET", body=b"", run="00000000-000000000001"):
    reader, writer = await asyncio.open_unix_connection(tenant.socket_path)
    head = f"{method} {target} HTTP/1.1\r\nhost: a.example\r\nlichen-run: {run}\r\n"
    writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
    async with asyncio.timeout(WAIT_S_MAX):
        raw = await reader.read()
    writer.close()
    return Answer(raw)


def report(answer):
    return read_report(answer.headers["lichen-exact"].encode())


async def test_a_function_answers_with_the_same_fuel_from_every_worker(pool):
    tenant = await pool.claim(spec(HELLO))
    answers = await asyncio.gather(*(ask(tenant) for _ in range(20)))
    assert {answer.body for answer in answers} == {b"hello"}
    assert len({report(answer).fuel for answer in answers}) == 1
    assert all(report(answer).cpu_us > 0 for answer in answers)


async def test_failures_are_named_and_bounded(pool):
    code = handler(
        "const path = new URL(request.url).pathname;"
        "if (path === '/throw') throw new Error('secret');"
        "if (path === '/loop') for (;;);"
        "if (path === '/memory') { const kept = []; for (;;) kept.push(new Uint8Array(1 << 20)) }"
        "return new Response('fine', { headers: { 'lichen-exact': 'forged', 'x-ok': '1' } })"
    )
    tenant = await pool.claim(spec(code, timeout_ms=300))
    kinds = {path: report(await ask(tenant, path)).kind for path in ("/throw", "/loop", "/memory")}
    assert kinds == {
        "/throw": Kind.EXCEPTION, "/loop": Kind.OUT_OF_FUEL, "/memory": Kind.OUT_OF_MEMORY,
    }  # fmt: skip
    fine = await ask(tenant)
    assert (fine.status, fine.body, fine.headers["x-ok"]) == (200, b"fine", "1")
    assert report(fine).kind is Kind.OK


async def test_console_lines_reach_the_owner_with_their_run(pool):
    tenant = await pool.claim(spec(handler("console.warn('note', 1); return new Response('')")))
    lines = asyncio.Queue()
    tenant.on_log(lines.put_nowait)
    await ask(tenant, run="00000000-00000000000a")
    line = await asyncio.wait_for(lines.get(), WAIT_S_MAX)
    assert (line.level, line.text, line.run) == ("warn", "note 1", "00000000-00000000000a")


async def test_lines_that_grow_when_they_are_passed_on_are_dropped_and_counted(pool):
    code = handler("console.log('\\u0001'.repeat(30000)); return new Response('fine')")
    tenant = await pool.claim(spec(code))
    lines = asyncio.Queue()
    tenant.on_log(lines.put_nowait)
    pids = [worker.process.pid for worker in pool._servers]
    assert (await ask(tenant)).body == b"fine"
    line = await asyncio.wait_for(lines.get(), WAIT_S_MAX)
    assert "1 lines dropped" in line.text
    assert (await ask(tenant)).body == b"fine"
    assert [worker.process.pid for worker in pool._servers] == pids


async def test_code_that_cannot_be_evaluated_is_refused_and_the_next_is_served(pool):
    with pytest.raises(LoadError, match="SyntaxError"):
        await pool.claim(spec("const x = ;"))
    with pytest.raises(LoadError, match="out of fuel"):
        await pool.claim(spec("for (;;);"))
    assert (await ask(await pool.claim(spec(HELLO)))).body == b"hello"


async def test_a_worker_that_dies_takes_its_run_along_and_another_one_goes_on(pool):
    tenant = await pool.claim(spec(handler("for (;;);"), timeout_ms=20_000))
    other = await pool.claim(spec(HELLO))
    stuck = [asyncio.ensure_future(ask(tenant)) for _ in range(2)]
    servers = [worker for worker in pool._servers if worker is not None]
    busy = await busy_ones(servers)
    for worker in busy:
        worker.kill()
    answers = await asyncio.gather(*stuck, return_exceptions=True)
    lost = [a for a in answers if isinstance(a, ConnectionResetError) or a.body == b""]
    assert lost
    await asyncio.gather(*(worker.ended for worker in busy))
    assert (await ask(other)).body == b"hello"


async def busy_ones(servers):
    """Wait until two workers compute."""
    async with asyncio.timeout(WAIT_S_MAX):
        while True:
            before = [worker.process.cpu_ns() for worker in servers]
            await asyncio.sleep(0.1)
            after = [worker.process.cpu_ns() for worker in servers]
            busy = [w for w, a, b in zip(servers, before, after, strict=True) if b - a > 20_000_000]
            if busy:
                return busy


async def test_workers_are_confined(pool):
    await pool.start()
    for worker in (pool._loader, *pool._servers):
        status = Path(f"/proc/{worker.process.pid}/status").read_text()
        assert re.search(r"^Seccomp:\s+2$", status, re.MULTILINE)
        assert re.search(r"^NoNewPrivs:\s+1$", status, re.MULTILINE)
        assert re.search(r"^CapEff:\s+0+$", status, re.MULTILINE)


async def test_without_a_sandbox_workers_run_all_the_same(tmp_path):
    pool = ExactPool(installed_engines(), str(tmp_path), sandbox=NoSandbox())
    try:
        assert (await ask(await pool.claim(spec(HELLO)))).body == b"hello"
    finally:
        await pool.close()


async def test_a_function_that_is_stopped_is_served_no_more(pool):
    tenant = await pool.claim(spec(HELLO))
    tenant.stop("stopped")
    assert tenant.exited.result().kind == "stopped"
    with pytest.raises((FileNotFoundError, ConnectionRefusedError)):
        await ask(tenant)


async def test_hono_and_preact_render_as_they_do_elsewhere(pool, tmp_path):
    bodies = {}
    for example, entry in (("exact", "src/index.ts"), ("ssr", "src/index.tsx")):
        project = tmp_path / example
        shutil.copytree(EXAMPLES / example, project, ignore=shutil.ignore_patterns("node_modules"))
        install_dependencies(project)
        code = bundle(project, entry, engines=installed_engines()).code
        tenant = await pool.claim(spec(code, memory_mb=64))
        bodies[example] = (tenant, await ask(tenant))
    draw = bodies["exact"][0]
    names = json.dumps({"names": ["Ada", "Alan", "Grace"], "winners": 3}).encode()
    drawn = [await ask(draw, "/draw", "POST", names) for _ in range(3)]
    assert len({json.dumps(json.loads(a.body)["winners"]) for a in drawn}) == 1
    assert sorted(json.loads(drawn[0].body)["winners"]) == ["Ada", "Alan", "Grace"]
    assert bodies["ssr"][1].status == 200
    assert b"<html" in bodies["ssr"][1].body
