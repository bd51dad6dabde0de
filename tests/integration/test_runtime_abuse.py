"""Hostile code is stopped, its owner learns why, and its neighbour does not notice."""

import asyncio
import os
import signal
import subprocess
import sys
import textwrap

import pytest

from lichen.runtime import process
from lichen.runtime.sandbox import Job
from tests.integration.runtime_world import (
    ask,
    capabilities,
    descendants,
    latencies_ms,
    p99,
    pool_at,
    spec,
    until,
)

HELLO = "fetch() { return new Response('hello') }"
HEAP = "fetch() { const kept = []; for (;;) kept.push(new Array(1e5).fill({})) }"
BUFFERS = """fetch() { const kept = [];
  for (let i = 0; i < 64; i++) kept.push(new Uint8Array(64 << 20).fill(1));
  return new Response("4 GiB") }"""
LOOP = "fetch() { for (;;); }"
MICROTASKS = "async fetch() { for (;;) await null; }"
FLOOD = """fetch() { const line = "x".repeat(1e5);
  for (let i = 0; i < 1e4; i++) console.log(line); return new Response("1 GB") }"""
MEASURED_S = 1.0
ROUNDS_MAX = 12
FLOOR_MS = 0.7  # below this, timers and wake-ups are what is measured


async def attack(tenant, timeout_s=1.0):
    """Do what a node does: wait for the timeout, ask for a sign of life, stop it without one."""
    try:
        await ask(tenant, timeout_s=timeout_s)
    except TimeoutError:
        if not await tenant.responsive(0.5):
            tenant.stop("unresponsive")
    return await asyncio.wait_for(asyncio.shield(tenant.exited), 10)


@pytest.mark.parametrize("kernel", ["kernel limits", "watchdog alone"])
@pytest.mark.parametrize(
    ("code", "kind", "timeout_s"),
    [
        (HEAP, "memory", 20.0),
        (BUFFERS, "memory", 20.0),
        (LOOP, "unresponsive", 0.5),
        (MICROTASKS, "unresponsive", 0.5),
        (FLOOD, "output", 20.0),
    ],
    ids=["heap", "buffers", "loop", "microtasks", "flood"],
)
async def test_hostile_code_is_stopped_for_the_right_reason(
    tmp_path, code, kind, timeout_s, kernel
):
    options = {} if kernel == "kernel limits" else {"cgroups": None}
    async with pool_at(tmp_path, **options) as pool:
        tenant = await pool.claim(spec(code))
        reason = await attack(tenant, timeout_s)
        assert reason.kind == kind, reason
        await until(lambda: tenant.pid not in descendants(os.getpid()))


@pytest.mark.parametrize(
    "code", [HEAP, BUFFERS, LOOP, FLOOD], ids=["heap", "buffers", "loop", "log"]
)
async def test_a_neighbours_p99_stays_within_twice_its_own(tmp_path, code):
    ratios = []
    async with pool_at(tmp_path, prewarm=2) as pool:
        neighbour = await pool.claim(spec(HELLO))
        await latencies_ms(neighbour, 0.2)
        # Others share this machine and add noise to single rounds, never to all of them alike.
        while len(ratios) < ROUNDS_MAX and min(ratios, default=3) > 2:
            before = await latencies_ms(neighbour, MEASURED_S)
            hostile = await pool.claim(spec(code))
            attacking = asyncio.create_task(attack(hostile))
            during = await latencies_ms(neighbour, MEASURED_S)
            assert (await attacking).kind in {"memory", "unresponsive", "output"}
            ratios.append(p99(during) / max(p99(before), FLOOR_MS))
    assert min(ratios) <= 2, ratios


async def test_a_function_that_waits_is_not_taken_for_one_that_hangs(tmp_path):
    code = "async fetch() { await new Promise(done => setTimeout(done, 60000)) }"
    async with pool_at(tmp_path) as pool:
        tenant = await pool.claim(spec(code))
        with pytest.raises(TimeoutError):
            await ask(tenant, timeout_s=0.3)
        assert await tenant.responsive(5)
        assert not tenant.exited.done()


async def test_a_log_flood_reaches_the_owner_as_a_few_lines_and_a_count(tmp_path):
    code = """fetch() { for (let i = 0; i < 20000; i++) console.log("line", i);
      return new Response("done") }"""
    lines = []
    async with pool_at(tmp_path) as pool:
        tenant = await pool.claim(spec(code))
        tenant.on_log(lines.append)
        assert (await ask(tenant)).body == b"done"
        await until(lambda: any("lines dropped" in line.text for line in lines))
    assert len(lines) < 5000
    dropped = sum(int(line.text.split()[0]) for line in lines if "lines dropped" in line.text)
    assert dropped + sum(line.text.startswith("line ") for line in lines) == 20_000


