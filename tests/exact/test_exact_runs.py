"""Exact runs: the same everywhere, within limits, and no way out of the instance."""

import json
import os
import subprocess
import sys
import threading

import pytest
from msgspec.structs import replace

from lichen.errors import UserError
from lichen.runtime.engines import ensure
from lichen.runtime.errors import LoadError
from lichen.runtime.exact import snapshot as snapshots
from lichen.runtime.exact.check import check
from lichen.runtime.exact.envelope import RequestHead, pack_request, unpack_response
from lichen.runtime.exact.imports import Stopped
from lichen.runtime.exact.outcome import Kind
from lichen.runtime.exact.run import Prepared
from lichen.runtime.exact.snapshot import take
from lichen.runtime.exact.stack import on_large_stack
from lichen.runtime.exact.vm import Vm
from tests.exact.exact_programs import HELLO, HOSTILE, PROGRAMS, handler
from tests.exact.exact_world import HEAP_MB, make_engine, outcome

RUNS = 2
PROCESS_S_MAX = 240


@pytest.fixture(scope="module")
def engine():
    return on_large_stack(make_engine)


def once(engine, code, **changes):
    def work():
        return outcome(engine, Prepared(engine, take(engine, code.encode(), HEAP_MB)), **changes)

    return on_large_stack(work)


def body_of(found):
    assert found.kind is Kind.OK, (found.kind, found.output)
    return unpack_response(found.output)[1]


def start(opt_level):
    argv = [sys.executable, "-m", "tests.exact.exact_world", opt_level, str(RUNS)]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, env=dict(os.environ), text=True)


def test_every_program_comes_to_the_same_end_in_all_processes_and_opt_levels():
    processes = [start("speed"), start("none")]
    texts = [process.communicate(timeout=PROCESS_S_MAX)[0] for process in processes]
    first, second = (json.loads(text) for text in texts)
    assert len(first) > len(PROGRAMS) >= 20
    assert first == second
    for name, (_snapshot, *seen) in ((n, v) for n, v in first.items() if n != "profile"):
        assert len(seen) == 1, name


@pytest.mark.parametrize("name", [*PROGRAMS, *HOSTILE])
def test_a_program_ends_as_it_should(engine, name):
    code, kind = (PROGRAMS | HOSTILE)[name]
    found = once(engine, code)
    assert found.kind is not Kind.INDETERMINATE
    assert kind in {None, found.kind}, found


def test_seed_and_time_decide_and_nothing_else_does(engine):
    code = handler("return new Response([crypto.randomUUID(), Math.random(), Date.now()].join())")
    a, b = once(engine, code), once(engine, code)
    assert a == b
    other = once(engine, code, seed=bytes(32))
    assert body_of(other).split(b",")[:2] != body_of(a).split(b",")[:2]
    assert body_of(once(engine, code, time_ms=5)).endswith(b",5")


def test_the_snapshot_is_the_same_when_it_is_taken_again_and_survives_being_stored(engine):
    def work():
        one, two = take(engine, HELLO.encode(), HEAP_MB), take(engine, HELLO.encode(), HEAP_MB)
        return one, two, snapshots.decode(one.encode())

    one, two, read = on_large_stack(work)
    assert one.hash == two.hash == read.hash
    assert read == one


def test_a_run_leaves_nothing_for_the_next(engine):
    code = handler("globalThis.n = (globalThis.n ?? 0) + 1; return new Response(`${n}`)")

    def work():
        prepared = Prepared(engine, take(engine, code.encode(), HEAP_MB))
        return [outcome(engine, prepared) for _ in range(3)]

    assert {body_of(found) for found in on_large_stack(work)} == {b"1"}


def test_a_run_that_has_not_more_fuel_than_it_needs_is_out_of_fuel(engine):
    whole = once(engine, HELLO)
    assert once(engine, HELLO, fuel_max=whole.fuel + 1) == whole
    short = once(engine, HELLO, fuel_max=whole.fuel)
    assert (short.kind, short.fuel, short.output) == (Kind.OUT_OF_FUEL, whole.fuel, b"")


