"""The IPLD data model (https://ipld.io/docs/data-model): what all codecs of DAGs can say.

Bounds hold for every codec, so that what one of them reads another one can write.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from lichen.content.cid import CID

DEPTH_MAX = 256  # lists and maps inside one another
ITEMS_MAX = 1 << 18  # values made of one block: each takes a hundred times its shortest spelling
INTEGER_MIN = -(2**64)
INTEGER_MAX = 2**64 - 1

Value: TypeAlias = "bool | int | float | str | bytes | CID | list[Value] | dict[str, Value] | None"
