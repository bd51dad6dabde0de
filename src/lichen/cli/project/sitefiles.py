"""`_headers` and `_redirects` of a site folder, checked before they are deployed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lichen.cdn.sites.headers import parse_headers
from lichen.cdn.sites.redirects import FILE_BYTES_MAX, parse_redirects
from lichen.cdn.sites.site import HEADERS_FILE, REDIRECTS_FILE
from lichen.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path

FAULTS_SHOWN_MAX = 10


class SiteFileError(UserError):
    """A line of `_headers` or `_redirects` would not do what it says."""

    code = "bad-site-file"


def check_site_files(folder: Path) -> None:
    """Raise SiteFileError that names each wrong line of both files."""
    faults = []
    for name, parse in ((HEADERS_FILE, parse_headers), (REDIRECTS_FILE, parse_redirects)):
        path = folder / name
        if path.is_file():
            with path.open("rb") as file:
                found = parse(file.read(FILE_BYTES_MAX + 1))[1]
            faults += [(f"{path}:{fault.line}: {fault.what}", fault.hint) for fault in found]
    if faults:
        lines = [what for what, _ in faults[:FAULTS_SHOWN_MAX]]
        if len(faults) > FAULTS_SHOWN_MAX:
            lines.append(f"and {len(faults) - FAULTS_SHOWN_MAX} more")
        raise SiteFileError("\n".join(lines), hint=faults[0][1])
