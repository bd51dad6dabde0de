"""Cold start of a tenant: from claim to the first byte of its first answer, over the socket.

Prints medians of the sandboxed tier and of plain processes side by side, and their ratio. Run it
with `python bench/coldstart_runtime.py`; it takes a few seconds.
"""

import asyncio
import statistics
import tempfile
import time

from lichen.runtime import engines, probe
from lichen.runtime.pool import Pool, TenantSpec
from lichen.runtime.sandbox import NoSandbox, Sandbox

ROUNDS = 12
PAUSE_S = 0.4  # lets the pool fill up again
TARGET_MS = 10.0
HELLO = b"export default { fetch() { return new Response('hello') } }"
REQUEST = b"GET / HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n"


async def first_byte_ms(pool: Pool) -> tuple[float, float]:
    """Return wall and CPU ms from claim to first byte."""
    began = time.perf_counter()
    tenant = await pool.claim(TenantSpec(name="bench", owner="bench", code=HELLO))
    cpu_ns = tenant.usage().cpu_ns
    reader, writer = await asyncio.open_unix_connection(tenant.socket_path)
    writer.write(REQUEST)
    await reader.readexactly(1)
    wall_ms = (time.perf_counter() - began) * 1000
    cpu_ms = (tenant.usage().cpu_ns - cpu_ns) / 1e6
    writer.transport.abort()
    tenant.stop()
    await tenant.exited
    return wall_ms, cpu_ms


async def measure(sandbox: Sandbox, found: probe.Capabilities) -> list[tuple[float, float]]:
    with tempfile.TemporaryDirectory() as home:
        pool = Pool(
            engines.ensure(print),
            home,
            sandbox=sandbox,
            cgroups=found.cgroups,
            unsandboxed=lambda _owner: True,
        )
        await pool.start()
        try:
            samples = []
            for _ in range(ROUNDS):
                await asyncio.sleep(PAUSE_S)
                samples.append(await first_byte_ms(pool))
            return samples
        finally:
            await pool.close()


async def main() -> None:
    found = probe.detect()
    medians = {}
    for sandbox in (NoSandbox(), found.sandbox):
        samples = await measure(sandbox, found)
        walls, cpus = zip(*samples, strict=True)
        medians[sandbox.tier] = statistics.median(walls)
        print(
            f"tier {sandbox.tier:8} first byte: median {medians[sandbox.tier]:5.1f} ms, "
            f"min {min(walls):5.1f}, max {max(walls):5.1f}; tenant CPU median "
            f"{statistics.median(cpus):4.1f} ms"
        )
    if "process" in medians:
        verdict = "reached" if medians["process"] <= TARGET_MS else "missed"
        print(f"sandboxed / plain: {medians['process'] / medians['none']:.2f}")
        print(f"target {TARGET_MS:.0f} ms: {verdict}")


if __name__ == "__main__":
    asyncio.run(main())
