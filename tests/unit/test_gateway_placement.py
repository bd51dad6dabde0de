import msgspec
import pytest

from lichen.content.cid import CID, RAW
from lichen.gateway.placement import BACKOFF_MS_START, BUSY_IN_FLIGHT, Health, choose, rank
from lichen.gateway.routes import AppRoutes
from lichen.identity import Address, PrivateKey
from lichen.ledger.types import Capacity, FunctionSpec, Node, NodeStatus, Prices, Release, Runtime
from lichen.units import Amount

OWNER = Address(bytes(20))


def make_spec(**changes: object) -> FunctionSpec:
    spec = FunctionSpec(
        name="api",
        code=CID.of(RAW, b"code"),
        runtime=Runtime.JS,
        routes=("/*",),
        memory_mb=128,
        timeout_ms=1000,
        verify="none",
        max_price=Amount(10**15),
        min_tier="process",
        run_first=False,
        schedule=(),
        content_bytes=4,
    )
    return msgspec.structs.replace(spec, **changes)


def make_routes(*specs: FunctionSpec) -> AppRoutes:
    return AppRoutes(OWNER, Release("hello", 2, None, specs or (make_spec(),), None, 0))


def make_node(**changes: object) -> Node:
    key = PrivateKey.generate().public
    node = Node(
        address=key.address,
        key=key,
        endpoint="http://127.0.0.1:1",
        capacity=Capacity(10, 1024, 0),
        prices=Prices(Amount(10**11), Amount(10**14), Amount(10**13), Amount(10**15), Amount(0)),
        tiers=("process",),
        stake=Amount(0),
        status=NodeStatus.ACTIVE,
        registered_ms=0,
        withdraw_ms=0,
    )
    return msgspec.structs.replace(node, **changes)


def test_the_most_specific_route_wins() -> None:
    routes = make_routes(
        make_spec(name="all", routes=("/*",)),
        make_spec(name="api", routes=("/api/*",)),
        make_spec(name="one", routes=("/api/one",)),
    )
    names = {path: routes.match(path).spec.name for path in (b"/", b"/api/x", b"/api/one", b"/api")}  # type: ignore[union-attr]
    assert names == {b"/": "all", b"/api/x": "api", b"/api/one": "one", b"/api": "api"}


def test_a_path_without_a_route_has_no_function() -> None:
    assert make_routes(make_spec(routes=("/api/*",))).match(b"/other") is None


@pytest.mark.parametrize(
    ("node", "spec", "code"),
    [
        (make_node(status=NodeStatus.EXITING), make_spec(), "exiting"),
        (make_node(tiers=("wasm",)), make_spec(), "tier"),
        (make_node(), make_spec(max_price=Amount(10**10)), "price"),
        (make_node(), make_spec(memory_mb=4096), "memory"),
    ],
)
def test_each_refusal_has_its_reason(node: Node, spec: FunctionSpec, code: str) -> None:
    ranking = rank(make_routes(spec).functions[0], [node], {}, now_ms=0)
    assert ranking.nodes == ()
    assert ranking.refusals[bytes(node.address)].code == code


def test_reasons_are_counted() -> None:
    nodes = [
        make_node(tiers=("wasm",)),
        make_node(tiers=("wasm",)),
        make_node(status=NodeStatus.EXITING),
    ]
    ranking = rank(make_routes().functions[0], nodes, {}, now_ms=0)
    assert ranking.explain() == "2 without tier process, 1 leaving the network"


def test_cheap_nodes_come_first_and_like_prices_are_spread_by_app() -> None:
    dear = make_node(prices=Prices(*(Amount(10**13),) * 5))
    cheap = [make_node() for _ in range(8)]
    first = set()
    for number in range(30):
        routes = AppRoutes(OWNER, Release(f"app{number}", 1, None, (make_spec(),), None, 0))
        ranking = rank(routes.functions[0], [dear, *cheap], {}, now_ms=0)
        assert ranking.nodes[-1] == bytes(dear.address)
        first.add(ranking.nodes[0])
    assert len(first) > 3


def test_a_failing_node_rests_longer_each_time_and_comes_back() -> None:
    node, health = make_node(), Health()
    function = make_routes().functions[0]
    rests, now_ms = [], 1000
    for _ in range(3):
        health.failed(now_ms)
        rests.append(health.rest_until_ms - now_ms)
        book = {bytes(node.address): health}
        assert rank(function, [node], book, now_ms=now_ms).refusals
        now_ms = health.rest_until_ms
        assert rank(function, [node], book, now_ms=now_ms).nodes
    assert rests == sorted(set(rests))


def test_requests_that_fail_together_rest_a_node_once() -> None:
    health = Health()
    for _ in range(100):
        health.failed(now_ms=1000)
    assert health.rest_until_ms == 1000 + BACKOFF_MS_START


def test_a_busy_node_is_passed_over_until_all_are_busy() -> None:
    one, two = bytes(20), bytes([1] * 20)
    health = {one: Health(), two: Health()}
    assert choose([one, two], health) == one
    health[one].in_flight = BUSY_IN_FLIGHT
    assert choose([one, two], health) == two
    health[two].in_flight = BUSY_IN_FLIGHT + 1
    assert choose([one, two], health) == one
    assert choose([one, two], health, tried=[one, two]) is None
    assert Address(one) != Address(two)
