"""What a tenant's code sees and what comes back, through real workerd in a real sandbox."""

import asyncio
import base64
import os
import shutil
import time
import urllib.parse

import pytest

from lichen.errors import MachineError
from lichen.runtime.errors import NoRoomError, SandboxMissingError
from lichen.runtime.sandbox import NoSandbox
from tests.integration.runtime_world import (
    OWNER,
    ask,
    capabilities,
    descendants,
    installed_engines,
    pool_at,
    spec,
    until,
)

HELLO = "fetch() { return new Response('hello') }"


async def test_hello_is_answered(tmp_path):
    async with pool_at(tmp_path) as pool:
        tenant = await pool.claim(spec(HELLO))
        answer = await ask(tenant)
        assert (answer.status, answer.body) == (200, b"hello")
        assert "lichen-error" not in answer.headers


async def test_url_headers_body_and_env_reach_the_function_unchanged(tmp_path):
    code = """async fetch(request, env) { return Response.json({
      url: request.url, method: request.method, custom: request.headers.get("x-custom"),
      run: request.headers.get("lichen-run"), body: await request.text(), env: env.GREETING }) }"""
    async with pool_at(tmp_path) as pool:
        tenant = await pool.claim(spec(code, env={"GREETING": "hi"}))
        headers = {"X-Custom": "a, b", "lichen-run": "r7"}
        answer = await ask(tenant, "/p/a?q=1", method="POST", headers=headers, body=b"data")
    assert answer.body == (
        b'{"url":"http://app.example/p/a?q=1","method":"POST","custom":"a, b",'
        b'"run":"r7","body":"data","env":"hi"}'
    )


async def test_a_response_streams_while_it_is_made(tmp_path):
    code = """fetch(request) {
      const { readable, writable } = new TransformStream();
      (async () => { const w = writable.getWriter(), e = new TextEncoder();
        await w.write(e.encode("first"));
        for await (const _ of request.body) break;
        await w.write(e.encode("second")); await w.close(); })();
      return new Response(readable); }"""
    async with pool_at(tmp_path) as pool, asyncio.timeout(10):
        tenant = await pool.claim(spec(code))
        reader, writer = await asyncio.open_unix_connection(tenant.socket_path)
        writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        await reader.readuntil(b"first")  # before the request's body has begun
        writer.write(b"4\r\ndata\r\n0\r\n\r\n")
        await reader.readuntil(b"second")
        writer.transport.abort()


async def test_a_websocket_echoes(tmp_path):
    code = """fetch() {
      const [client, server] = Object.values(new WebSocketPair());
      server.accept(); server.addEventListener("message", e => server.send("echo " + e.data));
      return new Response(null, { status: 101, webSocket: client }); }"""
    async with pool_at(tmp_path) as pool, asyncio.timeout(10):
        tenant = await pool.claim(spec(code))
        reader, writer = await asyncio.open_unix_connection(tenant.socket_path)
        key = base64.b64encode(os.urandom(16)).decode()
        writer.write(
            "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode()
        )
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101")
        writer.write(b"\x81\x82\x00\x00\x00\x00hi")
        assert (await reader.readexactly(9))[2:] == b"echo hi"
        writer.transport.abort()


@pytest.mark.parametrize(
    ("code", "kind", "says"),
    [
        ("export default { fetch( {", "load", "SyntaxError"),
        ("export default undefined", "load", "no default export with a fetch() method"),
        ("import x from 'nowhere'; export default {}", "load", 'No such module "nowhere"'),
        ("throw new Error('at the top'); export default {}", "load", "at the top"),
        ("fetch() { throw new RangeError('in the handler') }", "exception", "RangeError: in the"),
        ("async fetch() { await 1; throw 'a string' }", "exception", "a string"),
        ("fetch() { }", "exception", "did not return a Response"),
        ("fetch() { throw { toString() { throw 1 } } }", "exception", "cannot be described"),
    ],
)
async def test_an_error_is_told_from_a_response_and_logged(tmp_path, code, kind, says):
    lines = []
    async with pool_at(tmp_path) as pool:
        tenant = await pool.claim(spec(code))
        tenant.on_log(lines.append)
        answer = await ask(tenant, headers={"lichen-run": "r9"})
        assert (answer.status, answer.body) == (500, b"")
        found, _, message = answer.headers["lichen-error"].partition(" ")
        assert found == kind
        assert says in urllib.parse.unquote(message)
        await until(lambda: any(line.level == "error" for line in lines))


async def test_the_owners_log_has_the_stack_and_the_run(tmp_path):
    lines = []
    async with pool_at(tmp_path) as pool:
        tenant = await pool.claim(
            spec("function deep() { throw new Error('x') } export default { fetch() { deep() } }")
        )
        tenant.on_log(lines.append)
        await ask(tenant, headers={"lichen-run": "r9"})
        await until(lambda: lines)
    assert (lines[0].level, lines[0].run) == ("error", "r9")
    assert "at deep (index.js:1" in lines[0].text
    assert "lichen-entry" not in lines[0].text


