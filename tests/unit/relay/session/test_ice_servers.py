"""What clients are told of STUN and TURN servers."""

from millrace.relay.config.model import Config, IceConfig, IceServer
from millrace.relay.contract.ids import ParticipantId
from millrace.relay.session.ice_servers import link_headers
from tests.unit.control_kit import desk

ANN, BEN = ParticipantId("ann"), ParticipantId("ben")
NOW = 1_796_000_000.0
SHARED = IceConfig((IceServer(("turn:t.example?transport=tcp",), secret="north"),), credential_seconds=3_600)


def links(config: IceConfig, participant: ParticipantId = ANN) -> list[str]:
    return [value for name, value in link_headers(config, participant, NOW) if name == "Link"]


def test_each_url_has_a_link_and_a_stun_server_no_credentials() -> None:
    servers = (
        IceServer(("stun:stun.example.org",), "ignored", "ignored"),
        IceServer(("turn:a.example.org", "turns:b.example.org"), 'us"er', "se\\cret"),
    )
    credentials = r'username="us\"er"; credential="se\\cret"; credential-type="password"'
    assert links(IceConfig(servers)) == [
        '<stun:stun.example.org>; rel="ice-server"',
        f'<turn:a.example.org>; rel="ice-server"; {credentials}',
        f'<turns:b.example.org>; rel="ice-server"; {credentials}',
    ]


def test_credentials_of_a_shared_secret_end_and_are_those_that_coturn_computes() -> None:
    # As `echo -n NAME | openssl dgst -binary -sha1 -hmac north | openssl base64` prints it.
    (link,) = links(SHARED)
    assert link == (
        '<turn:t.example?transport=tcp>; rel="ice-server"; username="1796003600:49915e0d7d4b402e"; '
        'credential="pfMh2Loj1Tdrh9/BfCNijldj1eg="; credential-type="password"'
    )


def test_each_participant_has_credentials_of_its_own() -> None:
    assert links(SHARED, ANN) != links(SHARED, BEN)
    assert "ann" not in links(SHARED, ANN)[0]


def test_they_stand_in_the_answer_to_an_offer() -> None:
    reply = desk(Config(ice=SHARED)).publish()
    assert [name for name, _ in reply.headers].count("Link") == 1
