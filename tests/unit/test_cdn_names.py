"""Names lead to content: by records, DNSLink and the operator's map; fresh, bounded, and not late."""

import asyncio

import pytest

from lichen.cdn.names import links as name_links
from lichen.cdn.names import resolver as names
from lichen.cdn.names.dnslink import Link, NoDnsLinkError, choose, dns_name, inline, outline
from lichen.cdn.names.resolver import NameLoopError, Names
from lichen.cdn.names.store import NameStore
from lichen.cdn.names.values import NameNotResolvedError
from lichen.content import CID
from lichen.content.ipns import Name, create_record
from lichen.content.libp2p_key import public_key
from lichen.errors import PeerUnavailableError, UserError
from lichen.identity import KeyKind, PrivateKey

NOW = 1_760_000_000 * 10**9
S = 10**9
KEYS = [PrivateKey(KeyKind.ED25519, bytes([i]) * 32) for i in range(1, 40)]
NAMES = [Name.of(public_key(key)) for key in KEYS]
A = CID.parse("bafkqaaa")
B = CID.parse("bafkqaddwgevxmmraojswg33smq")


def record(number=0, value=f"/ipfs/{A}", sequence=1, eol_s=3600, ttl_s=60):
    return create_record(
        KEYS[number], value, sequence=sequence, eol_ns=NOW + eol_s * S, ttl_ns=ttl_s * S
    ).encoded


class Domains:
    """Domains' answers, as a test sets them."""

    def __init__(self):
        self.links = {}
        self.asked = []
        self.silent = None

    async def lookup(self, host):
        self.asked.append(host)
        if self.silent is not None:
            await self.silent.wait()
        found = self.links.get(host, NoDnsLinkError(f"{host} has no DNSLink"))
        if isinstance(found, Exception):
            raise found
        return found


class World:
    """A resolver with a clock that only tests move, and others that it asks."""

    def __init__(self, path):
        self.seconds = 1000.0
        self.others = {}
        self.asked = []
        self.silent = None
        self.domains = Domains()
        self.store = NameStore(path, now_ns=self.now_ns)
        self.names = self.make()

    def make(self, **settings):
        return Names(
            self.store,
            **{"domains": self.domains, "fetch": self.fetch, **settings},
            now_ns=self.now_ns,
            clock=lambda: self.seconds,
        )

    def now_ns(self):
        return NOW + int((self.seconds - 1000) * S)

    def put(self, number=0, **fields):
        assert self.store.put(NAMES[number], record(number, **fields), self.now_ns())

    async def fetch(self, name):
        self.asked.append(name)
        if self.silent is not None:
            await self.silent.wait()
        found = self.others.get(name)
        if isinstance(found, Exception):
            raise found
        return found


@pytest.fixture
async def world(tmp_path):
    made = World(str(tmp_path / "names"))
    yield made
    await made.names.close()
    made.store.close()


