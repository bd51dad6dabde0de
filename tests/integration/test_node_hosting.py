"""Functions of a release on a real pool: found, started once, ended when idle."""

import asyncio

import pytest

from lichen.content import CID, RAW
from lichen.errors import NotFoundError
from lichen.ledger.transactions import CreateApp, PublishRelease
from lichen.ledger.types import Runtime
from lichen.node.errors import UnknownFunctionError
from lichen.node.hosting import Hosting, crash_of
from lichen.testing.ledger import MemoryLedger, genesis_of, key_of
from lichen.wire.client import request
from tests.integration.runtime_world import pool_at
from tests.unit.test_gateway_front import function

OWNER = key_of("owner")
CODE = b"export default { fetch() { console.log('hi'); return new Response('hello') } }"
CODE_CID = CID.of(RAW, CODE)


class World:
    def __init__(self, pool, idle_s=300):
        self.ledger = MemoryLedger(genesis_of("owner"))
        self.ledger.submit(OWNER, CreateApp("shop", ""))
        self.ledger.submit(OWNER, PublishRelease("shop", None, (function(code=CODE_CID),), None))
        self.fetched = []
        self.lines = asyncio.Queue()
        self.hosting = Hosting(
            self.ledger.view,
            {Runtime.JS: pool},
            self.fetch,
            lambda hosted, line: self.lines.put_nowait((hosted.id, line.text)),
            idle_s=idle_s,
        )

    async def fetch(self, cid, bytes_max):
        self.fetched.append(cid)
        if cid != CODE_CID:
            raise NotFoundError("not here")
        return CODE


@pytest.fixture
async def world(tmp_path):
    async with pool_at(tmp_path) as pool:
        yield World(pool)


async def test_a_function_is_started_once_for_all_that_wait_and_answers(world):
    hosted = world.hosting.find(b"shop/1/api")
    upstreams = await asyncio.gather(*(world.hosting.start(hosted) for _ in range(5)))
    assert len({id(upstream) for upstream in upstreams}) == 1
    assert world.fetched == [CODE_CID]
    assert world.hosting.running() == [hosted]
    answer = await request(upstreams[0], b"GET", b"/", headers=[(b"host", b"x")])
    assert answer.body == b"hello"
    assert await asyncio.wait_for(world.lines.get(), 5) == ("shop/1/api", "hi")


@pytest.mark.parametrize(
    "name", [b"shop/2/api", b"shop/1/none", b"none/1/api", b"shop/x/api", b"", b"\xff/1/api"]
)
async def test_what_the_ledger_does_not_have_is_not_hosted(world, name):
    with pytest.raises(UnknownFunctionError):
        world.hosting.find(name)


async def test_code_that_cannot_be_fetched_fails_all_that_wait_and_is_tried_again(world):
    spec = function(code=CID.of(RAW, b"elsewhere"))
    world.ledger.submit(OWNER, PublishRelease("shop", None, (spec,), None))
    hosted = world.hosting.find(b"shop/2/api")
    for _ in range(2):
        waiting = [world.hosting.start(hosted) for _ in range(2)]
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(result) for result in results] == [NotFoundError] * 2
    assert len(world.fetched) == 2


async def test_one_that_stops_waiting_does_not_stop_the_others(world):
    hosted = world.hosting.find(b"shop/1/api")
    first, second = world.hosting.start(hosted), world.hosting.start(hosted)
    first.cancel()
    assert await second is hosted.upstream


async def test_an_idle_function_ends_and_comes_back(world):
    hosted = world.hosting.find(b"shop/1/api")
    await world.hosting.start(hosted)
    tenant = hosted.tenant
    world.hosting.sweep()
    assert hosted.tenant is tenant
    world.hosting._idle_s = -1
    world.hosting.sweep()
    await asyncio.wait_for(asyncio.shield(tenant.exited), 10)
    await asyncio.sleep(0)
    assert (hosted.tenant, hosted.upstream, world.hosting.running()) == (None, None, [])
    await world.hosting.start(hosted)
    assert hosted.tenant is not tenant


async def test_a_process_that_went_away_is_explained(world):
    hosted = world.hosting.find(b"shop/1/api")
    await world.hosting.start(hosted)
    tenant = hosted.tenant
    tenant.stop("stopped")
    error = await crash_of(tenant)
    assert "ended while it answered" in error.what
    assert error.hint
    assert "ended" in (await crash_of(None)).what


async def test_new_code_is_fetched_before_anybody_asks(world):
    world.hosting.prefetch((function(code=CODE_CID), function(code=CID.of(RAW, b"missing"))))
    await asyncio.gather(*world.hosting._tasks)
    assert set(world.fetched) == {CODE_CID, CID.of(RAW, b"missing")}