async def test_the_error_header_cannot_be_forged(tmp_path):
    code = """fetch() { return new Response("mine", { status: 418,
      headers: { "Lichen-Error": "exception forged", "x-kept": "1" } }) }"""
    async with pool_at(tmp_path) as pool:
        answer = await ask(await pool.claim(spec(code)))
    assert "lichen-error" not in answer.headers
    assert (answer.status, answer.body, answer.headers["x-kept"]) == (418, b"mine", "1")


async def test_console_lines_carry_level_text_and_run_even_after_an_await(tmp_path):
    code = """async fetch(request) {
      console.log("%s and %d", "text", 5, { a: [1] }); console.warn({ b: 2 });
      await new Promise(done => setTimeout(done, 20));
      console.error(" later"); console.debug("d"); console.info("i");
      return new Response() }"""
    lines = []
    async with pool_at(tmp_path) as pool:
        tenant = await pool.claim(spec(code))
        tenant.on_log(lines.append)
        await asyncio.gather(*(ask(tenant, headers={"lichen-run": run}) for run in ("r1", "r2")))
        await until(lambda: len(lines) == 10)
    for run in ("r1", "r2"):
        assert [(line.level, line.text) for line in lines if line.run == run] == [
            ("log", "text and 5 { a: [ 1 ] }"),
            ("warn", "{ b: 2 }"),
            ("error", " later"),
            ("debug", "d"),
            ("info", "i"),
        ]
    assert all(abs(line.time_ms - time.time() * 1000) < 60_000 for line in lines)


async def test_rejections_that_nobody_handles_are_logged(tmp_path):
    code = """fetch(request, env, ctx) {
      Promise.reject(new Error("lost")); ctx.waitUntil(Promise.reject(new Error("background")));
      return new Response("fine") }"""
    lines = []
    async with pool_at(tmp_path) as pool:
        tenant = await pool.claim(spec(code))
        tenant.on_log(lines.append)
        assert (await ask(tenant)).body == b"fine"
        await until(lambda: len(lines) == 2)
    text = "\n".join(line.text for line in lines)
    assert "Unhandled rejection: Error: lost" in text
    assert "Uncaught in waitUntil: Error: background" in text


@pytest.mark.parametrize(
    "attempt",
    [
        "await fetch('http://127.0.0.1:1/')",
        "await fetch('http://169.254.169.254/')",
        "await (await import('cloudflare:sockets')).connect('127.0.0.1:22').opened",
    ],
)
async def test_every_way_to_the_network_is_cut_with_a_clear_message(tmp_path, attempt):
    code = f"async fetch() {{ try {{ {attempt} }} catch (e) {{ return new Response(e.message) }} }}"
    async with pool_at(tmp_path) as pool:
        answer = await ask(await pool.claim(spec(code)))
    assert b"not permitted to access the internet" in answer.body


async def test_an_entrypoint_class_and_node_built_ins_work(tmp_path):
    code = """import { WorkerEntrypoint, env } from "cloudflare:workers";
      import { Buffer } from "node:buffer";
      export default class extends WorkerEntrypoint {
        fetch() { return new Response(this.env.A + env.A + Buffer.from("x").toString("hex")) } }"""
    async with pool_at(tmp_path) as pool:
        tenant = await pool.claim(spec(code, env={"A": "1"}, node_compat=True))
        assert (await ask(tenant)).body == b"1178"


async def test_no_process_ever_serves_a_second_tenant(tmp_path):
    code = "fetch() { globalThis.n = (globalThis.n ?? 0) + 1; return new Response(`${n}`) }"
    pids = set()
    async with pool_at(tmp_path, prewarm=2) as pool:
        for _ in range(5):
            tenant = await pool.claim(spec(code))
            assert (await ask(tenant)).body == b"1"
            assert tenant.pid not in pids
            pids.add(tenant.pid)
            tenant.stop()
            assert (await tenant.exited).kind == "stopped"
            assert tenant.pid not in pool.idle_pids


async def test_the_pool_fills_up_again_behind_a_claim(tmp_path):
    async with pool_at(tmp_path, prewarm=2) as pool:
        await pool.claim(spec(HELLO))
        await until(lambda: len(pool.idle_pids) == 2)


async def test_a_heap_size_asked_for_once_is_kept_ready(tmp_path):
    async with pool_at(tmp_path, prewarm=0) as pool:
        assert not pool.idle_pids
        first = await pool.claim(spec(HELLO, memory_mb=64))
        await until(lambda: pool.idle_pids)
        (waiting,) = pool.idle_pids
        second = await pool.claim(spec(HELLO, memory_mb=64))
        assert second.pid == waiting != first.pid


