"""Console output becomes lines, and a flood of it stays small."""

import json

from hypothesis import given
from hypothesis import strategies as st

from lichen.runtime import logs
from lichen.runtime.logs import FloodGauge, LineSplitter, LogLimiter, LogLine, parse_line


def entry(message, level="log", timestamp=5):
    return json.dumps(
        {"timestamp": timestamp, "level": level, "message": message}, separators=(",", ":")
    ).encode()


@given(st.lists(st.binary(max_size=50)), st.integers(1, 30))
def test_lines_are_the_same_however_the_stream_is_cut(lines, step):
    lines = [line.replace(b"\n", b"") for line in lines]
    stream = b"".join(line + b"\n" for line in lines)
    splitter = LineSplitter()
    found = [f for i in range(0, len(stream), step) for f in splitter.feed(stream[i : i + step])]
    assert found == [line for line in lines if line]


def test_a_line_without_end_takes_bounded_memory_and_the_next_one_is_whole():
    splitter = LineSplitter()
    for _ in range(100):
        assert splitter.feed(b"x" * 10_000) == []
    long, short = splitter.feed(b"\nshort\n")
    assert len(long) == logs.LINE_BYTES_MAX
    assert short == b"short"


def test_the_run_in_front_of_a_message_is_taken_off_it():
    line = parse_line(entry("\u0001r42\u0001hello\nworld", "warn"), 9)
    assert line == LogLine("warn", "hello\nworld", 5, "r42")


def test_a_line_outside_of_any_run_has_none_and_gets_a_time():
    assert parse_line(entry("hi", timestamp=0), 9) == LogLine("log", "hi", 9, None)


def test_a_mark_that_is_no_run_stays_text():
    for text in ("\u0001", "\u0001unfinished", "\u0001\u0001x", "\u0001" + "r" * 200 + "\u0001x"):
        assert parse_line(entry(text), 9).text == text


def test_an_engine_line_that_is_no_json_is_kept_as_an_error():
    assert parse_line(b"Fatal: \xff out of memory", 9) == LogLine(
        "error", "Fatal: \ufffd out of memory", 9
    )


def test_a_cut_line_is_still_read():
    for tail in ("x", '"', "\\", "\u1234", "\u0007"):
        raw = LineSplitter().feed(entry("\u0001r1\u0001" + tail * 100_000) + b"\n")[0]
        line = parse_line(raw, 9)
        assert line.run == "r1"
        assert line.text.startswith(tail * 1000)
        assert len(line.text) < logs.TEXT_CHARS_MAX + 100


def test_our_own_frames_are_not_shown():
    text = "Error: x\n    at f (index.js:1:2)\n    at Object.fetch (lichen-entry.js:3:4)"
    assert parse_line(entry(text), 9).text == "Error: x\n    at f (index.js:1:2)"


@given(st.binary(max_size=300))
def test_whatever_comes_it_becomes_a_line(raw):
    assert isinstance(parse_line(raw, 9), LogLine)


def test_lines_beyond_the_rate_are_dropped_and_counted_once():
    limiter = LogLimiter()
    admitted = sum(limiter.admit(1000, 10) for _ in range(logs.LINES_PER_WINDOW_MAX + 7))
    assert admitted == logs.LINES_PER_WINDOW_MAX
    assert limiter.take_dropped(1500) == 0
    assert limiter.take_dropped(1000 + logs.WINDOW_MS) == 7
    assert limiter.take_dropped(1000 + logs.WINDOW_MS) == 0
    assert limiter.admit(1000 + logs.WINDOW_MS, 10)


def test_bytes_are_bounded_too():
    limiter = LogLimiter()
    size = logs.BYTES_PER_WINDOW_MAX // 4
    assert [limiter.admit(1, size) for _ in range(5)] == [True] * 4 + [False]


def test_a_flood_is_told_from_noise():
    gauge = FloodGauge()
    assert not gauge.add(1, logs.FLOOD_BYTES_MAX)
    assert gauge.add(2, 1)
    assert not gauge.add(2 + logs.FLOOD_WINDOW_MS, logs.FLOOD_BYTES_MAX)


def test_console_lines_are_told_from_the_engines_own():
    assert logs.is_console_line(entry("hi"))
    assert not logs.is_console_line(entry("V8 fatal error", "fatal", timestamp="123"))
    assert not logs.is_console_line(b"*** Received signal #6: Aborted")
