from lichen.content.cid import CID, RAW
from lichen.identity import Address
from lichen.ledger.types import FunctionSpec, Runtime
from lichen.node.hosting import CRASHES_FORGOTTEN_S, REST_S_MAX, Hosted
from lichen.units import Amount


def make_hosted() -> Hosted:
    spec = FunctionSpec(
        "api", CID.of(RAW, b"code"), Runtime.JS, ("/*",), 128, 1000, "none", Amount(1), "process",
        False, (), 4,
    )  # fmt: skip
    return Hosted("hello/1/api", Address(bytes(20)), spec)


def test_one_crash_costs_no_rest() -> None:
    hosted = make_hosted()
    assert hosted.rest_s(100.0) == 0
    hosted.crashed(100.0)
    assert hosted.rest_s(100.0) == 0


def test_each_further_crash_doubles_the_rest_up_to_its_bound() -> None:
    hosted = make_hosted()
    rests = []
    for _ in range(8):
        hosted.crashed(100.0)
        rests.append(hosted.rest_s(100.0))
    assert rests == [0, 0.5, 1, 2, 4, REST_S_MAX, REST_S_MAX, REST_S_MAX]
    assert hosted.rest_s(100.0 + REST_S_MAX) == 0


def test_crashes_long_ago_are_forgotten() -> None:
    hosted = make_hosted()
    for _ in range(5):
        hosted.crashed(100.0)
    hosted.crashed(101.0 + CRASHES_FORGOTTEN_S)
    assert hosted.rest_s(101.0 + CRASHES_FORGOTTEN_S) == 0
