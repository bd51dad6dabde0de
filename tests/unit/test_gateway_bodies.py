"""Bodies that strangers send share one bound, for as long as they are worked on, and no longer."""

from __future__ import annotations

import asyncio

import pytest
from starlette.requests import Request

from lichen.gateway.api.bodies import Bodies
from lichen.wire.errors import BodyTooLargeError, BusyError, RequestTimeoutError


def request(*parts: bytes, ends: bool = True) -> Request:
    left = list(parts)

    async def receive() -> dict[str, object]:
        if not left:
            await asyncio.Event().wait()
        part = left.pop(0)
        return {"type": "http.request", "body": part, "more_body": bool(left) or not ends}

    return Request({"type": "http", "method": "POST", "headers": []}, receive)


async def test_a_body_comes_whole_and_counts_while_it_is_worked_on() -> None:
    bodies = Bodies(10)
    async with bodies.whole(request(b"abc", b"def"), 6) as body:
        assert (body, bodies.held_bytes) == (b"abcdef", 6)
        with pytest.raises(BusyError):
            async with bodies.whole(request(b"12345"), 6):
                raise AssertionError
        assert bodies.held_bytes == 6
    assert bodies.held_bytes == 0


async def test_a_body_over_its_bound_is_refused_and_forgotten() -> None:
    bodies = Bodies()
    with pytest.raises(BodyTooLargeError):
        async with bodies.whole(request(b"abc", b"def"), 5):
            raise AssertionError
    assert bodies.held_bytes == 0


async def test_a_body_that_never_ends_is_not_waited_for() -> None:
    bodies = Bodies(body_s_max=0.05)
    with pytest.raises(RequestTimeoutError):
        async with bodies.whole(request(b"abc", ends=False), 5):
            raise AssertionError
    assert bodies.held_bytes == 0
