"""The front door: a real block store, and apps of a real ledger state in memory."""

import io
import json

import msgspec
import pytest

from lichen.cdn.names.resolver import Names
from lichen.cdn.names.store import NameStore
from lichen.cdn.serve import ContentRouter
from lichen.content import CID, RAW, V1_2025, BlockStore, import_directory
from lichen.content.dag_pb import Link
from lichen.gateway.apps import SITE_CACHE, Apps
from lichen.gateway.call import Call
from lichen.gateway.config import GatewayConfig
from lichen.gateway.front import Front, NoRouteError
from lichen.gateway.named import Named
from lichen.gateway.placer import Placer
from lichen.gateway.runs import RunLog
from lichen.ledger.errors import UnknownAppError
from lichen.ledger.tables import APPS
from lichen.ledger.transactions import ActivateRelease, CreateApp, PublishRelease
from lichen.ledger.types import FunctionSpec, Runtime
from lichen.testing.ledger import MemoryLedger, genesis_of, key_of
from lichen.units import Amount
from lichen.wire import Asgi, Ready, SendFile
from lichen.wire.heads import usual_request

MAPPED = {"mapped.example": "/ipfs/bafkqaddwgevxmmraojswg33smq"}
CONFIG = GatewayConfig(
    network="", ledger="", listen="127.0.0.1:0", hosts=("localhost",), dnslinks=MAPPED
)
OWNER = key_of("owner")
CODE = CID.of(RAW, b"code")
LARGE = bytes(range(256)) * 400  # over what is kept in memory
FILES = {
    "index.html": b"<p>home",
    "about.html": b"<p>about",
    "large.bin": LARGE,
    "docs/index.html": b"<p>docs",
    "empty/file.txt": b"text",
    "404.html": b"<p>lost",
    "_redirects": b"/old /about 302\n/away/* https://example.org/:splat 308\n/spa/* /index.html 200\n"
    b"/gone /404.html 410\n",
    "_headers": b"/*\n  X-Site: yes\n  Set-Cookie: a=b\n/about\n  ! X-Site\n",
}


