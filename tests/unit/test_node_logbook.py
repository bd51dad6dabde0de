"""What functions wrote: kept, followed, and bounded at every place."""

import asyncio

import pytest

from lichen.errors import LimitError
from lichen.node import logbook
from lichen.node.logbook import Logbook
from lichen.runtime.logs import LogLine


def line(text, run=None):
    return LogLine(time_ms=1, level="log", text=text, run=run)


async def read(follower, count):
    async with asyncio.timeout(2):
        return [(await anext(follower)).text for _ in range(count)]


def test_lines_are_kept_by_app_with_the_function_and_run_that_wrote_them():
    book = Logbook()
    book.write("shop/2/api", line("one", "r1"))
    book.write("other/1/api", line("two"))
    (entry,) = book.lines("shop")
    assert (entry.app, entry.function, entry.text, entry.run) == ("shop", "api", "one", "r1")
    assert book.lines("unknown") == []


def test_only_the_newest_lines_and_apps_are_kept(monkeypatch):
    monkeypatch.setattr(logbook, "LINES_PER_APP_MAX", 3)
    monkeypatch.setattr(logbook, "APPS_MAX", 2)
    book = Logbook()
    for number in range(5):
        book.write("a/1/f", line(str(number)))
    assert [entry.text for entry in book.lines("a")] == ["2", "3", "4"]
    book.write("b/1/f", line("x"))
    book.write("c/1/f", line("x"))
    assert (book.lines("a"), len(book.lines("b")), len(book.lines("c"))) == ([], 1, 1)


async def test_a_follower_gets_the_kept_lines_then_each_new_one_of_its_app():
    book = Logbook()
    book.write("a/1/f", line("kept"))
    follower = book.follow("a")
    assert await read(follower, 1) == ["kept"]
    book.write("b/1/f", line("another app's"))
    book.write("a/1/f", line("new"))
    assert await read(follower, 1) == ["new"]
    await follower.aclose()


async def test_no_line_is_lost_or_doubled_while_the_kept_ones_are_read():
    book = Logbook()
    book.write("a/1/f", line("1"))
    book.write("a/1/f", line("2"))
    follower = book.follow("a")
    assert await read(follower, 1) == ["1"]
    book.write("a/1/f", line("3"))
    assert await read(follower, 2) == ["2", "3"]
    await follower.aclose()


async def test_a_slow_follower_is_told_how_many_lines_it_missed(monkeypatch):
    monkeypatch.setattr(logbook, "QUEUE_LINES_MAX", 2)
    book = Logbook()
    book.write("a/1/f", line("kept"))
    follower = book.follow("a")
    assert await read(follower, 1) == ["kept"]
    for number in range(5):
        book.write("a/1/f", line(str(number)))
    told = await read(follower, 3)
    assert sorted(told)[:2] == ["0", "1"]
    assert "3 lines were missed" in " ".join(told)
    await follower.aclose()


async def test_followers_are_bounded_and_free_their_place_when_they_leave(monkeypatch):
    monkeypatch.setattr(logbook, "FOLLOWERS_MAX", 1)
    book = Logbook()
    book.write("a/1/f", line("kept"))
    first, second = book.follow("a"), book.follow("a")
    await read(first, 1)
    with pytest.raises(LimitError):
        await read(second, 1)
    await first.aclose()
    third = book.follow("a")
    assert await read(third, 1) == ["kept"]
    await third.aclose()
