"""The TAR format: POSIX ustar, with pax records for what its fixed fields cannot hold. Pure.

https://pubs.opengroup.org/onlinepubs/9699919799/utilities/pax.html
"""

from __future__ import annotations

import enum
from typing import Final

import msgspec

BLOCK_BYTES: Final = 512
END: Final = bytes(2 * BLOCK_BYTES)
_NAME_BYTES, _PREFIX_BYTES, _TARGET_BYTES = 100, 155, 100
_OCTAL_MAX: Final = 8**11 - 1  # of eleven digits: sizes up to 8 GiB, times up to the year 2242
_PAX_HEADERS: Final = "PaxHeaders/"


class Kind(enum.Enum):
    """What a member is; the values are its type flags. PAX says more about the one behind it."""

    FILE = b"0"
    SYMLINK = b"2"
    DIRECTORY = b"5"
    PAX = b"x"


class Member(msgspec.Struct, frozen=True):
    """What one header says. Paths are relative, with `/` between segments and none at the end.

    `target` is a symlink's, in which bytes that are not UTF-8 are surrogates. `mtime_s` and
    `mtime_ns` are its modification time since 1970. Nobody owns a member: user and group are 0.
    """

    path: str
    kind: Kind
    size: int = 0
    mode: int = 0o644
    mtime_s: int = 0
    mtime_ns: int = 0
    target: str = ""


def header(member: Member) -> bytes:
    """Return the blocks that stand before a member's content."""
    path = member.path + "/" if member.kind is Kind.DIRECTORY else member.path
    records = _records(member, path)
    name = _split_name(path) or (_ascii(path)[:_NAME_BYTES], b"")
    pax = b""
    if records:
        pax_name = _ascii(_PAX_HEADERS + member.path.rpartition("/")[2])[:_NAME_BYTES]
        pax = _block((pax_name, b""), Kind.PAX, size=len(records)) + padded(records)
    target = _ascii(member.target)[:_TARGET_BYTES]
    mtime_s = member.mtime_s if 0 <= member.mtime_s <= _OCTAL_MAX else 0
    size = member.size if member.size <= _OCTAL_MAX else 0
    return pax + _block(name, member.kind, size, member.mode, mtime_s, target)


def padding(size: int) -> bytes:
    """Return the zeros that fill up the last block of so many bytes."""
    return bytes(-size % BLOCK_BYTES)


def padded(data: bytes) -> bytes:
    """Return data, filled up to whole blocks."""
    return data + padding(len(data))


def _records(member: Member, path: str) -> bytes:
    """Return the pax records of a member, none where ustar holds all of it."""
    records = b""
    target = member.target.encode("utf-8", "surrogateescape")
    if not _is_utf8(target):
        records += _record(b"hdrcharset", b"BINARY")
    if _split_name(path) is None:
        records += _record(b"path", path.encode())
    if len(target) > _TARGET_BYTES or not target.isascii():
        records += _record(b"linkpath", target)
    if member.size > _OCTAL_MAX:
        records += _record(b"size", b"%d" % member.size)
    if member.mtime_ns or not 0 <= member.mtime_s <= _OCTAL_MAX:
        records += _record(b"mtime", _seconds(member.mtime_s, member.mtime_ns))
    return records


def _record(name: bytes, value: bytes) -> bytes:
    """Return `length name=value`, where the length counts its own digits."""
    rest = b" %b=%b\n" % (name, value)
    size = len(rest) + 1
    while size != (whole := len(rest) + len(str(size))):
        size = whole
    return b"%d%b" % (size, rest)


def _seconds(seconds: int, nanoseconds: int) -> bytes:
    """Write a time as a decimal; before 1970 the fraction counts on from the whole seconds."""
    total = seconds * 10**9 + nanoseconds
    whole, fraction = divmod(abs(total), 10**9)
    sign = "-" if total < 0 else ""
    return f"{sign}{whole}.{fraction:09d}".rstrip("0").rstrip(".").encode()


def _split_name(path: str) -> tuple[bytes, bytes] | None:
    """Return a path as name and prefix; None where it does not fit or is not ASCII."""
    if not path.isascii():
        return None
    data = path.encode()
    if len(data) <= _NAME_BYTES:
        return data, b""
    at = data.rfind(b"/", 0, min(_PREFIX_BYTES + 1, len(data) - 1))
    if at <= 0 or len(data) - at - 1 > _NAME_BYTES:
        return None
    return data[at + 1 :], data[:at]


def _ascii(text: str) -> bytes:
    """Spell a text for readers that know no pax records: what is not ASCII becomes `_`."""
    return "".join(letter if letter.isascii() else "_" for letter in text).encode()


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _block(
    name: tuple[bytes, bytes],
    kind: Kind,
    size: int = 0,
    mode: int = 0o644,
    mtime_s: int = 0,
    target: bytes = b"",
) -> bytes:
    before = b"%b%07o\x000000000\x000000000\x00%011o\x00%011o\x00" % (
        name[0].ljust(_NAME_BYTES, b"\0"),
        mode,
        size,
        mtime_s,
    )
    behind = b"%b%bustar\x0000%b0000000\x000000000\x00%b" % (
        kind.value,
        target.ljust(_TARGET_BYTES, b"\0"),
        bytes(64),
        name[1].ljust(_PREFIX_BYTES, b"\0"),
    )
    checksum = sum(before) + sum(b" " * 8) + sum(behind)
    return padded(b"%b%06o\0 %b" % (before, checksum, behind))