async def test_a_claim_that_is_cancelled_leaves_no_process(tmp_path):
    async with pool_at(tmp_path, prewarm=0) as pool:
        for delay_ms in range(0, 60, 4):
            claim = asyncio.create_task(pool.claim(spec(HELLO)))
            await asyncio.sleep(delay_ms / 1000)
            claim.cancel()
            await asyncio.gather(claim, return_exceptions=True)
        label = pool._label
    await until(lambda: not labelled(label))


async def test_what_a_killed_pool_left_half_made_is_killed_at_the_next_start(tmp_path):
    async with pool_at(tmp_path) as pool:
        label = pool._label
    left = await asyncio.create_subprocess_exec(
        "tail", "-f", "--", "--hostname", label, "/dev/null"
    )
    async with pool_at(tmp_path):
        assert await asyncio.wait_for(left.wait(), 5) == -9


def labelled(label):
    """Return the processes that carry a pool's label."""
    found = []
    for name in filter(str.isdecimal, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/cmdline") as file:
                found += [name] if label in file.read() else []
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


async def test_a_folder_that_cannot_be_written_is_an_error_with_a_hint(tmp_path):
    async with pool_at(tmp_path, prewarm=0) as pool:
        shutil.rmtree(tmp_path / "run")
        (tmp_path / "run").write_text("in the way")
        with pytest.raises(MachineError, match="cannot be prepared"):
            await pool.claim(spec(HELLO))
        (tmp_path / "run").unlink()


async def test_the_tenant_idle_for_longest_makes_room_and_busy_ones_do_not(tmp_path):
    async with pool_at(tmp_path, tenants_max=2) as pool:
        first, second = await pool.claim(spec(HELLO)), await pool.claim(spec(HELLO))
        run = first.begin()
        third = await pool.claim(spec(HELLO))
        assert (await second.exited).kind == "stopped"
        third.begin()
        with pytest.raises(NoRoomError):
            await pool.claim(spec(HELLO))
        cost = first.end(run)
        assert cost.wall_ns > 0


async def test_cpu_and_memory_are_metered_per_run(tmp_path):
    code = """fetch(request) { if (request.url.endsWith("/spin")) {
      let x = 1; for (let i = 0; i < 1e8; i++) x = (x * 31 + i) | 0; globalThis.x = x; } return new Response("ok") }"""
    async with pool_at(tmp_path) as pool:
        tenant = await pool.claim(spec(code))
        await ask(tenant)
        costs = {}
        for path in ("/", "/spin"):
            run = tenant.begin()
            await ask(tenant, path)
            costs[path] = tenant.end(run)
        light, heavy = costs["/"], costs["/spin"]
        assert 0 < 10 * light.cpu_ns < heavy.cpu_ns < 1.2 * heavy.wall_ns
        assert heavy.memory_mb_ms >= 5 * heavy.wall_ns // 10**6
        assert tenant.usage().memory_bytes > 2**20


async def test_everything_is_gone_after_close(tmp_path):
    async with pool_at(tmp_path, prewarm=2) as pool:
        tenant = await pool.claim(spec(HELLO))
        await ask(tenant)
        pids = {tenant.pid, *pool.idle_pids}
        assert pids <= set(descendants(os.getpid()))
    assert not pids & set(descendants(os.getpid()))
    assert [p.name for p in tmp_path.iterdir()] == ["lock"]
    assert tenant.exited.result().kind == "stopped"


async def test_two_pools_do_not_share_a_home(tmp_path):
    async with pool_at(tmp_path):
        with pytest.raises(MachineError, match="another process uses"):
            async with pool_at(tmp_path):
                pass


async def test_a_home_with_a_long_name_works(tmp_path):
    async with pool_at(tmp_path / ("long" * 40)) as pool:
        assert (await ask(await pool.claim(spec(HELLO)))).body == b"hello"


async def test_without_a_sandbox_only_the_operators_own_code_runs(tmp_path):
    options = {"sandbox": NoSandbox(), "unsandboxed": lambda owner: owner == OWNER}
    async with pool_at(tmp_path, **options) as pool:
        assert (await ask(await pool.claim(spec(HELLO)))).body == b"hello"
        with pytest.raises(SandboxMissingError) as caught:
            await pool.claim(spec(HELLO, owner="0xsomebody"))
    assert "apt-get install bubblewrap" in caught.value.hint


def test_this_machine_reports_its_tier_with_a_reason():
    (tier,) = capabilities().tiers
    assert tier.name == "process"
    assert "seccomp" in tier.reason


def test_engines_are_found_again_without_installing():
    installed = installed_engines()
    assert os.access(installed.workerd, os.X_OK)
    assert os.access(installed.esbuild, os.X_OK)
