"""Where a password comes from: the first of several sources that has one."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from lichen.errors import UserError
from lichen.identity.sealing import PASSWORD_BYTES_MAX

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

PASSWORD_VARIABLE = "LICHEN_PASSWORD"  # noqa: S105 - the variable's name, not a password


def find_password(
    *,
    explicit: str | None = None,
    environment: Mapping[str, str] | None = None,
    file: Path | None = None,
    prompt: Callable[[], str] | None = None,
) -> str:
    """Return the first password of: `explicit`, LICHEN_PASSWORD, the file, the prompt.

    `environment` is the process's own when None. A file's final line break does not belong to the
    password. Raises UserError when no source has one, or the file cannot be read.
    """
    if explicit is not None:
        return explicit
    found = (os.environ if environment is None else environment).get(PASSWORD_VARIABLE)
    if found:
        return found
    if file is not None:
        return _read_file(file)
    if prompt is not None:
        return prompt()
    raise UserError(
        "a password is needed",
        hint=f"set {PASSWORD_VARIABLE}, name a password file, or run in a terminal to be asked",
    )


def _read_file(path: Path) -> str:
    try:
        with open(path, "rb") as stream:
            data = stream.read(PASSWORD_BYTES_MAX + 3)  # one line break over the longest
        text = data.decode().removesuffix("\n").removesuffix("\r")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"the password file cannot be read: {error}", hint="it is one line of UTF-8 text"
        ) from error
    if not text or "\n" in text:
        raise UserError(f"{path} is not a password file", hint="it is one line of UTF-8 text")
    return text