def function(name="api", routes=("/api/*",), **changes):
    spec = FunctionSpec(
        name=name,
        code=CODE,
        runtime=Runtime.JS,
        routes=routes,
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


def put_site(store, files):
    """Store a folder of files; names may have slashes."""
    blocks = []

    def folder(found):
        links, below = [], {}
        for name, data in found.items():
            first, slash, rest = name.partition("/")
            if slash:
                below.setdefault(first, {})[rest] = data
            else:
                links.append(Link(store.add_file(io.BytesIO(data))[0], name, 1))
        links += [Link(folder(inner), name, 1) for name, inner in below.items()]
        return import_directory(links, V1_2025, lambda cid, block: blocks.append((cid, block))).cid

    root = folder(files)
    store.put_blocks(blocks)
    return root


class World:
    def __init__(self, folder):
        self.store = BlockStore.open(folder / "content", capacity_bytes=2**28)
        self.ledger = MemoryLedger(genesis_of("owner"))
        self.apps = Apps(self.ledger.view, self.store)
        self.runs = RunLog(str(folder / "runs"), key_of("gateway").address)
        placer = Placer(self.ledger.view, None, self.runs, replicas=3)
        content = ContentRouter(self.store, can_fetch=True)
        self.records = NameStore(str(folder / "names"))
        self.names = Names(self.records, static=MAPPED)
        named = Named(self.names, content)
        self.front = Front(CONFIG, self.apps, content, placer, named)
        self.site = put_site(self.store, FILES)
        self.ledger.submit(OWNER, CreateApp("shop", ""))
        self.publish(self.site, function())

    def publish(self, site, *functions, name="shop"):
        self.ledger.submit(OWNER, PublishRelease(name, site, functions, None))
        self.changed(name)

    def changed(self, name):
        self.apps.on_block(None, frozenset({APPS.prefix + name.encode()}))

    def ask(self, target, host="shop.app.localhost:8080", method="GET", **headers):
        lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
        data = f"{method} {target} HTTP/1.1\r\nhost: {host}\r\n{lines}\r\n".encode()
        head = usual_request(data, None, 100)
        assert head is not None
        return self.front.route(head)


@pytest.fixture
def world(tmp_path):
    world = World(tmp_path)
    yield world
    world.runs.close()
    world.store.close()


def fields(answer):
    lines = answer.head.split(b"\r\n")[1:]
    return {
        line.partition(b": ")[0].decode(): line.partition(b": ")[2].decode()
        for line in lines
        if line
    }


def test_a_site_answers_at_its_host_by_file_index_and_page(world):
    for path, body in {"/": b"<p>home", "/about": b"<p>about", "/about.html": b"<p>about",
                       "/docs/": b"<p>docs", "/empty/file.txt": b"text"}.items():  # fmt: skip
        answer = world.ask(path)
        assert (answer.status, answer.body) == (200, body)
        assert fields(answer)["cache-control"] == SITE_CACHE.decode()


def test_a_site_answers_below_its_path_too_from_an_origin_of_nobody(world):
    answer = world.ask("/app/shop/docs/?x=1", host="localhost:8080")
    assert answer.body == b"<p>docs"
    assert fields(answer)["content-security-policy"].startswith("sandbox ")
    assert "set-cookie" not in fields(answer)
    assert fields(answer)["x-site"] == "yes"


def test_a_large_file_is_sent_from_its_file_with_its_size(world):
    answer = world.ask("/large.bin")
    assert isinstance(answer, SendFile)
    assert b"content-length: %d\r\n" % len(LARGE) in answer.head_bytes
    assert isinstance(world.ask("/large.bin", range="bytes=1-4"), SendFile)
    assert world.ask("/large.bin", range="bytes=9999999-").status == 416
    head = world.ask("/large.bin", method="HEAD")
    assert fields(head)["content-length"] == str(len(LARGE))


def test_a_known_etag_is_answered_without_the_content(world):
    etag = fields(world.ask("/about"))["etag"]
    assert world.ask("/about", if_none_match=etag).status == 304


@pytest.mark.parametrize("host", ["shop.app.localhost", "localhost"])
def test_a_folder_without_its_slash_leads_there_at_host_and_path_alike(world, host):
    prefix = "" if host.startswith("shop") else "/app/shop"
    answer = world.ask(f"{prefix}/docs", host=host)
    assert (answer.status, fields(answer)["location"]) == (301, "./docs/")
    answer = world.ask(f"{prefix}/docs?a=b", host=host)
    assert (answer.status, fields(answer)["location"]) == (301, "./docs/?a=b")


def test_header_rules_hold_for_the_site(world):
    answer = fields(world.ask("/"))
    assert answer["x-site"] == "yes"
    assert answer["set-cookie"] == "a=b"
    assert "x-site" not in fields(world.ask("/about"))


@pytest.mark.parametrize(
    ("path", "status", "location"),
    [("/old", 302, "/about"), ("/away/a%20b", 308, "https://example.org/a%20b")],
)
def test_redirects_answer_where_there_is_no_file(world, path, status, location):
    answer = world.ask(path)
    assert (answer.status, fields(answer)["location"]) == (status, location)
    below = world.ask("/app/shop" + path, host="localhost")
    prefix = "/app/shop" if location.startswith("/") else ""
    assert fields(below)["location"] == prefix + location
    for _ in range(2):
        assert fields(world.ask(path + "?a=b"))["location"] == location + "?a=b"
    assert fields(world.ask(path))["location"] == location


def test_a_rule_shows_a_page_under_another_path_and_status(world):
    page = world.ask("/spa/any/where")
    assert (page.status, page.body) == (200, b"<p>home")
    assert world.ask("/spa/any/where", if_none_match=fields(page)["etag"]).status == 304
    assert (world.ask("/gone").status, world.ask("/gone").body) == (410, b"<p>lost")


def test_what_a_site_does_not_have_is_its_own_404_page(world):
    for path in ("/none", "/empty/", "/_headers", "/_redirects", "/a/..%2f..%2fb", "/%00", "/%ff"):
        answer = world.ask(path)
        assert (answer.status, answer.body) == (404, b"<p>lost"), path


def test_a_404_page_over_the_memory_bound_has_its_body(world):
    page = b"<p>lost" * 20_000
    world.publish(put_site(world.store, {"404.html": page}))
    assert world.ask("/none").body == page


def test_functions_come_after_files_and_before_rules(world):
    world.publish(world.site, function(routes=("/*",)))
    assert isinstance(world.ask("/about"), Ready)
    assert isinstance(world.ask("/old"), Call)
    assert isinstance(world.ask("/none"), Call)
    assert isinstance(world.ask("/about", method="DELETE"), Call)
    world.publish(world.site, function(routes=("/about",), run_first=True))
    assert isinstance(world.ask("/about"), Call)


def test_an_unknown_app_and_a_path_without_route_are_named(world):
    with pytest.raises(UnknownAppError, match="nobody"):
        world.ask("/", host="nobody.app.localhost")
    world.publish(None, function())
    with pytest.raises(NoRouteError, match="/none"):
        world.ask("/none")
    with pytest.raises(NoRouteError):
        world.ask("/app/shop/none", host="localhost")


def test_a_new_release_and_a_rollback_change_what_is_served(world):
    other = put_site(world.store, {"index.html": b"<p>new"})
    assert world.ask("/").body == b"<p>home"
    world.publish(other)
    assert world.ask("/").body == b"<p>new"
    world.ledger.submit(OWNER, ActivateRelease("shop", 1))
    world.changed("shop")
    assert world.ask("/").body == b"<p>home"


def test_content_answers_by_path_and_at_a_host_of_its_own(world):
    assert world.ask(f"/ipfs/{world.site}/", host="localhost").body == b"<p>home"
    host = f"{world.site}.ipfs.localhost:8080"
    assert world.ask("/", host=host).body == b"<p>home"
    moved = world.ask("/docs", host=host)
    assert fields(moved)["location"] == "/docs/"
    assert "content-security-policy" not in fields(world.ask("/", host=host))
    assert "content-security-policy" in fields(world.ask(f"/ipfs/{world.site}/", host="localhost"))
    moved = world.ask("/old", host=host)
    assert (moved.status, fields(moved)["location"]) == (302, "/about")
    assert world.ask("/spa/x", host=host).body == b"<p>home"
    assert (world.ask("/gone", host=host).status, world.ask("/no", host=host).status) == (410, 404)
    assert fields(world.ask("/no", host=host))["date"].endswith(" GMT")
    assert isinstance(world.ask("/empty/", host=host), Asgi)  # a listing is made over there


def test_two_content_hosts_never_share_an_answer(world):
    other = put_site(world.store, {"index.html": b"<p>other"})
    assert world.ask("/", host=f"{world.site}.ipfs.localhost").body == b"<p>home"
    assert world.ask("/", host=f"{other}.ipfs.localhost").body == b"<p>other"


def test_what_is_not_here_is_left_to_be_fetched(world):
    missing = CID.of(RAW, b"elsewhere")
    for target in (f"/ipfs/{missing}", f"/ipfs/{missing}?format=raw"):
        assert isinstance(world.ask(target, host="localhost"), Asgi)
    world.publish(missing)
    assert isinstance(world.ask("/"), Asgi)
    place = world.front.place(b"shop.app.localhost", b"/x")
    assert (place.root, place.path, place.kind, place.prefix) == (missing, "/x", "site", "")


def test_the_asgi_side_learns_what_a_request_is_for(world):
    place = world.front.place
    site, path = str(world.site), f"/ipfs/{world.site}"
    assert place(b"localhost", f"{path}/a%20b".encode()).path == "/a b"
    assert place(b"localhost", path.encode()).prefix == path
    assert place(f"{site}.ipfs.localhost".encode(), b"/x").kind == "host"
    assert place(b"localhost", b"/app/shop/x").prefix == "/app/shop"
    assert place(b"shop.app.localhost", b"/api/x").has_function
    assert place(b"localhost", b"/api/v1/apps") is None


def test_a_path_that_is_not_content_is_an_error_of_the_asker(world):
    for target, host, status in (
        ("/ipfs/nonsense", "localhost", 400),
        ("/", "nonsense.ipfs.localhost", 400),
        (f"/ipfs/{world.site}/none", "localhost", 404),
        (f"/ipfs/{world.site}/%2e%2e/x", "localhost", 400),
    ):
        answer = world.ask(target, host=host, accept="application/problem+json")
        assert answer.status == status
        assert json.loads(answer.body)["hint"]
        assert fields(answer)["access-control-allow-origin"] == "*"


def test_the_gateways_own_paths_are_left_to_its_api(world):
    assert world.ask("/api/v1/apps", host="localhost") is None
    assert world.ask("/", host="localhost") is None
    upload = world.ask("/api/v1/content", host="localhost")
    assert upload.body_bytes_max == CONFIG.upload_bytes_max


def test_headers_of_content_stay_under_two_kibibytes(world):
    name = "\u00e9" * 120 + ".html"
    root = put_site(world.store, {name: b"x", "_headers": b"/*\n  x: " + b"y" * 900 + b"\n"})
    world.publish(root)
    path = "/" + "%C3%A9" * 120 + ".html"
    for target, host in ((path, "shop.app.localhost"), (f"/ipfs/{root}{path}", "localhost")):
        answer = world.ask(target, host=host)
        assert answer.body == b"x"
        assert len(answer.head) < 2048
