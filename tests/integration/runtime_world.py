"""A pool of real processes, and a client for the sockets of its tenants."""

import asyncio
import os
import statistics
import time
from contextlib import asynccontextmanager
from functools import cache

from lichen.runtime import engines, probe
from lichen.runtime.pool import Pool, TenantSpec

OWNER = "0x0000000000000000000000000000000000000001"


@cache
def capabilities():
    """What this machine can do; a machine without a sandbox fails the tests and says why."""
    found = probe.detect()
    for tier in found.tiers:
        if tier.name == "process" and not tier.available:
            raise AssertionError(f"{tier.reason}; to run these tests: apt-get install bubblewrap")
    return found


@cache
def installed_engines():
    return engines.ensure()


@asynccontextmanager
async def pool_at(home, **options):
    found = capabilities()
    options = {"sandbox": found.sandbox, "cgroups": found.cgroups, "prewarm": 1, **options}
    pool = Pool(installed_engines(), home, **options)
    await pool.start()
    try:
        yield pool
    finally:
        await pool.close()


def spec(code, **changes):
    text = code if "export default" in code else f"export default {{ {code} }}"
    return TenantSpec(**{"name": "t", "owner": OWNER, "code": text.encode(), **changes})


class Answer:
    def __init__(self, raw):
        head, _, self.body = raw.partition(b"\r\n\r\n")
        status, *lines = head.decode("latin-1").split("\r\n")
        self.status = int(status.split()[1]) if status else 0
        pairs = (line.split(": ", 1) for line in lines)
        self.headers = {name.lower(): value for name, value in pairs}
        if self.headers.get("transfer-encoding") == "chunked":
            self.body = _unchunk(self.body)


def _unchunk(data):
    body = b""
    while data:
        size, _, rest = data.partition(b"\r\n")
        length = int(size, 16)
        body, data = body + rest[:length], rest[length + 2 :]
    return body


async def ask(tenant, path="/", *, headers=None, body=b"", method="GET", timeout_s=10.0):
    """Send one request to a tenant and return its answer; status 0 if the process died on it."""
    async with asyncio.timeout(timeout_s):
        reader, writer = await asyncio.open_unix_connection(tenant.socket_path)
        try:
            fields = {"Host": "app.example", "Connection": "close", **(headers or {})}
            if body:
                fields["Content-Length"] = str(len(body))
            lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
            writer.write(f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode() + body)
            return Answer(await reader.read())
        except ConnectionError:
            return Answer(b"")
        finally:
            writer.transport.abort()


async def latencies_ms(tenant, duration_s):
    """Return the latencies of requests made one after the other, a moment apart, for this long."""
    found = []
    end = time.perf_counter() + duration_s
    while time.perf_counter() < end:
        await asyncio.sleep(0.001)
        began = time.perf_counter()
        assert (await ask(tenant)).status == 200
        found.append((time.perf_counter() - began) * 1000)
    return found


def p99(values):
    return statistics.quantiles(values, n=100)[98]


def descendants(pid):
    """Return the pids below `pid`, zombies excluded."""
    children = {}
    for name in filter(str.isdecimal, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/stat") as file:
                state, parent = file.read().rpartition(")")[2].split()[:2]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if state != "Z":
            children.setdefault(int(parent), []).append(int(name))
    found, todo = [], [pid]
    while todo:
        below = children.get(todo.pop(), [])
        found += below
        todo += below
    return found


async def until(condition, timeout_s=10.0):
    """Wait until `condition()` holds; fail when it does not in time."""
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110  # the operating system sends no event for these
            await asyncio.sleep(0.01)
