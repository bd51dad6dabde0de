"""The JavaScript that stands between QuickJS and a function: the web's APIs, in this folder.

No build step: the files are put in one function scope in the order below. The hash of that text is
part of the profile.
"""

from __future__ import annotations

from importlib.resources import files
from typing import Final

FILES: Final = (
    "base.js",
    "events.js",
    "encoding.js",
    "hosts.js",
    "url.js",
    "query.js",
    "streams.js",
    "headers.js",
    "blob.js",
    "body.js",
    "messages.js",
    "clone.js",
    "crypto.js",
    "timers.js",
    "console.js",
    "entry.js",
)


def source() -> bytes:
    """Return the whole prelude as one script; its value is an object of entry points."""
    folder = files(__package__)
    parts = [folder.joinpath(name).read_text(encoding="utf-8") for name in FILES]
    return "\n".join(["(function (host, limits) {", '"use strict";', *parts, "})"]).encode()
