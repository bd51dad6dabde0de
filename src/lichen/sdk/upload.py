"""A body on its way up: spooled to a temporary file, so that it can be hashed, and sent again."""

from __future__ import annotations

import hashlib
import tempfile
from typing import TYPE_CHECKING, Self

from lichen.errors import LimitError, MachineError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from lichen.sdk.connection import Progress

MEMORY_BYTES_MAX = 4 * 2**20
PART_BYTES = 256 * 1024
UPLOAD_BYTES_MAX = 64 * 2**30


class Spool:
    """The bytes of `parts`, in memory while small; knows its size and SHA-256."""

    def __init__(self, parts: Iterable[bytes], total: int | None = None) -> None:
        """Read all parts; raise LimitError when they are more than `total` bytes."""
        bytes_max = UPLOAD_BYTES_MAX if total is None else total
        self._file = tempfile.SpooledTemporaryFile(max_size=MEMORY_BYTES_MAX)  # noqa: SIM115 - closed by close
        self._digest = hashlib.sha256()
        self.size = 0
        try:
            for part in parts:
                self._add(part, bytes_max)
        except OSError as error:
            self.close()
            raise MachineError(
                f"the upload could not be spooled: {error}", hint="free space in TMPDIR"
            ) from error
        except BaseException:
            self.close()
            raise
        self.sha256 = self._digest.digest()

    def _add(self, part: bytes, bytes_max: int) -> None:
        self.size += len(part)
        if self.size > bytes_max:
            raise LimitError(
                f"the upload is over {bytes_max} bytes", hint="upload it in smaller pieces"
            )
        self._digest.update(part)
        self._file.write(part)

    def read(self, progress: Progress | None = None) -> Iterator[bytes]:
        """Yield the bytes from the start, telling `progress` how many have gone."""
        self._file.seek(0)
        done = 0
        while part := self._file.read(PART_BYTES):
            yield part
            done += len(part)
            if progress is not None:
                progress(done, self.size)

    def close(self) -> None:
        """Remove the temporary file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
