"""An invocation's head: one result however it is spelled, and nothing private reaches functions."""

import pytest

from lichen.gateway.call import _WRITE
from lichen.node.callhead import CALL_FIELDS, CallHead, read_call
from lichen.wire.heads import parse_request, usual_request

VALUES = (b"5e" * 16, b"shop/3/api", b"2000000000000000", b"98164306-000000000001")
VISITOR = b"GET /a?b=c HTTP/1.1\r\nHost: shop.app.localhost\r\nAccept: */*\r\n"


def heads(block):
    """Read it both ways: as a usual head, if it is one, and as any."""
    usual = usual_request(block, None, 128)
    return [head for head in (usual, parse_request(block)) if head is not None]


def fields(order, spell):
    values = dict(zip(CALL_FIELDS, VALUES, strict=True))
    return b"".join(b"%b: %b\r\n" % (spell(name), values[name]) for name in order)


def test_what_a_gateway_writes_is_read_back_and_taken_off():
    (visitor, _) = heads(VISITOR + b"\r\n")
    for head in heads(_WRITE(visitor, *VALUES)):
        call = read_call(head)
        assert (call.session, call.function, call.ceiling, call.run) == VALUES
        assert call.request == VISITOR + b"lichen-run: " + VALUES[3] + b"\r\n\r\n"


@pytest.mark.parametrize("spell", [bytes, bytes.upper, bytes.title])
@pytest.mark.parametrize("order", [CALL_FIELDS, CALL_FIELDS[::-1]])
@pytest.mark.parametrize("last", [True, False])
def test_order_and_spelling_make_no_difference(spell, order, last):
    extra = fields(order, spell)
    first, rest = VISITOR.split(b"Accept", 1)
    block = VISITOR + extra if last else first + extra + b"Accept" + rest
    for head in heads(block + b"\r\n"):
        call = read_call(head)
        assert (call.session, call.function, call.ceiling, call.run) == VALUES
        assert call.request.lower().count(b"lichen-") == 1


@pytest.mark.parametrize("name", [b"lichen-ping", b"Lichen-Error", b"LICHEN-NODE"])
def test_private_fields_never_reach_the_function(name):
    block = VISITOR + name + b": 1\r\n" + fields(CALL_FIELDS, bytes) + b"\r\n"
    for head in heads(block):
        assert name.lower() not in read_call(head).request.lower()


def test_hop_by_hop_fields_never_reach_the_function():
    block = VISITOR + b"Connection: keep-alive\r\n" + fields(CALL_FIELDS, bytes) + b"\r\n"
    for head in heads(block):
        assert b"connection" not in read_call(head).request.lower()


def test_a_field_given_twice_is_not_taken_for_one_of_them():
    block = VISITOR + b"lichen-run: x\r\n" + fields(CALL_FIELDS, bytes) + b"\r\n"
    for head in heads(block):
        assert read_call(head).run == b"x, " + VALUES[3]


def test_a_request_without_session_is_no_invocation():
    for head in heads(VISITOR + b"lichen-run: 1\r\n\r\n"):
        assert read_call(head) is None
    assert isinstance(read_call(heads(VISITOR + b"lichen-session: s\r\n\r\n")[0]), CallHead)
