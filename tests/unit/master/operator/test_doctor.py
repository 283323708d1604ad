import socket
from datetime import UTC, datetime
from pathlib import Path

import pytest

from millrace.master.operator.doctor import Verdict, announced, examine, https, port_finding
from millrace.master.start.x509 import ends_at as certificate_end
from millrace.master.start.x509 import make_certificate
from millrace.relay.config.model import Config, HttpConfig, MediaConfig, WorkersConfig

KEYLESS = Config(http=HttpConfig(port=0), media=MediaConfig(port=0))


def test_every_finding_says_what_and_why() -> None:
    findings = list(examine(KEYLESS))
    assert len({finding.what for finding in findings}) >= 10
    assert all(finding.detail for finding in findings)


def test_taken_port_and_foreign_address_are_found() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert port_finding("http", socket.SOCK_STREAM, "127.0.0.1", port).verdict is Verdict.POOR
    assert port_finding("http", socket.SOCK_STREAM, "127.0.0.1", port).verdict is Verdict.GOOD
    assert port_finding("media", socket.SOCK_DGRAM, "203.0.113.77", 0).verdict is Verdict.BAD


@pytest.mark.parametrize(
    ("bind", "entries", "verdict", "word"),
    [
        (("127.0.0.1",), (), Verdict.POOR, "loopback"),
        (("0.0.0.0",), (), Verdict.POOR, "behind NAT"),
        (("8.8.4.4",), (), Verdict.GOOD, "public"),
        (("0.0.0.0",), ("8.8.4.4",), Verdict.GOOD, "public"),
        (("0.0.0.0",), ("10.9.9.9",), Verdict.POOR, "Internet"),
        (("0.0.0.0",), ("8.8.4.4/10.0.0.5",), Verdict.GOOD, "public"),
        (("0.0.0.0",), ("8.8.4.4/10.0.0.6",), Verdict.BAD, "no address of this machine"),
    ],
)
def test_announced_addresses_are_judged(
    bind: tuple[str, ...], entries: tuple[str, ...], verdict: Verdict, word: str
) -> None:
    (finding,) = announced(Config(media=MediaConfig(bind=bind, announced=entries)), {"10.0.0.5", "fd00::5"})
    assert finding.verdict is verdict
    assert word in finding.detail


def test_more_workers_than_cores_is_said() -> None:
    findings = {finding.what: finding for finding in examine(Config(workers=WorkersConfig(count=64)))}
    assert findings["workers"].verdict is Verdict.POOR


def test_a_certificate_that_ends_soon_or_has_ended_is_found(tmp_path: Path) -> None:
    made = make_certificate(datetime(2026, 12, 1, tzinfo=UTC))
    (tmp_path / "certificate.pem").write_text(made.certificate_pem)
    (tmp_path / "key.pem").write_text(made.private_key_pem)
    files = HttpConfig(certificate=str(tmp_path / "certificate.pem"), key=str(tmp_path / "key.pem"))
    ends_at = certificate_end(made.certificate_pem.encode())
    for days, verdict in ((20, Verdict.GOOD), (10, Verdict.POOR), (-1, Verdict.BAD)):
        (finding,) = https(Config(http=files), ends_at - days * 86_400)
        assert finding.verdict is verdict
    Path(files.key).unlink()
    (finding,) = https(Config(http=files), 0)
    assert (finding.verdict, "http.key" in finding.detail) == (Verdict.BAD, True)
    assert not list(https(Config(), 0))
