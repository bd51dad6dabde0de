"""What to answer a request for content: decided by reading, blocking, from any source of blocks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from lichen.cdn.formats import NotAcceptableError
from lichen.cdn.forms.base import at_root
from lichen.cdn.forms.block import plan_block
from lichen.cdn.forms.car import plan_car
from lichen.cdn.forms.file import plan_file
from lichen.cdn.forms.ipld import DOCUMENT_CODECS, plan_codec, plan_document
from lichen.cdn.forms.tar import plan_tar
from lichen.cdn.sites.site import NotUnixfsError
from lichen.cdn.wanted import Form
from lichen.content import follow
from lichen.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable

    from lichen.cdn.forms.base import Conditions, Place, Plan
    from lichen.cdn.wanted import Wanted
    from lichen.content import Blocks

    Planner = Callable[[Blocks, Place, Wanted, Conditions], Plan]

PLANNERS: Final[dict[Form, Planner]] = {
    Form.PLAIN: plan_file,
    Form.RAW: plan_block,
    Form.CAR: plan_car,
    Form.TAR: plan_tar,
    Form.JSON: plan_codec,
    Form.CBOR: plan_codec,
    Form.DAG_JSON: plan_codec,
    Form.DAG_CBOR: plan_codec,
}


def plan(blocks: Blocks, place: Place, wanted: Wanted, conditions: Conditions) -> Plan:
    """Decide what to answer; raise NotFoundError, MissingBlockError and what `blocks` raises."""
    if wanted.form is Form.IPNS_RECORD:
        raise UserError(
            "there is an IPNS record of a name, and of nothing below it",
            hint="ask for /ipns/NAME?format=ipns-record",
        )
    planner = PLANNERS.get(wanted.form)
    if planner is None:
        raise NotAcceptableError(
            f"content is not offered as {wanted.form.value}", hint="ask for raw blocks or a CAR"
        )
    place = at_root(blocks, place)
    try:
        return planner(blocks, place, wanted, conditions)
    except NotUnixfsError:
        roots = follow(blocks, place.root, place.path)
        if wanted.form is not Form.PLAIN or roots[-1].codec not in DOCUMENT_CODECS:
            raise
        return plan_document(blocks, place, roots, wanted, conditions)
