import pytest
from sdp_samples import NAMES, both, real

from relay.commands import DtlsRole
from relay.sdp import Offer, parse_offer


@pytest.mark.parametrize("name", NAMES)
def test_real_offers_are_taken(name: str) -> None:
    offer = parse_offer(real(name))
    assert isinstance(offer, Offer)
    assert len(offer.media) == 2
    assert all(media.alive for media in offer.media)


def test_a_passive_client_makes_us_the_dtls_client() -> None:
    for setup, role in (("actpass", DtlsRole.SERVER), ("active", DtlsRole.SERVER), ("passive", DtlsRole.CLIENT)):
        offer = parse_offer(both().replace("a=setup:actpass", f"a=setup:{setup}"))
        assert isinstance(offer, Offer)
        assert offer.remote.role is role
