"""The DTLS certificate: made, or read and checked."""

import hashlib
import ssl
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from millrace.master.start.certificate import Certificate, CertificateRefused
from millrace.master.start.x509 import certificate_for, make_certificate
from millrace.relay.config.model import DtlsConfig

NOW = datetime(2026, 11, 23, tzinfo=UTC)
SECP112R1 = """\
-----BEGIN CERTIFICATE-----
MIIBIDCB7KADAgECAhRX1iN4Oid5dAI32yFsUxQmrfdVWTAKBggqhkjOPQQDAjAM
MQowCAYDVQQDDAFhMB4XDTI2MTEyNzAwMDA0OFoXDTM1MDIxMzAwMDA0OFowDDEK
MAgGA1UEAwwBYTAyMBAGByqGSM49AgEGBSuBBAAGAx4ABKCAq/BEsrKh/YsfaEgJ
L0M02bttwBGPwjXFWLijUzBRMB0GA1UdDgQWBBSX67PiKE5godmAmEoPWre9ZqWt
UTAfBgNVHSMEGDAWgBSX67PiKE5godmAmEoPWre9ZqWtUTAPBgNVHRMBAf8EBTAD
AQH/MAoGCCqGSM49BAMCAyMAMCACDgtXJKG613T4sdXfYON/Ag42uauwnl3kSNg9
47y2vw==
-----END CERTIFICATE-----
"""
"""Of a curve that our library does not have."""


def written(folder: Path, certificate: Certificate) -> DtlsConfig:
    (folder / "certificate.pem").write_text(certificate.certificate_pem)
    (folder / "key.pem").write_text(certificate.private_key_pem)
    return DtlsConfig(str(folder / "certificate.pem"), str(folder / "key.pem"))


def test_fresh_certificate_is_ecdsa_p256_and_valid_before_clocks_agree() -> None:
    made = make_certificate(NOW)
    certificate = x509.load_pem_x509_certificate(made.certificate_pem.encode())
    key = load_pem_private_key(made.private_key_pem.encode(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    assert isinstance(key.curve, ec.SECP256R1)
    assert key.public_key() == certificate.public_key()
    assert certificate.not_valid_before_utc < NOW
    assert certificate.not_valid_after_utc > NOW


def test_fingerprint_is_that_of_the_certificate() -> None:
    made = make_certificate(NOW)
    digest = hashlib.sha256(ssl.PEM_cert_to_DER_cert(made.certificate_pem)).hexdigest().upper()
    name, _, shown = made.fingerprint.partition(" ")
    assert (name, shown.replace(":", "")) == ("sha-256", digest)
    assert len(shown) == 95


def test_no_two_starts_share_a_certificate() -> None:
    assert certificate_for(DtlsConfig()).fingerprint != certificate_for(DtlsConfig()).fingerprint


def test_configured_files_are_taken_as_they_are(tmp_path: Path) -> None:
    made = make_certificate(NOW)
    assert certificate_for(written(tmp_path, made)) == made


def test_key_of_another_certificate_is_refused(tmp_path: Path) -> None:
    config = written(tmp_path, make_certificate(NOW))
    Path(config.key).write_text(make_certificate(NOW).private_key_pem)
    with pytest.raises(CertificateRefused, match=r"dtls\.key: .* is not the key of"):
        certificate_for(config)


@pytest.mark.parametrize("content", ["", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "text"])
def test_file_that_is_no_certificate_is_refused(tmp_path: Path, content: str) -> None:
    config = written(tmp_path, make_certificate(NOW))
    Path(config.certificate).write_text(content)
    with pytest.raises(CertificateRefused, match=r"dtls\.certificate"):
        certificate_for(config)


def test_missing_key_file_is_refused(tmp_path: Path) -> None:
    config = written(tmp_path, make_certificate(NOW))
    Path(config.key).unlink()
    with pytest.raises(CertificateRefused, match=r"dtls\.key: .*No such file"):
        certificate_for(config)


def test_key_that_dtls_does_not_take_is_refused(tmp_path: Path) -> None:
    config = written(tmp_path, make_certificate(NOW))
    key = ed25519.Ed25519PrivateKey.generate()
    Path(config.key).write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    with pytest.raises(CertificateRefused, match="neither an ECDSA nor an RSA key"):
        certificate_for(config)


def test_rsa_key_of_another_kind_of_certificate_is_refused(tmp_path: Path) -> None:
    config = written(tmp_path, make_certificate(NOW))
    key = rsa.generate_private_key(65537, 2048)
    Path(config.key).write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    with pytest.raises(CertificateRefused, match="is not the key of"):
        certificate_for(config)


def test_certificate_of_a_key_that_nobody_can_use_is_refused(tmp_path: Path) -> None:
    config = written(tmp_path, make_certificate(NOW))
    Path(config.certificate).write_text(SECP112R1)
    with pytest.raises(CertificateRefused, match=r"dtls\.certificate: .* of a usable key .*is not supported"):
        certificate_for(config)
