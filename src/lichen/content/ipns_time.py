"""Times of RFC 3339 with nanoseconds, as IPNS records have them. Pure."""

from __future__ import annotations

import datetime as dt
import re

from lichen.errors import UserError

NS_PER_S = 1_000_000_000
_TEXT = re.compile(
    rb"(\d{4}-\d\d-\d\d)T(\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)", re.ASCII
)
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_END_S = int((dt.datetime(9999, 12, 31, 23, 59, 59, tzinfo=dt.UTC) - _EPOCH).total_seconds())


def parse_time(text: bytes) -> int:
    """Return nanoseconds since 1970; raise UserError for what is no time of RFC 3339."""
    match = _TEXT.fullmatch(text)
    if match is None:
        raise UserError(f"{text[:40]!r} is no time of RFC 3339")
    day, clock, fraction, zone = match.groups()
    try:
        moment = dt.datetime.fromisoformat((day + b"T" + clock + zone).decode())
        seconds = (moment - _EPOCH) // dt.timedelta(seconds=1)
    except (ValueError, OverflowError) as error:
        raise UserError(f"{text[:40]!r} is no time: {error}") from error
    return seconds * NS_PER_S + int((fraction or b"0").ljust(9, b"0"))


def spell_time(time_ns: int) -> bytes:
    """Write nanoseconds since 1970 with all nine places; raise UserError past the year 9999."""
    seconds, fraction = divmod(time_ns, NS_PER_S)
    if not 0 <= seconds <= _END_S:
        raise UserError("a record ends between 1970 and 9999", hint="choose a shorter lifetime")
    moment = _EPOCH + dt.timedelta(seconds=seconds)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{fraction:09d}Z".encode()
