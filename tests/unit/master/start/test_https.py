"""The public port's TLS context: loaded, renewed, refused."""

import socket
import ssl
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest

from millrace.master.start.certificate import CertificateRefused
from millrace.master.start.https import https_for
from millrace.master.start.x509 import make_certificate
from millrace.relay.config.model import HttpConfig
from millrace.relay.config.parse import parse

NOW = datetime(2026, 12, 1, tzinfo=UTC)


def write(folder: Path) -> str:
    """Writes a fresh pair; returns the certificate."""
    made = make_certificate(NOW)
    (folder / "certificate.pem").write_text(made.certificate_pem)
    (folder / "key.pem").write_text(made.private_key_pem)
    return made.certificate_pem


@pytest.fixture
def files(tmp_path: Path) -> HttpConfig:
    write(tmp_path)
    return HttpConfig(certificate=str(tmp_path / "certificate.pem"), key=str(tmp_path / "key.pem"))


def handshake(server: ssl.SSLContext, session: ssl.SSLSession | None = None) -> ssl.SSLSocket:
    """Returns the client's end of a connection to this context."""
    ours, theirs = socket.socketpair()

    def serve() -> None:
        with server.wrap_socket(ours, server_side=True) as end:
            end.sendall(b"x")

    thread = threading.Thread(target=serve)
    thread.start()
    client = CLIENT.wrap_socket(theirs, session=session)
    # TLS 1.3 sends the ticket after the handshake, with the first data.
    client.recv(1)
    thread.join()
    return client


CLIENT = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
CLIENT.check_hostname = False
CLIENT.verify_mode = ssl.CERT_NONE


def shown(server: ssl.SSLContext) -> str:
    """Returns the certificate that a client is shown."""
    certificate = handshake(server).getpeercert(binary_form=True)
    assert certificate is not None
    return ssl.DER_cert_to_PEM_cert(certificate)


def test_without_a_certificate_the_port_speaks_http() -> None:
    assert https_for(HttpConfig(), None) is None


def test_a_renewed_certificate_is_shown_from_then_on_and_tickets_still_hold(files: HttpConfig) -> None:
    https = https_for(files, None)
    assert https is not None
    session = handshake(https.context).session
    assert not https.renew()
    renewed = write(Path(files.certificate).parent)
    assert https.renew()
    assert shown(https.context) == renewed
    assert handshake(https.context, session).session_reused


def test_a_look_between_the_two_files_keeps_the_old_pair_and_the_next_takes_the_new_one(files: HttpConfig) -> None:
    https = https_for(files, None)
    assert https is not None
    before = shown(https.context)
    key = Path(files.key)
    old_key = key.read_text()
    renewed = write(key.parent)
    new_key = key.read_text()
    key.write_text(old_key)
    with pytest.raises((OSError, ValueError)):
        https.renew()
    assert shown(https.context) == before
    key.write_text(new_key + "\n")
    assert https.renew()
    assert shown(https.context) == renewed


def test_a_file_that_was_touched_is_no_renewal(files: HttpConfig) -> None:
    https = https_for(files, None)
    assert https is not None
    Path(files.key).touch()
    assert not https.renew()


def test_says_until_when_the_certificate_holds(files: HttpConfig) -> None:
    https = https_for(files, None)
    assert https is not None
    assert https.ends_at() > NOW.timestamp()


def test_the_same_files_keep_the_context_and_other_files_make_another(files: HttpConfig, tmp_path: Path) -> None:
    https = https_for(files, None)
    assert https_for(files, https) is https
    (tmp_path / "other").mkdir()
    write(tmp_path / "other")
    other = HttpConfig(certificate=str(tmp_path / "other" / "certificate.pem"), key=str(tmp_path / "other" / "key.pem"))
    assert https_for(other, https) is not https


@pytest.mark.parametrize(
    ("broken", "content", "said"),
    [
        ("certificate.pem", "no certificate", r"http\.certificate: .* is no PEM certificate"),
        ("key.pem", "no key", r"http\.key: .* is no PEM private key"),
        ("key.pem", make_certificate(NOW).private_key_pem, r"http\.key: .* is not the key of"),
    ],
)
def test_files_that_cannot_be_used_are_refused_by_their_keys(
    files: HttpConfig, broken: str, content: str, said: str
) -> None:
    (Path(files.certificate).parent / broken).write_text(content)
    with pytest.raises(CertificateRefused, match=said):
        https_for(files, None)


def test_an_absent_file_is_refused_by_its_key(files: HttpConfig) -> None:
    Path(files.key).unlink()
    with pytest.raises(CertificateRefused, match=r"http\.key: .* No such file"):
        https_for(files, None)


def test_one_half_alone_is_a_contradiction() -> None:
    problems = parse('[http]\ncertificate = "/a"\n')
    assert isinstance(problems, tuple)
    assert [str(each) for each in problems] == [
        "http.key: found nothing, expected a PEM file, as the other half is given"
    ]
