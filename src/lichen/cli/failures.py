"""How a command ends badly: two lines, what and what to do, and the right exit code."""

from __future__ import annotations

import datetime as dt
import errno
import os
import sys
import tempfile
import traceback
from pathlib import Path

from lichen.cli import console, options
from lichen.errors import LichenError, MachineError

EXIT_USAGE = 2
EXIT_INTERRUPTED = 130
TRACEBACKS_MAX = 20


def report(error: BaseException) -> int:
    """Say what went wrong and return the exit code of the process."""
    if isinstance(error, KeyboardInterrupt):
        console.say("interrupted")
        return EXIT_INTERRUPTED
    if options.current().debug:
        traceback.print_exception(error)
    known = error if isinstance(error, LichenError) else _machine_error(error)
    if known is None:
        return _report_unexpected(error)
    _print_known(known)
    return known.exit_code


def _print_known(error: LichenError) -> None:
    if options.current().json:
        from lichen.encoding import to_json

        body = {"error": error.code, "what": error.what, "hint": error.hint}
        console.say(to_json(body).decode())
        return
    console.say(f"error: {console.clean(error.what)}")
    if error.hint:
        console.say(f"   do: {console.clean(error.hint)}")


def _machine_error(error: BaseException) -> MachineError | None:
    """Explain what the operating system refuses in terms of what the user can change."""
    if not isinstance(error, OSError) or error.errno is None:
        return None
    where = f": {error.filename}" if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return MachineError(
            f"the disk is full{where}",
            hint="free some space and repeat the command; nothing acknowledged was lost",
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return MachineError(
            f"no permission{where}", hint="check who owns the file and its folder, then try again"
        )
    if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.EISDIR):
        return MachineError(
            f"{os.strerror(error.errno).lower()}{where}", hint="check the path and try again"
        )
    return None


def _report_unexpected(error: BaseException) -> int:
    what = f"unexpected {type(error).__name__}: {console.clean(str(error), 300)}"
    try:
        place = _save(error)
    except OSError as failure:
        console.say(f"error: {what}")
        console.say(f"   do: repeat it with --debug (no traceback could be saved: {failure})")
        return 1
    console.say(f"error: {what}")
    console.say(f"   do: this is a fault of Lichen; the traceback is in {place}")
    return 1


def _save(error: BaseException) -> Path:
    """Write the traceback to a file of its own; the oldest ones make room."""
    folder = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state") / "lichen"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError:
        folder = Path(tempfile.mkdtemp(prefix="lichen-"))
    for old in sorted(folder.glob("traceback-*.txt"))[: -TRACEBACKS_MAX + 1]:
        old.unlink(missing_ok=True)
    now = dt.datetime.now(dt.UTC).strftime("%Y%m%dT%H%M%S.%f")
    place = folder / f"traceback-{now}.txt"
    lines = traceback.format_exception(error)  # without the values of variables
    descriptor = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "w", encoding="utf-8") as stream:
        stream.write(f"lichen {' '.join(sys.argv[1:2])}\n" + "".join(lines))
    return place
