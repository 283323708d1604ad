"""H264's parameter sets in the fmtp lines of offers."""

from base64 import b64encode

import pytest

from millrace.relay.contract.commands import Publish
from millrace.relay.negotiation.parameter_sets import MAX_BYTES, parameter_sets
from tests.unit.control_kit import desk, offer

SPS, PPS = bytes.fromhex("6742c01fda014016e9a808080a"), bytes.fromhex("68ce3c80")
KEPT = b"\0\x0d" + SPS + b"\0\x04" + PPS


def sprop(*units: bytes) -> str:
    return "packetization-mode=1;sprop-parameter-sets=" + ",".join(b64encode(unit).decode() for unit in units)


def test_each_unit_stands_behind_its_size() -> None:
    assert parameter_sets(["packetization-mode=1", sprop(SPS, PPS) + ";profile-level-id=42c01f"]) == KEPT


@pytest.mark.parametrize(
    "line",
    [
        "",
        "sprop-parameter-sets",
        "sprop-parameter-sets=,,",
        "sprop-parameter-sets=***",
        "sprop-parameter-sets=Zw",
        "sprop-parameter-sets=\u00e9",
        sprop(b"\x65\x88"),
        sprop(SPS, b"\x68" + bytes(MAX_BYTES)),
    ],
)
def test_what_is_none_is_left_out(line: str) -> None:
    assert parameter_sets([line]) == b""
    assert parameter_sets([line, sprop(SPS, PPS)]) == KEPT


def test_the_engine_is_told_those_of_the_offer() -> None:
    worker = desk()
    sdp = offer(kinds=["video"]).replace("VP8/90000", f"H264/90000\r\na=fmtp:96 {sprop(SPS, PPS)}")
    worker.publish(sdp=sdp)
    (publish,) = worker.commands(Publish)
    assert publish.parameter_sets == KEPT