async def settle():
    """Let what runs behind a request come to its end."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    if others:
        _, late = await asyncio.wait(others, timeout=10)
        assert not late


async def test_a_record_that_is_here_is_resolved_and_then_at_hand(world):
    world.put(value=f"/ipfs/{A}/docs/v1/")
    name = str(NAMES[0])
    assert world.names.ready(name) is None
    found = await world.names.resolve(name)
    assert (found.root, found.below) == (A, "/docs/v1")
    assert world.names.ready(name) == found
    assert world.names.ready(NAMES[0].peer_id) == found
    assert world.asked == [NAMES[0]]


async def test_a_record_of_others_is_verified_kept_and_used(world):
    world.others[NAMES[0]] = record()
    assert (await world.names.resolve(str(NAMES[0]))).root == A
    assert world.store.get(NAMES[0]) == record()


@pytest.mark.parametrize(
    "sent", [b"", b"rubbish", record(1), record(eol_s=-5), PeerUnavailableError("down")]
)
async def test_what_others_send_wrongly_is_no_answer(world, sent):
    world.others[NAMES[0]] = sent
    with pytest.raises(NameNotResolvedError):
        await world.names.resolve(str(NAMES[0]))
    assert world.store.get(NAMES[0]) is None


async def test_the_newest_of_what_is_here_and_there_counts(world):
    world.put(sequence=5)
    world.others[NAMES[0]] = record(value=f"/ipfs/{B}", sequence=4)
    assert (await world.names.resolve(str(NAMES[0]))).root == A
    world.others[NAMES[0]] = record(value=f"/ipfs/{B}", sequence=6)
    world.seconds += 500
    assert (await world.names.resolve(str(NAMES[0]))).root == B


async def test_what_is_published_here_counts_at_once(world):
    world.put()
    name = str(NAMES[0])
    await world.names.resolve(name)
    world.put(value=f"/ipfs/{B}", sequence=2)
    assert world.names.ready(name) is None
    world.silent = asyncio.Event()  # and nobody else is waited for
    assert (await world.names.resolve(name)).root == B


async def test_a_name_found_nowhere_is_found_once_it_is_published(world):
    name = str(NAMES[0])
    for _ in range(3):
        with pytest.raises(NameNotResolvedError):
            await world.names.resolve(name)
    assert len(world.asked) == 1, "a failure is remembered"
    world.put()
    assert (await world.names.resolve(name)).root == A


async def test_a_failure_is_remembered_for_a_short_time_only(world):
    with pytest.raises(NameNotResolvedError):
        await world.names.resolve(str(NAMES[0]))
    world.others[NAMES[0]] = record()
    world.seconds += name_links.ABSENT_S + name_links.STALE_AT_ONCE_S
    assert (await world.names.resolve(str(NAMES[0]))).root == A


async def test_a_stale_link_is_used_at_once_and_renewed_behind_the_request(world):
    world.put(ttl_s=60)
    name = str(NAMES[0])
    await world.names.resolve(name)
    world.others[NAMES[0]] = record(value=f"/ipfs/{B}", sequence=2)
    world.seconds += 61
    assert world.names.ready(name).root == A
    await settle()
    assert world.names.ready(name).root == B


async def test_a_link_that_is_over_for_long_is_not_used_before_others_were_asked(world):
    world.put(ttl_s=60)
    name = str(NAMES[0])
    await world.names.resolve(name)
    world.others[NAMES[0]] = record(value=f"/ipfs/{B}", sequence=2)
    world.seconds += 60 + name_links.STALE_AT_ONCE_S
    assert world.names.ready(name) is None
    assert (await world.names.resolve(name)).root == B


async def test_silent_others_hold_up_nobody_where_a_record_is_here(world, monkeypatch):
    monkeypatch.setattr(names, "FETCH_BESIDE_S_MAX", 0.01)
    world.put(ttl_s=3600, eol_s=7200)
    world.silent = asyncio.Event()
    found = await world.names.resolve(str(NAMES[0]))
    assert found.root == A
    assert found.ttl_s <= name_links.FAILED_S, "and they are asked again soon"
    world.silent.set()
    await settle()


async def test_nothing_is_believed_after_its_record_ended(world):
    world.put(ttl_s=3600, eol_s=100)
    name = str(NAMES[0])
    assert (await world.names.resolve(name)).ttl_s <= 100
    world.seconds += 99
    assert world.names.ready(name).root == A
    world.seconds += 1
    assert world.names.ready(name) is None
    with pytest.raises(NameNotResolvedError):
        await world.names.resolve(name)


async def test_names_lead_through_names_and_paths_add_up(world):
    world.domains.links["a.example.org"] = Link(f"/ipns/{NAMES[0].peer_id}/x", 300)
    world.put(0, value="/ipns/B.example.net/y/z", ttl_s=900)
    world.domains.links["b.example.net"] = Link(f"/ipfs/{B}/w", 40)
    found = await world.names.resolve("A.example.org")
    assert (found.root, found.below) == (B, "/w/y/z/x")
    assert found.ttl_s == 40, "the shortest time to live on the way"
    assert world.names.ready("a.example.org") == found


async def test_names_without_end_are_refused_by_400(world):
    for number, name in enumerate(NAMES[:34]):
        world.put(number, value=f"/ipns/{NAMES[number + 1]}", eol_s=9999)
        assert name is not None
    world.put(34, value=f"/ipfs/{A}")
    assert (await world.names.resolve(str(NAMES[4]))).root == A
    with pytest.raises(NameLoopError) as caught:
        await world.names.resolve(str(NAMES[0]))
    assert caught.value.status == 400
    world.put(36, value=f"/ipns/{NAMES[36]}")
    with pytest.raises(NameLoopError):
        await world.names.resolve(str(NAMES[36]))
    assert world.names.ready(str(NAMES[36])) is None


@pytest.mark.parametrize(
    "value",
    ["/ipfs/nothing", "/ipfs/", "/ipns/", "/ipns/nothing", f"/ipfs/{A}/../x", "/ipns/10.0.0.1",
     "/ipns/printer.local", "/ipns/localhost"],
)  # fmt: skip
async def test_a_record_that_leads_nowhere_is_said_to(world, value):
    world.put(value=value)
    with pytest.raises((NameNotResolvedError, UserError)):
        await world.names.resolve(str(NAMES[0]))
    assert world.domains.asked == []


async def test_the_operators_map_wins_over_dns_and_needs_no_waiting(world):
    mapped = world.make(
        static={"Site.example.org": f"/ipfs/{B}/sub", "k.example": f"/ipns/{NAMES[0]}"}
    )
    world.domains.links["site.example.org"] = Link(f"/ipfs/{A}", 300)
    assert mapped.ready("site.example.ORG").below == "/sub"
    assert mapped.is_linked("site.example.org") is True
    world.put()
    assert (await mapped.resolve("k.example")).root == A
    assert world.domains.asked == []
    await mapped.close()


@pytest.mark.parametrize("path", ["", "/ipfs/", "bafkqaaa", "/ipns/x", "/srv/www"])
def test_a_wrong_path_in_the_map_is_told_at_once(tmp_path, path):
    store = NameStore(str(tmp_path / "names"))
    with pytest.raises(UserError, match="dnslinks"):
        Names(store, static={"a.example": path})
    store.close()


async def test_a_domain_without_content_is_404_and_remembered(world):
    for _ in range(3):
        with pytest.raises(NoDnsLinkError) as caught:
            await world.names.resolve("example.org")
    assert caught.value.status == 404
    assert world.domains.asked == ["example.org"]
    assert world.names.is_linked("example.org") is False


async def test_the_last_answer_of_a_domain_is_used_while_dns_is_down(world):
    world.domains.links["example.org"] = Link(f"/ipfs/{A}", 60)
    await world.names.resolve("example.org")
    world.domains.links["example.org"] = PeerUnavailableError("no server answers")
    world.seconds += 60 + 600
    found = await world.names.resolve("example.org")
    assert found.root == A
    assert found.ttl_s <= name_links.FAILED_S
    world.seconds += names.DOMAIN_STALE_S
    with pytest.raises(PeerUnavailableError):
        await world.names.resolve("example.org")


async def test_a_host_is_linked_if_dns_says_so(world):
    world.domains.links["example.org"] = Link(f"/ipfs/{A}", 60)
    assert world.names.is_linked("example.org") is None
    assert await world.names.find_link("example.org") is True
    assert world.names.is_linked("example.org") is True
    assert await world.names.find_link("other.example.org") is False
    for host in ("localhost", "127.0.0.1", "gateway", "[::1]", "a.local", "x" * 300 + ".org", ""):
        assert world.names.is_linked(host) is False
    assert world.domains.asked == ["example.org", "other.example.org"]


async def test_a_host_is_the_gateways_own_while_dns_is_silent(world, monkeypatch):
    monkeypatch.setattr(names, "LINK_S_MAX", 0.01)
    world.domains.silent = asyncio.Event()
    world.domains.links["example.org"] = Link(f"/ipfs/{A}", 60)
    assert await world.names.find_link("example.org") is False
    world.domains.silent.set()
    await settle()
    assert world.names.is_linked("example.org") is True, "the answer is not lost"


async def test_without_dns_only_the_map_counts(world):
    closed = world.make(domains=None, static={"a.example": f"/ipfs/{A}"})
    assert closed.is_linked("example.org") is False
    with pytest.raises(NoDnsLinkError):
        await closed.resolve("example.org")
    assert closed.ready("a.example").root == A
    await closed.close()


async def test_equal_questions_are_asked_once(world):
    world.silent = asyncio.Event()
    world.others[NAMES[0]] = record()
    waiting = [asyncio.create_task(world.names.resolve(str(NAMES[0]))) for _ in range(20)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    world.silent.set()
    assert {found.root for found in await asyncio.gather(*waiting)} == {A}
    assert world.asked == [NAMES[0]]


async def test_only_so_many_names_are_looked_up_at_once(world, monkeypatch):
    monkeypatch.setattr(name_links, "UNDER_WAY_MAX", 3)
    world.silent = asyncio.Event()
    waiting = [asyncio.create_task(world.names.resolve(str(name))) for name in NAMES[:3]]
    await asyncio.sleep(0)
    with pytest.raises(PeerUnavailableError):
        await world.names.resolve(str(NAMES[3]))
    world.silent.set()
    await asyncio.gather(*waiting, return_exceptions=True)


async def test_a_link_that_holds_is_used_while_too_much_is_looked_up(world, monkeypatch):
    world.put(ttl_s=10)
    await world.names.resolve(str(NAMES[0]))
    world.seconds += 1000
    monkeypatch.setattr(name_links, "UNDER_WAY_MAX", 0)
    assert (await world.names.resolve(str(NAMES[0]))).root == A
    with pytest.raises(PeerUnavailableError):
        await world.names.resolve(str(NAMES[1]))
    world.put(value=f"/ipfs/{B}", sequence=2)
    with pytest.raises(PeerUnavailableError):
        await world.names.resolve(str(NAMES[0]))


async def test_only_so_many_links_are_remembered(world, monkeypatch):
    monkeypatch.setattr(name_links, "LINKS_MAX", 5)
    for number in range(12):
        world.domains.links[f"{number}.example.org"] = Link(f"/ipfs/{A}", 60)
        await world.names.resolve(f"{number}.example.org")
    assert len(world.names._links) == 5
    assert world.names.ready("11.example.org") is not None


async def test_names_that_do_not_exist_drive_out_none_that_do(world, monkeypatch):
    monkeypatch.setattr(name_links, "LINKS_MAX", 5)
    world.put()
    await world.names.resolve(str(NAMES[0]))
    for number in range(30):
        with pytest.raises(NoDnsLinkError):
            await world.names.resolve(f"{number}.example.org")
    assert world.names.ready(str(NAMES[0])) is not None
    assert len(world.names._links) == 6


async def test_the_age_of_a_link_changes_in_steps(world):
    world.put(ttl_s=80)
    name = str(NAMES[0])
    told = [(await world.names.resolve(name)).ttl_s]
    for _ in range(79):
        world.seconds += 1
        told.append(world.names.ready(name).ttl_s)
    assert told == sorted(told, reverse=True)
    assert told[0] == 80
    assert len(set(told)) <= names.AGE_STEPS + 2
    assert min(told) == 1


async def test_the_record_itself_is_given_out(world):
    world.put()
    assert (await world.names.record(NAMES[0])).encoded == record()
    with pytest.raises(NameNotResolvedError):
        await world.names.record(NAMES[1])


# --- the spelling of domains --------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ["example.org", "Example.ORG.", "_x.a-b.example", "xn--bcher-kva.example"]
)
def test_public_names_are_names(text):
    assert dns_name(text) == text.lower().rstrip(".")


@pytest.mark.parametrize(
    "text",
    ["", ".", "org", "localhost", "a.localhost", "a.local", "1.2.3.4", "a..b", "-a.org", "a-.org",
     "a b.org", "bücher.org", "x" * 64 + ".org", "a." * 130 + "org", "::1", "a.org:80", "a/b.org",
     "a.home.arpa", "a.internal"],
)  # fmt: skip
def test_what_is_no_public_name_is_never_asked_for(text):
    assert dns_name(text) is None


def test_domains_become_one_label_and_back():
    assert inline("en.wikipedia-on-ipfs.org") == "en-wikipedia--on--ipfs-org"
    for host in ("en.wikipedia-on-ipfs.org", "a.b.c", "a--b.c-d", "example.org"):
        assert outline(inline(host)) == host
        assert outline(host) == host


def test_the_first_content_path_among_texts_is_chosen():
    texts = [b"v=spf1 -all", b"dnslink=", b"dnslink=/ipfs/\xff", b"dnslink=/swarm/x", b"/ipfs/b"]
    assert choose(texts) is None
    assert choose([*texts, b"dnslink=/ipns/z", b"dnslink=/ipfs/y"]) == "/ipfs/y"