async def start_python(directory, script, **options):
    """Run a Python script where a tenant's engine would run; return the process and its output."""
    found = capabilities()
    read, write = os.pipe()
    cgroup = found.cgroups.create(900_000) if found.cgroups else None
    if cgroup:
        cgroup.limit_pids(40)
        cgroup.limit_memory(256 * 2**20)
    os.chmod(directory, 0o755)
    real = os.path.realpath(sys.executable)
    prefix = sys.base_prefix
    job = Job(
        program=real,
        arguments=("-I", "-S", "-c", textwrap.dedent(script)),
        directory=str(directory),
        number=900_000,
        cgroup_procs=cgroup.procs if cgroup else (),
        pids_max=40,
        extra_binds=((prefix, prefix),),
        **options,
    )
    started = await process.start(found.sandbox, job, output=write)
    os.close(write)
    return started, read, cgroup


async def run_python(directory, script, **options):
    started, read, cgroup = await start_python(directory, script, **options)
    try:
        await asyncio.wait_for(asyncio.shield(started.ended), 20)
    finally:
        started.kill()
        await started.ended
    output = os.read(read, 65536).decode()
    os.close(read)
    if cgroup:
        await until(cgroup.remove)
    return output


async def test_native_code_in_the_sandbox_cannot_create_a_process(tmp_path):
    output = await run_python(
        tmp_path,
        """
        import os
        try: os.fork()
        except OSError as error: print(error)
        """,
    )
    assert "Operation not permitted" in output


async def test_a_fork_bomb_is_contained_even_where_forking_is_allowed(tmp_path):
    if capabilities().cgroups is None and os.geteuid() != 0:
        pytest.skip("counts need a cgroup or a uid; here forking is only forbidden (see above)")
    output = await run_python(
        tmp_path,
        """
        import os, time
        made = 0
        try:
            while made < 5000:
                if os.fork() == 0: time.sleep(30); os._exit(0)
                made += 1
        except OSError as error: print(made, error, flush=True)
        """,
        allow_fork=True,
    )
    assert "temporarily unavailable" in output
    assert int(output.split()[0]) < 40


async def test_the_host_is_out_of_reach(tmp_path):
    secret = tmp_path.parent / "secret"
    secret.write_text("do not read")
    output = await run_python(
        tmp_path,
        f"""
        import os, socket
        def attempt(name, action):
            try: print(name, action())
            except OSError as error: print(name, "refused")
        attempt("file", lambda: open({str(secret)!r}).read())
        attempt("shadow", lambda: open("/etc/shadow").read())
        attempt("write", lambda: open("/usr/lib/x", "w"))
        attempt("job", lambda: open("/job/x", "w"))
        attempt("root", lambda: open("/x", "w"))
        attempt("loopback", lambda: socket.create_connection(("127.0.0.1", 22), 1))
        attempt("internet", lambda: socket.create_connection(("1.1.1.1", 53), 1))
        attempt("raw", lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1))
        attempt("netlink", lambda: socket.socket(16, 3, 0))
        attempt("sysctl", lambda: open("/proc/sys/kernel/core_pattern", "w"))
        attempt("kill", lambda: os.kill({os.getpid()}, 0))
        attempt("mount", lambda: __import__("ctypes").CDLL(None).mount(b"a", b"/proc", b"tmpfs", 0, 0))
        print("pids", len([p for p in os.listdir("/proc") if p.isdigit()]))
        """,
    )
    lines = dict(line.split(" ", 1) for line in output.splitlines())
    assert lines.pop("pids") == "1"
    assert lines.pop("mount") == "-1"
    assert set(lines.values()) == {"refused"}, lines
    assert len(lines) == 11


SUPERVISOR = """
import asyncio, sys
from lichen.runtime.bwrap import Bubblewrap
from lichen.runtime.sandbox import NoSandbox
from tests.integration.runtime_world import ask, pool_at, spec
async def main(tier):
    options = {"unsandboxed": lambda owner: True}
    if tier == "none": options["sandbox"] = NoSandbox()
    async with pool_at(sys.argv[1], prewarm=2, **options) as pool:
        tenant = await pool.claim(spec("fetch() { return new Response() }"))
        await ask(tenant)
        print("ready", flush=True)
        await asyncio.sleep(60)
asyncio.run(main(sys.argv[2]))
"""


@pytest.mark.parametrize("tier", ["process", "none"])
async def test_kill_9_of_the_node_leaves_no_process_behind_and_the_next_start_works(tmp_path, tier):
    capabilities()
    node = subprocess.Popen(  # noqa: ASYNC220  # it is killed below
        [sys.executable, "-c", SUPERVISOR, str(tmp_path), tier], stdout=subprocess.PIPE
    )
    try:
        assert node.stdout.readline() == b"ready\n"
        below = descendants(node.pid)
        assert len(below) >= 2
    finally:
        node.send_signal(signal.SIGKILL)
        node.wait()
        node.stdout.close()

    def gone():
        return not any(is_alive(pid) for pid in below)

    await until(gone)
    async with pool_at(tmp_path) as pool:
        assert (await ask(await pool.claim(spec(HELLO)))).body == b"hello"


def is_alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