def test_a_request_arrives_whole(engine):
    code = handler(
        "return Response.json([request.method, request.url, [...request.headers], await request.json()])"
    )
    head = RequestHead("PUT", "http://a.b/x?y=%20", (("a", "1"), ("b", "2")))
    found = once(engine, code, data=pack_request(head, b'{"n": [1]}'))
    assert json.loads(body_of(found)) == [
        "PUT", "http://a.b/x?y=%20", [["a", "1"], ["b", "2"]], {"n": [1]},
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("export default {}", "no default export"),
        ("const x = ;", "SyntaxError"),
        ("throw new Error('early')", "early"),
        ("import fs from 'node:fs'; export default {}", "node:fs"),
        ("await new Promise(() => {}); export default {}", "never happens"),
        ("const a = []; for (;;) a.push(new Uint8Array(1 << 20))", "out of memory"),
    ],
)
def test_a_module_that_cannot_be_evaluated_says_why(engine, code, text):
    with pytest.raises(LoadError, match=text):
        on_large_stack(lambda: take(engine, code.encode(), HEAP_MB))


def test_a_run_that_is_interrupted_by_the_clock_has_no_result(engine):
    def work():
        prepared = Prepared(engine, take(engine, handler("for (;;);").encode(), HEAP_MB))
        timer = threading.Timer(0.2, engine.interrupt)
        timer.start()
        try:
            return outcome(engine, prepared, fuel_max=10**12)
        finally:
            timer.cancel()

    found = on_large_stack(work)
    assert (found.kind, found.fuel, found.output) == (Kind.INDETERMINATE, 0, b"")


def test_addresses_from_inside_are_checked(engine):
    def work():
        vm = Vm(engine, fuel=10**6, memory_bytes=16 * 2**20, time_ms=0, seed=bytes(32))
        kinds = []
        for access in (
            lambda: vm.read(vm.memory_bytes - 4, 5),
            lambda: vm.read(-1, 1),
            lambda: vm.read(0, -1),
            lambda: vm.write(0xFFFFFFF0, b"x" * 64),
            lambda: vm.host_call(b"digest", 1, 0xFFFFFFFE),
        ):
            try:
                access()
            except Stopped as stopped:
                kinds.append(stopped.kind)
        vm.close()
        return kinds

    assert on_large_stack(work) == [Kind.EXCEPTION] * 5


def test_a_run_needs_a_large_stack(engine):
    with pytest.raises(RuntimeError, match="on_large_stack"):
        Vm(engine, fuel=1, memory_bytes=2**20, time_ms=0, seed=bytes(32))


def test_what_was_forged_is_not_a_snapshot(engine):
    made = on_large_stack(lambda: take(engine, HELLO.encode(), HEAP_MB))
    outside = replace(made, runs=(snapshots.Run(made.pages * 65536 - 1, b"ab"),))
    with pytest.raises(UserError, match="outside"):
        snapshots.decode(outside.encode())
    with pytest.raises(ValueError, match="another engine"):
        Prepared(engine, replace(made, profile="exact-0"))


@pytest.mark.parametrize(
    "url",
    [
        "http://a.example/x?y=%20&z=/./", "https://a.example:443/", "http://a.example:8080/a//b",
        "http://a.example/a/../b", "http://a.example/%2E%2e/b", "http://a.example/a/%2e", "http://1.2.3/",
        "http://A.example/", "http://a.example:80/", 'http://a.example/|^`{}<>"', "http://0x7f.1/x",
        "http://a.example?x", "http://a.example:0/", "http://a.example/ä",
    ],
)  # fmt: skip
def test_the_url_that_a_request_has_is_as_parsed(engine, url):
    code = handler("return Response.json([request.url, new URL(request.url).href])")
    found = once(engine, code, data=pack_request(RequestHead("GET", url), b""))
    got, parsed = json.loads(body_of(found))
    assert got == parsed


def test_code_is_checked_before_it_is_deployed():
    found = check(HELLO.encode(), HEAP_MB, ensure())
    assert len(bytes.fromhex(found.hash)) == 32
    assert 0 < found.memory_bytes < 2**20
    with pytest.raises(LoadError, match="SyntaxError"):
        check(b"const x = ;", HEAP_MB, ensure())
